"""Watching a launch from a terminal: one live table with one progress bar, or plain lines where no one watches.

- On an interactive terminal the newest trials and every running one stand in a table that is redrawn 4 times a second.
- Elsewhere each change of state is one line without escape codes, fit for a log file.
- Nothing in here raises: a closed pipe or a strange terminal must not end a search. Give it a console on standard
  error; standard output is for data.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dashboards.formats import (
    STATE_STYLES,
    clock,
    count,
    duration,
    is_number,
    latency_label,
    milliseconds,
    one_line,
    percent,
    shared_label,
)
from search.loop.callbacks import LaunchCallback
from search.store.rows import TrialRow
from search.store.vocabulary import TrialState
from workers.wording import counted

REFRESHES_PER_S = 4
LINES_AROUND = 8  # lines of the live view beside the table's rows: header, rules, label, bar, note and a spare one
PLAIN_WORDS: Mapping[str, str] = {
    TrialState.PRUNED: "did not go on",
    TrialState.INFEASIBLE: "refused",
    TrialState.DUPLICATE: "repeats an earlier one",
}

P = ParamSpec("P")
S = TypeVar("S", bound="_Watcher")


def _never_raises(method: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
    """Make a view's method harmless: what can't be shown is left out, and the search goes on."""

    def harmless(self: S, /, *args: P.args, **kwargs: P.kwargs) -> None:
        with contextlib.suppress(Exception), self.lock:
            method(self, *args, **kwargs)

    return functools.update_wrapper(harmless, method)


class _Watcher:
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


class _PlainView(_Watcher):
    """One line for each change, on a console that is no terminal."""

    def __init__(self, console: Console, wanted: int) -> None:
        super().__init__(wanted)
        self.console = console

    @_never_raises
    def trial(self, row: TrialRow) -> None:
        """Print a trial's new state, once."""
        before = self.rows.get(row.number)
        self.rows[row.number] = row
        if before is not None and before.state == row.state:
            return
        line = plain_line(row)
        if line:
            self._say(line)

    @_never_raises
    def curve(self, number: int, row: Mapping[str, Any]) -> None:
        """Remember how far a trial has come; epochs get no line."""
        self.epochs[number] = row

    @_never_raises
    def progress(self, done: int, wanted: int) -> None:
        """Print how many trainings are done when that changes."""
        changed = self.done_before is not None and (done, wanted) != (self.done, self.wanted)
        self.set_progress(done, wanted)
        if changed:
            self._say(f"{done} of {counted(wanted, 'training')} done, {self.times_text()}")

    @_never_raises
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


class _Screen(Live):
    """A live display that survives the loss of its terminal, in the refreshing thread too."""

    def refresh(self) -> None:
        """Draw, if the terminal is still there."""
        with contextlib.suppress(Exception, SystemExit):
            super().refresh()


class _LiveView(_Watcher):
    """The table, the bar and the last note, drawn by rich's refreshing thread."""

    def __init__(self, console: Console, wanted: int) -> None:
        super().__init__(wanted)
        self.console = console
        self.last_note = ""

    @_never_raises
    def trial(self, row: TrialRow) -> None:
        """Remember a trial's new state."""
        self.rows[row.number] = row

    @_never_raises
    def curve(self, number: int, row: Mapping[str, Any]) -> None:
        """Remember a trial's newest epoch."""
        self.epochs[number] = row

    @_never_raises
    def progress(self, done: int, wanted: int) -> None:
        """Move the bar."""
        self.set_progress(done, wanted)

    @_never_raises
    def note(self, text: str) -> None:
        """Show this note in place of the last."""
        self.last_note = one_line(text)

    def draw(self) -> RenderableType:
        """Return the whole view; an empty line where it can't be drawn."""
        try:
            with self.lock:
                return Group(self._table(), self._bar(), Text(self.last_note, style="dim", overflow="ellipsis"))
        except Exception:
            return Text("")

    def _table(self) -> RenderableType:
        rows = self._newest_rows(max(3, self.console.height - LINES_AROUND))
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, expand=True)
        label = shared_label(rows)
        table.add_column("#", justify="right", no_wrap=True)
        table.add_column("config", ratio=5, min_width=12, no_wrap=True, overflow="ellipsis")
        table.add_column("macs", justify="right", no_wrap=True)
        table.add_column("latency", justify="right", no_wrap=True)
        table.add_column("top-1", justify="right", no_wrap=True)
        table.add_column("state", ratio=4, min_width=12, no_wrap=True, overflow="ellipsis")
        for row in rows:
            table.add_row(*self._cells(row, mixed=label is None))
        return (
            Group(table, Text(f"latency: {label}", style="dim", no_wrap=True, overflow="ellipsis")) if label else table
        )

    def _newest_rows(self, room: int) -> list[TrialRow]:
        """Return the newest rows that fit, the running ones always among them."""
        newest = sorted(self.rows.values(), key=lambda row: (row.state == TrialState.RUNNING, row.number), reverse=True)
        return sorted(newest[:room], key=lambda row: row.number)

    def _cells(self, row: TrialRow, mixed: bool) -> tuple[str | Text, ...]:
        epoch = self.epochs.get(row.number)
        top1 = row.top1 if row.top1 is not None or epoch is None else epoch.get("val_top1")
        latency = milliseconds(row.latency.median_ms) if row.latency is not None else "-"
        if mixed and row.latency is not None:
            latency += f" {latency_label(row.latency)}"
        return (
            str(row.number),
            Text(str(row.config)),
            count(row.macs),
            latency,
            percent(top1, 1),
            self._state(row, epoch),
        )

    def _state(self, row: TrialRow, epoch: Mapping[str, Any] | None) -> Text:
        text = Text(row.state, style=STATE_STYLES.get(row.state, ""))
        if row.state == TrialState.RUNNING and epoch is not None:
            epochs = row.training.get("epochs")
            total = f"/{epochs}" if is_number(epochs) else ""
            text.append(f" {percent(epoch.get('progress'), 0)}, epoch {epoch.get('epoch')}{total}")
        elif row.duplicate_of is not None:
            text.append(f" of {row.duplicate_of}")
        elif row.reason:
            text.append(f": {one_line(row.reason, 120)}", style="dim")
        return text

    def _bar(self) -> RenderableType:
        reached = self.trainings()
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        grid.add_column(no_wrap=True)
        bar = ProgressBar(total=max(self.wanted, 1), completed=reached, complete_style="cyan", finished_style="green")
        grid.add_row(f"{self.done} of {counted(self.wanted, 'training')}", bar, self.times_text())
        return grid


@contextlib.contextmanager
def live_view(console: Console, wanted: int) -> Iterator[LaunchCallback]:
    """Yield the callback of a launch that shows its progress on `console` until the block ends.

    `wanted` is the number of trainings asked for. The callback's methods may be called from any thread; none raises.
    """
    started = _started(console, wanted)
    if started is None:
        yield _PlainView(console, wanted)
        return
    view, screen = started
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
