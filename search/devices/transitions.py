"""How a job passes from state to state, inside the transaction of whoever moves it. Each step leaves an event.

waiting ──► leased ──► done        an accepted result
   ▲          │  └───► failed      the model's fault, or nobody waits for it any more
   └──────────┘                    given back: too often (troubles, quarantines) and it has failed
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from search.store.device_tables import event, job, lease, request

TROUBLES_MOST = 5  # attempts that devices gave up or never came back from
QUARANTINES_MOST = 3
LEASE_S = 60.0  # an agent that says nothing for so long is taken for gone
REQUEST_S = 120.0  # and whoever requested a job and doesn't renew the request for so long

CANCELLED = "cancelled: nobody waits for it any more"


@dataclass(frozen=True)
class Return:
    """Why an attempt ended without an accepted result, and what it counts as."""

    outcome: str  # of the lease; at most 12 letters
    why: str | None = None  # one line
    device_id: int | None = None
    trouble: bool = False
    quarantine: bool = False
    attempt: int | None = None  # None = the newest


def is_fresh(seen_at: float | None, at: float, lease_s: float) -> bool:
    """Whether a sign of life is young enough; one from the far future says nothing, the clock was set back."""
    return seen_at is not None and abs(at - seen_at) < lease_s


def note(connection: sa.Connection, job_id: int, attempt: int, kind: str, at: float, **more: Any) -> None:
    """Append an event; `more` is its device_id and detail."""
    connection.execute(sa.insert(event).values(job_id=job_id, attempt=attempt, kind=kind, at=at, **more))


def held_jobs(*, skip_locked: bool = False) -> sa.Select[Any]:
    """Return the query of every leased job with what its lease says, to be narrowed; job rows get locked."""
    mine = (lease.c.job_id == job.c.id) & (lease.c.attempt == job.c.attempt)
    return (
        sa.select(job, lease.c.device_id, lease.c.doing, lease.c.heartbeat_at)
        .join(lease, mine)
        .where(job.c.state == "leased")
        .order_by(job.c.id)
        .with_for_update(of=job, skip_locked=skip_locked)
    )


def end_lease(connection: sa.Connection, job_id: int, attempt: int, outcome: str) -> None:
    """Write a lease's outcome, unless it has one."""
    holds = (lease.c.job_id == job_id) & (lease.c.attempt == attempt) & lease.c.outcome.is_(None)
    connection.execute(sa.update(lease).where(holds).values(outcome=outcome))


def put_back(connection: sa.Connection, row: sa.Row[Any], back: Return, at: float) -> None:
    """End an open job's attempt: it waits for the next one, or has failed when there were too many."""
    troubles, quarantines = row.troubles + back.trouble, row.quarantines + back.quarantine
    attempt = row.attempt if back.attempt is None else back.attempt
    end_lease(connection, row.id, attempt, back.outcome)
    note(connection, row.id, attempt, back.outcome, at, device_id=back.device_id, detail=back.why)
    counts = {"troubles": troubles, "quarantines": quarantines}
    connection.execute(sa.update(job).where(job.c.id == row.id).values(state="waiting", **counts))
    last = back.why or back.outcome
    if troubles >= TROUBLES_MOST:
        fail(connection, row, f"devices gave it up {troubles} times, the last: {last}", at)
    elif quarantines >= QUARANTINES_MOST:
        fail(connection, row, f"{quarantines} results are in quarantine, the last: {last}", at)
    elif not is_wanted(connection, row.id):
        fail(connection, row, CANCELLED, at)


def is_wanted(connection: sa.Connection, job_id: int) -> bool:
    """Whether anybody waits for a job."""
    return connection.execute(sa.select(request.c.owner).where(request.c.job_id == job_id).limit(1)).first() is not None


def fail(connection: sa.Connection, row: sa.Row[Any], reason: str, at: float) -> None:
    """End a job for good without a result."""
    _drop_requests(connection, row.id)
    values = {"state": "failed", "reason": reason, "finished_at": at, "open_identity": None}
    connection.execute(sa.update(job).where(job.c.id == row.id).values(values))
    note(connection, row.id, row.attempt, "failed", at, detail=reason)


def complete(connection: sa.Connection, row: sa.Row[Any], runtime_version: str, at: float) -> None:
    """End a job with the result that was just accepted."""
    _drop_requests(connection, row.id)
    values = {"state": "done", "finished_at": at, "open_identity": None, "runtime_version": runtime_version}
    connection.execute(sa.update(job).where(job.c.id == row.id).values(values))


def _drop_requests(connection: sa.Connection, job_id: int) -> None:
    connection.execute(sa.delete(request).where(request.c.job_id == job_id))


def give_back(connection: sa.Connection, device_id: int, back: Return, at: float) -> None:
    """Put back every job that a device holds; one that it had not begun was no trouble."""
    for row in connection.execute(held_jobs().where(lease.c.device_id == device_id)).all():
        put_back(connection, row, replace(back, trouble=back.trouble and _is_begun(row)), at)


def _is_begun(row: sa.Row[Any]) -> bool:
    """Whether the holder of a leased job ever said that it is at it: the answer that leased it may have been lost."""
    return bool(row.doing != "leased")


def sweep(connection: sa.Connection, queue: str, lease_s: float, at: float) -> None:
    """Put back the jobs of a queue whose leases were not renewed in time; end those that nobody waits for any more.

    A heartbeat from the future was written by a faster clock, or before this one was set back: it holds as long as a
    lease, and is nobody's trouble.
    """
    gone = (lease.c.heartbeat_at <= at - lease_s) | (lease.c.heartbeat_at >= at + lease_s)
    stale = held_jobs(skip_locked=True).where(job.c.queue == queue, gone)
    for row in connection.execute(stale).all():
        late = row.heartbeat_at < at
        why = f"its device said nothing for {lease_s:g} s" if late else "the clock was set back by more than a lease"
        put_back(connection, row, Return("expired", why, row.device_id, trouble=late and _is_begun(row)), at)
    # Rows that others have locked are left to the next sweep: waiting for them here could be a deadlock.
    old = sa.func.abs(request.c.renewed_at - at) >= REQUEST_S  # far in the future: the clock was set back
    for one in connection.execute(sa.select(request).where(old).with_for_update(skip_locked=True)).all():
        connection.execute(sa.delete(request).where(request.c.job_id == one.job_id, request.c.owner == one.owner))
    unwanted = sa.select(job).where(job.c.queue == queue, job.c.state == "waiting")
    unwanted = unwanted.where(~sa.exists().where(request.c.job_id == job.c.id)).order_by(job.c.id)
    for row in connection.execute(unwanted.with_for_update(skip_locked=True)).all():
        if not is_wanted(connection, row.id):  # somebody may have joined just before it was locked
            fail(connection, row, CANCELLED, at)
