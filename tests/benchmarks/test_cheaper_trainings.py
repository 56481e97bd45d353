"""Cheaper trainings: what a warm start copies, what the comparison says of figures it is given, a tiny run of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import record
from benchmarks.cheaper_trainings.__main__ import pairs, run, write
from benchmarks.cheaper_trainings.comparing import MACS_ALONE, Trained, compare, dominated_area, lines
from benchmarks.cheaper_trainings.variants import AGAIN, FULL, VARIANTS, Trainer
from benchmarks.cheaper_trainings.warm_start import start_from
from benchmarks.condensebench.journal import read_rows
from benchmarks.condensebench.presets import BENCHES
from space.config import CondenseNetConfig
from space.errors import InvalidSettings
from space.network import CondenseNet
from space.search_space import SearchSpace

ROOT = Path(__file__).parents[2]
SMALL = CondenseNetConfig(
    stages=(1, 1), growth=(4, 8), groups=2, condense_factor=4, bottleneck=2, input_shape=(1, 8, 8)
)
IMAGES = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def network(config: CondenseNetConfig, seed: int) -> CondenseNet:
    torch.manual_seed(seed)
    built = CondenseNet(config)
    for _ in range(3):
        built(IMAGES)  # statistics of its own
    return built


def test_a_network_that_fits_its_neighbour_wholly_computes_what_the_neighbour_computes():
    mine, donor = network(SMALL, 0), network(SMALL, 1)
    donor.condense(1.0)
    assert start_from(mine, donor) == 1.0
    assert not mine.fully_condensed
    assert torch.equal(mine.eval()(IMAGES), donor.eval()(IMAGES))


def test_a_network_with_one_more_layer_computes_what_the_neighbour_does_until_the_new_layer_counts():
    deeper = replace(SMALL, stages=(2, 1))
    mine, donor = network(deeper, 0), network(SMALL, 1)
    share = start_from(mine, donor)
    assert 0.3 < share < 1.0
    with torch.no_grad():
        mine.layers[1].conv_3x3.weight.zero_()  # the new layer's features are 0
        mine.layers[2].conv_1x1.norm.bias[12:] = mine.norm.bias[12:16] = 0.0
        mine.layers[2].conv_1x1.norm.running_mean[12:] = mine.norm.running_mean[12:16] = 0.0
    assert torch.allclose(mine.eval()(IMAGES), donor.eval()(IMAGES), atol=1e-6)


def test_what_does_not_fit_keeps_its_own_weights():
    mine, donor = network(SMALL, 0), network(replace(SMALL, bottleneck=4, num_classes=3), 1)
    before = {name: value.clone() for name, value in mine.state_dict().items()}
    start_from(mine, donor)
    changed = {name for name, value in mine.state_dict().items() if not torch.equal(value, before[name])}
    assert "layers.0.conv_1x1.norm.running_mean" in changed
    assert not changed & {"layers.0.conv_1x1.weight", "layers.0.conv_3x3.weight", "classifier.weight"}


def test_networks_come_in_pairs_of_neighbours_and_no_network_twice():
    bench = BENCHES["fashion-mnist"]
    chosen = pairs(bench, 15)
    space = SearchSpace.from_settings(bench.space)
    assert all(other in space.neighbours(config) for config, other in chosen)
    assert len({config for pair in chosen for config in pair}) == 30


def trained_like(scores: dict[str, list[float]], full: list[float]) -> Trained:
    count = len(full)
    top1 = {variant.name: np.array(scores.get(variant.name, full)) for variant in VARIANTS}
    seconds = {name: np.full(count, 1.0 if name in (FULL.name, AGAIN.name) else 0.25) for name in top1}
    return Trained(np.arange(1.0, count + 1), top1, seconds, {name: np.zeros(count) for name in top1})


def test_a_variant_that_ranks_as_the_full_training_loses_nothing_and_one_that_reverses_loses_all():
    cheap, reversed_one = VARIANTS[2].name, VARIANTS[3].name
    full = [0.5, 0.6, 0.7, 0.8]
    table = compare(trained_like({cheap: [0.4, 0.5, 0.6, 0.7], reversed_one: full[::-1]}, full))
    assert AGAIN.name not in table
    assert (table[cheap]["spearman"], table[cheap]["kendall"]) == pytest.approx((1.0, 1.0))
    assert (table[cheap]["volume"], table[cheap]["in_common"]) == (1.0, 1.0)
    assert table[cheap]["seconds_share"] == 0.25
    assert table[cheap]["top1_difference"] == pytest.approx(-0.1)
    assert table[reversed_one]["spearman"] == pytest.approx(-1.0)
    assert table[reversed_one]["in_common"] == 0.25  # the cheapest network is all that its front holds
    assert table[MACS_ALONE]["spearman"] == pytest.approx(1.0)
    assert len(lines(table)) == 2 + len(table)


def test_the_dominated_area_is_what_the_drawing_says():
    #  error 1.0 |X           (log macs 0)
    #        0.5 |    X       (1)
    #        0.0 |        X   (2)
    errors, macs = np.array([1.0, 0.5, 0.0]), np.exp([0.0, 1.0, 2.0])
    assert dominated_area(errors, macs, errors, macs) == pytest.approx(0.25)
    assert dominated_area(errors[:1], macs[:1], errors, macs) == 0.0


@pytest.mark.slow
def test_a_tiny_comparison_is_saved_and_the_same_command_trains_nothing_again(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    bench = replace(BENCHES["digits"], training=BENCHES["digits"].training.model_copy(update={"epochs": 1}))
    with pytest.raises(InvalidSettings, match="needs 4 finished networks"):
        write(bench, tmp_path)
    run(bench, tmp_path, networks=4)
    lines_before = (tmp_path / "trainings.jsonl").read_bytes()
    rows = read_rows(tmp_path / "trainings.jsonl")
    assert len(rows) == 4 * len(VARIANTS)
    fits = {row["variant"]: row["share_that_fits"] for row in rows}
    assert fits[VARIANTS[-1].name] > 0.2
    assert fits[FULL.name] == 0.0
    run(bench, tmp_path, networks=4)
    assert (tmp_path / "trainings.jsonl").read_bytes() == lines_before
    write(bench, tmp_path)
    saved = json.loads((tmp_path / "results" / "cheaper_trainings.json").read_text())
    assert saved["result"]["networks"] == 4


def test_a_training_that_was_stopped_to_keep_its_weights_ends_as_one_that_was_not(tmp_path):
    from workers.training import loop

    bench = BENCHES["digits"]
    config = next(config for config in bench.configs() if config.condense_factor > 1)
    trainer = Trainer(bench, tmp_path)
    row = trainer.train(FULL, config, config)
    reference = loop.TrainingRun(config, bench.training, bench.data, 0, tmp_path / "other", "other", device="cpu")
    _, evaluation = loop.train(reference, trainer.images(1.0), Silent())
    assert (row["top1"], row["val_loss"]) == (evaluation.top1, evaluation.loss)


class Silent:
    def earlier(self, rows): ...

    def curve(self, row): ...

    def under_way(self, report): ...

    def before_step(self, seconds): ...


def test_the_table_in_the_docs_is_the_saved_one():
    saved = json.loads((record.RESULTS / "cheaper_trainings.json").read_text())["result"]
    document = (ROOT / "docs" / "experiments.md").read_text()
    assert f"{saved['networks']} networks of CondenseBench's Fashion-MNIST space" in document
    for line in lines(saved["table"]):
        assert line in document
    gaps = {name: row["below_full"] for name, row in saved["table"].items() if name not in (FULL.name, MACS_ALONE)}
    certain = [name for name, gap in gaps.items() if not gap["low"] <= 0 <= gap["high"]]
    assert certain == [
        "half the schedule from an uncondensed neighbour",
        "a quarter from a trained neighbour",
        "full training, stopped at half",
        "full training, stopped at a quarter",
    ]
    others = [gap for name, gap in gaps.items() if name not in certain]
    low, high = min(gap["low"] for gap in others), max(gap["high"] for gap in others)
    assert f"go from {low:.2f} to {high:.2f}" in document
