"""Simulated time in which something else happens while one waits, so that a test needs no thread and no real second."""

from __future__ import annotations

from collections.abc import Callable

from workers.clock import SimulatedClock


class EventfulClock(SimulatedClock):
    """A simulated clock that calls `meanwhile` with the monotonic seconds whenever someone has slept by it."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        super().__init__(now)
        self.meanwhile: Callable[[float], object] = lambda waited_s: None

    def sleep(self, seconds: float) -> None:
        """Let this much time pass at once, and let happen what happens by then."""
        super().sleep(seconds)
        self.meanwhile(self.monotonic())
