"""What the database holds, as plain frozen values: rows that are read, and proposals before they are written.

Times are UTC seconds since 1970. A trial's latencies are `workers.latency.record.LatencyRecord`s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from search.store.vocabulary import AttemptOutcome, ProposalReason, StudyEvent, TrialOrigin, TrialState
from space.config import CondenseNetConfig
from space.cost import Cost
from workers.latency.record import LatencyRecord
from workers.metrics import Objective
from workers.training.reporting import ProgressReport


@dataclass(frozen=True)
class StudyRow:
    """One study as stored."""

    id: int
    name: str
    optuna_study_id: int
    created_at: float
    settings: dict[str, Any]
    settings_hash: str
    frozen_hash: str
    versions: dict[str, Any]
    data_info: dict[str, Any] | None
    stop_requested: bool
    controller: str | None
    controller_seen_at: float | None


@dataclass(frozen=True)
class Proposal:
    """Why a sampler proposed a trial, and what it predicted; it predicts nothing until there is something to model."""

    reason: ProposalReason
    score: float | None = None  # predicted: the study's objective on the validation images
    deviation: float | None = None  # standard deviation of the score that its training would reach
    gain: float | None = None  # expected in the front's hypervolume, as a share of it


@dataclass(frozen=True)
class Believed:
    """A candidate that was not trained, with its known costs and what is predicted of it."""

    text: str  # its config, and the training settings that are searched
    macs: float
    params: float
    latencies_ms: Mapping[str, float]  # predicted medians by the device's name in the study
    proposal: Proposal


@dataclass(frozen=True)
class BeliefRow:
    """What a sampler believed after so many trainings."""

    trainings: int
    at: float
    front: tuple[Believed, ...]  # the predicted front, of candidates that were not trained
    ahead: tuple[Believed, ...]  # the next candidates, the first of them first


@dataclass(frozen=True)
class NewTrial:
    """A proposal as it enters the database."""

    number: int
    origin: TrialOrigin
    config: CondenseNetConfig
    training: dict[str, Any]
    seed: int
    identity: str
    cost: Cost
    proposal: Proposal | None = None  # None: of a user, or of a sampler that doesn't say why
    continues: int | None = None  # number of the trial, ended early, that it takes up again


@dataclass(frozen=True)
class EnqueuedConfig:
    """A config that a user wants tried, and that no trial has taken up yet."""

    id: int
    config: CondenseNetConfig
    training: dict[str, Any]
    created_at: float = 0.0


@dataclass(frozen=True)
class Noted:
    """What a user said of a trial: whether it is starred, and a note, which may be empty or have several lines."""

    starred: bool
    note: str


@dataclass(frozen=True)
class TrialRow:
    """One trial with its cost, the latency it is judged by (None before pricing) and its outcome."""

    id: int
    number: int
    optuna_trial_id: int | None  # once Optuna's tables hold it
    state: TrialState
    origin: TrialOrigin
    config: CondenseNetConfig
    training: dict[str, Any]
    seed: int
    identity: str
    macs: int
    params: int
    paper_flops: int
    latency: LatencyRecord | None
    reason: str | None
    duplicate_of: int | None
    attempt: int
    cancel_requested: bool
    asked_at: float
    started_at: float | None
    finished_at: float | None
    top1: float | None
    val_loss: float | None
    train_seconds: float | None
    peak_memory_mb: float | None
    test_top1: float | None
    mirrored: bool  # whether Optuna's tables hold the outcome
    balanced_accuracy: float | None = None  # as the next three: of the validation images, None where not recorded
    macro_f1: float | None = None
    top5: float | None = None
    calibration_error: float | None = None
    expected_score: float | None = None  # of a pruned trial: what it was predicted to end with when it was ended
    objective: Objective = "top1"  # of its study
    continues: int | None = None  # number of the trial, ended early, that it takes up again: both are one training
    others: tuple[LatencyRecord, ...] = ()  # latencies on the study's further devices, by name
    file_hash: str = ""  # of the file in another precision whose figures these are; "": the network as it was trained
    starred: bool = False  # by a user
    note: str = ""  # a user's; it may have several lines

    @property
    def score(self) -> float | None:
        """What its study maximises, of the deployed network on the validation images."""
        score: float | None = getattr(self, self.objective)
        return score

    @property
    def is_promised(self) -> bool:
        """Whether it trains before others, and however many trainings there are: a user wants it, or it is a rest."""
        return self.origin == TrialOrigin.ENQUEUED or self.continues is not None

    @classmethod
    def of_new(cls, new: NewTrial, key: int, at: float, objective: Objective = "top1") -> TrialRow:
        """Return the row of a new trial, as reading it back would; `key` is its id."""
        unset = dict.fromkeys(_UNSET)
        return cls(
            **unset,  # type: ignore[arg-type]
            id=key,
            number=new.number,
            state=TrialState.ASKED,
            origin=new.origin,
            config=new.config,
            training=new.training,
            seed=new.seed,
            identity=new.identity,
            macs=new.cost.macs,
            params=new.cost.params,
            paper_flops=new.cost.paper_flops,
            attempt=0,
            cancel_requested=False,
            asked_at=at,
            mirrored=False,
            continues=new.continues,
            objective=objective,
        )

    @property
    def latencies(self) -> dict[str, LatencyRecord]:
        """Every latency it is priced with, by the device's name in the study; the one it is judged by first."""
        records = self.others if self.latency is None else (self.latency, *self.others)
        return {record.target: record for record in records}

    def judged_on(self, device: str) -> TrialRow | None:
        """Return the trial as if its latency on a device were the one it is judged by; None where there is none."""
        if self.latency is not None and self.latency.target == device:
            return self
        latency = self.latencies.get(device)
        return None if latency is None else replace(self, latency=latency, others=())


