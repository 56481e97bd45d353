"""The seam between the controller and whoever runs trials."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from space.errors import OutOfMemory, TrainingFailed
from workers.training.job import TrialJob

CANCELLED = ("cancelled by the user", TrainingFailed.exit_code)  # the payload of a cancelled job's `failed` event


@dataclass(frozen=True)
class EngineEvent:
    """News of one trial: who runs it, an epoch's figures, or how its attempt ended.

    payload: started: the worker, as host:pid. earlier: the curve of the checkpoint that the attempt goes on from, a
    list of rows. curve: one row, the columns of `condensery_curve`. done: `TrialResult.to_dict()`.
    failed: (reason, exit code). stopped: None; the checkpoint is kept and the trial may be submitted again. lost: why
    the worker died in one line; the trial may be submitted again too.
    """

    kind: Literal["started", "earlier", "curve", "done", "failed", "stopped", "lost"]
    number: int
    attempt: int
    payload: Any


def killed_for_memory(job: TrialJob) -> EngineEvent:
    """Return how a job ends whose worker the system killed for want of memory: it may be tried with less."""
    reason = f"out of memory (batch size {job.training.batch_size}): the system killed its worker"
    return EngineEvent("failed", job.number, job.attempt, (reason, OutOfMemory.exit_code))


class Engine(Protocol):
    """Runs trials, several at a time.

    Contract: every submitted job ends in exactly one `done`, `failed`, `stopped` or `lost` event, after all of its
    `curve` events; a job whose worker dies ends as `lost`. `started` comes first, if it comes at all, then `earlier`,
    if there was a checkpoint. Methods are called from one thread.
    """

    def free_slots(self) -> int:
        """How many jobs can be submitted now."""

    def submit(self, job: TrialJob) -> None:
        """Start a job; only when a slot is free."""

    def poll(self, timeout_s: float) -> list[EngineEvent]:
        """Return what has happened, waiting at most `timeout_s` for something to."""

    def alive(self) -> Collection[int]:
        """Return the running trials whose workers live, as far as is known now."""

    def cancel(self, number: int) -> None:
        """Ask one running trial to end as failed; nothing when it isn't running."""

    def stop(self) -> None:
        """Ask every running trial to end as stopped, with a checkpoint."""

    def quiet(self, cores: Collection[int]) -> AbstractContextManager[None]:
        """Keep every trial off these processors while the context lasts; the time doesn't count as theirs."""

    def forget(self, study: str, number: int) -> None:
        """Remove what is kept of a trial outside its folder: its final state is recorded. Nothing if nothing is."""

    def close(self) -> None:
        """End all workers at once; running jobs are lost (their checkpoints stay)."""
