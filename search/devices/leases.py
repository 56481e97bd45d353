"""Handing jobs to devices: each job has one holder at most, who renews its lease.

A lease belongs to (job, attempt, device, instance). Every function is one transaction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from search.devices.agents import seen
from search.devices.registry import Device
from search.devices.transitions import LEASE_S, note, sweep
from search.store.clock import Clock, now_of
from search.store.device_tables import job, lease, model


class NotEnrolled(Exception):
    """Another agent serves this device, or none: the caller must enrol first."""


class LeaseLost(Exception):
    """The attempt is over, or was another instance's."""


class JobUnknown(Exception):
    """There is no such job, or this device never had that attempt of it: nobody can tell which."""


@dataclass(frozen=True)
class LeaseTerms:
    """What leases are given on."""

    lease_s: float = LEASE_S  # a lease not renewed for so long goes to the next device
    now: Clock | None = None  # None = the database's


@dataclass(frozen=True)
class LeaseRequest:
    """An agent's wish for work, with the newest reading of its sensors."""

    instance: str
    limit: int = 1
    conditions: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Ticket:
    """Which attempt of which job an agent speaks of."""

    job_id: int
    attempt: int
    instance: str


@dataclass(frozen=True)
class Leased:
    """A job as its holder gets it; sizes in bytes."""

    id: int
    attempt: int
    mode: str
    model_sha256: str
    model_size: int
    anchor_sha256: str | None
    anchor_size: int
    runtime: str
    threads: int
    precision: str
    policy: dict[str, Any]


def lease_jobs(engine: sa.Engine, caller: Device, ask: LeaseRequest, terms: LeaseTerms) -> list[Leased]:
    """Lease up to `ask.limit` waiting jobs of the device's queue that it can measure together, the most urgent first.

    A job that was given up before goes out alone: if it takes its device down, no other is to blame.

    Raises:
        NotEnrolled: the instance doesn't serve this device.
    """
    with engine.begin() as connection:
        at = now_of(connection, terms.now)
        row = seen(connection, caller, ask.instance, at, ask.conditions)
        if row is None:
            raise NotEnrolled
        sweep(connection, caller.queue, terms.lease_s, at)
        taken = _next_jobs(connection, caller, sorted(json.loads(row.facts).get("runtimes", {})), ask.limit)
        sizes = _sizes(connection, {sha for one in taken for sha in (one.model_sha256, one.anchor_sha256) if sha})
        for one in taken:
            _lease(connection, one, Ticket(one.id, one.attempt + 1, ask.instance), caller, at)
    return [_leased(one, sizes) for one in taken]


def _next_jobs(connection: sa.Connection, caller: Device, runtimes: Sequence[str], limit: int) -> Sequence[sa.Row[Any]]:
    query = (
        sa.select(job)
        .where(job.c.queue == caller.queue, job.c.state == "waiting", job.c.runtime.in_(runtimes))
        .where(job.c.mode == ("counts" if caller.virtual else "wall"))
        .order_by(job.c.priority, job.c.id)
        .with_for_update(skip_locked=True)  # on a database that locks rows, two agents needn't wait for each other
    )
    first = connection.execute(query.limit(1)).first()
    if first is None or first.troubles or limit == 1:
        return [] if first is None else [first]
    alike = query.where(job.c.batch == first.batch, job.c.troubles == 0)
    return connection.execute(alike.limit(limit)).all()


def _sizes(connection: sa.Connection, wanted: set[str]) -> dict[str, int]:
    query = sa.select(model.c.sha256, model.c.size).where(model.c.sha256.in_(wanted))
    return {row.sha256: row.size for row in connection.execute(query)}


