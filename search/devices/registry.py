"""Who may measure: devices with their tokens and queues, and what is known of each.

A token is shown once, when its device is added; the database holds its SHA-256. Devices of one queue are taken for
alike: any of them may measure a job of the queue.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from search.devices.transitions import LEASE_S, Return, give_back, is_fresh
from search.settings import DEVICE_NAME, HOST
from search.store.clock import Clock, now_of
from search.store.device_tables import OPEN_JOB_STATES, device, job, lease, result
from space.errors import DeviceExists, DeviceNotFound, InvalidSettings

DeviceState = Literal["online", "offline", "never enrolled", "revoked"]


@dataclass(frozen=True)
class Device:
    """A registered device as its token finds it."""

    id: int
    name: str
    queue: str
    profile: str | None

    @property
    def virtual(self) -> bool:
        """Whether it is an ARM device in software: it counts instructions and times nothing."""
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
    seen_s_ago: float | None  # by the same clock; below 0 where it was set back
    doing: str | None  # what its agent is at with the jobs it holds: leased, downloading, measuring or cooling
    waiting: int  # open jobs of its queue that nobody holds
    leased: int  # jobs it holds
    accepted: int  # its results that count
    quarantined: int  # its results that nobody can believe

    @property
    def revoked(self) -> bool:
        """Whether its token is worth nothing any more."""
        return self.state == "revoked"


def add_device(
    engine: sa.Engine, name: str, queue: str | None = None, profile: str | None = None, now: Clock | None = None
) -> str:
    """Register a device and return its token; a revoked name comes back with a new one.

    Args:
        engine: of the database that the hub serves.
        name: lower-case letters, digits, - and _.
        queue: whose jobs it takes; None = a queue of its own name.
        profile: of a virtual device, what turns its counted instructions into milliseconds.
        now: the time; None = the database's.

    Raises:
        DeviceExists: the name is taken. InvalidSettings: a wrong name, or a queue of other devices.
    """
    queue = name if queue is None else queue
    for word, value in (("device", name), ("queue", queue)):
        if DEVICE_NAME.fullmatch(value) is None or value == HOST:
            rule = f"a lower-case name of letters, digits, - and _ other than {HOST!r}"
            raise InvalidSettings(f"a {word} must be {rule}, but {value!r} isn't; choose another.")
    token = secrets.token_urlsafe(32)
    values: dict[str, Any] = dict.fromkeys(("revoked_at", "instance", "facts", "conditions"))
    values |= {"queue": queue, "profile": profile, "token_hash": _hash_of(token)}
    values |= {"enrolled_at": None, "last_seen_at": None}
    try:
        with engine.begin() as connection:
            known = connection.execute(sa.select(device).where(device.c.name == name)).first()
            if known is not None and known.revoked_at is None:
                raise DeviceExists(
                    f"a device called {name!r} is registered; `condensery devices remove {name}` it, or choose another "
                    "name."
                )
            _check_alike(connection, queue, profile)
            values["added_at"] = now_of(connection, now)
            if known is None:
                connection.execute(sa.insert(device).values(name=name, **values))
            else:
                connection.execute(sa.update(device).where(device.c.id == known.id).values(values))
    except sa.exc.IntegrityError:
        raise DeviceExists(f"a device called {name!r} was registered just now; choose another name.") from None
    return token


def _check_alike(connection: sa.Connection, queue: str, profile: str | None) -> None:
    query = sa.select(device.c.name, device.c.profile).where(device.c.queue == queue, device.c.revoked_at.is_(None))
    for other in connection.execute(query):
        if other.profile != profile:
            kinds = [f"virtual, of profile {one}" if one is not None else "real" for one in (other.profile, profile)]
            raise InvalidSettings(
                f"devices of a queue must be alike: {other.name!r} of queue {queue!r} is {kinds[0]}, the new one is "
                f"{kinds[1]}; choose another queue."
            )


def revoke_device(engine: sa.Engine, name: str, now: Clock | None = None) -> None:
    """Make a device's token worthless and give its jobs back to the queue; doing so again changes nothing.

    Raises:
        DeviceNotFound: no device has this name.
    """
    with engine.begin() as connection:
        row = connection.execute(sa.select(device).where(device.c.name == name).with_for_update()).first()
        if row is None:
            known = sorted(connection.scalars(sa.select(device.c.name)))
            there = f"there are: {', '.join(known)}" if known else "there is none yet"
            raise DeviceNotFound(f"no device is called {name!r} ({there}).")
        if row.revoked_at is None:
            give_back(connection, row.id, Return("revoked", "its device was revoked", row.id), now_of(connection, now))
            gone = {"revoked_at": now_of(connection, now), "instance": None, "conditions": None}
            connection.execute(sa.update(device).where(device.c.id == row.id).values(gone))


def device_by_token(engine: sa.Engine, token: str) -> Device | None:
    """Return whose token this is; None for an unknown one, a revoked one and nonsense alike, at the same cost."""
    wanted = _hash_of(token)
    with engine.connect() as connection:
        row = connection.execute(sa.select(device).where(device.c.token_hash == wanted)).first()
    stored = "0" * len(wanted) if row is None else str(row.token_hash)
    if not hmac.compare_digest(stored, wanted) or row is None or row.revoked_at is not None:
        return None
    return Device(row.id, row.name, row.queue, row.profile)


def _hash_of(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def queues(engine: sa.Engine) -> set[str]:
    """Return the names of the queues that a device not revoked serves."""
    with engine.connect() as connection:
        return set(connection.scalars(sa.select(device.c.queue).where(device.c.revoked_at.is_(None))))


def profile_of_queue(engine: sa.Engine, queue: str) -> str | None:
    """Return the profile of a queue of virtual devices; None for real ones and for an unknown queue."""
    query = sa.select(device.c.profile).where(device.c.queue == queue, device.c.revoked_at.is_(None)).limit(1)
    with engine.connect() as connection:
        return connection.scalar(query)


def list_devices(engine: sa.Engine, lease_s: float = LEASE_S, now: Clock | None = None) -> list[DeviceRow]:
    """Return all devices by name, the revoked ones too."""
    with engine.connect() as connection:
        rows = connection.execute(sa.select(device).order_by(device.c.name)).all()
        waiting = _counts(connection, sa.select(job.c.queue, sa.func.count()).where(job.c.state == OPEN_JOB_STATES[0]))
        held = sa.select(lease.c.device_id, sa.func.count()).where(lease.c.outcome.is_(None))
        leased = _counts(connection, held)
        at_work = sa.select(lease.c.device_id, lease.c.doing).where(lease.c.outcome.is_(None))
        doing = {one.device_id: one.doing for one in connection.execute(at_work)}  # one thing with all it holds
        verdicts = {
            verdict: _counts(
                connection, sa.select(result.c.device_id, sa.func.count()).where(result.c.verdict == verdict)
            )
            for verdict in ("accepted", "quarantined")
        }
        at = now_of(connection, now)
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
            accepted=verdicts["accepted"].get(row.id, 0),
            quarantined=verdicts["quarantined"].get(row.id, 0),
        )
        for row in rows
    ]


def _counts(connection: sa.Connection, query: sa.Select[Any]) -> dict[Any, int]:
    key = query.selected_columns[0]
    return {row[0]: row[1] for row in connection.execute(query.group_by(key))}


def _state(row: sa.Row[Any], lease_s: float, at: float) -> DeviceState:
    if row.revoked_at is not None:
        return "revoked"
    if row.enrolled_at is None:
        return "never enrolled"
    return "online" if row.instance is not None and is_fresh(row.last_seen_at, at, lease_s) else "offline"
