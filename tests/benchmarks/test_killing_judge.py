"""The judge of a killed study passes a clean one and finds every damage that is done to it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import sqlalchemy as sa
from optuna.storages._rdb import models
from optuna.trial import TrialState

from benchmarks.kill_anywhere.forms import Form, Kill
from benchmarks.kill_anywhere.judge import judge
from benchmarks.kill_anywhere.table import shortfalls
from search.engines.events import EngineEvent, Lost
from search.engines.fake import FakeEngine, instant_result
from search.loop.callbacks import SilentCallback
from search.loop.controller import Controller
from search.loop.trainings import Images
from search.store import tables
from search.study import optuna_storage
from space.deployed import DeployedCondenseNet
from tests.search.tiny_studies import Bench, targets
from workers.export.onnx import save_onnx
from workers.file_names import NETWORK_FILE, ONNX_FILE
from workers.files import write_atomically
from workers.training.checkpoint import model_tensors
from workers.training.job import TrialJob, TrialResult


def untrained(job: TrialJob) -> TrialResult:
    """A result with its files: a network that was never trained."""
    folder, network = Path(job.folder), DeployedCondenseNet.random(job.config)
    folder.mkdir(parents=True, exist_ok=True)
    weights = write_atomically(folder / NETWORK_FILE, safetensors.torch.save(model_tensors(network)))
    return replace(instant_result(job), onnx_sha256=save_onnx(network, folder / ONNX_FILE), network_sha256=weights)


class OnceLost(FakeEngine):
    """Loses the first attempt of trial 0."""

    def _events(self, job: TrialJob) -> list[EngineEvent]:
        if (job.number, job.attempt) == (0, 1):
            return [Lost(0, 1, "the worker process was killed by SIGKILL")]
        return super()._events(job)


@dataclass
class Study:
    """A study as the judge is given one."""

    url: str
    files: Path
    trainings: int
    kills: list[Kill]
    form: Form = field(default_factory=Form)
    epochs: int = 1
    violations: list[str] = field(default_factory=list)
    taken_over: int = 0
    gave_up: list[str] = field(default_factory=list)

    def judged(self) -> list[str]:
        found: list[str] = judge(replace(self, violations=[]), compared=0)["violations"]
        return found

    def change(self, work: Callable[[sa.Connection], Any]) -> None:
        engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            work(connection)
        engine.dispose()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Two networks, one of them with its second attempt after the kill of its worker."""
    folder = tmp_path_factory.mktemp("killed")
    bench = Bench(folder, study__name="digits", study__trainings=2, study__files=str(folder / "files"))
    bench.engine = OnceLost(outcome=untrained)
    files = folder / "files" / "digits"
    study = bench.open()
    study.store.claim()
    devices = targets(bench.settings, bench.probe)
    ending = Controller(
        study, bench.engine, devices, files=files, images=Images(folder), callback=SilentCallback(), stop=bench.stop
    ).run()
    assert ending == "finished"
    study.store.release()
    with study.engine.connect() as connection:
        at = connection.scalar(sa.select(sa.func.min(tables.attempt.c.started_at))) or 0.0
    bench.close()
    hit = {"trial": 0, "attempt": 1, "phase": "training", "checkpoint": -1, "redone_cpu_s": 0.1, "killed": True}
    return Study(bench.url, files, 2, [Kill("worker", "training", at, "", [hit])])


@pytest.fixture
def study(finished: Study, tmp_path: Path) -> Study:
    """A copy of its database and its files, to be damaged."""
    shutil.copy(Path(finished.url.removeprefix("sqlite:///")), tmp_path / "study.db")
    shutil.copytree(finished.files, tmp_path / "files" / "digits")
    return replace(finished, url=f"sqlite:///{tmp_path / 'study.db'}", files=tmp_path / "files" / "digits")


def test_a_clean_study_passes(study: Study):
    assert study.judged() == []


VALUES, TRIALS = models.TrialValueModel.__table__, models.TrialModel.__table__
TRIAL_0 = sa.select(tables.trial.c.id).where(tables.trial.c.number == 0).scalar_subquery()


def add_to_optuna(connection: sa.Connection) -> None:
    row = {"number": 999, "study_id": 1, "state": TrialState.FAIL}
    connection.execute(sa.insert(TRIALS), row)


def add_event(kind: str, attempt: int) -> Callable[[sa.Connection], Any]:
    row = {"study_id": 1, "number": 0, "attempt": attempt, "kind": kind, "detail": "done", "at": 1e10}
    return lambda connection: connection.execute(sa.insert(tables.event), row)


