"""Configs that users enqueued and that no trial has taken up yet."""

from __future__ import annotations

import json

import sqlalchemy as sa

from search.store.rows import EnqueuedConfig
from search.store.tables import request
from space.config import CondenseNetConfig

IS_WAITING = request.c.trial_number.is_(None) & request.c.withdrawn_at.is_(None)


def count_waiting_requests(engine: sa.Engine, study_id: int) -> int:
    """Return how many enqueued configs no trial has taken up yet."""
    query = sa.select(sa.func.count()).where(request.c.study_id == study_id, IS_WAITING)
    with engine.connect() as connection:
        return int(connection.scalar(query) or 0)


def read_waiting_requests(engine: sa.Engine, study_id: int) -> list[EnqueuedConfig]:
    """Return the enqueued configs that no trial has taken up yet, oldest first."""
    with engine.connect() as connection:
        return waiting_requests(connection, study_id)


def waiting_requests(connection: sa.Connection, study_id: int, most: int | None = None) -> list[EnqueuedConfig]:
    """Return the oldest enqueued configs that no trial has taken up yet; at most `most`."""
    columns = (request.c.id, request.c.config, request.c.training, request.c.created_at)
    query = sa.select(*columns).where(request.c.study_id == study_id, IS_WAITING).order_by(request.c.id).limit(most)
    return [
        EnqueuedConfig(row.id, CondenseNetConfig.from_json(row.config), json.loads(row.training), row.created_at)
        for row in connection.execute(query)
    ]
