"""Measurement jobs: submitting requests, and reading their states and results.

A request that equals an open job joins it. A request that equals a finished job gets that job's result, if the result
was steady and the queue still has that processor and version of the runtime. A request has an owner, who renews it: a
job that no one waits for any more is not begun. Every function is one transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from search.devices.json_numbers import as_json, digest
from search.devices.model_store import keep_models, lock_models
from search.devices.transitions import CANCELLED, add_event, fail, is_requested
from search.store.connection.clock import now_of
from search.store.device_tables import device, job, lease, request, result
from search.store.queue_facts import difference, facts_of_queue, processor, processors_of, versions_of
from search.store.vocabulary import JobEvent, JobState, MeasurementMode, Verdict
from workers.clock import Clock

IDS_MOST = 500  # of one query: databases limit its variables


@dataclass(frozen=True)
class MeasurementRequest:
    """One model to be measured by one queue. Its model and anchor must have been stored by `model_store.put_model`.

    `policy` holds every field of a MeasurementPolicy. Smaller priorities go first. `macs`, if given, lets the hub
    recognise a result that can't be true. A request with a `nonce` is answered only by a job of the same nonce: the
    model is measured again.
    """

    queue: str
    model_sha256: str
    anchor_sha256: str | None
    mode: MeasurementMode
    runtime: str
    threads: int
    policy: Mapping[str, Any]
    policy_label: str
    priority: int = 0
    macs: int | None = None
    precision: str = "fp32"
    nonce: str | None = None

    @property
    def identity(self) -> str:
        """The hash of what is to be measured and how: equal for requests that one result answers."""
        policy = self.policy if self.mode == MeasurementMode.WALL else None  # counts are the same under every policy
        parts = (self.queue, self.model_sha256, self.mode, self.runtime, self.threads, self.precision, policy)
        return digest(*parts) if self.nonce is None else digest(*parts, self.nonce)

    @property
    def batch(self) -> str:
        """The hash of what the jobs of one lease share."""
        return digest(self.mode, self.runtime, self.threads, self.precision, dict(self.policy), self.anchor_sha256)

    @property
    def files(self) -> set[str]:
        """The SHA-256 of each stored file that it needs."""
        return {sha256 for sha256 in (self.model_sha256, self.anchor_sha256) if sha256 is not None}


@dataclass(frozen=True)
class JobRow:
    """A job as it is now; `device` names the device that holds it, or whose result was accepted."""

    id: int
    queue: str
    state: JobState
    reason: str | None
    attempt: int
    device: str | None
    report: dict[str, Any] | None
    runtime_version: str | None
    submitted_at: float
    finished_at: float | None


# -- submitting --


def submit(
    engine: sa.Engine, requests: Sequence[MeasurementRequest], owner: str, clock: Clock | None = None
) -> list[int]:
    """Return the id of each request's job, which is a new one unless an equal job is open or answers it.

    The `owner`, a unique name of at most 32 letters, must `renew` its requests every few seconds, and `cancel` them
    when it has no use for the results any more.

    Raises:
        ValueError: a model that a request names is not stored.
    """
    by_identity = {request.identity: request for request in requests}
    with engine.begin() as connection:
        job_ids = _submit_all(connection, by_identity, owner, now_of(connection, clock))
    return [job_ids[request.identity] for request in requests]


def _submit_all(
    connection: sa.Connection, requests: Mapping[str, MeasurementRequest], owner: str, at: float
) -> dict[str, int]:
    # Equal requests name the same models: a process that submits one at the same time waits here, then finds our job.
    lock_models(connection, {sha256 for model_request in requests.values() for sha256 in model_request.files})
    job_ids = _join_open(connection, requests, owner, at)
    unanswered = []
    for identity, model_request in requests.items():
        if identity in job_ids:
            continue
        answer = _answer(connection, model_request)
        if answer is None:
            unanswered.append(model_request)
        else:
            add_event(connection, answer.id, answer.attempt, JobEvent.REUSED, at)
            job_ids[identity] = answer.id
    needed = {sha256 for model_request in unanswered for sha256 in model_request.files}
    missing = needed - keep_models(connection, needed, at)
    if missing:
        raise ValueError(f"the model {min(missing)} is not stored; store it by put_model before requesting it")
    for model_request in unanswered:
        job_ids[model_request.identity] = _insert(connection, model_request, at)
        _wait_for(connection, job_ids[model_request.identity], owner, at)
    return job_ids


def _join_open(
    connection: sa.Connection, requests: Mapping[str, MeasurementRequest], owner: str, at: float
) -> dict[str, int]:
    """Join the open jobs that equal these requests; return their ids by identity."""
    equal = sa.select(job).where(job.c.open_identity.in_(requests)).order_by(job.c.id).with_for_update()
    job_ids = {}
    for row in connection.execute(equal).all():
        priority = min(row.priority, requests[row.identity].priority)
        connection.execute(sa.update(job).where(job.c.id == row.id).values(priority=priority))
        add_event(connection, row.id, row.attempt, JobEvent.JOINED, at)
        mine = (request.c.job_id == row.id) & (request.c.owner == owner)
        if connection.execute(sa.update(request).where(mine).values(renewed_at=at)).rowcount == 0:
            _wait_for(connection, row.id, owner, at)
        job_ids[row.identity] = row.id
    return job_ids


def _wait_for(connection: sa.Connection, job_id: int, owner: str, at: float) -> None:
    connection.execute(sa.insert(request).values(job_id=job_id, owner=owner, renewed_at=at))


def _answer(connection: sa.Connection, request: MeasurementRequest) -> sa.Row[Any] | None:
    """Return the newest finished job that answers a request, on the processor and runtime that its queue has now."""
    facts = facts_of_queue(connection, request.queue)
    same = (job.c.identity == request.identity) & job.c.runtime_version.in_(versions_of(facts, request.runtime))
    query: sa.Select[Any] = (
        sa.select(job.c.id, job.c.attempt).where(same, job.c.state == JobState.DONE).order_by(job.c.id.desc())
    )
    for row in connection.execute(query).all():
        accepted = (result.c.job_id == row.id) & (result.c.verdict == Verdict.ACCEPTED)
        report = json.loads(connection.scalar(sa.select(result.c.report).where(accepted)) or "{}")
        if report and (request.mode == MeasurementMode.COUNTS or _speaks_for(report, facts)):
            return row
    return None


def _speaks_for(report: Mapping[str, Any], facts: list[dict[str, Any]]) -> bool:
    """Whether a report speaks for the devices that a queue has now: it is steady, and of one like them."""
    if not report["steady"] or processor(report["cpu_model"]) not in processors_of(facts):
        return False
    return any(difference(report.get("identity"), device.get("identity")) is None for device in facts)


def _insert(connection: sa.Connection, request: MeasurementRequest, at: float) -> int:
    values = {
        "queue": request.queue,
        "identity": request.identity,
        "open_identity": request.identity,
        "model_sha256": request.model_sha256,
        "anchor_sha256": request.anchor_sha256,
        "mode": request.mode,
        "runtime": request.runtime,
        "threads": request.threads,
        "precision": request.precision,
        "policy": as_json(request.policy),
        "policy_label": request.policy_label,
        "batch": request.batch,
        "priority": request.priority,
        "macs": request.macs,
        "state": JobState.WAITING,
        "attempt": 0,
        "troubles": 0,
        "quarantines": 0,
        "submitted_at": at,
    }
    key = connection.execute(sa.insert(job).values(values)).inserted_primary_key
    assert key is not None
    add_event(connection, int(key[0]), 0, JobEvent.SUBMITTED, at)
    return int(key[0])


def renew(engine: sa.Engine, owner: str, clock: Clock | None = None) -> None:
    """Renew an owner's requests: it still waits for their results."""
    mine = sa.select(request.c.job_id).where(request.c.owner == owner)
    with engine.begin() as connection:
        # A locked request is being ended or dropped: waiting for it here could be a deadlock.
        job_ids = connection.scalars(mine.with_for_update(skip_locked=True)).all()
        for ids in _in_portions(sorted(job_ids)):
            still_mine = (request.c.owner == owner) & request.c.job_id.in_(ids)
            connection.execute(sa.update(request).where(still_mine).values(renewed_at=now_of(connection, clock)))


