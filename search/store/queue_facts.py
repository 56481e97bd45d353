"""What the devices of a queue are now, by what their agents enrolled with: which results speak for them."""

from __future__ import annotations

import json
import re
from typing import Any

import sqlalchemy as sa

from search.store.device_tables import device


def facts_of_queue(connection: sa.Connection, queue: str) -> list[dict[str, Any]]:
    """Return the facts of a queue's devices that ever enrolled: of those not revoked, or else of all."""
    query = sa.select(device.c.facts, device.c.revoked_at).where(device.c.queue == queue, device.c.facts.is_not(None))
    rows = connection.execute(query).all()
    return [json.loads(row.facts) for row in [row for row in rows if row.revoked_at is None] or rows]


def versions_of(facts: list[dict[str, Any]], runtime: str) -> set[str]:
    """Return the versions of a runtime that devices have."""
    return {one["runtimes"][runtime] for one in facts if runtime in one.get("runtimes", {})}


def processors_of(facts: list[dict[str, Any]]) -> set[str]:
    """Return the processors that devices have, as `processor` names them."""
    return {processor(one.get("cpu_model", "")) for one in facts}


def processor(cpu_model: str) -> str:
    """Return what two devices of a kind share: a board's revision changes no processor."""
    return re.sub(r" Rev [\w.]+", "", cpu_model)
