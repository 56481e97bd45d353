"""Who works on a study and what waits, which the progress panel shows beside the study's columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa

from search.store.connection.clock import now_of
from search.store.controller_lease import LEASE_S
from search.store.reader import find_study, read_status
from search.store.rows import StudyRow, StudyStatus
from workers.clock import Clock

if TYPE_CHECKING:
    from search.devices.registry import DeviceRow

ALIVE_S = LEASE_S  # a worker or controller with a sign of life within this time counts as alive


@dataclass(frozen=True)
class Liveness:
    """Who works on a study and what waits, at one moment of the database's clock."""

    at: float  # UTC seconds since 1970
    study: StudyRow  # with its controller as of now
    status: StudyStatus
    devices: tuple[DeviceRow, ...] = field(default=())  # those registered, without the revoked ones

    def is_alive(self, seen_at: float | None) -> bool:
        """Return whether a worker or controller that was last seen at this time counts as alive."""
        return seen_at is not None and self.at - seen_at <= ALIVE_S


def read_liveness(engine: sa.Engine, study_name: str, clock: Clock | None = None) -> Liveness:
    """Read who works on a study, what waits, and the devices of its database.

    Raises:
        StudyNotFound: there is none of this name.
    """
    from search.devices.registry import list_devices

    study = find_study(engine, study_name)
    with engine.connect() as connection:
        at = now_of(connection, clock)
    devices = tuple(row for row in list_devices(engine, clock=clock) if not row.revoked)
    return Liveness(at, study, read_status(engine, study.id), devices)
