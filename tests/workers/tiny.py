"""The smallest real trainings: a two-layer CondenseNet on the digits, a fraction of a second an epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from space.config import CondenseNetConfig
from workers.images.batches import ImageData, load
from workers.images.cache import prepare
from workers.settings import DataSettings, TrainingSettings
from workers.training import loop
from workers.training.job import TrialJob
from workers.training.reporting import CurveRow, ProgressReport, TrainingStopped

DIGITS = DataSettings(dataset="digits")
NET = CondenseNetConfig(stages=(1, 1), growth=(4, 4), groups=2, condense_factor=4, bottleneck=2, input_shape=(1, 8, 8))
TRAINING = TrainingSettings(epochs=3, batch_size=128, learning_rate=0.1)
STEPS_PER_EPOCH = 8  # floor(1149 training images / 128)


def digits(cache: Path, settings: DataSettings = DIGITS) -> ImageData:
    prepare(settings, cache)
    return load(settings, cache)


@dataclass
class Recorder:
    """An observer that keeps every row, and calls `at_step` with the number of each step before it is done."""

    at_step: Callable[[int], None] = lambda step: None
    first: int = 0  # the step that this attempt begins with
    rows: list[CurveRow] = field(default_factory=list)
    restored: list[CurveRow] = field(default_factory=list)  # of the checkpoint
    reports: list[ProgressReport] = field(default_factory=list)
    steps: int = 0

    def earlier(self, rows: Sequence[CurveRow]) -> None:
        self.restored += rows

    def curve(self, row: CurveRow) -> None:
        self.rows.append(row)

    def under_way(self, report: ProgressReport) -> None:
        self.reports.append(report)

    def before_step(self, seconds: float) -> None:
        self.at_step(self.first + self.steps)
        self.steps += 1


def stop_at(stop: int) -> Callable[[int], None]:
    def ask(step: int) -> None:
        if step == stop:
            raise TrainingStopped

    return ask


def training_run(folder: Path, **values: Any) -> loop.TrainingRun:
    defaults = {"config": NET, "training": TRAINING, "data": DIGITS, "seed": 5, "identity": "one", "device": "cpu"}
    return loop.TrainingRun(**{**defaults, "checkpoints": folder, **values})


def job(folder: Path, cache: Path, **values: Any) -> TrialJob:
    defaults = {"study": "tiny", "number": 0, "attempt": 1, "config": NET, "training": TRAINING, "data": DIGITS}
    return TrialJob(**{**defaults, "seed": 5, "folder": str(folder), "cache": str(cache), "device": "cpu", **values})


def equal_tensors(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Whether two networks have the same tensors, bit for bit."""
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
