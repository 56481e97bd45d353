"""What a study that replays a table runs on: the table's latencies, an engine, and a clock, simulated if wanted."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from search.engines.base import Engine
from search.pricing.pricer import Target
from search.replay.engine import ReplayEngine, ReplayPace
from search.replay.latencies import RecordedLatencies
from search.replay.table import ReplayTable, read_table
from search.settings import StudySettings
from search.store.controller_lease import LeaseTimes
from search.store.rows import StudyRow
from search.store.store import StudyStore
from space.errors import FrozenSettings, TableUnreadable
from workers.clock import Clock, SimulatedClock, SystemClock


@dataclass(frozen=True)
class Replay:
    """A study's table, ready to be replayed."""

    table: ReplayTable
    settings: StudySettings

    @classmethod
    def of(cls, settings: StudySettings) -> Replay:
        """Read the table of a study.

        Raises:
            TableUnreadable: it isn't there any more, or isn't the one that the study began with.
        """
        table = read_table(str(settings.replay.table))
        if settings.replay.sha256 not in (None, table.sha256):
            raise TableUnreadable(f"the table {table.name} is not the one that these settings were made for.")
        return cls(table, settings)

    def targets(self) -> tuple[Target, ...]:
        """Return the table's device, under the study's runtime."""
        settings, device = self.settings, self.table.latency.device
        known = RecordedLatencies(self.table, settings.latency.runtime_on(device), settings.training_seed)
        budget = settings.search_budget()
        return (Target(device, known, budget.max_latency_ms, statistic=budget.latency_statistic),)

    def engine(self, clock: Clock) -> Engine:
        """Return an engine with as many slots as the study has workers."""
        settings = self.settings
        by_epoch = settings.search.stopping != "none"
        pace = ReplayPace(settings.engine.workers, settings.replay.time == "recorded", by_epoch)
        return ReplayEngine(self.table, clock, pace)

    def clock(self, store: StudyStore) -> Clock:
        """Return the clock of the study; a simulated one goes on behind everything that the study has recorded.

        The trials' times are then the clock's too. Leases go by real time.
        """
        if self.settings.replay.time == "none":
            return SystemClock()
        clock = SimulatedClock(max(time.time(), store.newest_time()))
        store.lease_clock = SystemClock()
        store.clock = clock
        # A single training may take hours of simulated time, which is no sign that the controller is stuck.
        store.lease_times = LeaseTimes(stuck_s=math.inf)
        return clock


def check_same_table(settings: StudySettings, stored: StudyRow) -> None:
    """Check that a resumed study has the table that it began with, or none if it began with none.

    Raises:
        FrozenSettings: it has not.
    """
    began, now = stored.settings.get("replay") or {}, settings.replay
    table = began.get("table")
    if table == now.table is None or began.get("sha256") == now.sha256 is not None:
        return
    if table is None:
        raise FrozenSettings(f"study {stored.name!r} trains its networks, so it can't go on by replaying {now.table}.")
    if now.table is None:
        raise FrozenSettings(f"study {stored.name!r} is replayed from a table; go on with it by --replay {table}.")
    raise FrozenSettings(
        f"study {stored.name!r} was replayed from another table, or {now.table} has changed since; put it back, or "
        "launch under another name."
    )
