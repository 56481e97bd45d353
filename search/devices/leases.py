"""Handing jobs to devices: a job has at most one holder, who renews its lease.

A lease belongs to (job, attempt, device, instance). Every function is one transaction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from search.devices.agents import record_contact
from search.devices.registry import Device
from search.devices.transitions import LEASE_S, add_event, sweep
from search.store.connection.clock import now_of
from search.store.device_tables import job, lease, model
from search.store.vocabulary import JobState, LeaseActivity, MeasurementMode
from workers.clock import Clock


class NotEnrolled(Exception):
    """Another agent serves this device, or none: the caller must enrol first."""


class LeaseLost(Exception):
    """The attempt is over, or belonged to another instance."""


class JobUnknown(Exception):
    """There is no such job, or this device never had that attempt of it: a device can't tell which."""


@dataclass(frozen=True)
class LeaseTerms:
    """The terms that leases are given on."""

    lease_s: float = LEASE_S  # a lease not renewed for this long goes to the next device
    clock: Clock | None = None  # None = the database's


@dataclass(frozen=True)
class LeaseRequest:
    """An agent's request for jobs, with the newest reading of its sensors."""

    instance: str
    limit: int = 1
    conditions: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Ticket:
    """Which attempt at which job an agent reports on."""

    job_id: int
    attempt: int
    instance: str


@dataclass(frozen=True)
class LeasedJob:
    """A job as its holder gets it; sizes in bytes."""

    id: int
    attempt: int
    mode: MeasurementMode
    model_sha256: str
    model_size: int
    anchor_sha256: str | None
    anchor_size: int
    runtime: str
    threads: int
    precision: str
    policy: dict[str, Any]


def lease_jobs(engine: sa.Engine, caller: Device, request: LeaseRequest, terms: LeaseTerms) -> list[LeasedJob]:
    """Lease up to `request.limit` waiting jobs of the device's queue that it can measure together, most urgent first.

    A job that was given up before goes out alone: if it takes its device down, no other job is to blame.

    Raises:
        NotEnrolled: the instance doesn't serve this device.
    """
    with engine.begin() as connection:
        at = now_of(connection, terms.clock)
        row = record_contact(connection, caller, request.instance, at, request.conditions)
        if row is None:
            raise NotEnrolled
        sweep(connection, caller.queue, terms.lease_s, at)
        runtimes = sorted(json.loads(row.facts).get("runtimes", {}))
        next_jobs = _next_jobs(connection, caller, runtimes, request.limit)
        hashes = {sha256 for row in next_jobs for sha256 in (row.model_sha256, row.anchor_sha256) if sha256}
        sizes = _sizes(connection, hashes)
        for row in next_jobs:
            _lease(connection, Ticket(row.id, row.attempt + 1, request.instance), caller, at)
    return [_leased_job(row, sizes) for row in next_jobs]


def _next_jobs(connection: sa.Connection, caller: Device, runtimes: Sequence[str], limit: int) -> Sequence[sa.Row[Any]]:
    mode = MeasurementMode.COUNTS if caller.virtual else MeasurementMode.WALL
    query = (
        sa.select(job)
        .where(job.c.queue == caller.queue, job.c.state == JobState.WAITING, job.c.runtime.in_(runtimes))
        .where(job.c.mode == mode)
        .order_by(job.c.priority, job.c.id)
        .with_for_update(skip_locked=True)  # on a database that locks rows, two agents needn't wait for each other
    )
    first = connection.execute(query.limit(1)).first()
    if first is None or first.troubles or limit == 1:
        return [] if first is None else [first]
    alike = query.where(job.c.batch == first.batch, job.c.troubles == 0)
    return connection.execute(alike.limit(limit)).all()


def _sizes(connection: sa.Connection, hashes: set[str]) -> dict[str, int]:
    query = sa.select(model.c.sha256, model.c.size).where(model.c.sha256.in_(hashes))
    return {row.sha256: row.size for row in connection.execute(query)}


