"""Reading studies: columns by SQL into plain frozen rows. Nothing here needs Optuna, torch or a lock."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from search.store.tables import (
    artifact,
    attempt,
    curve,
    event,
    latency,
    latency_samples,
    reference_latency,
    request,
    study,
    trial,
)
from space.config import CondenseNetConfig
from space.errors import StudyNotFound, TrialNotFound

if TYPE_CHECKING:
    from search.store.store import NewTrial
    from workers.latency.measurement import Measurement


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
class LatencyRow:
    """The summary of one measurement, in milliseconds; the interval is 95 % of the median."""

    kind: str  # measured, estimated or predicted
    policy: str  # standard or quick; counts for estimated, model for predicted
    device: str
    runtime: str
    runtime_version: str
    threads: int
    median_ms: float
    p90_ms: float | None  # None without samples: estimated and predicted
    interval_low_ms: float
    interval_high_ms: float
    steady: bool
    target: str = "host"  # the device as the study's latency.devices names it
    extrapolates: bool = False  # an estimate or prediction outside its calibrated range

    @classmethod
    def of_measurement(cls, measurement: Measurement, target: str) -> LatencyRow:
        """Return what `StudyStore.add_latency` stores of a measurement, as it is read back."""
        summary = ("median_ms", "p90_ms", "interval_low_ms", "interval_high_ms")
        own = [name for name in LATENCY_FIELDS if name not in summary and name != "target"]
        return cls(
            target=target,
            **{name: getattr(measurement.summary, name) for name in summary},
            **{name: getattr(measurement, name) for name in own},
        )


@dataclass(frozen=True)
class TrialRow:
    """One trial with its cost, the latency it is judged by (None before pricing) and its outcome."""

    id: int
    number: int
    optuna_trial_id: int | None  # once Optuna's tables hold it
    state: str
    origin: str
    config: CondenseNetConfig
    training: dict[str, Any]
    seed: int
    identity: str
    macs: int
    params: int
    paper_flops: int
    latency: LatencyRow | None
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
    told: bool
    others: tuple[LatencyRow, ...] = ()  # latencies on the study's further devices, by name

    @classmethod
    def of_new(cls, new: NewTrial, key: int, at: float) -> TrialRow:
        """Return a trial that was just asked, as it is read back; `key` is its row's id."""
        unset = dict.fromkeys(_UNSET)
        return cls(
            **unset,  # type: ignore[arg-type]
            id=key,
            number=new.number,
            state="asked",
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
            told=False,
        )

    @property
    def latencies(self) -> dict[str, LatencyRow]:
        """Every latency it is priced with, by the device's name in the study; the one it is judged by first."""
        rows = self.others if self.latency is None else (self.latency, *self.others)
        return {row.target: row for row in rows}


@dataclass(frozen=True)
class AttemptRow:
    """One attempt at training a trial; times are UTC seconds since 1970."""

    number: int  # of the trial
    attempt: int
    owner: str  # the controller that started it, host:pid@start
    worker: str | None  # host:pid, once known
    started_at: float
    heartbeat_at: float  # when its worker was last known to live
    epochs: int  # reported by this attempt
    outcome: str | None  # None while it runs
    reason: str | None
    ended_at: float | None


@dataclass(frozen=True)
class EventRow:
    """One line of a study's log of what went wrong."""

    kind: str
    number: int | None  # of the trial, where it is about one
    attempt: int | None
    detail: str
    at: float


@dataclass(frozen=True)
class StudyStatus:
    """How a study stands at this moment."""

    counts: Mapping[str, int]  # trials by state
    waiting: int = 0  # enqueued configs that no trial has taken
    running: Sequence[AttemptRow] = ()  # attempts that have not ended
    events: Sequence[EventRow] = ()  # the newest, newest first


MOST_NUMBERS = 1000  # in one statement
LATENCY_FIELDS = tuple(LatencyRow.__dataclass_fields__)
_UNSET = (
    "optuna_trial_id latency reason duplicate_of started_at finished_at top1 val_loss train_seconds peak_memory_mb "
    "test_top1"
).split()  # of a trial that was just asked
_BUILT = ("config", "training", "latency", "others")
PLAIN_FIELDS = tuple(name for name in TrialRow.__dataclass_fields__ if name not in _BUILT)


