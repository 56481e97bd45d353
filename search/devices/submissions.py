"""Taking devices' answers: each job has one accepted result at most.

Whoever lost its lease may still answer: the answer counts while nobody else has begun, and is kept as late otherwise.
Every function is one transaction: an answer is stored with the job's new state and its event, or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from search.devices import plausibility
from search.devices.agents import seen
from search.devices.json_numbers import as_json
from search.devices.leases import LeaseLost, LeaseTerms, Ticket, by_ticket, lease_of, locked_job
from search.devices.registry import Device
from search.devices.transitions import Return, complete, end_lease, fail, note, put_back
from search.store.clock import now_of
from search.store.device_tables import job, result

ANCHORS_KNOWN = 50  # newest accepted anchor times that a new one is compared with

Verdict = Literal["accepted", "quarantined", "late", "repeated"]


@dataclass(frozen=True)
class Fault:
    """Why there is no result: the `model` can't be measured anywhere, or this `device` couldn't."""

    fault: Literal["model", "device"]
    reason: str


def record_result(
    engine: sa.Engine, caller: Device, ticket: Ticket, report: Mapping[str, Any], terms: LeaseTerms
) -> Verdict:
    """Store an attempt's report with its verdict, once: of a second one nothing is kept (`repeated`).

    Raises:
        JobUnknown: never its own. LeaseLost: the attempt was another instance's.
    """
    with engine.begin() as connection:
        at = now_of(connection, terms.now)
        row, held = _answered(connection, caller, ticket, at)
        if connection.execute(sa.select(result.c.verdict).where(by_ticket(result, ticket))).first() is not None:
            return "repeated"
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
        if verdict == "quarantined":
            back = Return(verdict, reason, caller.id, quarantine=True, attempt=ticket.attempt)
            put_back(connection, row, back, at)
            return verdict
        note(connection, ticket.job_id, ticket.attempt, verdict, at, device_id=caller.id)
        if verdict == "accepted":
            end_lease(connection, ticket.job_id, ticket.attempt, verdict)
            complete(connection, row, str(report["runtime_version"]), at)
    return verdict


def _judge(
    connection: sa.Connection, row: sa.Row[Any], held: sa.Row[Any], report: Mapping[str, Any], at: float
) -> tuple[Verdict, str | None]:
    if held.outcome is not None and row.state != "waiting":
        return "late", None
    expected = plausibility.Expected(
        model_sha256=row.model_sha256,
        mode=row.mode,
        runtime=row.runtime,
        threads=row.threads,
        macs=row.macs,
        policy=json.loads(row.policy),
        elapsed_s=at - held.leased_at if at >= held.leased_at else None,
        anchors_ms=_anchors_ms(connection, row),
    )
    found = plausibility.doubts(report, expected)
    return ("quarantined", "; ".join(found)) if found else ("accepted", None)


def _anchors_ms(connection: sa.Connection, row: sa.Row[Any]) -> Sequence[float]:
    """Return the newest accepted times of a job's anchor on its queue, ms."""
    alike = [job.c[name] == row._mapping[name] for name in ("queue", "anchor_sha256", "runtime", "threads")]
    query = (
        sa.select(result.c.anchor_ms)
        .join(job, job.c.id == result.c.job_id)
        .where(*alike, result.c.verdict == "accepted", result.c.anchor_ms.is_not(None))
        .order_by(result.c.received_at.desc())
        .limit(ANCHORS_KNOWN)
    )
    return connection.scalars(query).all()


def record_failure(engine: sa.Engine, caller: Device, ticket: Ticket, fault: Fault, terms: LeaseTerms) -> None:
    """End an attempt without a result: the job has failed, or goes back to the queue when it was the device's fault.

    Raises:
        JobUnknown: never its own. LeaseLost: the attempt was another instance's.
    """
    with engine.begin() as connection:
        at = now_of(connection, terms.now)
        row, held = _answered(connection, caller, ticket, at)
        if held.outcome in ("refused", "gave up"):
            return  # said again after a lost answer
        if held.outcome is not None:
            note(connection, row.id, ticket.attempt, "late failure", at, device_id=caller.id, detail=fault.reason)
        elif fault.fault == "device":
            put_back(connection, row, Return("gave up", fault.reason, caller.id, trouble=True), at)
        else:
            end_lease(connection, row.id, ticket.attempt, "refused")
            note(connection, row.id, ticket.attempt, "refused", at, device_id=caller.id, detail=fault.reason)
            fail(connection, row, fault.reason, at)


def _answered(connection: sa.Connection, caller: Device, ticket: Ticket, at: float) -> tuple[sa.Row[Any], sa.Row[Any]]:
    """Return the locked job and the lease that an answer is to, having noted the sign of life."""
    if lease_of(connection, caller, ticket).instance != ticket.instance:
        raise LeaseLost
    seen(connection, caller, ticket.instance, at)  # devices are locked before jobs, everywhere
    row = locked_job(connection, ticket)
    return row, lease_of(connection, caller, ticket)
