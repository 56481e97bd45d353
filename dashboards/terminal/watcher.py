"""What every view of a launch knows: its trials, their epochs, how far it is; and that no view ends a search."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

from dashboards.formats import clock
from search.store.rows import TrialRow
from search.store.vocabulary import TrialState

P = ParamSpec("P")
S = TypeVar("S", bound="Watcher")


def never_raises(method: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
    """Make a view's method harmless: what can't be shown is left out, and the search goes on."""

    def harmless(self: S, /, *args: P.args, **kwargs: P.kwargs) -> None:
        with contextlib.suppress(Exception), self.lock:
            method(self, *args, **kwargs)

    return functools.update_wrapper(harmless, method)


class Watcher:
    """What both views know: trials by number, the last epoch of each, trainings done of those wanted."""

    def __init__(self, wanted: int, now: Callable[[], float] = time.monotonic) -> None:
        self.lock = threading.RLock()  # the live table is drawn by a thread of its own
        self.rows: dict[int, TrialRow] = {}
        self.epochs: dict[int, Mapping[str, Any]] = {}
        self.done, self.wanted = 0, wanted
        self.done_before: int | None = None  # trainings of earlier launches, which say nothing about this one's speed
        self.now = now
        self.began = now()

    def set_progress(self, done: int, wanted: int) -> None:
        """Remember how many trainings are done; the first number is that of earlier launches."""
        if self.done_before is None:
            self.done_before = done
        self.done, self.wanted = done, wanted

    def trainings(self) -> float:
        """Trainings done, with the fractions of those under way."""
        running = [
            number for number, row in self.rows.items() if row.state == TrialState.RUNNING and number in self.epochs
        ]
        fractions = [float(self.epochs[number].get("progress") or 0.0) for number in running]
        return min(
            self.done + sum(min(max(fraction, 0.0), 1.0) for fraction in fractions), float(max(self.wanted, self.done))
        )

    def times_text(self) -> str:
        """Elapsed and remaining time, the latter once there is something to estimate it from."""
        elapsed_s = self.now() - self.began
        reached = self.trainings()
        made = reached - (self.done_before or 0)
        left = self.wanted - reached
        text = f"{clock(elapsed_s)} elapsed"
        return f"{text}, about {clock(elapsed_s * left / made)} left" if made > 0.01 and left > 0 else text