def list_studies(engine: sa.Engine) -> list[StudyRow]:
    """Return every study, oldest first."""
    with engine.connect() as connection:
        return [_study_row(row) for row in connection.execute(sa.select(study).order_by(study.c.id))]


def find_study(engine: sa.Engine, name: str) -> StudyRow:
    """Return the study of this name.

    Raises:
        StudyNotFound: there is none; the message suggests the nearest.
    """
    with engine.connect() as connection:
        row = connection.execute(sa.select(study).where(study.c.name == name)).first()
        if row is not None:
            return _study_row(row)
        names = list(connection.scalars(sa.select(study.c.name)))
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(map(repr, names[:10])) or 'none yet'}."
    raise StudyNotFound(f"no study is called {name[:100]!r}. {hint}")


def _study_row(row: sa.Row[Any]) -> StudyRow:
    values = dict(row._mapping)
    for name in ("settings", "versions", "data_info"):
        values[name] = None if values[name] is None else json.loads(values[name])
    return StudyRow(**values)


def read_objectives(engine: sa.Engine, study_id: int) -> list[sa.Row[Any]]:
    """Return what a front is found from, of the trials that are done: number, top1, macs and the latency's columns.

    A few columns, so that 10,000 trials take a fraction of a second.
    """
    names = ("kind", "device", "runtime", "runtime_version", "threads", "median_ms")
    query = (
        sa.select(trial.c.number, trial.c.top1, trial.c.macs, *(latency.c[name] for name in names))
        .join(latency, trial.c.latency_id == latency.c.id)
        .where(trial.c.study_id == study_id, trial.c.state == "done", trial.c.top1.is_not(None))
        .order_by(trial.c.number)
    )
    with engine.connect() as connection:
        return list(connection.execute(query))


def read_trials(
    engine: sa.Engine,
    study_id: int,
    number: int | None = None,
    states: tuple[str, ...] | None = None,
    numbers: Sequence[int] | None = None,
) -> list[TrialRow]:
    """Return the study's trials by number; optionally only one number, some states or some numbers."""
    if numbers is not None and len(numbers) > MOST_NUMBERS:  # more than a statement takes
        wanted = set(numbers)
        return [row for row in read_trials(engine, study_id, number, states) if row.number in wanted]
    columns: list[sa.ColumnElement[Any]] = [trial.c[name] for name in PLAIN_FIELDS]
    columns += [trial.c.config, trial.c.training, latency.c.id.label("measured")]
    columns += [latency.c[name].label(f"latency_{name}") for name in LATENCY_FIELDS]
    query = (
        sa.select(*columns)
        .select_from(trial.outerjoin(latency, trial.c.latency_id == latency.c.id))
        .where(trial.c.study_id == study_id)
        .order_by(trial.c.number)
    )
    if number is not None:
        query = query.where(trial.c.number == number)
    if states is not None:
        query = query.where(trial.c.state.in_(states))
    if numbers is not None:
        query = query.where(trial.c.number.in_(numbers))
    with engine.connect() as connection:
        others = _other_latencies(connection, study_id, [number] if number is not None else numbers)
        return [_trial_row(row._mapping, others) for row in connection.execute(query)]


def _other_latencies(
    connection: sa.Connection, study_id: int, numbers: Sequence[int] | None
) -> dict[int, list[LatencyRow]]:
    """Return by trial row the newest price on each device but the first (that the trial is judged by)."""
    judged = latency.alias()
    query = (
        sa.select(trial.c.id.label("trial"), *(latency.c[name] for name in LATENCY_FIELDS))
        .select_from(latency)
        .join(trial, trial.c.id == latency.c.trial_id)
        .outerjoin(judged, judged.c.id == trial.c.latency_id)
        .where(trial.c.study_id == study_id, latency.c.purpose == "price")
        .where(judged.c.target.is_(None) | (judged.c.target != latency.c.target))
        .order_by(latency.c.target, latency.c.id)
    )
    if numbers is not None:
        query = query.where(trial.c.number.in_(numbers))
    newest: dict[int, dict[str, LatencyRow]] = {}
    for row in connection.execute(query):
        values = dict(row._mapping)
        key = values.pop("trial")
        newest.setdefault(key, {})[values["target"]] = LatencyRow(**values)
    return {key: list(by_target.values()) for key, by_target in newest.items()}


