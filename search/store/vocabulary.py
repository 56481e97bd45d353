"""The words that the database's columns hold. Each is a string, so SQL, JSON and texts take it as it is."""

from __future__ import annotations

from enum import StrEnum

from workers.latency.record import LatencyKind as LatencyKind  # the two words that workers use as well
from workers.latency.record import LatencyPurpose as LatencyPurpose


class TrialState(StrEnum):
    """The state of a trial; see `OPEN_STATES` and `FINAL_STATES`."""

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
# Trials that ended so don't make a later equal trial a duplicate.
MAY_BE_TRIED_AGAIN = (TrialState.FAILED, TrialState.CANCELLED, TrialState.DUPLICATE)


class EvaluatedSplit(StrEnum):
    """The images that a trained network's predictions are kept of."""

    VALIDATION = "validation"  # which choices are made on
    TEST = "test"  # once, for a network that was picked


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


class ProposalReason(StrEnum):
    """Why the price-aware sampler proposed a trial."""

    SPREAD = "spread"  # the first trainings are spread over the known costs
    GAIN = "gain"  # it was expected to add the most to the front
    ACCURATE = "accurate"  # it was expected to be the most accurate one inside the limits
    NEAREST = "nearest"  # nothing was believed to be inside the limits: it was over them by the least


class StudyEvent(StrEnum):
    """What went wrong in a study, or was put right: the kinds of line in its log."""

    TAKEN_OVER = "taken over"  # by another controller
    LOST = "lost"  # an attempt: its worker died or fell silent
    LATE = "late"  # news of an attempt that had been given up
    SMALLER_BATCH = "smaller batch"  # a trial is tried again with half its batch size
    REPAIRED = "repaired"  # by the doctor


# -- of measuring devices --


class JobState(StrEnum):
    """The state of a measurement job; see `OPEN_JOB_STATES`."""

    WAITING = "waiting"  # for a device of its queue
    LEASED = "leased"  # held by a device
    DONE = "done"
    FAILED = "failed"


OPEN_JOB_STATES = (JobState.WAITING, JobState.LEASED)


class MeasurementMode(StrEnum):
    """How a job's model is measured."""

    WALL = "wall"  # timed on a real device
    COUNTS = "counts"  # its instructions counted on a virtual device


class LeaseActivity(StrEnum):
    """What the holder of a lease is doing."""

    LEASED = "leased"  # nothing yet: the hub's answer may not even have arrived
    DOWNLOADING = "downloading"
    MEASURING = "measuring"
    COOLING = "cooling"


class LeaseOutcome(StrEnum):
    """How a lease ended; one that still holds has none."""

    ACCEPTED = "accepted"  # its result counts
    QUARANTINED = "quarantined"  # its result can't be true
    REFUSED = "refused"  # the model can't be measured anywhere
    GAVE_UP = "gave up"  # this device couldn't measure it
    EXPIRED = "expired"  # not renewed in time
    RESTARTED = "restarted"  # its agent was restarted
    LEFT = "left"  # its agent left
    REVOKED = "revoked"  # its device was revoked


class Verdict(StrEnum):
    """How the hub judges a result."""

    ACCEPTED = "accepted"  # the job's one result that counts
    QUARANTINED = "quarantined"  # stored, and never used
    LATE = "late"  # stored: the job was done already, or another device had begun
    REPEATED = "repeated"  # not stored: the attempt has a result


class JobEvent(StrEnum):
    """What happened to a job, beside what its leases did and how its results were judged."""

    SUBMITTED = "submitted"
    JOINED = "joined"  # requested again while it was open
    REUSED = "reused"  # its result answered another request
    LATE_FAILURE = "late failure"  # reported after the lease had ended
    FAILED = "failed"


class FaultKind(StrEnum):
    """Whose fault it is that a model was not measured."""

    MODEL = "model"  # no device can measure it
    DEVICE = "device"  # this one couldn't


OPTUNA_CONSTRAINT = "constraints:"  # + its name: the key under which Optuna keeps a trial's constraint
