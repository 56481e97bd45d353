"""What ran where and when: the newest trainings of a study, and what its devices measured meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from search.store import device_tables as devices
from search.store.tables import attempt, latency, trial
from search.store.vocabulary import LeaseOutcome
from workers.processes import host_and_pid

MOST_SPANS = 500  # of trainings, and of measurements
_OF_ATTEMPT = "attempt owner worker started_at heartbeat_at outcome reason ended_at".split()


@dataclass(frozen=True)
class Span:
    """One piece of work on one worker or device; times are UTC seconds since 1970."""

    place: str  # the worker as host:pid, or the device's name; "" while no worker has reported
    number: int | None  # of the trial; None: no trial of the study has such a model
    attempt: int
    began_at: float
    ended_at: float  # of one that runs: when it was last heard of
    outcome: str | None  # a word of `AttemptOutcome` or `LeaseOutcome`; None while it runs
    reason: str = ""
    waited_s: float | None = None  # before it began: since the trial was asked, or the job was submitted


@dataclass(frozen=True)
class Timeline:
    """The newest spans of a study, the oldest of them first."""

    trainings: tuple[Span, ...] = ()
    measurements: tuple[Span, ...] = ()
    earlier_trainings: int = 0  # that are left out
    earlier_measurements: int = 0


def read_timeline(engine: sa.Engine, study_id: int, queues: Sequence[str], most: int = MOST_SPANS) -> Timeline:
    """Return a study's newest attempts, and the newest leases of the queues of devices that measure for it.

    Args:
        engine: the database.
        study_id: of the study.
        queues: the devices' names in the study. What they measure for other studies of the database is theirs, too.
        most: attempts, and as many leases, are read.
    """
    with engine.connect() as connection:
        trainings, all_trainings = _attempts(connection, study_id, most)
        measurements, all_measurements = _leases(connection, study_id, queues, most)
    return Timeline(
        trainings, measurements, all_trainings - len(trainings), max(0, all_measurements - len(measurements))
    )


def _attempts(connection: sa.Connection, study_id: int, most: int) -> tuple[tuple[Span, ...], int]:
    """Return the newest attempts, and how many there are in all."""
    of_study = sa.select(trial.c.number, trial.c.asked_at, *(attempt.c[name] for name in _OF_ATTEMPT)).join(
        trial, trial.c.id == attempt.c.trial_id
    )
    newest = of_study.where(trial.c.study_id == study_id).order_by(attempt.c.started_at.desc(), trial.c.number.desc())
    rows = connection.execute(newest.limit(most)).all()
    total = sa.select(sa.func.count()).select_from(attempt.join(trial)).where(trial.c.study_id == study_id)
    spans = tuple(_training(row) for row in reversed(rows))
    return spans, int(connection.scalar(total) or 0)


def _training(row: sa.Row[Any]) -> Span:
    return Span(
        place=host_and_pid(row.worker) if row.worker else "",
        number=row.number,
        attempt=row.attempt,
        began_at=row.started_at,
        ended_at=max(row.started_at, row.heartbeat_at if row.ended_at is None else row.ended_at),
        outcome=row.outcome,
        reason=row.reason or "",
        waited_s=max(0.0, row.started_at - row.asked_at) if row.attempt == 1 else None,
    )


def _leases(connection: sa.Connection, study_id: int, queues: Sequence[str], most: int) -> tuple[tuple[Span, ...], int]:
    """Return the newest leases of some queues, and how many there are in all."""
    lease, job, device, result = devices.lease, devices.job, devices.device, devices.result
    of_queues = job.c.queue.in_(queues)
    same_attempt = (result.c.job_id == lease.c.job_id) & (result.c.attempt == lease.c.attempt)
    columns = (job.c.model_sha256, job.c.submitted_at, lease.c.attempt, lease.c.leased_at, lease.c.heartbeat_at)
    query = (
        sa.select(*columns, lease.c.outcome, device.c.name, result.c.received_at, result.c.reason)
        .select_from(lease.join(job).join(device, device.c.id == lease.c.device_id).outerjoin(result, same_attempt))
        .where(of_queues)
        .order_by(lease.c.leased_at.desc())
    )
    rows = connection.execute(query.limit(most)).all()
    total = connection.scalar(sa.select(sa.func.count()).select_from(lease.join(job)).where(of_queues))
    numbers = _numbers_of(connection, study_id, {row.model_sha256 for row in rows})
    return tuple(_measurement(row, numbers.get(row.model_sha256)) for row in reversed(rows)), int(total or 0)


def _measurement(row: sa.Row[Any], number: int | None) -> Span:
    ended = row.heartbeat_at if row.received_at is None else row.received_at
    return Span(
        place=row.name,
        number=number,
        attempt=row.attempt,
        began_at=row.leased_at,
        ended_at=max(row.leased_at, ended),
        outcome=row.outcome,
        reason=row.reason or ("" if row.outcome in (None, LeaseOutcome.ACCEPTED) else str(row.outcome)),
        waited_s=max(0.0, row.leased_at - row.submitted_at) if row.attempt == 1 else None,
    )


def _numbers_of(connection: sa.Connection, study_id: int, hashes: set[str]) -> dict[str, int]:
    """Return by model the number of the study's trial that it was measured for."""
    query = (
        sa.select(latency.c.model_hash, sa.func.min(trial.c.number).label("number"))
        .join(trial, trial.c.id == latency.c.trial_id)
        .where(trial.c.study_id == study_id, latency.c.model_hash.in_(hashes))
        .group_by(latency.c.model_hash)
    )
    return {row.model_hash: row.number for row in connection.execute(query)} if hashes else {}