def _trial_row(row: Any, others: Mapping[int, Sequence[LatencyRow]]) -> TrialRow:
    judged = None
    if row["measured"] is not None:
        judged = LatencyRow(**{name: row[f"latency_{name}"] for name in LATENCY_FIELDS})
    return TrialRow(
        **{name: row[name] for name in PLAIN_FIELDS},
        config=CondenseNetConfig.from_json(row["config"]),
        training=json.loads(row["training"]),
        latency=judged,
        others=tuple(others.get(row["id"], ())),
    )


def find_trial(engine: sa.Engine, found: StudyRow, number: int) -> TrialRow:
    """Return one trial.

    Raises:
        TrialNotFound: the study has none of this number.
    """
    rows = read_trials(engine, found.id, number)
    if rows:
        return rows[0]
    with engine.connect() as connection:
        last = connection.scalar(sa.select(sa.func.max(trial.c.number)).where(trial.c.study_id == found.id))
    held = "has no trials yet" if last is None else f"has trials 0 to {last}"
    raise TrialNotFound(f"study {found.name!r} {held}, but you asked for {number}.")


def read_status(engine: sa.Engine, study_id: int, events: int = 5) -> StudyStatus:
    """Return how a study stands, with so many of its newest events."""
    return StudyStatus(
        count_states(engine, study_id),
        count_waiting_requests(engine, study_id),
        read_attempts(engine, study_id, only_open=True),
        newest_events(engine, study_id, events),
    )


def count_states(engine: sa.Engine, study_id: int) -> dict[str, int]:
    """Return how many trials are in each state."""
    query = sa.select(trial.c.state, sa.func.count()).where(trial.c.study_id == study_id).group_by(trial.c.state)
    with engine.connect() as connection:
        return {row[0]: row[1] for row in connection.execute(query)}


def read_attempts(
    engine: sa.Engine, study_id: int, only_open: bool = False, number: int | None = None
) -> list[AttemptRow]:
    """Return a study's attempts by trial; optionally only those that have not ended, or of one trial."""
    columns = [attempt.c[name] for name in AttemptRow.__dataclass_fields__ if name != "number"]
    query = (
        sa.select(trial.c.number, *columns)
        .join(trial, trial.c.id == attempt.c.trial_id)
        .where(trial.c.study_id == study_id)
        .order_by(trial.c.number, attempt.c.attempt)
    )
    if only_open:
        query = query.where(attempt.c.outcome.is_(None))
    if number is not None:
        query = query.where(trial.c.number == number)
    with engine.connect() as connection:
        return [AttemptRow(**row._mapping) for row in connection.execute(query)]


def newest_events(engine: sa.Engine, study_id: int, last: int, number: int | None = None) -> list[EventRow]:
    """Return the newest of a study's events, the newest first; optionally only those about one trial."""
    columns = [event.c[name] for name in EventRow.__dataclass_fields__]
    query = sa.select(*columns).where(event.c.study_id == study_id).order_by(event.c.id.desc()).limit(last)
    if number is not None:
        query = query.where(event.c.number == number)
    with engine.connect() as connection:
        return [EventRow(**row._mapping) for row in connection.execute(query)]


def read_curve(engine: sa.Engine, trial_id: int) -> list[dict[str, Any]]:
    """Return a trial's learning curve by epoch."""
    query = sa.select(curve).where(curve.c.trial_id == trial_id).order_by(curve.c.epoch)
    with engine.connect() as connection:
        rows = [dict(row._mapping) for row in connection.execute(query)]
    return [{name: value for name, value in row.items() if name != "trial_id"} for row in rows]


def read_latencies(engine: sa.Engine, trial_id: int) -> list[dict[str, Any]]:
    """Return every measurement of a trial, oldest first, with its raw samples per process."""
    with engine.connect() as connection:
        measured = connection.execute(
            sa.select(latency).where(latency.c.trial_id == trial_id).order_by(latency.c.id)
        ).all()
        samples = connection.execute(
            sa.select(latency_samples)
            .join(latency, latency.c.id == latency_samples.c.latency_id)
            .where(latency.c.trial_id == trial_id)
            .order_by(latency_samples.c.latency_id, latency_samples.c.process)
        ).all()
    by_measurement: dict[int, list[list[float]]] = {}
    for row in samples:
        by_measurement.setdefault(row.latency_id, []).append(json.loads(row.samples_ms))
    found = []
    for row in measured:
        values = dict(row._mapping)
        values["conditions"] = json.loads(values["conditions"])
        values["samples_ms"] = by_measurement.get(values.pop("id"), [])
        del values["trial_id"]
        found.append(values)
    return found


