"""Small studies on a real SQLite file, whose trainings and latencies are made up."""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import optuna
import sqlalchemy as sa
from optuna.trial import TrialState

from search.engines.fake import FakeEngine
from search.loop.callbacks import LaunchCallback, SilentCallback
from search.loop.controller import Controller
from search.loop.times import LoopTimes
from search.loop.trainings import Images
from search.pricing.pricer import Target
from search.samplers.stopping import StoppingRule
from search.settings import StudySettings
from search.store.rows import TrialRow
from search.store.tables import attempt, trial
from search.store.vocabulary import FINAL_STATES
from search.study import OpenStudy, open_study, optuna_storage
from search.study_file import settings_from
from search.study_folders import study_files
from space.config import CondenseNetConfig
from space.cost import cost_of
from workers.latency import FakeProbe, LatencyProbe
from workers.latency.measurement import never

# 72 configs between 6,960 and 89,632 macs.
SPACE: dict[str, Any] = {
    "num_classes": 10,
    "input_shape": [1, 8, 8],
    "groups": [1, 2, 4],
    "condense_factor": [1, 2],
    "bottleneck": [1, 2],
    "num_stages": [1, 2],
    "layers": [1, 2],
    "growth": [4],
}
DOCUMENT: dict[str, Any] = {
    "format": 1,
    "study": {"name": "tiny", "trainings": 4, "seed": 3},
    "data": {"dataset": "digits"},
    "space": SPACE,
    "training": {"epochs": 1},
    "search": {"startup": 3, "batch": 2, "give_up_after": 60},
    "engine": {"workers": 2, "device": "cpu"},
}

CURVE_ROW: dict[str, Any] = {  # one epoch, as an engine reports it
    "epoch": 1,
    "progress": 0.5,
    "train_loss": 1.5,
    "val_loss": 1.25,
    "val_top1": 0.5,
    "learning_rate": 0.1,
    "condensing_stage": 1,
    "form": "training",
    "seconds": 2.5,
    "images_per_s": 512.0,
    "val_balanced_accuracy": 0.5,
    "val_macro_f1": 0.375,
}

INSIDE = CondenseNetConfig(stages=(1,), growth=(4,), groups=2, condense_factor=2, bottleneck=1, input_shape=(1, 8, 8))
OUTSIDE = CondenseNetConfig(stages=(1,), growth=(16,), groups=2, condense_factor=2, bottleneck=1, input_shape=(1, 8, 8))
SMALLEST = CondenseNetConfig(**{**INSIDE.to_dict(), "groups": 4})  # of its space


def document(**changes: Any) -> dict[str, Any]:
    """The tiny study file's content; `budget__max_macs=5` sets one key, `space={...}` replaces a table."""
    content = copy.deepcopy(DOCUMENT)
    for name, value in changes.items():
        table, _, key = name.partition("__")
        if key:
            content.setdefault(table, {})[key] = value
        else:
            content[table] = value
    return content


def tiny_settings(**changes: Any) -> StudySettings:
    return settings_from(document(**changes), "tiny.toml")


def sqlite_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'study.db'}"


def config_of(path: Path) -> CondenseNetConfig:
    """The config an exported network says it is."""
    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    return CondenseNetConfig.from_json(properties["config"])


def by_macs(path: Path) -> float:
    """A made-up latency: 1 ms for 10,000 macs."""
    return cost_of(config_of(path)).macs / 1e4


def targets(settings: StudySettings, probe: LatencyProbe) -> tuple[Target, ...]:
    """The study's devices, all of them measured by one probe."""
    limits = settings.search_budget().limits_ms(settings.latency.devices[0])
    return tuple(Target(name, probe, limits.get(name), local=True) for name in settings.latency.devices)


class CountingProbe(FakeProbe):
    """A fake probe that remembers what it was asked to measure."""

    def __init__(self, latency_ms: Callable[[Path], float] = by_macs) -> None:
        super().__init__(latency_ms)
        self.measured: list[CondenseNetConfig] = []
        self.batches: list[int] = []

    def measure(self, models, stop=never):
        self.batches.append(len(models))
        self.measured += [config_of(path) for path in models]
        return super().measure(models, stop)


