"""What a controller decides about trials, as frozen values: decided first, then written, then applied to memory.

Each value says all that is to be recorded of one trial at one step. Nothing has changed while it is only decided;
`record.Recorder` is the one place that writes such decisions into the store and applies them to `state.SearchState`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from search.engines.events import Epoch
from search.store.rows import TrialRow
from search.store.vocabulary import AttemptOutcome, TrialState
from space.errors import CondenseryError
from workers.latency.measurement import Measurement


@dataclass(frozen=True)
class Queued:
    """A candidate is priced and inside the budgets: it waits for a worker."""

    row: TrialRow  # with its latencies
    prices: Sequence[Measurement]  # the first is of the device that the trial is judged by


@dataclass(frozen=True)
class Reopened:
    """An earlier controller left a priced trial open: it waits for a worker again."""

    row: TrialRow


@dataclass(frozen=True)
class Dispatched:
    """A worker is about to begin an attempt."""

    row: TrialRow  # running, with the number of the attempt


@dataclass(frozen=True)
class WorkerKnown:
    """Which process runs an attempt is known."""

    row: TrialRow
    worker: str  # host:pid


@dataclass(frozen=True)
class CurveRestored:
    """An attempt goes on from a checkpoint, with the epochs before it."""

    row: TrialRow
    epochs: Sequence[Epoch]


@dataclass(frozen=True)
class EpochReported:
    """An attempt has finished an epoch."""

    row: TrialRow
    epoch: Epoch


@dataclass(frozen=True)
class LateNews:
    """News of an attempt that was given up: refused, and noted once of each kind."""

    number: int
    attempt: int
    what: str


@dataclass(frozen=True)
class Requeued:
    """An attempt is over, and the trial waits for the next one."""

    row: TrialRow  # queued
    outcome: AttemptOutcome  # stopped, lost or failed
    reason: str | None = None
    fatal: CondenseryError | None = None  # every other trial would meet the same: the search has to end
    smaller_batch: str | None = None  # why it is tried again with half the batch, which the row has already


@dataclass(frozen=True)
class Ended:
    """A trial has come to its end: done, pruned, infeasible, duplicate, failed or cancelled."""

    row: TrialRow  # in its final state, with all that is known of it
    outcome: AttemptOutcome | None = None  # of its last attempt; None where it never had one
    prices: Sequence[Measurement] = ()
    files: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # name: (path, sha256)


Decision = Queued | Reopened | Dispatched | WorkerKnown | CurveRestored | EpochReported | LateNews | Requeued | Ended


def queued_again(row: TrialRow, outcome: AttemptOutcome, reason: str | None = None) -> Requeued:
    """Return that a trial's attempt is over and the next one goes on from its checkpoint."""
    return Requeued(replace(row, state=TrialState.QUEUED), outcome, reason)


def cancelled(row: TrialRow, at: float, reason: str = "cancelled by the user") -> Ended:
    """Return that a trial ends because someone wants it to."""
    return ended(row, TrialState.CANCELLED, at, reason)


def ended(row: TrialRow, state: TrialState, at: float, reason: str, outcome: AttemptOutcome | None = None) -> Ended:
    """Return that a trial ends without a result; `outcome` is its last attempt's where that has another name."""
    if row.attempt:
        outcome = outcome or AttemptOutcome(state)
    return Ended(replace(row, state=state, finished_at=at, reason=reason), outcome)