_UNSET = (
    "optuna_trial_id latency reason duplicate_of started_at finished_at top1 val_loss train_seconds peak_memory_mb "
    "test_top1"
).split()  # of a trial that was just asked


@dataclass(frozen=True)
class AttemptRow:
    """One attempt at training a trial."""

    number: int  # of the trial
    attempt: int
    owner: str  # the controller that started it, host:pid@start
    worker: str | None  # host:pid, once known
    started_at: float
    heartbeat_at: float  # when its worker was last known to live
    epochs: int  # reported by this attempt
    outcome: AttemptOutcome | None  # None while it runs
    reason: str | None
    ended_at: float | None
    progress: float | None = None  # fraction of the schedule, as of a few seconds ago; None until the first report
    seconds: float | None = None  # spent training at that point, over all attempts
    images_per_s: float | None = None
    schedule_epochs: int | None = None  # of the trial's training settings

    @property
    def report(self) -> ProgressReport | None:
        """How far the training was a few seconds ago; None until its worker has said so."""
        if self.progress is None or self.seconds is None:
            return None
        return ProgressReport(self.progress, self.seconds, self.images_per_s)


@dataclass(frozen=True)
class EventRow:
    """One line of a study's log of what went wrong."""

    kind: StudyEvent
    number: int | None  # of the trial, where it is about one
    attempt: int | None
    detail: str
    at: float


@dataclass(frozen=True)
class StudyStatus:
    """A study at this moment: how many trials are in each state, what runs, and what went wrong last."""

    counts: Mapping[TrialState, int]  # how many trials are in each state
    waiting: int = 0  # enqueued configs that no trial has taken up
    running: Sequence[AttemptRow] = ()  # attempts that have not ended
    events: Sequence[EventRow] = ()  # the newest, newest first
    mean_train_s: float | None = None  # of the trainings that are done; None while there is none
    continued: int = 0  # ended trainings that two trials were needed for: ended early, then taken up again

    @property
    def trainings(self) -> int:
        """How many trainings have ended, early or not."""
        ended = sum(self.counts.get(state, 0) for state in (TrialState.DONE, TrialState.PRUNED))
        return ended - self.continued


@dataclass(frozen=True)
class PointRow:
    """A trained network's file in another precision on one device: a point of the front beside the trial's own."""

    number: int  # of its trial
    latency: LatencyRecord  # says the precision
    top1: float  # of the file on the validation images, a fraction, as the next
    score: float  # what the study maximises
    file_bytes: int
    fine_tuned: bool
