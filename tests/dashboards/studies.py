"""Real study databases for the dashboards' tests, written through the store as a controller writes them."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from search.store import reader
from search.store.connection.database import open_for_writing
from search.store.rows import BeliefRow, Believed, NewTrial, Proposal, TrialRow
from search.store.store import StudyStore
from search.store.studies import create_study
from search.store.vocabulary import ProposalReason
from search.study_file import settings_from
from search.study_template import study_file
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.search_space import SearchSpace
from workers.latency.measurement import FakeProbe, Measurement

SETTINGS: dict[str, Any] = {
    "format": 1,
    "study": {"name": "digits-small", "trainings": 20, "seed": 0, "storage": None},
    "data": {"dataset": "digits"},
    "space": {"preset": "digits"},
    "training": {"epochs": 12},
    "budget": {"max_latency_ms": 0.4, "max_macs": None, "max_params": None},
    "latency": {"policy": "quick", "threads": 1, "core": None},
    "search": {"sampler": "price-aware", "startup": 6},
}
SMALL = CondenseNetConfig(stages=(2, 2), growth=(8, 16), input_shape=(1, 8, 8))


class Study:
    """One study under construction; every method goes through the store."""

    def __init__(self, folder: Path, name: str = "digits-small", settings: dict[str, Any] | None = None) -> None:
        self.folder, self.name = folder, name
        self.engine = open_for_writing(f"sqlite:///{folder / 'study.db'}")
        self.id = create_study(self.engine, name, 1, settings or SETTINGS, ("a" * 64, "b" * 64))
        self.store = StudyStore(self.engine, self.id)
        self.next = 0

    @classmethod
    def existing(cls, folder: Path, name: str) -> Self:
        """The study of this name in a database that is there already."""
        study = cls.__new__(cls)
        study.folder, study.name = folder, name
        study.engine = open_for_writing(f"sqlite:///{folder / 'study.db'}")
        study.id = reader.find_study(study.engine, name).id
        study.store = StudyStore(study.engine, study.id)
        study.next = len(study.rows())
        return study

    def asked(self, config: CondenseNetConfig = SMALL, proposal: Proposal | None = None) -> int:
        number, self.next = self.next, self.next + 1
        new = NewTrial(number, "sampled", config, {"epochs": 12}, 0, f"identity-{number}", cost_of(config), proposal)
        self.store.add_trial(new)
        return number

    def priced(
        self,
        latency_ms: float,
        config: CondenseNetConfig = SMALL,
        proposal: Proposal | None = None,
        **changed: Any,
    ) -> int:
        number = self.asked(config, proposal)
        self.store.add_latency(number, self.measurement(number, latency_ms, **changed))
        return number

    def measurement(self, number: int, latency_ms: float, **changed: Any) -> Measurement:
        """A made-up measurement of a small file; `changed` replaces its fields (kind, device, policy, ...)."""
        file = self.folder / f"model-{number}.onnx"
        file.write_bytes(f"{number}".encode())
        device = changed.pop("device", "host:intel-xeon-8370c")
        found = FakeProbe(lambda _: latency_ms, device).measure([file])[0]
        assert isinstance(found, Measurement)
        return dataclasses.replace(found, **changed)

    def done(self, latency_ms: float, top1: float, config: CondenseNetConfig = SMALL, **changed: Any) -> int:
        number = self.priced(latency_ms, config, **changed)
        self.store.set_running(number, 1)
        self.add_curve(number, top1)
        self.store.finish(number, "done", top1=top1, val_loss=0.1, train_seconds=12.3, peak_memory_mb=80.0)
        return number

    def running(self, latency_ms: float, epochs: int = 5) -> int:
        number = self.priced(latency_ms)
        self.store.set_running(number, 1)
        self.add_curve(number, 0.9, epochs)
        return number

    def infeasible(self, latency_ms: float, config: CondenseNetConfig = SMALL) -> int:
        number = self.priced(latency_ms, config)
        self.store.finish(number, "infeasible", reason=f"latency {latency_ms:g} ms > 0.4 ms, measured")
        return number

    def failed(self, reason: str) -> int:
        number = self.asked()
        self.store.set_running(number, 1)
        self.store.finish(number, "failed", reason=reason)
        return number

    def add_curve(self, number: int, top1: float, epochs: int = 12) -> None:
        for epoch in range(1, epochs + 1):
            stage = min(3, (epoch - 1) // 2)
            rise = top1 * (1 - 0.8 * 0.55**epoch) - (0.04 if epoch in (3, 5, 7) else 0.0)
            row = {
                "epoch": epoch,
                "progress": epoch / 12,
                "train_loss": 2 * 0.7**epoch,
                "val_loss": 2.1 * 0.72**epoch,
                "val_top1": top1 if epoch == 12 else rise,
                "learning_rate": 0.1,
                "condensing_stage": stage,
                "form": "deployed" if epoch == 12 else "condensed" if stage == 3 else "training",
                "seconds": 1.02 * epoch,
                "images_per_s": 1234.5,
            }
            self.store.add_curve_row(number, row, 1)

    def rows(self) -> list[TrialRow]:
        return reader.read_trials(self.engine, self.id)

    def row(self, number: int) -> TrialRow:
        return self.rows()[number]


@contextmanager
def away(made: Study) -> Iterator[None]:
    """A study's database file is elsewhere meanwhile."""
    made.engine.dispose()
    file, elsewhere = made.folder / "study.db", made.folder / "away.db"
    file.rename(elsewhere)
    try:
        yield
    finally:
        elsewhere.rename(file)


