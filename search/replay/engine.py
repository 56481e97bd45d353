"""An engine that trains nothing: it replays what a table recorded, on whatever clock it is given.

Notable choices:
- On a simulated clock a training takes the seconds that it once took, and as many run at the same time as there are
  slots, so trainings end in the order in which they would have. Waiting takes no real time.
- Nothing looks at a training's epochs before its end, unless a stopping rule does. So without one they come together
  with the end, which is one transaction for the controller; with one, a poll gives at most one epoch of each training.
- There are no checkpoints: a training that was stopped or lost begins again, and has the same epochs. One that takes
  up another has that one's epochs at once.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass

from search.engines.events import Done, EngineEvent, EpochEnded, Failed, Resumed, Started, Stopped, cancelled
from search.replay.columns import RecordedTraining
from search.replay.table import ReplayTable
from space.condensing_schedule import stages_due
from space.cost import cost_of
from space.errors import DataNotFound, TrainingFailed
from workers.clock import Clock
from workers.training.job import TrialJob, TrialResult
from workers.training.reporting import CurveRow, Form
from workers.training.schedule import learning_rate_at

WORKER = "replay"  # instead of host:pid: no process trains
NO_FILE = ""  # instead of a file's SHA-256: a replay writes none
ROUNDING_S = 1e-6  # sums of seconds differ by less


@dataclass(frozen=True)
class ReplayPace:
    """How trainings are replayed."""

    slots: int  # trainings at the same time
    takes_time: bool = True  # a training takes its recorded seconds; else it is over at once
    by_epoch: bool = False  # whether a stopping rule looks at every epoch


@dataclass(frozen=True)
class _Moment:
    """What a training reports at some second of it."""

    at_s: float
    events: tuple[EngineEvent, ...]


@dataclass
class _Running:
    """A job that is being replayed."""

    job: TrialJob
    began_s: float  # by the clock
    moments: list[_Moment]  # that are still to come

    @property
    def next_s(self) -> float:
        """When the next moment is, by the clock."""
        return self.began_s + self.moments[0].at_s


class ReplayEngine:
    """Replays recorded trainings; see the module."""

    def __init__(self, table: ReplayTable, clock: Clock, pace: ReplayPace) -> None:
        self._table, self._clock, self._pace = table, clock, pace
        self._running: dict[int, _Running] = {}  # by the trial's number

    def free_slots(self) -> int:
        """Return how many slots are free."""
        return self._pace.slots - len(self._running)

    def submit(self, job: TrialJob) -> None:
        """Begin to replay a job."""
        assert self.free_slots() > 0, "no slot is free"
        self._running[job.number] = _Running(job, self._clock.monotonic(), self._moments(job))

    def poll(self, timeout_s: float) -> list[EngineEvent]:
        """Return what has happened by the clock's time; sleep by the clock until something has, or for `timeout_s`."""
        events = self._due()
        if not events and timeout_s > 0:
            next_s = min((running.next_s for running in self._running.values()), default=math.inf)
            self._clock.sleep(min(timeout_s, next_s - self._clock.monotonic()))
            events = self._due()
        return events

    def _due(self) -> list[EngineEvent]:
        """Return the events of one moment of each training that has come to it, the earliest first."""
        by_s = self._clock.monotonic() + ROUNDING_S
        due = sorted((running.next_s, number) for number, running in self._running.items() if running.next_s <= by_s)
        events: list[EngineEvent] = []
        for _, number in due:
            running = self._running[number]
            events += running.moments.pop(0).events
            if not running.moments:
                del self._running[number]
        return events

    def alive(self) -> Collection[int]:
        """Return all running trials."""
        return set(self._running)

    def cancel(self, number: int) -> None:
        """End this trial as failed at the next poll."""
        if (running := self._running.get(number)) is not None:
            running.moments = [_Moment(0.0, (cancelled(running.job),))]

    def stop(self, number: int | None = None) -> None:
        """End what runs, or only this trial, as stopped at the next poll."""
        for running in self._running.values():
            if number in (None, running.job.number):
                running.moments = [_Moment(0.0, (Stopped(running.job.number, running.job.attempt),))]

    def paused(self, cores: Collection[int]) -> AbstractContextManager[None]:
        """Do nothing: there are no processes."""
        return nullcontext()

    def forget(self, study: str, number: int) -> None:
        """Do nothing: nothing is kept of a trial."""

    def close(self) -> None:
        """Drop the running jobs."""
        self._running.clear()

    # -- what a training reports --

    def _moments(self, job: TrialJob) -> list[_Moment]:
        """Return everything that a job will report, and when."""
        started, moments = Started(job.number, job.attempt, WORKER), list(self._reports(job))
        if not self._pace.by_epoch:
            events = tuple(event for moment in moments for event in moment.events)
            moments = [_Moment(moments[-1].at_s, events)]
        first = _Moment(moments[0].at_s, (started, *moments[0].events))
        moments = [first, *moments[1:]]
        return moments if self._pace.takes_time else [_Moment(0.0, moment.events) for moment in moments]

    def _reports(self, job: TrialJob) -> Iterator[_Moment]:
        """Yield the epochs of a job with the seconds at which they end, and its end."""
        number, attempt = job.number, job.attempt
        training = self._table.trainings.get((job.config, job.seed))
        reason = self._refusal(job)
        if reason is not None or training is None:
            yield _Moment(0.0, (Failed(number, attempt, reason or "", DataNotFound.exit_code),))
            return
        *epochs, last = _curve(job, training, self._table)
        limit_s = job.time_limit_s
        if limit_s is not None and training.train_seconds > limit_s:
            reason = f"the training passed its time limit of {limit_s:g} s; raise limits.trial_time_s."
            yield from (_Moment(row.seconds, (_ended(job, row),)) for row in (*epochs, last) if row.seconds <= limit_s)
            yield _Moment(limit_s, (Failed(number, attempt, reason, TrainingFailed.exit_code),))
            return
        before, epochs = epochs[: job.epochs_before], epochs[job.epochs_before :]
        done_s = before[-1].seconds if before else 0.0
        if before:
            yield _Moment(0.0, (Resumed(number, attempt, [asdict(row) for row in before]),))
        yield from (_Moment(row.seconds - done_s, (_ended(job, row),)) for row in epochs)
        yield _Moment(last.seconds - done_s, (_ended(job, last), Done(number, attempt, _result(training))))

    def _refusal(self, job: TrialJob) -> str | None:
        """Return why a job can't be replayed, or None."""
        if job.training != self._table.training:
            return f"the table {self._table.name} has no training with these training settings"
        if job.data.of_content() != self._table.data.of_content():
            return f"the table {self._table.name} has no training on these images"
        return self._table.refusal(job.config, job.seed)


