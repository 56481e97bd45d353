"""Clocks tell the time and wait: the seam through which everything that depends on time can run on a simulated clock.

Leases, heartbeats and time limits that use a `Clock` are tested in milliseconds, and a replay of them is exact.
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
        """Wait; return at once for a negative time."""
        time.sleep(max(0.0, seconds))


class SimulatedClock:
    """A clock that moves only when `sleep` or `advance` is called; sleeping takes no real time."""

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
        """Set the date, as when a system's clock is corrected: the monotonic time doesn't change."""
        self._now = now