def launched_settings() -> dict[str, Any]:
    """The settings that a launch stores: of the preset for digits, with what it fills in from the images."""
    settings = settings_from(tomllib.loads(study_file("digits", "digits-small")), "the preset").model_dump(mode="json")
    settings["space"] |= {"input_shape": [1, 8, 8], "num_classes": 10}
    return settings


def lively(folder: Path) -> Study:
    """A study in the middle: trained, refused, failed, repeated, cancelled, running and waiting trials.

    It is written through the store once; every further one is a copy of its database.
    """
    (folder / "study.db").write_bytes(_lively_database())
    return Study.existing(folder, "digits-small")


@functools.cache
def _lively_database() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        _write_lively(Study(Path(folder))).engine.dispose()
        return (Path(folder) / "study.db").read_bytes()


def _write_lively(made: Study) -> Study:
    made.store.set_data_info({"dataset": "Digits (8x8, scikit-learn)", "validation_images": 288, "test_images": 360})
    rng = np.random.default_rng(3)
    space = SearchSpace.preset("digits")
    for index in range(26):
        config = space.sample(rng)
        cost = cost_of(config)
        latency_ms = 0.05 + cost.macs / 4.0e6 * float(rng.uniform(0.6, 1.5)) + 0.01 * sum(config.stages)
        if latency_ms > 0.4:
            made.infeasible(latency_ms, config)
        else:
            top1 = min(0.99, 0.90 + 0.05 * float(np.log10(cost.macs / 2e4)) + float(rng.normal(0, 0.012)))
            made.done(latency_ms, round(top1 * 288) / 288, config, proposal=_proposal_of(index, top1))
        if index == 7:
            made.failed("the loss became nan by step 41 of 500 (learning rate 0.8); try a smaller learning rate.")
    repeated = made.priced(0.2)
    made.store.finish(repeated, "duplicate", duplicate_of=0)
    made.store.finish(made.asked(), "cancelled", reason="cancelled by request")
    made.running(0.21)
    made.store.set_queued(made.priced(0.3))
    made.asked()
    made.store.set_belief(BeliefRow(20, 1.8e9, *_believed(space.sample(rng) for _ in range(9))))
    return made


def _proposal_of(index: int, top1: float) -> Proposal:
    """Return what a sampler may have said of a trial: the start of the study, then predictions, some of them wrong."""
    if index < 6:
        return Proposal(ProposalReason.SPREAD)
    reason = ProposalReason.ACCURATE if index % 2 else ProposalReason.GAIN
    return Proposal(reason, top1 + (0.03 if index % 5 == 0 else -0.004), 0.01, 0.012)


def _believed(configs: Iterable[CondenseNetConfig]) -> tuple[tuple[Believed, ...], tuple[Believed, ...]]:
    """Return a predicted front and three next candidates."""
    candidates = []
    for config in sorted(configs, key=lambda config: cost_of(config).macs):
        cost, place = cost_of(config), len(candidates)
        proposal = Proposal(ProposalReason.GAIN, 0.92 + 0.008 * place, 0.01, 0.02 / (1 + place))
        latencies_ms = {"host": 0.05 + cost.macs / 4e6}
        candidates.append(Believed(str(config), float(cost.macs), float(cost.params), latencies_ms, proposal))
    return tuple(candidates), tuple(candidates[::4])