def _lease(connection: sa.Connection, ticket: Ticket, caller: Device, at: float) -> None:
    taken = {"state": JobState.LEASED, "attempt": ticket.attempt}
    connection.execute(sa.update(job).where(job.c.id == ticket.job_id).values(taken))
    values = {
        "job_id": ticket.job_id,
        "attempt": ticket.attempt,
        "device_id": caller.id,
        "instance": ticket.instance,
        "leased_at": at,
        "heartbeat_at": at,
        "doing": LeaseActivity.LEASED,
    }
    connection.execute(sa.insert(lease).values(values))
    add_event(connection, ticket.job_id, ticket.attempt, LeaseActivity.LEASED, at, device_id=caller.id)


def _leased_job(row: sa.Row[Any], sizes: Mapping[str, int]) -> LeasedJob:
    return LeasedJob(
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
    """Return a model or anchor of a job that the device holds; None for any other, and for one that isn't stored."""
    holds = (lease.c.job_id == job.c.id) & (lease.c.device_id == caller.id) & lease.c.outcome.is_(None)
    names_it = (job.c.model_sha256 == sha256) | (job.c.anchor_sha256 == sha256)
    held_job = sa.select(job.c.id).join(lease, holds).where(names_it)
    with engine.connect() as connection:
        return connection.scalar(sa.select(model.c.content).where(model.c.sha256 == sha256, held_job.exists()))


@dataclass(frozen=True)
class Heartbeat:
    """What an agent is doing with a job, and the newest reading of its sensors."""

    doing: LeaseActivity
    conditions: Mapping[str, Any] | None = None


def record_heartbeat(
    engine: sa.Engine, caller: Device, ticket: Ticket, heartbeat: Heartbeat, terms: LeaseTerms
) -> None:
    """Renew a lease.

    Raises:
        JobUnknown: the device never had this attempt. LeaseLost: the lease has ended, the agent must drop the job.
    """
    with engine.begin() as connection:
        at = now_of(connection, terms.clock)
        lease_of(connection, caller, ticket)
        enrolled = record_contact(connection, caller, ticket.instance, at, heartbeat.conditions)
        locked_job(connection, ticket)
        held = lease_of(connection, caller, ticket)
        if enrolled is None or held.instance != ticket.instance or held.outcome is not None:
            raise LeaseLost
        renewed = {"heartbeat_at": at, "doing": heartbeat.doing}
        connection.execute(sa.update(lease).where(by_ticket(lease, ticket)).values(renewed))
        if held.doing != heartbeat.doing:
            add_event(connection, ticket.job_id, ticket.attempt, heartbeat.doing, at, device_id=caller.id)


def expire(engine: sa.Engine, queue: str, terms: LeaseTerms = LeaseTerms()) -> None:
    """Put the jobs of dead agents back into their queue, for searches that wait while no agent asks for jobs."""
    with engine.begin() as connection:
        sweep(connection, queue, terms.lease_s, now_of(connection, terms.clock))


def lease_of(connection: sa.Connection, caller: Device, ticket: Ticket) -> sa.Row[Any]:
    """Return a device's lease of an attempt; raise JobUnknown if it never had one."""
    row = connection.execute(sa.select(lease).where(by_ticket(lease, ticket), lease.c.device_id == caller.id)).first()
    if row is None:
        raise JobUnknown
    return row


def locked_job(connection: sa.Connection, ticket: Ticket) -> sa.Row[Any]:
    """Return the job of a ticket, locked until the transaction ends."""
    return connection.execute(sa.select(job).where(job.c.id == ticket.job_id).with_for_update()).one()


def by_ticket(table: sa.Table, ticket: Ticket) -> sa.ColumnElement[bool]:
    """Return the condition for an attempt's row in the table of leases or results."""
    return (table.c.job_id == ticket.job_id) & (table.c.attempt == ticket.attempt)
