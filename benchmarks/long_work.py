"""Shared by commands that train for long and go on when they are started again: how they end, and what they keep."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from space.errors import CondenseryError
from workers.training.reporting import CurveRow, ProgressReport


@contextmanager
def ends_clearly(goes_on: str = "the same command goes on") -> Iterator[None]:
    """End the process with one line and the exit code of an error of ours, or 130 after Ctrl-C with how to go on."""
    try:
        yield
    except CondenseryError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write(f"stopped; {goes_on}\n")
        sys.exit(130)


class CurveKeeper:
    """An observer that keeps a training's learning curve and lets it go on to its end."""

    def __init__(self) -> None:
        self.rows: list[CurveRow] = []

    def earlier(self, rows: Sequence[CurveRow]) -> None:
        self.rows += rows

    def curve(self, row: CurveRow) -> None:
        self.rows.append(row)

    def under_way(self, report: ProgressReport) -> None:
        """Say nothing: a training takes seconds."""

    def before_step(self, seconds: float) -> None:
        """Let it go on."""


def training_clock(device_type: str) -> Callable[[], float]:
    """Return the clock of training: the processor's where it trains, as a busy machine adds nothing to it."""
    return time.process_time if device_type == "cpu" else time.monotonic
