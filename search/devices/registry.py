"""The registry of measuring devices: their tokens and queues, and the last reports of their agents.

A token is shown once, when its device is added; the database holds its SHA-256. Devices of one queue count as alike:
any of them may measure a job of the queue.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from search.devices.transitions import LEASE_S, LeaseEnd, is_fresh, release_jobs
from search.settings import DEVICE_NAME, HOST
from search.store.connection.clock import now_of
from search.store.connection.printed_commands import printed_command
from search.store.device_tables import device, job, lease, result
from search.store.vocabulary import JobState, LeaseActivity, LeaseOutcome, Verdict
from space.errors import DeviceExists, DeviceNotFound, InvalidSettings
from workers.clock import Clock


class DeviceState(StrEnum):
    """Whether a device can take jobs now."""

    ONLINE = "online"
    OFFLINE = "offline"  # its agent left, or is silent
    NEVER_ENROLLED = "never enrolled"
    REVOKED = "revoked"


@dataclass(frozen=True)
class Device:
    """A registered device."""

    id: int
    name: str
    queue: str
    profile: str | None

    @property
    def virtual(self) -> bool:
        """Whether it is the ARM device in software, which counts instructions and times nothing."""
        return self.profile is not None


@dataclass(frozen=True)
class DeviceRow:
    """One device as `devices list` shows it; `facts` and `conditions` are empty until an agent has enrolled."""

    name: str
    queue: str
    profile: str | None
    state: DeviceState
    facts: dict[str, Any]
    conditions: dict[str, Any]
    last_seen_at: float | None
    seen_s_ago: float | None  # by the same clock; negative where it was set back
    doing: LeaseActivity | None  # with the jobs it holds
    waiting: int  # open jobs of its queue that no device holds
    leased: int  # jobs it holds
    accepted: int  # its results that count
    quarantined: int  # its results that can't be true

    @property
    def revoked(self) -> bool:
        """Whether its token is void."""
        return self.state == DeviceState.REVOKED


def add_device(
    engine: sa.Engine, name: str, queue: str | None = None, profile: str | None = None, clock: Clock | None = None
) -> str:
    """Register a device and return its token; a revoked name may be registered again, with a new token.

    Args:
        engine: of the database that the hub serves.
        name: lower-case letters, digits, - and _.
        queue: whose jobs it takes; None = a queue of its own name.
        profile: of a virtual device: turns its counted instructions into milliseconds.
        clock: the time; None = the database's.

    Raises:
        DeviceExists: the name is taken. InvalidSettings: a name is wrong, or the queue's devices are of another kind.
    """
    queue = name if queue is None else queue
    _check_name("device", name)
    _check_name("queue", queue)
    token = secrets.token_urlsafe(32)
    values: dict[str, Any] = dict.fromkeys(("revoked_at", "instance", "facts", "conditions"))
    values |= {"queue": queue, "profile": profile, "token_hash": _hash_of(token)}
    values |= {"enrolled_at": None, "last_seen_at": None}
    try:
        with engine.begin() as connection:
            same_name = connection.execute(sa.select(device).where(device.c.name == name)).first()
            if same_name is not None and same_name.revoked_at is None:
                remove = printed_command(["condensery", "devices", "remove", name], engine.url)
                raise DeviceExists(f"a device called {name!r} is registered; `{remove}` it, or choose another name.")
            _check_alike(connection, queue, profile)
            values["added_at"] = now_of(connection, clock)
            if same_name is None:
                connection.execute(sa.insert(device).values(name=name, **values))
            else:
                connection.execute(sa.update(device).where(device.c.id == same_name.id).values(values))
    except sa.exc.IntegrityError:
        raise DeviceExists(f"a device called {name!r} was registered just now; choose another name.") from None
    return token


def _check_name(noun: str, name: str) -> None:
    if DEVICE_NAME.fullmatch(name) is None or name == HOST:
        rule = f"a lower-case name of letters, digits, - and _ other than {HOST!r}"
        raise InvalidSettings(f"a {noun} must be {rule}, but {name!r} isn't; choose another.")


def _check_alike(connection: sa.Connection, queue: str, profile: str | None) -> None:
    query = sa.select(device.c.name, device.c.profile).where(device.c.queue == queue, device.c.revoked_at.is_(None))
    for other in connection.execute(query):
        if other.profile != profile:
            kinds = ["real" if p is None else f"virtual, of profile {p}" for p in (other.profile, profile)]
            raise InvalidSettings(
                f"devices of a queue must be alike: {other.name!r} of queue {queue!r} is {kinds[0]}, the new one is "
                f"{kinds[1]}; choose another queue."
            )


def revoke_device(engine: sa.Engine, name: str, clock: Clock | None = None) -> None:
    """Void a device's token and put its jobs back into the queue; a second call changes nothing.

    Raises:
        DeviceNotFound: no device has this name.
    """
    with engine.begin() as connection:
        row = connection.execute(sa.select(device).where(device.c.name == name).with_for_update()).first()
        if row is None:
            names = sorted(connection.scalars(sa.select(device.c.name)))
            there_are = f"there are: {', '.join(names)}" if names else "there is none yet"
            raise DeviceNotFound(f"no device is called {name!r} ({there_are}).")
        if row.revoked_at is None:
            at = now_of(connection, clock)
            release_jobs(connection, row.id, LeaseEnd(LeaseOutcome.REVOKED, "its device was revoked", row.id), at)
            revoked = {"revoked_at": at, "instance": None, "conditions": None}
            connection.execute(sa.update(device).where(device.c.id == row.id).values(revoked))


def device_by_token(engine: sa.Engine, token: str) -> Device | None:
    """Return the device of a token; None, after the same time, for an unknown or revoked token and for nonsense."""
    token_hash = _hash_of(token)
    with engine.connect() as connection:
        row = connection.execute(sa.select(device).where(device.c.token_hash == token_hash)).first()
    stored = "0" * len(token_hash) if row is None else str(row.token_hash)
    if not hmac.compare_digest(stored, token_hash) or row is None or row.revoked_at is not None:
        return None
    return Device(row.id, row.name, row.queue, row.profile)


def _hash_of(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def queues(engine: sa.Engine) -> set[str]:
    """Return the names of the queues that have a device not revoked."""
    with engine.connect() as connection:
        return set(connection.scalars(sa.select(device.c.queue).where(device.c.revoked_at.is_(None))))


def profile_of_queue(engine: sa.Engine, queue: str) -> str | None:
    """Return the profile of a queue's virtual devices; None for real devices and for an unknown queue."""
    query = sa.select(device.c.profile).where(device.c.queue == queue, device.c.revoked_at.is_(None)).limit(1)
    with engine.connect() as connection:
        return connection.scalar(query)


