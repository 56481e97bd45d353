"""Points in other precisions than fp32: what was recorded last of each network, precision and device."""

from __future__ import annotations

import sqlalchemy as sa

from search.store.rows import PointRow
from search.store.tables import point, trial
from workers.latency.record import RECORD_FIELDS, LatencyPurpose, LatencyRecord


def read_points(engine: sa.Engine, study_id: int) -> list[PointRow]:
    """Return the newest point of each trial, precision, device and runtime of a study, by number."""
    query = (
        sa.select(trial.c.number, point)
        .join(trial, trial.c.id == point.c.trial_id)
        .where(trial.c.study_id == study_id)
        .order_by(point.c.id)
    )
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    newest = {(row.number, row.precision, row.target, row.runtime): row for row in rows}
    return [_point(row) for row in sorted(newest.values(), key=lambda row: (row.number, row.target, row.precision))]


def _point(row: sa.Row[tuple[object, ...]]) -> PointRow:
    values = {name: row._mapping[name] for name in RECORD_FIELDS if name in row._mapping}
    return PointRow(
        number=row.number,
        latency=LatencyRecord(**values, purpose=LatencyPurpose.VERIFY),
        top1=row.top1,
        score=row.score,
        file_bytes=row.file_bytes,
        fine_tuned=row.fine_tuned,
    )