def _lease(connection: sa.Connection, row: sa.Row[Any], ticket: Ticket, caller: Device, at: float) -> None:
    connection.execute(sa.update(job).where(job.c.id == row.id).values(state="leased", attempt=ticket.attempt))
    values = {
        "job_id": row.id,
        "attempt": ticket.attempt,
        "device_id": caller.id,
        "instance": ticket.instance,
        "leased_at": at,
        "heartbeat_at": at,
        "doing": "leased",
    }
    connection.execute(sa.insert(lease).values(values))
    note(connection, row.id, ticket.attempt, "leased", at, device_id=caller.id)


def _leased(row: sa.Row[Any], sizes: Mapping[str, int]) -> Leased:
    return Leased(
        id=row.id,
        attempt=row.attempt + 1,
        mode=row.mode,
        model_sha256=row.model_sha256,
        model_size=sizes[row.model_sha256],
        anchor_sha256=row.anchor_sha256,
        anchor_size=sizes.get(row.anchor_sha256, 0),
        runtime=row.runtime,
        threads=row.threads,
        precision=row.precision,
        policy=json.loads(row.policy),
    )


def model_of_lease(engine: sa.Engine, caller: Device, sha256: str) -> bytes | None:
    """Return a model or anchor of a job that the device holds; None for any other, and for one that isn't there."""
    holds = (lease.c.job_id == job.c.id) & (lease.c.device_id == caller.id) & lease.c.outcome.is_(None)
    named = (job.c.model_sha256 == sha256) | (job.c.anchor_sha256 == sha256)
    mine = sa.select(job.c.id).join(lease, holds).where(named)
    with engine.connect() as connection:
        return connection.scalar(sa.select(model.c.content).where(model.c.sha256 == sha256, mine.exists()))


@dataclass(frozen=True)
class Heartbeat:
    """A sign of life: what the agent is at, and the newest reading of its sensors."""

    doing: Literal["downloading", "measuring", "cooling"]
    conditions: Mapping[str, Any] | None = None


def heartbeat(engine: sa.Engine, caller: Device, ticket: Ticket, sign: Heartbeat, terms: LeaseTerms) -> None:
    """Renew a lease.

    Raises:
        JobUnknown: never its own. LeaseLost: drop the job.
    """
    with engine.begin() as connection:
        at = now_of(connection, terms.now)
        lease_of(connection, caller, ticket)
        enrolled = seen(connection, caller, ticket.instance, at, sign.conditions)
        locked_job(connection, ticket)
        held = lease_of(connection, caller, ticket)
        if enrolled is None or held.instance != ticket.instance or held.outcome is not None:
            raise LeaseLost
        connection.execute(sa.update(lease).where(by_ticket(lease, ticket)).values(heartbeat_at=at, doing=sign.doing))
        if held.doing != sign.doing:
            note(connection, ticket.job_id, ticket.attempt, sign.doing, at, device_id=caller.id)


def expire(engine: sa.Engine, queue: str, terms: LeaseTerms = LeaseTerms()) -> None:
    """Give the jobs of dead agents back to their queue, for whoever waits while no agent asks."""
    with engine.begin() as connection:
        sweep(connection, queue, terms.lease_s, now_of(connection, terms.now))


def lease_of(connection: sa.Connection, caller: Device, ticket: Ticket) -> sa.Row[Any]:
    """Return a device's lease of an attempt; JobUnknown when it never had it."""
    row = connection.execute(sa.select(lease).where(by_ticket(lease, ticket), lease.c.device_id == caller.id)).first()
    if row is None:
        raise JobUnknown
    return row


def locked_job(connection: sa.Connection, ticket: Ticket) -> sa.Row[Any]:
    """Return the job of a ticket, locked until the transaction ends."""
    return connection.execute(sa.select(job).where(job.c.id == ticket.job_id).with_for_update()).one()


def by_ticket(table: sa.Table, ticket: Ticket) -> sa.ColumnElement[bool]:
    """Return the condition for the row of an attempt in a table of leases or results."""
    return (table.c.job_id == ticket.job_id) & (table.c.attempt == ticket.attempt)