def list_devices(engine: sa.Engine, lease_s: float = LEASE_S, clock: Clock | None = None) -> list[DeviceRow]:
    """Return all devices, also the revoked, by name."""
    with engine.connect() as connection:
        rows = connection.execute(sa.select(device).order_by(device.c.name)).all()
        waiting = _counts(connection, job.c.queue, job.c.state == JobState.WAITING)
        leased = _counts(connection, lease.c.device_id, lease.c.outcome.is_(None))
        accepted = _counts(connection, result.c.device_id, result.c.verdict == Verdict.ACCEPTED)
        quarantined = _counts(connection, result.c.device_id, result.c.verdict == Verdict.QUARANTINED)
        activities = sa.select(lease.c.device_id, lease.c.doing).where(lease.c.outcome.is_(None))
        # A device does the same with all jobs that it holds.
        doing = {row.device_id: row.doing for row in connection.execute(activities)}
        at = now_of(connection, clock)
    return [
        DeviceRow(
            name=row.name,
            queue=row.queue,
            profile=row.profile,
            state=_state(row, lease_s, at),
            facts=json.loads(row.facts) if row.facts else {},
            conditions=json.loads(row.conditions) if row.conditions else {},
            last_seen_at=row.last_seen_at,
            seen_s_ago=None if row.last_seen_at is None else at - row.last_seen_at,
            doing=doing.get(row.id),
            waiting=waiting.get(row.queue, 0),
            leased=leased.get(row.id, 0),
            accepted=accepted.get(row.id, 0),
            quarantined=quarantined.get(row.id, 0),
        )
        for row in rows
    ]


def _counts(connection: sa.Connection, key: sa.Column[Any], condition: sa.ColumnElement[bool]) -> dict[Any, int]:
    """Return the number of rows with each key that meet a condition."""
    query = sa.select(key, sa.func.count()).where(condition).group_by(key)
    return {row[0]: row[1] for row in connection.execute(query)}


def _state(row: sa.Row[Any], lease_s: float, at: float) -> DeviceState:
    if row.revoked_at is not None:
        return DeviceState.REVOKED
    if row.enrolled_at is None:
        return DeviceState.NEVER_ENROLLED
    is_online = row.instance is not None and is_fresh(row.last_seen_at, at, lease_s)
    return DeviceState.ONLINE if is_online else DeviceState.OFFLINE
