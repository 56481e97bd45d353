"""An engine without processes: outcomes come from a function. For tests of the controller and its benchmark."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict

from search.engines.events import Done, EngineEvent, EpochEnded, Failed, Started, Stopped, cancelled
from space.cost import cost_of
from space.errors import CondenseryError
from workers.training.job import TrialJob, TrialResult
from workers.training.reporting import CurveRow


def instant_result(job: TrialJob) -> TrialResult:
    """Return a made-up but plausible outcome: larger networks are more accurate."""
    macs = cost_of(job.config).macs
    return TrialResult(
        top1=1.0 - 0.5 / (1.0 + macs / 1e5),
        val_loss=0.1,
        macs=macs,
        train_seconds=0.0,
        onnx_sha256="0" * 64,
        network_sha256="0" * 64,
        export_difference=0.0,
        peak_memory_mb=0.0,
    )


class FakeEngine:
    """Runs each job at once, in `poll`; `outcome` returns its result or raises the error it fails with."""

    def __init__(self, slots: int = 2, outcome: Callable[[TrialJob], TrialResult] = instant_result) -> None:
        self.slots, self.outcome = slots, outcome
        self.submitted: list[TrialJob] = []
        self.forgotten: list[int] = []
        self._running: deque[TrialJob] = deque()
        self._cancelled: set[int] = set()
        self._stopped: set[int] = set()

    def free_slots(self) -> int:
        """Return how many slots are free."""
        return self.slots - len(self._running)

    def submit(self, job: TrialJob) -> None:
        """Keep a job for the next poll."""
        assert self.free_slots() > 0, "no slot is free"
        self.submitted.append(job)
        self._running.append(job)

    def poll(self, timeout_s: float) -> list[EngineEvent]:
        """Run what was submitted."""
        events: list[EngineEvent] = []
        while self._running:
            events += self._events(self._running.popleft())
        return events

    def _events(self, job: TrialJob) -> list[EngineEvent]:
        if job.number in self._stopped:
            self._stopped.remove(job.number)
            return [Stopped(job.number, job.attempt)]
        if job.number in self._cancelled:
            self._cancelled.remove(job.number)
            return [cancelled(job)]
        try:
            result = self.outcome(job)
        except CondenseryError as error:
            return [Failed(job.number, job.attempt, str(error), error.exit_code)]
        row = CurveRow(1, 1.0, 0.1, result.val_loss, result.top1, 0.0, 0, "deployed", 0.0, None)
        return [
            Started(job.number, job.attempt, "fake:0"),
            EpochEnded(job.number, job.attempt, asdict(row)),
            Done(job.number, job.attempt, result),
        ]

    def alive(self) -> Collection[int]:
        """Return all running trials."""
        return {job.number for job in self._running}

    def cancel(self, number: int) -> None:
        """End this trial as failed at the next poll."""
        self._cancelled |= {job.number for job in self._running if job.number == number}

    def stop(self, number: int | None = None) -> None:
        """End what runs, or only this trial, as stopped at the next poll."""
        self._stopped |= {job.number for job in self._running if number in (None, job.number)}

    def paused(self, cores: Collection[int]) -> AbstractContextManager[None]:
        """Do nothing: there are no processes."""
        return nullcontext()

    def forget(self, study: str, number: int) -> None:
        """Remember the trial's number, for tests."""
        self.forgotten.append(number)

    def close(self) -> None:
        """Drop the running jobs."""
        self._running.clear()
