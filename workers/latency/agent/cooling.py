"""Waiting for a hot processor, and what a batch asks and tells whoever ordered it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workers.latency.agent.sensors import temperature_c
from workers.latency.agent.subprocesses import never, pause


@dataclass(frozen=True)
class Client:
    """What a batch asks and tells whoever ordered it."""

    stop: Callable[[], bool] = never
    heartbeat: Callable[[str], None] = lambda state: None  # "measuring" or "cooling", as one of them begins


class Cooling:
    """Waits before each process while the processor is hot; without a limit or a sensor it never waits.

    From `pause_above_c` on it waits until below `resume_below_c`, for `cool_for_s` at most. One wait in vain is the
    last: a machine that idles above the limit is measured hot, and says so.
    """

    def __init__(
        self, policy: dict[str, Any], client: Client, temperature: Callable[[], float | None] = temperature_c
    ) -> None:
        self._pause_above_c: float | None = policy.get("pause_above_c")
        self._resume_below_c = float(policy.get("resume_below_c", 55.0))
        self._cool_for_s = float(policy.get("cool_for_s", 600.0))
        self._client = client
        self._temperature = temperature
        self._in_vain = False

    def wait(self) -> bool | None:
        """Return None where there was nothing to wait for, else whether it is cool now; raises Stopped."""
        now_c = None if self._pause_above_c is None else self._temperature()
        if self._pause_above_c is None or now_c is None or now_c < self._pause_above_c:
            return None
        if self._in_vain:
            return False
        self._client.heartbeat("cooling")
        until = time.monotonic() + self._cool_for_s
        while now_c is not None and now_c >= self._resume_below_c:
            left = until - time.monotonic()
            if left <= 0:
                self._in_vain = True
                return False
            pause(min(1.0, left), self._client.stop)
            now_c = self._temperature()
        return True
