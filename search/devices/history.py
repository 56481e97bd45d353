"""The history of measurement jobs, for people: newest first, with everything that went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from search.store.device_tables import device, event, job, lease

_COLUMNS = (
    "id queue state model_sha256 mode runtime threads attempt quarantines reason submitted_at finished_at"
).split()


@dataclass(frozen=True)
class JobLine:
    """One job as `condensery devices jobs` shows it; times are UTC seconds since 1970."""

    id: int
    queue: str
    state: str
    model_sha256: str
    mode: str  # wall or counts
    runtime: str
    threads: int
    policy: str
    attempt: int
    quarantines: int
    reason: str | None
    device: str | None  # that holds it or finished it
    submitted_at: float
    finished_at: float | None
    history: tuple[str, ...]  # "kind: detail" of every event, oldest first


def newest_jobs(engine: sa.Engine, last: int) -> list[JobLine]:
    """Return the `last` newest jobs, newest first."""
    newest_lease = sa.and_(lease.c.job_id == job.c.id, lease.c.attempt == job.c.attempt)
    query = (
        sa.select(*(job.c[name] for name in _COLUMNS), job.c.policy_label, device.c.name.label("device"))
        .select_from(job.outerjoin(lease, newest_lease).outerjoin(device, device.c.id == lease.c.device_id))
        .order_by(job.c.id.desc())
        .limit(last)
    )
    with engine.connect() as connection:
        rows = connection.execute(query).all()
        events = _events(connection, [row.id for row in rows])
    return [
        JobLine(
            **{name: row._mapping[name] for name in _COLUMNS},
            policy=row.policy_label,
            device=row.device,
            history=tuple(events.get(row.id, ())),
        )
        for row in rows
    ]


def _events(connection: sa.Connection, job_ids: Sequence[int]) -> dict[int, list[str]]:
    """Return each job's events as text, oldest first."""
    texts: dict[int, list[str]] = {}
    row: sa.Row[Any]
    for row in connection.execute(sa.select(event).where(event.c.job_id.in_(job_ids)).order_by(event.c.id)):
        texts.setdefault(row.job_id, []).append(f"{row.kind}: {row.detail}" if row.detail else row.kind)
    return texts
