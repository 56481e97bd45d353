"""The agent of a device: it enrols, reports that it is alive, and leaves. A device has one agent at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from search.devices.json_numbers import as_json
from search.devices.registry import Device
from search.devices.transitions import LEASE_S, LeaseEnd, is_fresh, release_jobs
from search.store.connection.clock import now_of
from search.store.device_tables import device
from search.store.queue_facts import difference, processor
from search.store.vocabulary import LeaseOutcome
from workers.clock import Clock


class UnlikeDevice(Exception):
    """A device of another kind than the others of its queue; the message names one of them."""


@dataclass(frozen=True)
class Enrolment:
    """What an agent reports of itself and its device."""

    instance: str  # 32 hexadecimal digits, the same after a restart
    facts: Mapping[str, Any]  # cpu_model, identity, machine, cores, python_version, runtimes, pinned
    conditions: Mapping[str, Any]


def enrol(
    engine: sa.Engine, caller: Device, enrolment: Enrolment, lease_s: float = LEASE_S, clock: Clock | None = None
) -> bool:
    """Let an agent serve a device; return False when another agent of it reported within the last `lease_s` seconds.

    What the device still held goes back to its queue: an agent that enrols has just started, and holds nothing.

    Raises:
        UnlikeDevice: it isn't like the other devices of its queue, or not the one that enrolled with this token before.
    """
    with engine.begin() as connection:
        row = _locked(connection, caller)
        at = now_of(connection, clock)
        is_other = row.instance not in (None, enrolment.instance)
        if row.revoked_at is not None or (is_other and is_fresh(row.last_seen_at, at, lease_s)):
            return False
        _check_alike(connection, caller, enrolment.facts)
        _check_same(caller, json.loads(row.facts or "{}"), enrolment.facts)
        end = LeaseEnd(LeaseOutcome.RESTARTED, "its agent was restarted", caller.id, trouble=True)
        release_jobs(connection, caller.id, end, at)
        values = {
            "instance": enrolment.instance,
            "facts": as_json(enrolment.facts),
            "conditions": as_json(enrolment.conditions),
            "enrolled_at": at,
            "last_seen_at": at,
        }
        connection.execute(sa.update(device).where(device.c.id == caller.id).values(values))
    return True


def _check_same(caller: Device, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise UnlikeDevice if a token that one device enrolled with is used on another one."""
    differs = None if caller.virtual else difference(now.get("identity"), before.get("identity"))
    if differs is not None:
        raise UnlikeDevice(
            f"{caller.name!r} enrolled as another device: this one has {differs}; give this one a name of its own, or "
            f"remove {caller.name!r} and add it again"
        )


def _check_alike(connection: sa.Connection, caller: Device, facts: Mapping[str, Any]) -> None:
    """Raise UnlikeDevice if a device isn't like the others of its queue: any of them may measure any job.

    Virtual devices may run on any processor: they only count instructions.
    """
    if caller.virtual:
        return
    others = sa.select(device.c.name, device.c.facts).where(
        device.c.queue == caller.queue,
        device.c.id != caller.id,
        device.c.revoked_at.is_(None),
        device.c.facts.is_not(None),
    )
    cpu_model = str(facts.get("cpu_model", ""))
    for other in connection.execute(others).all():
        theirs = json.loads(other.facts)
        other_model = theirs.get("cpu_model", "")
        differs = difference(facts.get("identity"), theirs.get("identity"))
        if processor(other_model) == processor(cpu_model) and differs is not None:
            raise UnlikeDevice(
                f"devices of a queue must be alike: this one has {differs} of {other.name!r} of queue "
                f"{caller.queue!r}; add it with a queue of its own, or remove that one"
            )
        if processor(other_model) != processor(cpu_model):
            raise UnlikeDevice(
                f"devices of a queue must be alike: {other.name!r} of queue {caller.queue!r} is {other_model!r}, this "
                f"one is {cpu_model!r}; add it with a queue of its own, or remove that one"
            )


def leave(engine: sa.Engine, caller: Device, instance: str, clock: Clock | None = None) -> None:
    """End an agent's service: its jobs go back to the queue at once. An instance not enrolled changes nothing."""
    with engine.begin() as connection:
        if _locked(connection, caller).instance == instance:
            at = now_of(connection, clock)
            release_jobs(connection, caller.id, LeaseEnd(LeaseOutcome.LEFT, "its agent left", caller.id), at)
            values = {"instance": None, "last_seen_at": at}
            connection.execute(sa.update(device).where(device.c.id == caller.id).values(values))


def record_contact(
    connection: sa.Connection, caller: Device, instance: str, at: float, conditions: Mapping[str, Any] | None = None
) -> sa.Row[Any] | None:
    """Record a sign of life of the enrolled agent; return the device's row, None if another agent is enrolled."""
    row = _locked(connection, caller)
    if row.instance != instance or row.revoked_at is not None:
        return None
    values: dict[str, Any] = {"last_seen_at": at}
    if conditions is not None:
        values["conditions"] = as_json(conditions)
    connection.execute(sa.update(device).where(device.c.id == caller.id).values(values))
    return row


def _locked(connection: sa.Connection, caller: Device) -> sa.Row[Any]:
    return connection.execute(sa.select(device).where(device.c.id == caller.id).with_for_update()).one()
