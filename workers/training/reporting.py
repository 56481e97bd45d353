"""What a training reports while it runs: the rows of its learning curve, and the protocols of those who receive them.

No torch here, because engines pass rows on in processes that train nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

from workers.metrics import Predictions

Form = Literal["training", "condensed", "deployed"]


class TrainingStopped(Exception):
    """A training was asked to stop; a checkpoint has been written first."""


@dataclass(frozen=True)
class CurveRow:
    """One epoch of a learning curve.

    `form` says whose accuracy it is: the training form's before the last condensing stage, the condensed training
    form's after it, and at the end the deployed network's.
    """

    epoch: int  # 1-based
    progress: float  # fraction of the schedule, 0..1
    train_loss: float
    val_loss: float
    val_top1: float
    learning_rate: float
    condensing_stage: int
    form: Form
    seconds: float  # spent in this trial so far, over all attempts
    images_per_s: float | None  # trained in this epoch; evaluation, checkpoints and pauses left out
    val_balanced_accuracy: float | None = None  # None where it wasn't recorded, as the next
    val_macro_f1: float | None = None


@dataclass(frozen=True)
class ProgressReport:
    """How far a training is, between two epochs too: shown while it runs, and replaced by the next report."""

    progress: float  # steps done, as a fraction of the schedule
    seconds: float  # spent in this trial so far, over all attempts
    images_per_s: float | None  # trained in the epoch under way, or in the one that has just ended

    @property
    def left_s(self) -> float | None:
        """The seconds that the rest takes at the training's speed so far; None before there is one.

        A replayed training has no speed: its seconds are those that it once took, and pass at once.
        """
        if self.images_per_s is None or self.progress <= 0 or self.seconds <= 0:
            return None
        return self.seconds * (1 - self.progress) / self.progress


@dataclass(frozen=True)
class Evaluation:
    """What a network makes of a split."""

    loss: float  # mean cross-entropy
    predictions: Predictions

    @property
    def images(self) -> int:
        """How many images the split has."""
        return len(self.predictions)

    @property
    def top1(self) -> float:
        """The fraction of the images that were recognised."""
        return float(self.predictions.right.mean())

    @cached_property
    def metrics(self) -> dict[str, float | None]:
        """Every figure by its name; see `workers.metrics.METRICS`."""
        return self.predictions.metrics()


class Observer(Protocol):
    """Watches a training: called after every epoch, before every step, and about once a second."""

    def earlier(self, rows: Sequence[CurveRow]) -> None:
        """Take the epochs of the checkpoint that the training goes on from, in case an earlier report was lost."""

    def curve(self, row: CurveRow) -> None:
        """Take one epoch's figures. A resumed training repeats rows since its checkpoint, with equal values."""

    def under_way(self, report: ProgressReport) -> None:
        """Take how far the training is; called at most once in `loop.REPORT_EVERY_S`."""

    def before_step(self, seconds: float) -> None:
        """Raise `TrainingStopped` (a checkpoint is kept) or `TrainingFailed` (it is not) to end the training."""


class Reporter(Protocol):
    """The way back from a worker: the seam every engine implements."""

    def earlier(self, rows: Sequence[CurveRow]) -> None:
        """Report the epochs of the checkpoint that the trial goes on from, in case an earlier report was lost."""

    def curve(self, row: CurveRow) -> None:
        """Report one epoch."""

    def under_way(self, report: ProgressReport) -> None:
        """Report how far the trial is within an epoch."""

    def check(self) -> None:
        """Raise `TrainingStopped` when the controller asked to stop, `TrainingFailed` when it cancelled."""
