"""A launch as plain lines, one for each change of state, without escape codes: fit for a log file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from dashboards.formats import count, duration, latency_label, milliseconds, one_line, percent
from dashboards.terminal.watcher import Watcher, never_raises
from search.store.rows import TrialRow
from search.store.vocabulary import TrialState
from workers.wording import counted

PLAIN_WORDS: Mapping[str, str] = {
    TrialState.PRUNED: "did not go on",
    TrialState.INFEASIBLE: "refused",
    TrialState.DUPLICATE: "repeats an earlier one",
}


class PlainView(Watcher):
    """One line for each change, on a console that is no terminal."""

    def __init__(self, console: Console, wanted: int) -> None:
        super().__init__(wanted)
        self.console = console

    @never_raises
    def trial(self, row: TrialRow) -> None:
        """Print a trial's new state, once."""
        before = self.rows.get(row.number)
        self.rows[row.number] = row
        if before is not None and before.state == row.state:
            return
        line = plain_line(row)
        if line:
            self._say(line)

    @never_raises
    def curve(self, number: int, row: Mapping[str, Any]) -> None:
        """Remember how far a trial has come; epochs get no line."""
        self.epochs[number] = row

    @never_raises
    def progress(self, done: int, wanted: int) -> None:
        """Print how many trainings are done when that changes."""
        changed = self.done_before is not None and (done, wanted) != (self.done, self.wanted)
        self.set_progress(done, wanted)
        if changed:
            self._say(f"{done} of {counted(wanted, 'training')} done, {self.times_text()}")

    @never_raises
    def note(self, text: str) -> None:
        """Print the note."""
        self._say(text)

    def _say(self, text: str) -> None:
        # Not through the console: on a closed pipe rich exits the process, and it wraps lines at an assumed width.
        if not self.console.quiet:
            self.console.file.write(f"{one_line(text)}\n")
            self.console.file.flush()


def plain_line(row: TrialRow) -> str:
    """Return one line about a trial's state; empty for `asked`, which is priced at once."""
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
        return f"{head}: top-1 {percent(row.top1, 1)}, {price}, {duration(row.train_seconds)}"
    if row.state == TrialState.DUPLICATE and row.duplicate_of is not None:
        return f"trial {row.number} repeats trial {row.duplicate_of}"
    return f"{head}: {row.reason or 'no reason was recorded'}"
