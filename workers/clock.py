"""What time it is, and how to wait: the seam through which everything that goes by time can run on a simulated clock.

A lease, a heartbeat or a patience that asks a `Clock` is tested in milliseconds, and a replay of it is exact.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A source of time. `SystemClock` is the real one; tests and simulations have `SimulatedClock`."""

    def now(self) -> float:
        """Return UTC seconds since 1970, for what is recorded or compared between processes."""

    def monotonic(self) -> float:
        """Return seconds since some moment, for differences within this process: it never goes back."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """This machine's clock."""

    def now(self) -> float:
        """Return UTC seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        """Return the system's monotonic seconds."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait; not at all for a negative time."""
        time.sleep(max(0.0, seconds))


class SimulatedClock:
    """A clock that stands still until someone sleeps by it or moves it; sleeping takes no time."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now, self._monotonic = now, 0.0

    def now(self) -> float:
        """Return the simulated UTC seconds."""
        return self._now

    def monotonic(self) -> float:
        """Return the seconds slept and advanced since the clock was made."""
        return self._monotonic

    def sleep(self, seconds: float) -> None:
        """Let this much time pass at once."""
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let this much time pass; a negative time passes none."""
        passed = max(0.0, seconds)
        self._now += passed
        self._monotonic += passed

    def set_now(self, now: float) -> None:
        """Set the date, as someone who corrects a system's clock does: what is monotonic goes on as before."""
        self._now = now
