"""The transitions of a job between its states, inside the caller's transaction. Each adds an event.

waiting ──► leased ──► done        an accepted result
   ▲          │  └───► failed      the model's fault, or no one waits for the job any more
   └──────────┘                    the lease ended without a result; after too many of these the job fails
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from search.store.device_tables import event, job, lease, request
from search.store.vocabulary import JobEvent, JobState, LeaseActivity, LeaseOutcome, Verdict

TROUBLES_MOST = 5  # leases that devices gave up or never came back from
QUARANTINES_MOST = 3
LEASE_S = 60.0  # an agent that is silent for this long counts as dead
REQUEST_S = 120.0  # a request that its owner hasn't renewed for this long is dropped

CANCELLED = "cancelled: no one waits for it any more"

EventKind = JobEvent | LeaseActivity | LeaseOutcome | Verdict


@dataclass(frozen=True)
class LeaseEnd:
    """The end of a lease without an accepted result, and whether it counts as a trouble or a quarantine."""

    outcome: LeaseOutcome
    detail: str | None = None  # why, in one line
    device_id: int | None = None
    trouble: bool = False
    quarantine: bool = False
    attempt: int | None = None  # None = the newest


def is_fresh(seen_at: float | None, at: float, lease_s: float) -> bool:
    """Return whether a sign of life is less than a lease old.

    One from far in the future doesn't count: the clock was set back since.
    """
    return seen_at is not None and abs(at - seen_at) < lease_s


def add_event(connection: sa.Connection, job_id: int, attempt: int, kind: EventKind, at: float, **more: Any) -> None:
    """Append an event; `more` is its device_id and detail."""
    connection.execute(sa.insert(event).values(job_id=job_id, attempt=attempt, kind=kind, at=at, **more))


def held_jobs(*, skip_locked: bool = False) -> sa.Select[Any]:
    """Return a query of all leased jobs with their leases, to be narrowed by the caller; it locks the job rows."""
    newest_lease = (lease.c.job_id == job.c.id) & (lease.c.attempt == job.c.attempt)
    return (
        sa.select(job, lease.c.device_id, lease.c.doing, lease.c.heartbeat_at)
        .join(lease, newest_lease)
        .where(job.c.state == JobState.LEASED)
        .order_by(job.c.id)
        .with_for_update(of=job, skip_locked=skip_locked)
    )


def end_lease(connection: sa.Connection, job_id: int, attempt: int, outcome: LeaseOutcome) -> None:
    """Write a lease's outcome, unless it has one."""
    holds = (lease.c.job_id == job_id) & (lease.c.attempt == attempt) & lease.c.outcome.is_(None)
    connection.execute(sa.update(lease).where(holds).values(outcome=outcome))


def put_back(connection: sa.Connection, row: sa.Row[Any], end: LeaseEnd, at: float) -> None:
    """End an open job's lease: the job waits for the next one, or fails when there were too many."""
    troubles, quarantines = row.troubles + end.trouble, row.quarantines + end.quarantine
    attempt = row.attempt if end.attempt is None else end.attempt
    end_lease(connection, row.id, attempt, end.outcome)
    add_event(connection, row.id, attempt, end.outcome, at, device_id=end.device_id, detail=end.detail)
    values = {"state": JobState.WAITING, "troubles": troubles, "quarantines": quarantines}
    connection.execute(sa.update(job).where(job.c.id == row.id).values(values))
    last = end.detail or end.outcome
    if troubles >= TROUBLES_MOST:
        fail(connection, row, f"devices gave it up {troubles} times, the last: {last}", at)
    elif quarantines >= QUARANTINES_MOST:
        fail(connection, row, f"{quarantines} results are in quarantine, the last: {last}", at)
    elif not is_requested(connection, row.id):
        fail(connection, row, CANCELLED, at)


def is_requested(connection: sa.Connection, job_id: int) -> bool:
    """Return whether anyone waits for a job."""
    return connection.execute(sa.select(request.c.owner).where(request.c.job_id == job_id).limit(1)).first() is not None


def fail(connection: sa.Connection, row: sa.Row[Any], reason: str, at: float) -> None:
    """End a job without a result."""
    _drop_requests(connection, row.id)
    values = {"state": JobState.FAILED, "reason": reason, "finished_at": at, "open_identity": None}
    connection.execute(sa.update(job).where(job.c.id == row.id).values(values))
    add_event(connection, row.id, row.attempt, JobEvent.FAILED, at, detail=reason)


def complete(connection: sa.Connection, row: sa.Row[Any], runtime_version: str, at: float) -> None:
    """End a job whose result was just accepted."""
    _drop_requests(connection, row.id)
    values = {"state": JobState.DONE, "finished_at": at, "open_identity": None, "runtime_version": runtime_version}
    connection.execute(sa.update(job).where(job.c.id == row.id).values(values))


def _drop_requests(connection: sa.Connection, job_id: int) -> None:
    connection.execute(sa.delete(request).where(request.c.job_id == job_id))


def release_jobs(connection: sa.Connection, device_id: int, end: LeaseEnd, at: float) -> None:
    """Put back every job that a device holds; a job that it hadn't begun counts as no trouble."""
    for row in connection.execute(held_jobs().where(lease.c.device_id == device_id)).all():
        put_back(connection, row, replace(end, trouble=end.trouble and _is_begun(row)), at)


def _is_begun(row: sa.Row[Any]) -> bool:
    """Return whether a job's holder ever reported work on it: the response that leased it may have been lost."""
    return bool(row.doing != LeaseActivity.LEASED)


def sweep(connection: sa.Connection, queue: str, lease_s: float, at: float) -> None:
    """Put back a queue's jobs whose leases were not renewed in time; end the jobs that no one waits for any more."""
    _end_stale_leases(connection, queue, lease_s, at)
    _drop_stale_requests(connection, at)
    unrequested = sa.select(job).where(job.c.queue == queue, job.c.state == JobState.WAITING)
    unrequested = unrequested.where(~sa.exists().where(request.c.job_id == job.c.id)).order_by(job.c.id)
    for row in connection.execute(unrequested.with_for_update(skip_locked=True)).all():
        if not is_requested(connection, row.id):  # someone may have joined just before it was locked
            fail(connection, row, CANCELLED, at)


def _end_stale_leases(connection: sa.Connection, queue: str, lease_s: float, at: float) -> None:
    """End a queue's leases whose last heartbeat is a lease or more away from now.

    A heartbeat from the future was written by a faster clock, or before this one was set back: it holds for as long as
    a lease, and its loss counts as no trouble.
    """
    gone = (lease.c.heartbeat_at <= at - lease_s) | (lease.c.heartbeat_at >= at + lease_s)
    stale = held_jobs(skip_locked=True).where(job.c.queue == queue, gone)
    for row in connection.execute(stale).all():
        silent = row.heartbeat_at < at
        detail = f"its device said nothing for {lease_s:g} s" if silent else "the clock was set back by over a lease"
        end = LeaseEnd(LeaseOutcome.EXPIRED, detail, row.device_id, trouble=silent and _is_begun(row))
        put_back(connection, row, end, at)


def _drop_stale_requests(connection: sa.Connection, at: float) -> None:
    """Drop the requests that were not renewed in time, also those from far in the future: the clock was set back.

    Rows that others have locked are left to the next sweep: waiting for them here could be a deadlock.
    """
    stale = sa.func.abs(request.c.renewed_at - at) >= REQUEST_S
    for row in connection.execute(sa.select(request).where(stale).with_for_update(skip_locked=True)).all():
        connection.execute(sa.delete(request).where(request.c.job_id == row.job_id, request.c.owner == row.owner))
