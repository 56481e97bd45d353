"""What an engine reports about an attempt at training a trial: its worker, its epochs, and how it ended.

Every event names its trial and the attempt that it belongs to. Workers send the same news as plain tuples, since those
pass through pipes and Ray; `event_of` turns one into an event, and nothing else does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from space.errors import OutOfMemory, TrainingFailed
from workers.runners.messages import Message, MessageKind
from workers.training.job import TrialJob, TrialResult
from workers.training.reporting import ProgressReport

CANCELLED = ("cancelled by the user", TrainingFailed.exit_code)  # why a cancelled training failed, and its exit code
Epoch = Mapping[str, Any]  # one row of a learning curve: the columns of `condensery_curve` (epoch, val_top1, …)


@dataclass(frozen=True)
class Started:
    """A worker has begun the attempt."""

    number: int
    attempt: int
    worker: str  # host:pid


@dataclass(frozen=True)
class Resumed:
    """The attempt goes on from a checkpoint, with the epochs before it."""

    number: int
    attempt: int
    epochs: Sequence[Epoch]


@dataclass(frozen=True)
class EpochEnded:
    """The attempt has finished an epoch."""

    number: int
    attempt: int
    epoch: Epoch


@dataclass(frozen=True)
class UnderWay:
    """The attempt says how far it is within an epoch."""

    number: int
    attempt: int
    report: ProgressReport


@dataclass(frozen=True)
class Done:
    """The training is finished, and its files are in the trial's folder."""

    number: int
    attempt: int
    result: TrialResult


@dataclass(frozen=True)
class Failed:
    """The training can't be finished."""

    number: int
    attempt: int
    reason: str  # one line
    exit_code: int  # of the error, see `space.errors`


@dataclass(frozen=True)
class Stopped:
    """The attempt ended because it was asked to; its checkpoint stays, and the trial may be submitted again."""

    number: int
    attempt: int


@dataclass(frozen=True)
class Lost:
    """The worker died; the trial may be submitted again and goes on from its newest checkpoint."""

    number: int
    attempt: int
    reason: str  # one line


AttemptEnd = Done | Failed | Stopped | Lost
RecordedEvent = Started | Resumed | EpochEnded | AttemptEnd  # each is a decision of the controller's
EngineEvent = RecordedEvent | UnderWay


def report_of(epoch: Epoch) -> ProgressReport:
    """Return an epoch's row as a report of how far its training is."""
    return ProgressReport(epoch["progress"], epoch["seconds"], epoch.get("images_per_s"))


def event_of(message: Message) -> EngineEvent:
    """Return a worker's message (kind, number, attempt, content) as an event.

    Raises:
        ValueError: no worker of ours sends such a message.
    """
    kind, number, attempt, content = message
    match kind:
        case MessageKind.STARTED:
            return Started(number, attempt, content)
        case MessageKind.EARLIER:
            return Resumed(number, attempt, content)
        case MessageKind.CURVE:
            return EpochEnded(number, attempt, content)
        case MessageKind.STEP:
            return UnderWay(number, attempt, ProgressReport(**content))
        case MessageKind.DONE:
            return Done(number, attempt, TrialResult(**content))
        case MessageKind.FAILED:
            return Failed(number, attempt, *content)
        case MessageKind.STOPPED:
            return Stopped(number, attempt)
        case MessageKind.LOST:
            return Lost(number, attempt, content)
    raise ValueError(f"a worker's message is one of those in workers.runners.messages, but got {kind!r}")


def cancelled(job: TrialJob) -> Failed:
    """Return the failure of a job that the controller cancelled."""
    return Failed(job.number, job.attempt, *CANCELLED)


def killed_for_memory(job: TrialJob) -> Failed:
    """Return the failure of a job whose worker was killed because memory ran out; it may be tried with less."""
    reason = f"out of memory (batch size {job.training.batch_size}): the system killed its worker"
    return Failed(job.number, job.attempt, reason, OutOfMemory.exit_code)
