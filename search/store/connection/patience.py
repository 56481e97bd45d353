"""Waiting for a database that is away: a restart, a failover, or a network cut for a minute.

Work that is retried must be one transaction, or repeatable: a commit whose answer was lost may have succeeded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy import exc

from workers.clock import Clock, SystemClock

Result = TypeVar("Result")

PAUSES_S = (0.1, 5.0)  # from the first pause to the longest
STOP_POLL_S = 0.2  # between two looks at `stop`


@dataclass(frozen=True)
class Patience:
    """How long to wait for a database, whom to notify, and when to give up early."""

    wait_s: float = 0.0  # in all; 0 = not at all
    note: Callable[[str], None] = field(default=lambda text: None)
    stop: Callable[[], bool] = field(default=lambda: False)
    clock: Clock = field(default_factory=SystemClock)

    def call(self, work: Callable[[], Result]) -> Result:
        """Return what `work` returns, calling it again while the database is away.

        Raises what `work` raised last, once the time is over or `stop` is true.
        """
        deadline, pause_s, noted = self.clock.monotonic() + self.wait_s, PAUSES_S[0], False
        while True:
            try:
                result = work()
            except exc.DBAPIError as error:
                if not is_away(error) or self.clock.monotonic() >= deadline or self.stop():
                    raise
                if not noted and pause_s > 1.0:  # a restart of a second is not worth a note
                    noted = True
                    self.note(f"the database is away ({first_line(error)}); waiting up to {self.wait_s:.0f} s for it …")
                self._sleep(min(pause_s, max(0.0, deadline - self.clock.monotonic())))
                pause_s = min(pause_s * 2, PAUSES_S[1])
            else:
                if noted:
                    self.note("the database is back; going on")
                return result

    def _sleep(self, seconds: float) -> None:
        until = self.clock.monotonic() + seconds
        while self.clock.monotonic() < until and not self.stop():
            self.clock.sleep(min(STOP_POLL_S, max(0.0, until - self.clock.monotonic())))


def is_away(error: exc.DBAPIError) -> bool:
    """Whether an error means that the database can't be reached now, or that the same work may succeed next time."""
    if error.connection_invalidated:
        return True
    if not isinstance(error, exc.OperationalError | exc.InterfaceError | exc.InternalError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:  # PostgreSQL, appendix A: connection, operator intervention, deadlock, serialization
        return str(state).startswith(("08", "57P")) or state in ("40001", "40P01", "25006", "53300")
    text = str(error.orig).lower()
    if "sqlite" in type(error.orig).__module__:
        return "locked" in text or "busy" in text
    return True  # no answer from a server at all


def first_line(error: Exception) -> str:
    """Return the first line of a driver's message, without what stands before an @ in it.

    Of a URL whose password has an @ or a : of its own, drivers take a part of the password for the host or the port.
    """
    line = (str(getattr(error, "orig", None) or error).splitlines() or [type(error).__name__])[0]
    return re.sub(r"[^\s'\"(]*@", "***@", line)