def read_artifacts(engine: sa.Engine, trial_id: int) -> dict[str, dict[str, Any]]:
    """Return a trial's files by name: path, sha256, and whether a retention rule removed them."""
    query = sa.select(artifact).where(artifact.c.trial_id == trial_id)
    with engine.connect() as connection:
        return {
            row.name: {"path": row.path, "sha256": row.sha256, "removed": row.removed}
            for row in connection.execute(query)
        }


def devices_measured(engine: sa.Engine, study_id: int) -> set[str]:
    """Return the devices on which a study's trials were priced."""
    query = sa.select(latency.c.device).join(trial, trial.c.id == latency.c.trial_id).distinct()
    with engine.connect() as connection:
        return set(connection.scalars(query.where(trial.c.study_id == study_id, latency.c.purpose == "price")))


def latencies_of_configs(
    engine: sa.Engine, device: str, runtime: str, threads: int, kind: str, least: int = 1, most: int | None = None
) -> list[tuple[CondenseNetConfig, float]]:
    """Return every config whose latency is known on a device, with its newest median in ms.

    From all studies of the database and from what was measured for a fit; only what can be compared: steady rows of
    the runtime version that the newest row of all has. Where these hold at least `least` configs measured with the
    standard policy, only those; else every policy's. Of more than `most` configs, so many, evenly over the time.
    """
    rows = _rows_of_configs(device, runtime, threads, kind)
    with engine.connect() as connection:
        found = connection.execute(sa.select(rows).order_by(rows.c.measured_at)).all()
    good = [row for row in found if row.steady and row.runtime_version == found[-1].runtime_version]
    standard = {row.config: row.median_ms for row in good if row.policy == "standard"}
    newest = standard if len(standard) >= least else {row.config: row.median_ms for row in good}
    chosen = list(newest.items())
    if most is not None and len(chosen) > most:
        chosen = [chosen[place * len(chosen) // most] for place in range(most)]
    return [(CondenseNetConfig.from_json(config), float(median_ms)) for config, median_ms in chosen]


def count_rows_of_configs(engine: sa.Engine, device: str, runtime: str, threads: int, kind: str) -> int:
    """Return how many rows `latencies_of_configs` looks at; it has no news while they are as many."""
    query = sa.select(sa.func.count()).select_from(_rows_of_configs(device, runtime, threads, kind))
    with engine.connect() as connection:
        return int(connection.scalar(query) or 0)


def _rows_of_configs(device: str, runtime: str, threads: int, kind: str) -> sa.Subquery:
    """The prices of trials and what was measured for a fit."""
    selects = []
    for config, table, joined in (
        (trial.c.config, latency, sa.and_(latency.c.purpose == "price", trial.c.id == latency.c.trial_id)),
        (reference_latency.c.config, reference_latency, sa.true()),
    ):
        same = (table.c.device == device, table.c.runtime == runtime, table.c.threads == threads, table.c.kind == kind)
        columns = (table.c[name] for name in ("median_ms", "runtime_version", "policy", "steady", "measured_at"))
        selects.append(sa.select(config, *columns).where(joined, *same))
    return sa.union_all(*selects).subquery()


def count_waiting_requests(engine: sa.Engine, study_id: int) -> int:
    """Return how many enqueued configs no trial has taken yet."""
    query = sa.select(sa.func.count()).where(request.c.study_id == study_id, request.c.trial_number.is_(None))
    with engine.connect() as connection:
        return int(connection.scalar(query) or 0)


def count_test_evaluations(engine: sa.Engine, study_id: int) -> int:
    """Return how many networks of a study have been evaluated on the test split."""
    query = sa.select(sa.func.count()).where(trial.c.study_id == study_id, trial.c.test_top1.is_not(None))
    with engine.connect() as connection:
        return int(connection.scalar(query) or 0)
