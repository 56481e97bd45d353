"""A launch as plain lines without escape codes, fit for a log file.

Each change of state is a line; so is, once a minute, how far each running training is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console

from dashboards.formats import (
    count,
    duration,
    latency_label,
    milliseconds,
    one_line,
    percent,
    progress_text,
)
from dashboards.terminal.watcher import Watcher, is_paused, never_raises, why_paused
from search.store.replayed import replayed_words
from search.store.rows import TrialRow
from search.store.vocabulary import TrialState
from workers.metrics import NAMES
from workers.training.reporting import ProgressReport
from workers.wording import of_wanted

PROGRESS_EVERY_S = 60.0  # between two lines about the same training
PLAIN_WORDS: Mapping[str, str] = {
    TrialState.PRUNED: "did not go on",
    TrialState.INFEASIBLE: "refused",
    TrialState.DUPLICATE: "repeats an earlier one",
}


class PlainView(Watcher):
    """One line for each change, and one a minute for each training, on a console that is no terminal."""

    def __init__(self, console: Console, wanted: int, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(wanted, now)
        self.console = console
        self._said_at: dict[int, float] = {}  # when a trial was last the subject of a line

    @never_raises
    def trial(self, row: TrialRow) -> None:
        """Print a trial's new state, once."""
        before = self.rows.get(row.number)
        self.rows[row.number] = row
        self._said_at[row.number] = self.now()
        if before is not None and before.state == row.state:
            return
        line = plain_line(row, self.pauses)
        if line:
            self._say_figures(line)

    @never_raises
    def curve(self, number: int, row: Mapping[str, Any]) -> None:
        """Print how far a trial has come, if its last line is long ago."""
        self.set_epoch(number, row)
        self._say_progress(number)

    @never_raises
    def under_way(self, number: int, report: ProgressReport) -> None:
        """Print how far a trial has come, if its last line is long ago."""
        self.reports[number] = report
        self._say_progress(number)

    def _say_progress(self, number: int) -> None:
        if self.now() - self._said_at.get(number, self.began) < PROGRESS_EVERY_S or number not in self.rows:
            return
        self._said_at[number] = self.now()
        self._say_figures(
            f"trial {number}: {progress_text(self.reports[number], self.rows[number].training.get('epochs'))}"
        )

    @never_raises
    def progress(self, done: int, wanted: int) -> None:
        """Print how many trainings are done when that changes."""
        changed = self.done_before is not None and (done, wanted) != (self.done, self.wanted)
        self.set_progress(done, wanted)
        if changed:
            self._say_figures(f"{of_wanted(done, wanted, 'training', 'done')}, {self.times_text()}")

    @never_raises
    def note(self, text: str) -> None:
        """Print the note."""
        self._say(text)

    def _say_figures(self, line: str) -> None:
        self._say("; ".join(filter(None, (line, replayed_words(self.replayed)))))

    def _say(self, text: str) -> None:
        # Not through the console: on a closed pipe rich exits the process, and it wraps lines at an assumed width.
        if not self.console.quiet:
            self.console.file.write(f"{one_line(text)}\n")
            self.console.file.flush()


def plain_line(row: TrialRow, pauses: bool = False) -> str:
    """Return one line about a trial's state; empty for `asked`, which is priced at once.

    `pauses` says whether a training that was ended early may go on later.
    """
    price = f"{count(row.macs)} macs"
    if row.latency is not None:
        price = f"{milliseconds(row.latency.median_ms)} ({latency_label(row.latency)}), {price}"
    head = f"trial {row.number} {PLAIN_WORDS.get(row.state, row.state)}"
    if row.state == TrialState.ASKED:
        return ""
    if row.state == TrialState.QUEUED:
        return f"{head}: {row.config}, {price}"
    if row.state == TrialState.RUNNING:
        return f"{head}: {row.config}" + (f", attempt {row.attempt}" if row.attempt > 1 else "")
    if row.state == TrialState.DONE:
        return f"{head}: {NAMES[row.objective]} {percent(row.score, 1)}, {price}, {duration(row.train_seconds)}"
    if row.state == TrialState.DUPLICATE and row.duplicate_of is not None:
        return f"trial {row.number} repeats trial {row.duplicate_of}"
    if pauses and is_paused(row):
        return f"trial {row.number} paused: {why_paused(row)}"
    return f"{head}: {row.reason or 'no reason was recorded'}"
