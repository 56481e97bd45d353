"""What the parts of a controller share: the study's open trials, and how a trial comes to its end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from search.loop.callbacks import LaunchCallback
from search.results.pareto import non_dominated
from search.samplers.proposer import Proposer
from search.store.rows import TrialRow
from search.store.vocabulary import AttemptOutcome, TrialState
from search.study import OpenStudy
from space.errors import CondenseryError, SearchFailed
from workers.file_names import CHECKPOINTS, NETWORK_FILE, ONNX_FILE, trial_folder
from workers.files import remove_half_written
from workers.training.checkpoint import remove_checkpoints


@dataclass
class Step:
    """Writes that commit together, and what follows in memory once they have."""

    writes: list[Callable[[], Any]] = field(default_factory=list)
    then: list[Callable[[], Any]] = field(default_factory=list)

    def run(self, transact: Callable[[Callable[[], None]], None]) -> None:
        """Write, then let follow what follows."""
        if self.writes:
            transact(self._write)
        for follow in self.then:
            follow()

    def _write(self) -> None:
        for write in self.writes:
            write()


class SearchState:
    """The trials of one study as its controller knows them; every change is written before it counts here."""

    def __init__(self, study: OpenStudy, view: LaunchCallback, files: Path) -> None:
        self.settings, self.store, self.proposer = study.settings, study.store, Proposer(study)
        self.view, self.files = view, files
        self.budget = study.settings.search_budget()
        self.queue: deque[TrialRow] = deque()  # priced, and let through
        self.running: dict[int, TrialRow] = {}
        self.cancelled: set[int] = set()
        self.wanted = study.settings.study.trainings
        self.results: dict[str, int] = {}  # by identity: the first trial that has, or may get, its result
        self.done = self.failures_in_a_row = 0
        self.fatal: CondenseryError | None = None  # why the search has to end
        self.smallest_macs: int | None = None
        self.smallest_ms: float | None = None
        self.forget: Callable[[int], None] = lambda number: None  # of the engine, for a trial that it may have run
        self._kept: list[TrialRow] = []  # done trials whose networks are there, with retention `front`

    def meet(self, row: TrialRow) -> None:
        """Count a trial that this controller meets for the first time."""
        self.proposer.count(row)
        if row.state not in ("failed", "cancelled", "duplicate"):
            self.results.setdefault(row.identity, row.number)
        self.smallest_macs = min(row.macs, self.smallest_macs or row.macs)
        if row.latency is not None:
            self.smallest_ms = min(row.latency.interval_high_ms, self.smallest_ms or row.latency.interval_high_ms)

    def trial_folder(self, number: int) -> Path:
        """Where a trial's files are."""
        return folder_of_trial(self.files, number)

    def close(self, row: TrialRow, state: str, **values: Any) -> None:
        """Record a final state, then tell Optuna."""
        step = Step()
        self.plan_close(step, row, state, **values)
        step.run(self.store.transact)

    def plan_close(self, step: Step, row: TrialRow, state: str, outcome: str | None = None, **values: Any) -> None:
        """Plan to record a trial's final state, and its attempt's (`outcome`; None: of the same name)."""
        at = time.time()
        closed = replace(row, state=TrialState(state), finished_at=at, **values)
        if row.attempt:
            ending = (row.number, row.attempt, AttemptOutcome(outcome or state), values.get("reason"))
            step.writes.append(partial(self.store.end_attempt, *ending))
        step.writes.append(partial(self.store.finish, row.number, TrialState(state), finished_at=at, **values))
        if state in ("failed", "cancelled", "duplicate") and self.results.get(row.identity) == row.number:
            del self.results[row.identity]  # it may be tried again
        step.then += [
            partial(self.clean, row),
            partial(self.proposer.tell, closed),
            partial(self.view.trial, closed),
        ]

    def plan_failure(self, step: Step, row: TrialRow, reason: str, outcome: str = "failed") -> None:
        """Plan to record a failure; one after another, and the search has to end: something else is wrong."""
        self.plan_close(step, row, "failed", outcome, reason=reason)
        self.failures_in_a_row += 1
        if self.failures_in_a_row >= self.settings.limits.failures_in_a_row:
            self.fatal = SearchFailed(f"{self.failures_in_a_row} trials in a row failed, the last because: {reason}")

    def clean(self, row: TrialRow) -> None:
        """Remove what killed workers left of a trial whose end is recorded, and its checkpoints unless they stay."""
        remove_half_written(self.trial_folder(row.number))
        if self.settings.retention.checkpoints == "none":
            remove_checkpoints(self.trial_folder(row.number) / CHECKPOINTS)
        if row.attempt:
            self.forget(row.number)

    def remove_dominated(self, new: TrialRow) -> None:
        """Retention `front`: networks that no budget could pick any more go; their figures and logs stay."""
        self._kept.append(new)
        pickable = non_dominated(np.array([_pick_objectives(row) for row in self._kept]))
        for row, stays in zip(self._kept, pickable, strict=True):
            if not stays:
                for name in (NETWORK_FILE, ONNX_FILE):
                    (self.trial_folder(row.number) / name).unlink(missing_ok=True)
                self.store.transact(partial(self.store.mark_removed, row.number))
        self._kept = [row for row, stays in zip(self._kept, pickable, strict=True) if stays]

    @property
    def missing(self) -> int:
        """How many more candidates the number of trainings needs."""
        return self.wanted - self.done - len(self.running) - len(self.queue)

    def needs(self, row: TrialRow, ahead: int = 0) -> bool:
        """Whether a queued trial is to run: a study resumed with fewer trainings may have more open than it wants."""
        return row.origin == "enqueued" or self.done + len(self.running) + ahead < self.wanted

    def keep(self, row: TrialRow) -> None:
        """Count a trial that is done."""
        self.done += 1
        if self.settings.retention.networks == "front":
            self._kept.append(row)


def folder_of_trial(files: Path, number: int) -> Path:
    """Where a trial's files are, in its study's folder."""
    return files / trial_folder(number)


def _pick_objectives(row: TrialRow) -> tuple[float, ...]:
    """What `search.results.pick` may limit or compare, all minimised: one beaten in all of them is never picked."""
    latencies = [value for one in row.latencies.values() for value in (one.interval_high_ms, one.median_ms)]
    return (-(row.top1 or 0.0), *latencies, float(row.macs), float(row.params))
