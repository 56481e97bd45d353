"""What the devices of a queue are now, as their agents enrolled: which stored results still hold for them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
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


def difference(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> str | None:
    """Return how two devices' identities differ, by `workers.latency.agent.sensors.identity`; None if they don't.

    What one of them doesn't say tells nothing. Frequencies are the same within 1 %, memory within 20 %: systems reserve
    parts of it.
    """
    one, other = one or {}, other or {}
    for name, words, same in (
        ("board", "board {}", lambda a, b: processor(a) == processor(b)),
        ("part", "core {}", lambda a, b: a == b),
        ("mhz", "{} MHz", lambda a, b: all(_within(0.01, *ends) for ends in zip(a, b, strict=False))),
        ("memory_mb", "{} MB of memory", lambda a, b: _within(0.2, a, b)),
    ):
        mine, theirs = one.get(name), other.get(name)
        if mine is not None and theirs is not None and not same(mine, theirs):
            shown = ["-".join(map(str, value)) if isinstance(value, list) else str(value) for value in (mine, theirs)]
            return " instead of ".join(words.format(value) for value in shown)
    return None


def _within(share: float, one: float, other: float) -> bool:
    return abs(one - other) <= share * max(one, other)


def processor(cpu_model: str) -> str:
    """Return a processor's name without the board's revision: boards of two revisions have the same processor."""
    return re.sub(r" Rev [\w.]+", "", cpu_model)
