"""The seam between the controller and the engine that runs its trials."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import Protocol

from search.engines.events import EngineEvent
from workers.training.job import TrialJob


class Engine(Protocol):
    """Runs trials, several at a time.

    Contract: every submitted job ends in exactly one `Done`, `Failed`, `Stopped` or `Lost`, after all else of it
    (`EpochEnded`, `UnderWay`); a job whose worker dies ends as `Lost`. `Started` comes first, if it comes at all, then
    `Resumed`, if there was a checkpoint. Methods are called from one thread.
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
        """Ask one running trial to end as `Failed`; do nothing when it isn't running."""

    def stop(self, number: int | None = None) -> None:
        """Ask every running trial, or only this one, to end as stopped, with a checkpoint."""

    def paused(self, cores: Collection[int]) -> AbstractContextManager[None]:
        """Keep every trial off these processors while the context lasts; trials aren't charged for the time."""

    def forget(self, study: str, number: int) -> None:
        """Remove what the engine keeps of a trial outside its folder, once the trial's final state is recorded."""

    def close(self) -> None:
        """End all workers at once; running jobs are lost (their checkpoints stay)."""
