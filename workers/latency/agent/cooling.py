"""Waiting while the processor is hot, and what a batch asks and tells its client."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workers.latency.agent.sensors import temperature_c
from workers.latency.agent.subprocesses import never, pause


@dataclass(frozen=True)
class Client:
    """What a batch asks and tells the one that ordered it."""

    stop: Callable[[], bool] = never  # asked several times a second; true ends the batch
    heartbeat: Callable[[str], None] = lambda activity: None  # told "measuring" or "cooling", as one of them begins


class Cooling:
    """Waits before each process while the processor is hot; it never waits without a limit or a sensor.

    Once the processor is at `pause_above_c` or hotter, it waits until the temperature is below `resume_below_c`, for
    `cool_for_s` at most. After one wait in vain it waits no more: a machine that idles above the limit is measured hot,
    and the report says so.
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
        """Return None if there was nothing to wait for, else whether the processor is cool now; raise Stopped."""
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
