"""Watching a launch from a terminal: one live table with one progress bar, or plain lines where no one watches.

- On an interactive terminal the newest trials and every running one are in a table that is redrawn 4 times a second.
  Below it each running training has a line: its epoch as a bar, images a second, the time that is left.
- Elsewhere each change of state is one line without escape codes, fit for a log file; so is, once a minute, how far a
  training is.
- Nothing in here raises: a closed pipe or a strange terminal must not end a search. Give it a console on standard
  error; standard output is for data.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dashboards.formats import (
    STATE_STYLES,
    count,
    epoch_text,
    epoch_under_way,
    images_rate,
    latency_label,
    milliseconds,
    one_line,
    percent,
    shared_label,
    whole_duration,
)
from dashboards.terminal.plain_view import PlainView
from dashboards.terminal.watcher import Watcher, is_paused, never_raises, why_paused
from search.loop.callbacks import LaunchCallback
from search.store.replayed import replayed_note
from search.store.rows import TrialRow
from search.store.vocabulary import TrialState
from workers.metrics import NAMES
from workers.training.reporting import ProgressReport
from workers.wording import counted, of_wanted

REFRESHES_PER_S = 4
LINES_AROUND = 8  # lines of the live view beside the table's rows: header, rules, label, bar, note and a spare one


class _Screen(Live):
    """A live display that survives the loss of its terminal, in the refreshing thread too."""

    def refresh(self) -> None:
        """Draw, if the terminal is still there."""
        with contextlib.suppress(Exception, SystemExit):
            super().refresh()


class _LiveView(Watcher):
    """The table, the bar and the last note, drawn by rich's refreshing thread."""

    def __init__(self, console: Console, wanted: int) -> None:
        super().__init__(wanted)
        self.console = console
        self.last_note = ""

    @never_raises
    def trial(self, row: TrialRow) -> None:
        """Remember a trial's new state."""
        self.rows[row.number] = row

    @never_raises
    def curve(self, number: int, row: Mapping[str, Any]) -> None:
        """Remember a trial's newest epoch."""
        self.set_epoch(number, row)

    @never_raises
    def under_way(self, number: int, report: ProgressReport) -> None:
        """Remember how far a trial is."""
        self.reports[number] = report

    @never_raises
    def progress(self, done: int, wanted: int) -> None:
        """Move the bar."""
        self.set_progress(done, wanted)

    @never_raises
    def note(self, text: str) -> None:
        """Show this note in place of the last."""
        self.last_note = one_line(text)

    def draw(self) -> RenderableType:
        """Return the whole view; an empty line where it can't be drawn."""
        try:
            with self.lock:
                parts = [self._table(), self._trainings_bars(), self._bar()]
                return Group(*parts, Text(self.last_note, style="dim", overflow="ellipsis"))
        except Exception:
            return Text("")

    def _table(self) -> RenderableType:
        rows = self._newest_rows(max(3, self.console.height - LINES_AROUND - self._bars_shown()))
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, expand=True)
        label = shared_label(rows)
        table.add_column("#", justify="right", no_wrap=True)
        table.add_column("config", ratio=5, min_width=12, no_wrap=True, overflow="ellipsis")
        table.add_column("macs", justify="right", no_wrap=True)
        table.add_column("latency", justify="right", no_wrap=True)
        name = NAMES[rows[0].objective if rows else "top1"]
        table.add_column(name, justify="right", no_wrap=True)
        table.add_column("state", ratio=4, min_width=12, no_wrap=True, overflow="ellipsis")
        for row in rows:
            table.add_row(*self._cells(row, mixed=label is None))
        notes = (f"latency: {label}" if label else "", replayed_note(self.replayed))
        lines = (Text(note, style="dim", no_wrap=True, overflow="ellipsis") for note in notes if note)
        return Group(table, *lines)

    def _bars_shown(self) -> int:
        """Return how many running trainings have a line of their own: at most a third of the terminal."""
        reported = sum(row.number in self.reports for row in self.running())
        return min(reported, max(1, (self.console.height - LINES_AROUND) // 3))

    def _trainings_bars(self) -> RenderableType:
        """Return a line for each running training: its epoch as a bar, images a second, the time that is left."""
        reported = [row for row in self.running() if row.number in self.reports]
        shown = reported[: self._bars_shown()]
        grid = Table.grid(padding=(0, 1), expand=True)
        for _ in range(2):
            grid.add_column(no_wrap=True, justify="right")
        grid.add_column(ratio=1, min_width=4)
        for _ in range(3):
            grid.add_column(no_wrap=True, justify="right")
        for row in shown:
            grid.add_row(*self._bar_cells(row, self.reports[row.number]))
        if len(shown) < len(reported):
            more = Text(f"and {counted(len(reported) - len(shown), 'other training')}", style="dim")
            return Group(grid, more)
        return grid

    def _bar_cells(self, row: TrialRow, report: ProgressReport) -> tuple[RenderableType, ...]:
        epochs = row.training.get("epochs")
        done = epoch_under_way(report.progress, epochs)[1] if isinstance(epochs, int) else report.progress
        left = "" if report.left_s is None else f"{whole_duration(report.left_s)} left"
        rate = "" if report.images_per_s is None else images_rate(report.images_per_s)
        bar = ProgressBar(total=1.0, completed=done, complete_style="cyan", finished_style="cyan")
        return (f"#{row.number}", epoch_text(report.progress, epochs), bar, percent(report.progress, 0), rate, left)

    def _newest_rows(self, room: int) -> list[TrialRow]:
        """Return the newest rows that fit, the running ones always among them."""
        newest = sorted(self.rows.values(), key=lambda row: (row.state == TrialState.RUNNING, row.number), reverse=True)
        return sorted(newest[:room], key=lambda row: row.number)

    def _cells(self, row: TrialRow, mixed: bool) -> tuple[str | Text, ...]:
        epoch = self.epochs.get(row.number)
        score = row.score if row.score is not None or epoch is None else epoch.get(f"val_{row.objective}")
        latency = milliseconds(row.latency.median_ms) if row.latency is not None else "-"
        if mixed and row.latency is not None:
            latency += f" {latency_label(row.latency)}"
        return (
            str(row.number),
            Text(str(row.config)),
            count(row.macs),
            latency,
            percent(score, 1),
            self._state(row),
        )

    def _state(self, row: TrialRow) -> Text:
        if self.pauses and (is_paused(row) or row.number in self.continued()):
            return self._paused(row)
        text = Text(row.state, style=STATE_STYLES.get(row.state, ""))
        report = self.reports.get(row.number)
        if row.state == TrialState.RUNNING and report is not None:
            text.append(f" {percent(report.progress, 0)}")
        elif row.duplicate_of is not None:
            text.append(f" of {row.duplicate_of}")
        elif row.reason:
            text.append(f": {one_line(row.reason, 120)}", style="dim")
        return text

    def _paused(self, row: TrialRow) -> Text:
        """Return what is said of a training that may go on later, or has."""
        style, later = STATE_STYLES.get(row.state, ""), self.continued().get(row.number)
        if later is not None:
            return Text(f"gone on as trial {later}", style=style)
        return Text("paused", style=style).append(f": {one_line(why_paused(row), 120)}", style="dim")

    def _bar(self) -> RenderableType:
        reached = self.trainings()
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        grid.add_column(no_wrap=True)
        bar = ProgressBar(total=max(self.wanted, 1), completed=reached, complete_style="cyan", finished_style="green")
        grid.add_row(of_wanted(self.done, self.wanted, "training"), bar, self.times_text())
        return grid


@contextlib.contextmanager
def live_view(
    console: Console, wanted: int, replayed: str | None = None, pauses: bool = False
) -> Iterator[LaunchCallback]:
    """Yield the callback of a launch that shows its progress on `console` until the block ends.

    `wanted` is the number of trainings asked for, `replayed` the table that stands in for them; with `pauses`, one that
    is ended early may go on later. The callback's methods may be called from any thread; none raises.
    """
    started = _started(console, wanted)
    if started is None:
        plain = PlainView(console, wanted)
        plain.replayed, plain.pauses = replayed, pauses
        yield plain
        return
    view, screen = started
    view.replayed, view.pauses = replayed, pauses
    try:
        yield view
    finally:
        with contextlib.suppress(Exception, SystemExit):
            screen.stop()


def _started(console: Console, wanted: int) -> tuple[_LiveView, Live] | None:
    """Start the live table; return None where the console can't have one."""
    try:
        # Colours may be forced on where the console writes to a file, but a live table needs a real terminal.
        if not console.is_interactive or not console.file.isatty():
            return None
        view = _LiveView(console, wanted)
        screen = _Screen(
            console=console,
            get_renderable=view.draw,
            refresh_per_second=REFRESHES_PER_S,
            redirect_stdout=False,  # data printed meanwhile stays on standard output
            vertical_overflow="crop",
        )
        screen.start()
    except Exception:
        return None
    return view, screen