def cancel(engine: sa.Engine, owner: str, clock: Clock | None = None) -> None:
    """Take an owner's requests back: a waiting job that no one else requested fails, a leased one may still end."""
    mine = sa.select(request.c.job_id).where(request.c.owner == owner)
    with engine.begin() as connection:
        rows = connection.execute(sa.select(job).where(job.c.id.in_(mine)).order_by(job.c.id).with_for_update()).all()
        connection.execute(sa.delete(request).where(request.c.owner == owner))
        for row in rows:
            if row.state == JobState.WAITING and not is_requested(connection, row.id):
                fail(connection, row, CANCELLED, now_of(connection, clock))


# -- reading --


def states(engine: sa.Engine, ids: Sequence[int], reports: bool = True) -> list[JobRow]:
    """Return the jobs of these ids, in their order; `reports=False` leaves the reports out, for frequent looks."""
    report = result.c.report if reports else sa.null().label("report")
    held = (lease.c.job_id == job.c.id) & lease.c.outcome.is_(None)
    accepted = (result.c.job_id == job.c.id) & (result.c.verdict == Verdict.ACCEPTED)
    query = (
        sa.select(job, device.c.name.label("holder"), report)
        .outerjoin(lease, held)
        .outerjoin(result, accepted)
        .outerjoin(device, device.c.id == sa.func.coalesce(result.c.device_id, lease.c.device_id))
    )
    rows: dict[int, JobRow] = {}
    with engine.connect() as connection:
        for portion in _in_portions(sorted(set(ids))):
            for row in connection.execute(query.where(job.c.id.in_(portion))):
                rows[row.id] = _job_row(row)
    return [rows[job_id] for job_id in ids if job_id in rows]


def _in_portions(ids: list[int]) -> Iterable[list[int]]:
    return (ids[start : start + IDS_MOST] for start in range(0, len(ids), IDS_MOST))


def _job_row(row: sa.Row[Any]) -> JobRow:
    return JobRow(
        id=row.id,
        queue=row.queue,
        state=row.state,
        reason=row.reason,
        attempt=row.attempt,
        device=row.holder,
        report=None if row.report is None else json.loads(row.report),
        runtime_version=row.runtime_version,
        submitted_at=row.submitted_at,
        finished_at=row.finished_at,
    )
