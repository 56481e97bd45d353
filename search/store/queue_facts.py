"""What the devices of a queue are now, as their agents enrolled: which stored results still hold for them."""

from __future__ import annotations

import json
import re
from typing import Any

import sqlalchemy as sa

from search.store.device_tables import device as table


def facts_of_queue(connection: sa.Connection, queue: str) -> list[dict[str, Any]]:
    """Return the facts with which a queue's devices enrolled: of those not revoked, or else of all."""
    query = sa.select(table.c.facts, table.c.revoked_at).where(table.c.queue == queue, table.c.facts.is_not(None))
    rows = connection.execute(query).all()
    return [json.loads(row.facts) for row in [row for row in rows if row.revoked_at is None] or rows]


def versions_of(facts: list[dict[str, Any]], runtime: str) -> set[str]:
    """Return the versions of a runtime that devices have."""
    return {device["runtimes"][runtime] for device in facts if runtime in device.get("runtimes", {})}


def processors_of(facts: list[dict[str, Any]]) -> set[str]:
    """Return the processors that devices have, as `processor` names them."""
    return {processor(device.get("cpu_model", "")) for device in facts}


def processor(cpu_model: str) -> str:
    """Return a processor's name without the board's revision: boards of two revisions have the same processor."""
    return re.sub(r" Rev [\w.]+", "", cpu_model)
