"""The results and failures that devices submit. A job has at most one accepted result.

An agent that lost its lease may still hand in a result: it counts while no other device has begun, and is stored as
late otherwise. Every function is one transaction: a result is stored with the job's new state and its event, or not at
all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from search.devices import plausibility
from search.devices.agents import record_contact
from search.devices.json_numbers import as_json
from search.devices.leases import LeaseLost, LeaseTerms, Ticket, by_ticket, lease_of, locked_job
from search.devices.registry import Device
from search.devices.transitions import LeaseEnd, add_event, complete, end_lease, fail, put_back
from search.store.connection.clock import now_of
from search.store.device_tables import device, job, result
from search.store.vocabulary import FaultKind, JobEvent, JobState, LeaseOutcome, Verdict

ANCHORS_COMPARED = 50  # newest accepted anchor times that a new one is compared with


@dataclass(frozen=True)
class Fault:
    """Why there is no result."""

    kind: FaultKind
    reason: str


def record_result(
    engine: sa.Engine, caller: Device, ticket: Ticket, report: Mapping[str, Any], terms: LeaseTerms
) -> Verdict:
    """Store an attempt's report with its verdict, once; a second report is not stored (REPEATED).

    Raises:
        JobUnknown: the device never had this attempt. LeaseLost: the attempt belonged to another instance.
    """
    with engine.begin() as connection:
        at = now_of(connection, terms.clock)
        row, held = _locked_attempt(connection, caller, ticket, at)
        if connection.execute(sa.select(result.c.verdict).where(by_ticket(result, ticket))).first() is not None:
            return Verdict.REPEATED
        verdict, reason = _judge(connection, row, held, report, at)
        values = {
            "job_id": ticket.job_id,
            "attempt": ticket.attempt,
            "device_id": caller.id,
            "verdict": verdict,
            "reason": reason,
            "report": as_json(report),
            "anchor_ms": plausibility.anchor_ms(report.get("processes") or []),
            "received_at": at,
        }
        connection.execute(sa.insert(result).values(values))
        if verdict == Verdict.QUARANTINED:
            outcome = LeaseOutcome.QUARANTINED
            put_back(connection, row, LeaseEnd(outcome, reason, caller.id, quarantine=True, attempt=ticket.attempt), at)
            return verdict
        add_event(connection, ticket.job_id, ticket.attempt, verdict, at, device_id=caller.id)
        if verdict == Verdict.ACCEPTED:
            end_lease(connection, ticket.job_id, ticket.attempt, LeaseOutcome.ACCEPTED)
            complete(connection, row, str(report["runtime_version"]), at)
    return verdict


def _judge(
    connection: sa.Connection, row: sa.Row[Any], held: sa.Row[Any], report: Mapping[str, Any], at: float
) -> tuple[Verdict, str | None]:
    """Return a report's verdict, and why when it is quarantined."""
    if held.outcome is not None and row.state != JobState.WAITING:
        return Verdict.LATE, None
    expected = plausibility.Expected(
        model_sha256=row.model_sha256,
        mode=row.mode,
        runtime=row.runtime,
        threads=row.threads,
        macs=row.macs,
        policy=json.loads(row.policy),
        facts=json.loads(connection.scalar(sa.select(device.c.facts).where(device.c.id == held.device_id)) or "{}"),
        elapsed_s=at - held.leased_at if at >= held.leased_at else None,
        anchors_ms=_anchors_ms(connection, row),
    )
    doubts = plausibility.doubts(report, expected)
    return (Verdict.QUARANTINED, "; ".join(doubts)) if doubts else (Verdict.ACCEPTED, None)


def _anchors_ms(connection: sa.Connection, row: sa.Row[Any]) -> Sequence[float]:
    """Return the newest accepted times of a job's anchor on its queue, ms."""
    alike = [job.c[name] == row._mapping[name] for name in ("queue", "anchor_sha256", "runtime", "threads")]
    query = (
        sa.select(result.c.anchor_ms)
        .join(job, job.c.id == result.c.job_id)
        .where(*alike, result.c.verdict == Verdict.ACCEPTED, result.c.anchor_ms.is_not(None))
        .order_by(result.c.received_at.desc())
        .limit(ANCHORS_COMPARED)
    )
    return connection.scalars(query).all()


def record_failure(engine: sa.Engine, caller: Device, ticket: Ticket, fault: Fault, terms: LeaseTerms) -> None:
    """End an attempt without a result: a model's fault fails the job, a device's puts it back into the queue.

    Raises:
        JobUnknown: the device never had this attempt. LeaseLost: the attempt belonged to another instance.
    """
    with engine.begin() as connection:
        at = now_of(connection, terms.clock)
        row, held = _locked_attempt(connection, caller, ticket, at)
        details = {"device_id": caller.id, "detail": fault.reason}
        if held.outcome in (LeaseOutcome.REFUSED, LeaseOutcome.GAVE_UP):
            return  # repeated because our response was lost
        if held.outcome is not None:
            add_event(connection, row.id, ticket.attempt, JobEvent.LATE_FAILURE, at, **details)
        elif fault.kind == FaultKind.DEVICE:
            put_back(connection, row, LeaseEnd(LeaseOutcome.GAVE_UP, fault.reason, caller.id, trouble=True), at)
        else:
            end_lease(connection, row.id, ticket.attempt, LeaseOutcome.REFUSED)
            add_event(connection, row.id, ticket.attempt, LeaseOutcome.REFUSED, at, **details)
            fail(connection, row, fault.reason, at)


def _locked_attempt(
    connection: sa.Connection, caller: Device, ticket: Ticket, at: float
) -> tuple[sa.Row[Any], sa.Row[Any]]:
    """Return the locked job and the lease that a device reports on, after recording the contact."""
    if lease_of(connection, caller, ticket).instance != ticket.instance:
        raise LeaseLost
    record_contact(connection, caller, ticket.instance, at)  # everywhere, devices are locked before jobs
    row = locked_job(connection, ticket)
    return row, lease_of(connection, caller, ticket)
