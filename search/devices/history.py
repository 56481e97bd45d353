"""What became of measurement jobs, read by SQL for people: newest first, with every trouble that was recorded."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from search.store.device_tables import device, event, job, lease


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
    """Return the newest jobs, newest first."""
    columns = [job.c[name] for name in _PLAIN]
    latest = sa.and_(lease.c.job_id == job.c.id, lease.c.attempt == job.c.attempt)
    query = (
        sa.select(*columns, device.c.name.label("device"))
        .select_from(job.outerjoin(lease, latest).outerjoin(device, device.c.id == lease.c.device_id))
        .order_by(job.c.id.desc())
        .limit(last)
    )
    with engine.connect() as connection:
        rows = connection.execute(query).all()
        wanted = [row.id for row in rows]
        events = connection.execute(sa.select(event).where(event.c.job_id.in_(wanted)).order_by(event.c.id)).all()
    told: dict[int, list[str]] = {}
    for one in events:
        told.setdefault(one.job_id, []).append(f"{one.kind}: {one.detail}" if one.detail else one.kind)
    return [
        JobLine(
            **{name: row._mapping[name] for name in _PLAIN if name != "policy_label"},
            policy=row.policy_label,
            device=row.device,
            history=tuple(told.get(row.id, ())),
        )
        for row in rows
    ]


_PLAIN = (
    "id queue state model_sha256 mode runtime threads policy_label attempt quarantines reason submitted_at finished_at"
).split()
