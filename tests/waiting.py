"""Waiting in tests: for what other processes and threads do, and no longer than a crowded machine needs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

PATIENCE_S = 120.0  # until a test gives up; none waits that long when all is well


def until(condition: Callable[[], Value], within_s: float = PATIENCE_S, every_s: float = 0.02) -> Value:
    """Call `condition` until it returns something true, and return that; fail after `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {within_s:g} s for {getattr(condition, '__qualname__', condition)}"
        time.sleep(every_s)
    return value
