"""What every view of a launch knows: its trials, their epochs, how far it is; and that no view ends a search."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

from dashboards.formats import whole_duration
from search.engines.events import report_of
from search.store.rows import TrialRow
from search.store.vocabulary import TrialState
from workers.training.reporting import ProgressReport

P = ParamSpec("P")
S = TypeVar("S", bound="Watcher")


def never_raises(method: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
    """Make a view's method harmless: what can't be shown is left out, and the search goes on."""

    def harmless(self: S, /, *args: P.args, **kwargs: P.kwargs) -> None:
        with contextlib.suppress(Exception), self.lock:
            method(self, *args, **kwargs)

    return functools.update_wrapper(harmless, method)


def is_paused(row: TrialRow) -> bool:
    """Whether a trial was ended for now. One that had gone on, and was ended again, had no chance left to speak of.

    What a pause is worth is in its reason: only the search knows, once no others are to be tried, which ones go on.
    """
    return row.state == TrialState.PRUNED and row.continues is None


def why_paused(row: TrialRow) -> str:
    """Return the reason for which a training was paused, without the word that says it has ended."""
    return (row.reason or "no reason was recorded").removeprefix("ended early: ")


class Watcher:
    """What both views know: trials by number, the last epoch and report of each, trainings done of those wanted."""

    def __init__(self, wanted: int, now: Callable[[], float] = time.monotonic) -> None:
        self.lock = threading.RLock()  # the live table is drawn by a thread of its own
        self.rows: dict[int, TrialRow] = {}
        self.epochs: dict[int, Mapping[str, Any]] = {}
        self.reports: dict[int, ProgressReport] = {}  # how far the trials are that have said so
        self.replayed: str | None = None  # the table that a launch replays: said beside every figure
        self.pauses = False  # whether a training that was ended early may go on later, as another trial
        self.done, self.wanted = 0, wanted
        self.done_before: int | None = None  # trainings of earlier launches, which say nothing about this one's speed
        self.now = now
        self.began = now()

    def set_epoch(self, number: int, row: Mapping[str, Any]) -> None:
        """Remember a trial's newest epoch."""
        self.epochs[number] = row
        self.reports[number] = report_of(row)

    def running(self) -> list[TrialRow]:
        """Return the trials that train now, by number."""
        return sorted((row for row in self.rows.values() if row.state == TrialState.RUNNING), key=lambda r: r.number)

    def continued(self) -> dict[int, int]:
        """Return which trial each one went on as that had been paused, as far as they were shown."""
        return {row.continues: row.number for row in self.rows.values() if row.continues is not None}

    def set_progress(self, done: int, wanted: int) -> None:
        """Remember how many trainings are done; the first number is that of earlier launches."""
        if self.done_before is None:
            self.done_before = done
        self.done, self.wanted = done, wanted

    def trainings(self) -> float:
        """Trainings done, with the fractions of those under way."""
        fractions = [self.reports[row.number].progress for row in self.running() if row.number in self.reports]
        return min(
            self.done + sum(min(max(fraction, 0.0), 1.0) for fraction in fractions), float(max(self.wanted, self.done))
        )

    def times_text(self) -> str:
        """Elapsed and remaining time, the latter once there is something to estimate it from.

        How many of the paused trainings will go on isn't known, so the remaining time is without theirs.
        """
        elapsed_s = self.now() - self.began
        reached = self.trainings()
        made = reached - (self.done_before or 0)
        left = self.wanted - reached
        text = f"{whole_duration(elapsed_s)} elapsed"
        if made <= 0.01 or left <= 0:
            return text
        paused = {row.number for row in self.rows.values() if is_paused(row)}
        without = " without what was paused" if self.pauses and paused - self.continued().keys() else ""
        return f"{text}, about {whole_duration(elapsed_s * left / made)} left{without}"