def repeat_an_attempt(connection: sa.Connection) -> None:
    """As if trial 0 had been lost once more."""
    table = tables.attempt
    (last,) = connection.execute(sa.select(table).where(table.c.trial_id == TRIAL_0, table.c.attempt == 2)).all()
    connection.execute(sa.insert(table), dict(last._mapping) | {"attempt": 3})
    connection.execute(sa.update(table).where(table.c.trial_id == TRIAL_0, table.c.attempt == 2).values(outcome="lost"))
    connection.execute(sa.update(tables.trial).where(tables.trial.c.number == 0).values(attempt=3))


def update(table: sa.Table, **values: Any) -> Callable[[sa.Connection], Any]:
    return lambda connection: connection.execute(sa.update(table).values(**values))


DAMAGES: dict[str, tuple[Callable[[sa.Connection], Any], str]] = {
    "Optuna's values": (
        lambda connection: connection.execute(sa.update(VALUES).values(value=0.5)),
        "doctor: trial 0 is COMPLETE",
    ),
    "Optuna's parameters": (update(models.TrialParamModel.__table__, param_value=0.0), "has other parameters"),
    "an extra row in Optuna's tables": (add_to_optuna, "Optuna's tables hold trials"),
    "a row missing in Optuna's tables": (
        lambda connection: connection.execute(sa.update(TRIALS).where(TRIALS.c.number == 0).values(number=77)),
        "Optuna's tables hold trials",
    ),
    "an attempt too many": (repeat_an_attempt, "attempt 3 of trial 0 has no kill behind it"),
    "no samples": (lambda connection: connection.execute(sa.delete(tables.latency_samples)), "trial 0: 0 samples for"),
    "other samples": (update(tables.latency_samples, samples_ms=json.dumps([1e6])), "trial 0: 3 samples for"),
    "macs": (update(tables.trial, macs=tables.trial.c.macs + 1), "its config has"),
    "params": (update(tables.trial, params=tables.trial.c.params + 1), "its config has"),
    "a late word of the attempt that is done": (add_event("late", 2), "event 'late' of trial 0, attempt 2 without"),
    "a loss that is none": (add_event("lost", 2), "event 'lost' of trial 0, attempt 2 without a cause"),
    "a take-over without a kill": (add_event("taken over", 1), "event 'taken over'"),
    "a row left open": (update(tables.attempt, outcome=None), "has an attempt without an end"),
    "a gap in a curve": (lambda connection: connection.execute(sa.delete(tables.curve)), "curve of trial 0"),
    "a hash": (update(tables.artifact, sha256="0" * 64), "network.safetensors of trial 0"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_found(study: Study, damage: str):
    work, expected = DAMAGES[damage]
    study.change(work)
    assert [text for text in study.judged() if expected in text], study.judged()


def test_a_late_word_of_an_attempt_that_a_kill_ended_is_no_violation(study: Study):
    study.change(add_event("late", 1))
    assert study.judged() == []


@pytest.mark.parametrize("role", ["hub", "agent", "stand-by"])
def test_an_attempt_is_not_explained_by_the_kill_of_something_else(study: Study, role: str):
    kill = Kill(role, "waiting", study.kills[0].at, "")
    found = replace(study, kills=[kill]).judged()
    assert "attempt 2 of trial 0 has no kill behind it" in found


def test_a_kill_after_an_attempt_had_ended_does_not_explain_it(study: Study):
    found = replace(study, kills=[Kill("controller", "training", study.kills[0].at + 1e6, "")]).judged()
    assert "attempt 2 of trial 0 has no kill behind it" in found


@pytest.mark.parametrize(("redone_cpu_s", "violations"), [(0.1, 0), (9.0, 1)])
def test_a_training_that_only_the_database_ended_is_charged_to_it(study: Study, redone_cpu_s: float, violations: int):
    (hit,) = study.kills[0].trainings
    kill = Kill("postgres", "training", study.kills[0].at, "", [hit | {"killed": False, "redone_cpu_s": redone_cpu_s}])
    found = replace(study, kills=[kill]).judged()
    assert sum("done again" in text for text in found) == violations
    assert len(found) == violations


def test_optunas_own_reading_of_the_clean_study_agrees(study: Study):
    storage = optuna_storage(study.url)
    trials = storage.get_all_trials(storage.get_study_id_from_name("digits"))
    storage.engine.dispose()
    assert sum(trial.state == TrialState.COMPLETE for trial in trials) == 2


def test_fewer_kills_than_asked_for_and_cells_never_hit_are_shortfalls():
    cells = [("worker", "training"), ("hub", "waiting")]
    assert shortfalls(2, Counter({cells[0]: 1, cells[1]: 1}), cells) == []
    assert shortfalls(3, Counter({cells[0]: 2}), cells) == ["2 kills of 3", "never hit: hub, waiting"]
