"""The words that the database's columns hold. Each is a string, so SQL, JSON and texts take it as it is."""

from __future__ import annotations

from enum import StrEnum

from workers.latency.record import LatencyKind as LatencyKind  # the two words that workers use as well
from workers.latency.record import LatencyPurpose as LatencyPurpose


class TrialState(StrEnum):
    """Where a trial is on its way; see `OPEN_STATES` and `FINAL_STATES`."""

    ASKED = "asked"  # proposed, not priced yet
    QUEUED = "queued"  # priced and inside the budgets: waits for a worker
    RUNNING = "running"  # with a worker
    DONE = "done"
    PRUNED = "pruned"  # the stopping rule ended its training early
    INFEASIBLE = "infeasible"  # over a budget, never trained
    DUPLICATE = "duplicate"  # another trial holds the same config, settings and seed
    FAILED = "failed"
    CANCELLED = "cancelled"


STATES = tuple(TrialState)
OPEN_STATES = (TrialState.ASKED, TrialState.QUEUED, TrialState.RUNNING)
FINAL_STATES = tuple(state for state in STATES if state not in OPEN_STATES)


class AttemptOutcome(StrEnum):
    """How an attempt at training a trial ended; an attempt that still runs has none."""

    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"  # by the controller, or with it; the trial waits for its next attempt
    CANCELLED = "cancelled"
    PRUNED = "pruned"
    LOST = "lost"  # its worker died or fell silent


class TrialOrigin(StrEnum):
    """Who proposed a trial's config."""

    SAMPLED = "sampled"  # the study's sampler
    ENQUEUED = "enqueued"  # a user