def close(study: OpenStudy) -> None:
    """Give every connection back; what a process does by ending."""
    study.engine.dispose()


class Bench:
    """One study with everything a controller needs; `run` is one launch of it."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.folder, self.url = folder, sqlite_url(folder)
        self.settings = tiny_settings(**{**changes, "study__files": changes.get("study__files", str(folder / "files"))})
        self.engine, self.probe = FakeEngine(), CountingProbe()
        self.stop, self.times = threading.Event(), LoopTimes()
        self.callback: LaunchCallback = SilentCallback()
        self.study: OpenStudy | None = None

    @property
    def files(self) -> Path:
        """The study's folder."""
        return study_files(self.settings, self.url)

    def open(self, resume: bool = False) -> OpenStudy:
        if self.study is not None:
            close(self.study)
        self.study = open_study(self.settings, self.url, resume)
        return self.study

    def controller(self, resume: bool = False) -> Controller:
        study = self.open(resume)
        study.store.claim()
        files = self.files
        devices = targets(self.settings, self.probe)
        return self.controller_on(study, devices, files)

    def controller_on(self, study: OpenStudy, devices: tuple[Target, ...], files: Path) -> Controller:
        return Controller(
            study,
            self.engine,
            devices,
            files=files,
            images=Images(files),
            callback=self.callback,
            stop=self.stop,
            times=self.times,
        )

    def run(self, resume: bool = False, rule: StoppingRule | None = None) -> str:
        """Launch it; a `rule` stands in for the one that its settings name."""
        controller = self.controller(resume)
        if rule is not None:
            controller.state.rule = rule
        try:
            return controller.run()
        finally:
            controller.store.release()

    @property
    def rows(self) -> list[TrialRow]:
        assert self.study is not None
        return self.study.store.trials()

    def states(self) -> list[str]:
        return [row.state for row in self.rows]

    def done(self) -> list[TrialRow]:
        return [row for row in self.rows if row.state == "done"]

    def close(self) -> None:
        if self.study is not None:
            close(self.study)


@contextmanager
def optuna_study(bench: Bench) -> Iterator[optuna.Study]:
    """The study as Optuna itself reads it in its tables."""
    storage = optuna_storage(bench.url)
    try:
        yield optuna.load_study(study_name=bench.settings.study.name, storage=storage)
    finally:
        storage.engine.dispose()


def optuna_trials(bench: Bench) -> list[optuna.trial.FrozenTrial]:
    with optuna_study(bench) as study:
        return study.get_trials(deepcopy=False)


def attempts_open(bench: Bench) -> list[int]:
    """The numbers of trials with an attempt that has no outcome."""
    assert bench.study is not None
    query = sa.select(trial.c.number).join(attempt, attempt.c.trial_id == trial.c.id).where(attempt.c.outcome.is_(None))
    with bench.study.engine.connect() as connection:
        return list(connection.scalars(query))


def assert_consistent(bench: Bench) -> None:
    """What must hold of every study whose controller has ended by itself."""
    rows, trials = bench.rows, {trial.number: trial for trial in optuna_trials(bench)}
    assert all(trial.state.is_finished() for trial in trials.values())
    assert all(row.state in FINAL_STATES and row.mirrored for row in rows)
    assert attempts_open(bench) == []
    results = Counter(row.identity for row in rows if row.state == "done")
    assert all(count == 1 for count in results.values()), "an identity was trained twice"
    for row in rows:
        known = trials[row.number]
        assert known._trial_id == row.optuna_trial_id
        if row.state == "done":
            medians = [row.latencies[device].median_ms for device in bench.settings.latency.minimised]
            assert known.values == [row.top1, *medians, float(row.macs)]
        states = {"done": TrialState.COMPLETE, "infeasible": TrialState.PRUNED, "pruned": TrialState.PRUNED}
        expected = states.get(row.state, TrialState.FAIL)
        assert known.state == expected
    for number in trials.keys() - {row.number for row in rows}:
        assert trials[number].state == TrialState.FAIL