def _ended(job: TrialJob, row: CurveRow) -> EpochEnded:
    return EpochEnded(job.number, job.attempt, asdict(row))


def _curve(job: TrialJob, training: RecordedTraining, table: ReplayTable) -> list[CurveRow]:
    """Return a training's epochs; what isn't recorded of them follows from the schedule, as in the training loop."""
    count, factor = len(training.curve), job.config.condense_factor
    steps_per_epoch = max(1, table.images.train_images // job.training.batch_size)
    steps, rows = count * steps_per_epoch, []
    for number, epoch in enumerate(training.curve, start=1):
        step, is_last = number * steps_per_epoch, number == count
        stage = factor - 1 if is_last else stages_due((step - 1) / steps, factor)
        form: Form = "deployed" if is_last else "condensed" if stage == factor - 1 else "training"
        rows.append(
            CurveRow(
                epoch=number,
                progress=step / steps,
                train_loss=epoch.train_loss,
                val_loss=epoch.val_loss,
                val_top1=epoch.top1,
                learning_rate=learning_rate_at(step - 1, steps, job.training.learning_rate),
                condensing_stage=stage,
                form=form,
                seconds=training.train_seconds * (number / count),
                images_per_s=None,
            )
        )
    return rows


def _result(training: RecordedTraining) -> TrialResult:
    return TrialResult(
        top1=training.top1,
        val_loss=training.curve[-1].val_loss,
        macs=cost_of(training.config).macs,
        train_seconds=training.train_seconds,
        onnx_sha256=NO_FILE,
        network_sha256=NO_FILE,
        export_difference=math.nan,
        peak_memory_mb=None,
    )
