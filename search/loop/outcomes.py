"""A controller's decisions about trials, as frozen values: made first, then written, then applied to memory.

Each value holds all that one step records about one trial. Making a decision changes nothing yet: only
`record.Recorder` writes decisions into the store and applies them to `state.SearchState`.
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
    prices: Sequence[Measurement]  # the judging device's first


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
    """The process that runs an attempt has reported its name."""

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
    """News of an attempt that was given up: refused, and noted once for each kind."""

    number: int
    attempt: int
    news: str  # its kind, as "an epoch"


@dataclass(frozen=True)
class Requeued:
    """An attempt is over, and the trial waits for the next one."""

    row: TrialRow  # queued
    outcome: AttemptOutcome  # stopped, lost or failed
    reason: str | None = None
    fatal: CondenseryError | None = None  # an error that every other trial would meet too: the search has to end
    smaller_batch: str | None = None  # why the row now has half its batch size


@dataclass(frozen=True)
class Ended:
    """A trial has ended: done, pruned, infeasible, duplicate, failed or cancelled."""

    row: TrialRow  # in its final state, with its results
    outcome: AttemptOutcome | None = None  # of its last attempt; None if it never had one
    prices: Sequence[Measurement] = ()
    files: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # name: (path, sha256)
    predictions: bytes | None = None  # of the validation images; see `workers.metrics.Predictions`
    fp32_predictions: bytes | None = None  # of the network in fp32, where it is judged by its file in 8 bits


Decision = Queued | Reopened | Dispatched | WorkerKnown | CurveRestored | EpochReported | LateNews | Requeued | Ended


def queued_again(row: TrialRow, outcome: AttemptOutcome, reason: str | None = None) -> Requeued:
    """Return the decision to queue a trial again: its attempt is over, and the next goes on from its checkpoint."""
    return Requeued(replace(row, state=TrialState.QUEUED), outcome, reason)


def cancelled(row: TrialRow, at: float, reason: str = "cancelled by the user") -> Ended:
    """Return the decision that a trial ends as cancelled."""
    return ended(row, TrialState.CANCELLED, at, reason)


def ended(row: TrialRow, state: TrialState, at: float, reason: str, outcome: AttemptOutcome | None = None) -> Ended:
    """Return the decision that a trial ends without a result; its attempt ends in `outcome`, by default as `state`."""
    if row.attempt:
        outcome = outcome or AttemptOutcome(state)
    return Ended(replace(row, state=state, finished_at=at, reason=reason), outcome)
