"""The models that devices measure: their bytes in the database, by hash, as long as an open job needs them."""

from __future__ import annotations

import hashlib

import sqlalchemy as sa

from search.store.connection.clock import now_of
from search.store.device_tables import job, model
from search.store.vocabulary import OPEN_JOB_STATES
from workers.clock import Clock

MODEL_GRACE_S = 600.0  # a model is kept at least this long, for the request that is to follow


def put_model(engine: sa.Engine, content: bytes, clock: Clock | None = None) -> str:
    """Store a model's file for the devices; return its SHA-256 in hexadecimal."""
    sha256 = hashlib.sha256(content).hexdigest()
    values = {"sha256": sha256, "size": len(content), "content": content}
    try:
        with engine.begin() as connection:
            if not keep_models(connection, {sha256}, now_of(connection, clock)):
                connection.execute(sa.insert(model).values(stored_at=now_of(connection, clock), **values))
    except sa.exc.IntegrityError:  # another process has just stored it
        pass
    return sha256


def drop_models_of_finished(engine: sa.Engine, clock: Clock | None = None) -> None:
    """Delete the stored models that no open job needs, except those stored in the last minutes."""
    is_open = job.c.state.in_(OPEN_JOB_STATES)
    models = sa.select(job.c.model_sha256).where(is_open)
    anchors = sa.select(job.c.anchor_sha256).where(is_open, job.c.anchor_sha256.is_not(None))
    with engine.begin() as connection:
        old = model.c.stored_at < now_of(connection, clock) - MODEL_GRACE_S
        unneeded = old & model.c.sha256.not_in(models) & model.c.sha256.not_in(anchors)
        connection.execute(sa.delete(model).where(unneeded))


def lock_models(connection: sa.Connection, hashes: set[str]) -> None:
    """Lock these models' rows until the transaction ends."""
    query = sa.select(model.c.sha256).where(model.c.sha256.in_(hashes)).order_by(model.c.sha256)
    connection.execute(query.with_for_update()).all()


def keep_models(connection: sa.Connection, hashes: set[str], at: float) -> set[str]:
    """Return which of these models are stored, and keep them from being dropped for a while."""
    stored: set[str] = set()
    for sha256 in sorted(hashes):
        stored_at = connection.scalar(sa.select(model.c.stored_at).where(model.c.sha256 == sha256))
        if stored_at is None:
            continue
        stored.add(sha256)
        if not 0 <= at - stored_at < MODEL_GRACE_S / 2:  # rarely: it writes the whole row again
            renewed = sa.update(model).where(model.c.sha256 == sha256).values(stored_at=at)
            if connection.execute(renewed).rowcount == 0:
                stored.discard(sha256)
    return stored
