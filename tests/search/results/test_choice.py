"""Which network a wish leaves, why it, and that choosing again gives the same one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch

from dashboards.terminal.pick_tables import budgets_document, budgets_table, picked_document, picked_panel
from search.budget import Budget
from search.pricing.pricer import Target
from search.results.picking.budgets import answers
from search.results.picking.choice import asked_for, ordered
from search.results.picking.picked import Picked, pick
from search.results.picking.wish import THE_BEST, Wish
from search.results.ranking import rank
from search.store import reader
from search.store.rows import NewTrial
from search.store.store import StudyStore
from search.study import open_study
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.deployed import DeployedCondenseNet
from space.errors import NothingFeasible, TrialNotFound
from tests.search.tiny_studies import INSIDE, sqlite_url, tiny_settings
from workers.export.onnx import save_onnx
from workers.file_names import NETWORK_FILE, ONNX_FILE
from workers.files import write_atomically
from workers.images.cache import prepare
from workers.latency.measurement import FakeProbe
from workers.metrics import Predictions
from workers.training.checkpoint import model_tensors

RIGHT = {0: 250, 1: 280, 2: 278, 3: 200}  # of 287 validation images, by trial
MS = {0: 1.0, 1: 4.0, 2: 2.0, 3: 0.5}
MEMORY_MB = {0: 40.0, 1: 90.0, 2: 60.0, 3: 30.0}


def config_of(number: int) -> CondenseNetConfig:
    return CondenseNetConfig(**{**INSIDE.to_dict(), "growth": (4 * (number + 1),)})


class Uneven(FakeProbe):
    """Measures each network of the study as `MS` says, but for noise that is new each time."""

    def __init__(self, numbers: dict[str, int], noise: float = 0.0) -> None:
        super().__init__(lambda path: 1.0)
        self.numbers, self.noise, self.rng = numbers, noise, np.random.default_rng(0)

    def measure(self, models, stop=lambda: False):
        found = []
        for one in super().measure(models, stop):
            number = self.numbers[one.model_hash]
            median = MS[number] * (1 + self.noise * self.rng.standard_normal())
            low, high = median * (1 - 2.5 * self.noise - 0.001), median * (1 + 2.5 * self.noise + 0.001)
            sizes = {"median_ms": median, "interval_low_ms": low, "interval_high_ms": high}
            found.append(replace(one, **sizes, peak_memory_mb=MEMORY_MB[number]))
        return found


@pytest.fixture
def study(tmp_path: Path) -> Iterator[tuple[StudyStore, Uneven, Path]]:
    """A study of four networks, of which 1 is the most accurate, and 2 as good within noise at half its latency."""
    probe = Uneven({})
    store = open_study(tiny_settings(study__files=str(tmp_path / "files")), sqlite_url(tmp_path), False).store
    info = prepare(tiny_settings().data, tmp_path / "images")
    store.set_data_info(info.to_dict())
    labels = np.repeat(np.arange(10), info.validation_counts)
    for number in RIGHT:
        add_trained(store, tmp_path / "files" / "tiny", number, labels, probe)
    yield store, probe, tmp_path
    store.engine.dispose()


def add_trained(store: StudyStore, files: Path, number: int, labels: np.ndarray, probe: Uneven) -> None:
    config = config_of(number)
    store.add_trial(NewTrial(number, "sampled", config, {}, 0, str(number), cost_of(config)))
    network, folder = DeployedCondenseNet.random(config, seed=number), files / f"trial-{number:05d}"
    folder.mkdir(parents=True)
    hashes = {
        ONNX_FILE: save_onnx(network, folder / ONNX_FILE),
        NETWORK_FILE: write_atomically(folder / NETWORK_FILE, safetensors.torch.save(model_tensors(network))),
    }
    probe.numbers[hashes[ONNX_FILE]] = number
    store.add_artifacts(number, {name: (f"{folder.name}/{name}", sha256) for name, sha256 in hashes.items()})
    (price,) = probe.measure([folder / ONNX_FILE])
    store.add_latency(number, price)
    right = np.arange(len(labels)) < RIGHT[number]
    predicted = np.where(np.random.default_rng(number).permutation(right), labels, (labels + 1) % 10)
    predictions = Predictions.of(np.eye(10)[predicted], labels)
    store.finish(number, "done", top1=float(predictions.right.mean()), val_loss=1.0)
    store.add_predictions(number, "validation", predictions.to_bytes())


NINE_MS = Budget(9.0)


def picked(study: tuple[StudyStore, Uneven, Path], wish: Wish = THE_BEST, budget: Budget = NINE_MS) -> Picked:
    store, probe, folder = study
    targets = (Target("host", probe),)
    return pick(store, reader.find_study(store.engine, "tiny"), budget, targets, folder / "images", wish)


def were_tested(store: StudyStore) -> list[int]:
    return [row.number for row in store.trials() if row.test_top1 is not None]


def test_it_says_why_and_which_network_comes_next_and_how_sure_that_is(study: tuple[StudyStore, Uneven, Path]):
    found = picked(study)
    assert found.trial.number == 1
    assert found.reasons[0] == "the best top-1 of those that keep every limit"
    assert found.reasons[1].startswith("the runner-up is trial 2: top-1 -0.70 points, p =")
    assert "as good within noise" in found.reasons[1]
    assert "50% of its latency" in found.reasons[1]
    assert picked_document(found, None)["reasons"] == list(found.reasons)
    assert picked_panel(found, None)


def test_within_a_tolerance_the_fastest_or_smallest_that_is_not_surely_worse_is_picked(study):
    store = study[0]
    assert picked(study, Wish(within=0.01)).trial.number == 2
    assert (
        "the lowest latency of 2 networks within 40 points of the best, trial 1"
        in (
            picked(study, Wish(within=0.4)).reasons[0]  # trials 0 and 3 are within 40 points too, but surely worse
        )
    )
    assert picked(study, Wish(within=0.001)).trial.number == 1
    ranked = rank(store.trials(), Budget(9.0))
    assert ordered(store.engine, store.study_id, ranked, Wish(within=0.4, smallest=True)).rows[0].number == 1


def test_a_trial_that_is_asked_for_is_picked_or_refused_by_its_number(study: tuple[StudyStore, Uneven, Path]):
    assert picked(study, Wish(trial=3)).trial.number == 3
    with pytest.raises(NothingFeasible, match=r"trial 1 is not inside 3 ms: latency .* ms \(up to .*\) > 3 ms"):
        picked(study, Wish(trial=1), Budget(3.0))
    with pytest.raises(TrialNotFound, match="no trial 99"):
        asked_for(study[0].trials(), 99, Budget())


def test_five_picks_in_a_row_give_the_same_network_however_noisy_the_machine(study: tuple[StudyStore, Uneven, Path]):
    study[1].noise = 0.05
    for limit_ms in (3.9, 4.0, 4.1, 4.5):  # near the latency of the most accurate one
        for wish in (THE_BEST, Wish(within=0.01)):
            assert len({picked(study, wish, Budget(limit_ms)).trial.number for _ in range(5)}) == 1


def test_a_limit_on_memory_or_on_the_file_passes_networks_over_that_are_never_tested(study):
    assert picked(study, budget=Budget(max_ram_mb=70.0)).trial.number == 2
    assert were_tested(study[0]) == [2]
    size_mb = max(path.stat().st_size for path in study[2].rglob("trial-00000/model.onnx")) / 1e6
    found = picked(study, budget=Budget(max_file_mb=size_mb))
    assert (found.trial.number, were_tested(study[0])) == (0, [0, 2])
    assert any("has a file of" in text for text in found.passed_over)
    with pytest.raises(NothingFeasible, match=r"the nearest, trial 0, has a file of 0\.\d+ MB \(model.onnx\)"):
        picked(study, budget=Budget(9.0, max_file_mb=size_mb / 2))
    with pytest.raises(NothingFeasible, match=r"the least memory is 30.0 MB \(trial 3\)"):
        picked(study, budget=Budget(max_ram_mb=20.0))
    assert were_tested(study[0]) == [0, 2]


def test_several_budgets_are_answered_from_what_is_recorded(study: tuple[StudyStore, Uneven, Path]):
    store = study[0]
    limits = [("host", limit) for limit in (0.1, 1.5, 2.5, 9.0)]
    found = answers(store.engine, store.study_id, store.trials(), Budget(), limits, THE_BEST, "host")
    assert [None if one.row is None else one.row.number for one in found] == [None, 0, 2, 1]
    assert "the smallest feasible latency is" in found[0].reason
    assert "as good within noise" in found[3].runner_up
    assert [one["limit_ms"] for one in budgets_document(found)["budgets"]] == [0.1, 1.5, 2.5, 9.0]
    assert budgets_table(found)
    assert were_tested(store) == []
