"""What devices are asked for: models to measure, as jobs of a queue; what became of them, and the models' bytes.

A request equal to an open job joins it; one equal to a finished job gets that job's result, if that was steady and the
queue still has its processor and version of the runtime. A request has an owner, who renews it: a job that nobody waits
for any more is not begun. Every function is one transaction.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from search.devices.json_numbers import as_json, digest
from search.devices.transitions import CANCELLED, fail, is_wanted, note
from search.store.clock import Clock, now_of
from search.store.device_tables import OPEN_JOB_STATES, device, job, lease, model, request, result
from search.store.queue_facts import facts_of_queue, processor, processors_of, versions_of

MODEL_GRACE_S = 600.0  # a model is kept so long for the request that is to follow

JobState = Literal["waiting", "leased", "done", "failed"]


@dataclass(frozen=True)
class MeasurementRequest:
    """One model to be measured by one queue. The models named were stored by `put_model` before.

    `policy` holds every field of a MeasurementPolicy; smaller priorities go first; `macs`, where known, lets the hub
    see that a result can't be true. With a `nonce` nothing but a request with the same one answers it: measured anew.
    """

    queue: str
    model_sha256: str
    anchor_sha256: str | None
    mode: Literal["wall", "counts"]
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
        how = self.policy if self.mode == "wall" else None  # a count is a count
        what = (self.queue, self.model_sha256, self.mode, self.runtime, self.threads, self.precision, how)
        return digest(*what) if self.nonce is None else digest(*what, self.nonce)

    @property
    def batch(self) -> str:
        """The hash of what the jobs of one lease share."""
        return digest(self.mode, self.runtime, self.threads, self.precision, dict(self.policy), self.anchor_sha256)


@dataclass(frozen=True)
class JobRow:
    """A job as it stands; `device` is the name of the one that holds it, or whose result was accepted."""

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


def put_model(engine: sa.Engine, content: bytes, now: Clock | None = None) -> str:
    """Store a model's file for the devices; return its SHA-256 in hexadecimal."""
    sha256 = hashlib.sha256(content).hexdigest()
    values = {"sha256": sha256, "size": len(content), "content": content}
    try:
        with engine.begin() as connection:
            if not _keep_models(connection, {sha256}, now_of(connection, now)):
                connection.execute(sa.insert(model).values(stored_at=now_of(connection, now), **values))
    except sa.exc.IntegrityError:  # stored by another process just now
        pass
    return sha256


def submit(
    engine: sa.Engine, requests: Sequence[MeasurementRequest], owner: str, now: Clock | None = None
) -> list[int]:
    """Return the job of each request, made where no equal one is open or answers it.

    `owner` is at most 32 letters that are nobody else's: `renew` its requests every few seconds, and `cancel` them when
    their results are of no use any more.

    Raises:
        ValueError: a model that a request names is not stored.
    """
    with engine.begin() as connection:
        found = _submit_all(connection, {one.identity: one for one in requests}, owner, now_of(connection, now))
    return [found[one.identity] for one in requests]


def _submit_all(
    connection: sa.Connection, requests: Mapping[str, MeasurementRequest], owner: str, at: float
) -> dict[str, int]:
    files = {sha for one in requests.values() for sha in (one.model_sha256, one.anchor_sha256) if sha is not None}
    # Equal requests name the same models: whoever submits them at the same time waits here, and then finds ours.
    guard = sa.select(model.c.sha256).where(model.c.sha256.in_(files)).order_by(model.c.sha256).with_for_update()
    connection.execute(guard).all()
    open_now = sa.select(job).where(job.c.open_identity.in_(requests)).order_by(job.c.id).with_for_update()
    found: dict[str, int] = {}
    for row in connection.execute(open_now).all():
        priority = min(row.priority, requests[row.identity].priority)
        connection.execute(sa.update(job).where(job.c.id == row.id).values(priority=priority))
        note(connection, row.id, row.attempt, "joined", at)
        mine = (request.c.job_id == row.id) & (request.c.owner == owner)
        if connection.execute(sa.update(request).where(mine).values(renewed_at=at)).rowcount == 0:
            _wait_for(connection, row.id, owner, at)
        found[row.identity] = row.id
    fresh = []
    for identity, one in requests.items():
        if identity not in found:
            done = _answer(connection, one)
            if done is None:
                fresh.append(one)
            else:
                note(connection, done.id, done.attempt, "reused", at)
                found[identity] = done.id
    needed = {sha256 for one in fresh for sha256 in (one.model_sha256, one.anchor_sha256) if sha256 is not None}
    missing = needed - _keep_models(connection, needed, at)
    if missing:
        raise ValueError(f"the model {min(missing)} is not stored; put it before it is requested")
    for one in fresh:
        found[one.identity] = _insert(connection, one, at)
        _wait_for(connection, found[one.identity], owner, at)
    return found


def _wait_for(connection: sa.Connection, job_id: int, owner: str, at: float) -> None:
    connection.execute(sa.insert(request).values(job_id=job_id, owner=owner, renewed_at=at))


