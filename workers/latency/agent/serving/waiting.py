"""How the agent waits: a signal cuts its waits short, and failing calls are repeated at growing intervals."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator

from workers.latency.agent.serving.errors import Ended


class Termination:
    """Knows whether a signal asked the agent to end, and lets signals cut the main thread's waits and calls short."""

    def __init__(self) -> None:
        self.asked = False
        self._asked_at = 0.0
        self._may_cut = False

    def install(self) -> None:
        """Handle Ctrl-C, SIGTERM and a lost terminal, the last one unless the agent was told to ignore it."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: object) -> None:
        if self.asked:
            if time.monotonic() - self._asked_at > 1:  # some programs send the first signal twice
                os._exit(130)  # the children notice and end
            return
        self.asked, self._asked_at = True, time.monotonic()
        if self._may_cut:
            raise Ended

    @contextlib.contextmanager
    def cutting(self) -> Iterator[None]:
        """Let a signal end the block at once, by raising Ended; main thread only."""
        self._may_cut = True
        try:
            if self.asked:
                raise Ended
            yield
        finally:
            self._may_cut = False

    def sleep(self, seconds: float) -> None:
        """Sleep until the time is over, or a signal raises Ended; main thread only."""
        with self.cutting():
            time.sleep(seconds)


class Backoff:
    """Waits that double up to half a minute, each shortened at random so that agents don't call at the same time."""

    def __init__(self) -> None:
        self._longest_s = 0.2

    def next_s(self) -> float:
        """Return how long to wait before the next try, in seconds."""
        wait_s = self._longest_s * random.uniform(0.5, 1.0)
        self._longest_s = min(30.0, 2 * self._longest_s)
        return wait_s