def _answer(connection: sa.Connection, request: MeasurementRequest) -> sa.Row[Any] | None:
    """Return the newest finished job that answers a request; only under the processor and runtime of the queue now."""
    facts = facts_of_queue(connection, request.queue)
    same = (job.c.identity == request.identity) & job.c.runtime_version.in_(versions_of(facts, request.runtime))
    query: sa.Select[Any] = (
        sa.select(job.c.id, job.c.attempt).where(same, job.c.state == "done").order_by(job.c.id.desc())
    )
    for row in connection.execute(query).all():
        accepted = (result.c.job_id == row.id) & (result.c.verdict == "accepted")
        report = json.loads(connection.scalar(sa.select(result.c.report).where(accepted)) or "{}")
        if report and (request.mode == "counts" or _speaks_for(report, facts)):
            return row
    return None


def _speaks_for(report: Mapping[str, Any], facts: list[dict[str, Any]]) -> bool:
    return bool(report["steady"]) and processor(report["cpu_model"]) in processors_of(facts)


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
        "state": "waiting",
        "attempt": 0,
        "troubles": 0,
        "quarantines": 0,
        "submitted_at": at,
    }
    key = connection.execute(sa.insert(job).values(values)).inserted_primary_key
    assert key is not None
    note(connection, int(key[0]), 0, "submitted", at)
    return int(key[0])


def states(engine: sa.Engine, ids: Sequence[int], reports: bool = True) -> list[JobRow]:
    """Return the jobs of these ids in the order given; `reports=False` leaves the reports out, to look often."""
    shown = [job, device.c.name.label("holder"), *([result.c.report] if reports else [sa.null().label("report")])]
    held = (lease.c.job_id == job.c.id) & lease.c.outcome.is_(None)
    accepted = (result.c.job_id == job.c.id) & (result.c.verdict == "accepted")
    query = (
        sa.select(*shown)
        .outerjoin(lease, held)
        .outerjoin(result, accepted)
        .outerjoin(device, device.c.id == sa.func.coalesce(result.c.device_id, lease.c.device_id))
    )
    found: dict[int, JobRow] = {}
    with engine.connect() as connection:
        for part in _parts(sorted(set(ids))):
            for row in connection.execute(query.where(job.c.id.in_(part))):
                found[row.id] = _job_row(row)
    return [found[key] for key in ids if key in found]


def _parts(ids: list[int], size: int = 500) -> Iterable[list[int]]:
    return (ids[start : start + size] for start in range(0, len(ids), size))  # databases limit a query's variables


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


def renew(engine: sa.Engine, owner: str, now: Clock | None = None) -> None:
    """Say that an owner still waits for what it requested."""
    mine = sa.select(request.c.job_id).where(request.c.owner == owner)
    with engine.begin() as connection:
        # What is locked is being ended, or dropped: waiting for it here could be a deadlock.
        held = connection.scalars(mine.with_for_update(skip_locked=True)).all()
        for part in _parts(sorted(held)):
            theirs = (request.c.owner == owner) & request.c.job_id.in_(part)
            connection.execute(sa.update(request).where(theirs).values(renewed_at=now_of(connection, now)))


def cancel(engine: sa.Engine, owner: str, now: Clock | None = None) -> None:
    """Take an owner's requests back: a waiting job that nobody else wants has failed, a leased one may still end."""
    mine = sa.select(request.c.job_id).where(request.c.owner == owner)
    with engine.begin() as connection:
        rows = connection.execute(sa.select(job).where(job.c.id.in_(mine)).order_by(job.c.id).with_for_update()).all()
        connection.execute(sa.delete(request).where(request.c.owner == owner))
        for row in rows:
            if row.state == "waiting" and not is_wanted(connection, row.id):
                fail(connection, row, CANCELLED, now_of(connection, now))


def drop_models_of_finished(engine: sa.Engine, now: Clock | None = None) -> None:
    """Delete the stored models that no open job needs and that nobody stored in the last minutes."""
    needed = job.c.state.in_(OPEN_JOB_STATES)
    models = sa.select(job.c.model_sha256).where(needed)
    anchors = sa.select(job.c.anchor_sha256).where(needed, job.c.anchor_sha256.is_not(None))
    with engine.begin() as connection:
        idle = (model.c.stored_at < now_of(connection, now) - MODEL_GRACE_S) & model.c.sha256.not_in(models)
        connection.execute(sa.delete(model).where(idle & model.c.sha256.not_in(anchors)))


def _keep_models(connection: sa.Connection, wanted: set[str], at: float) -> set[str]:
    """Return which of these models are stored; none of them is dropped for a while."""
    known: set[str] = set()
    for sha256 in sorted(wanted):
        stored_at = connection.scalar(sa.select(model.c.stored_at).where(model.c.sha256 == sha256))
        if stored_at is None:
            continue
        known.add(sha256)
        if not 0 <= at - stored_at < MODEL_GRACE_S / 2:  # rarely: it writes the whole row anew
            renewed = sa.update(model).where(model.c.sha256 == sha256).values(stored_at=at)
            if connection.execute(renewed).rowcount == 0:
                known.discard(sha256)
    return known
