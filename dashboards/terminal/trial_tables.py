"""What `trials` and `pareto` print: a line for each trial from 100 columns on, and two or three where there are fewer.

Both have the same columns in the same order; `trials` has states as well. What latencies have in common (kind, policy,
device) is said once, below a table; where they differ, each row says what its own are, or the note counts them.
Estimates and predictions are marked in every table.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from dashboards.formats import (
    NOTHING,
    STAR_MARK,
    common_label,
    count,
    digits_ms,
    duration,
    latency_label,
    latency_text,
    marks_text,
    one_line,
    percent,
    place_label,
    shared_label,
)
from dashboards.terminal.tables import ONE_LINE_FROM, plain_table, state_text, with_reasons
from search.store.replayed import replayed_note
from search.store.rows import TrialRow
from space.config import code_legend
from workers.latency.record import LatencyKind, LatencyRecord
from workers.metrics import NAMES

INTERVALS_FROM = 72  # fewer hold no interval beside a config
WIDE = 10_000  # columns that a table may take where nothing is to be folded or cut
DEVICE_LETTERS = 24  # of a device's name in a heading
KIND_MARKS = {LatencyKind.ESTIMATED: "e", LatencyKind.PREDICTED: "p"}
PRECISION_MARKS = {"int8": "i8", "fp16": "f16"}
PRECISION_NOTES = {
    "int8": "i8: of its file in 8 bits (int8), and so is its score",
    "fp16": "f16: of its file in 16 bits (fp16), and so is its score",
}
KIND_NOTES = {
    LatencyKind.ESTIMATED: "e: estimated from counted instructions",
    LatencyKind.PREDICTED: "p: predicted from the network's structure",
}


def trials_table(rows: Sequence[TrialRow], replayed: str | None = None, in_full: bool = False) -> RenderableType:
    """Return the trials, in the order given; the reasons of those that have one are below.

    Args:
        rows: trials of one study.
        replayed: the table that stands in for the study's trainings.
        in_full: every column, and nothing folded or cut; see `WIDE`.
    """
    return _Trials(rows, "No trials.", replayed, in_full, with_state=True)


def shortlist_table(rows: Sequence[TrialRow], replayed: str | None = None) -> RenderableType:
    """Return the trials that were starred or noted; the arguments are those of `trials_table`."""
    return _Trials(rows, "No trial is starred or noted.", replayed, in_full=False, with_state=True)


def pareto_table(rows: Sequence[TrialRow], replayed: str | None = None, in_full: bool = False) -> RenderableType:
    """Return the front, in the order given: no network beats one of these in score, latency and macs at once.

    The arguments are those of `trials_table`.
    """
    empty = "The front is empty: no trained network has a latency yet."
    return _Trials(rows, empty, replayed, in_full, with_state=False)


@dataclass(frozen=True)
class _Trials:
    rows: Sequence[TrialRow]
    empty: str  # what is said where there are no rows
    replayed: str | None
    in_full: bool
    with_state: bool

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.rows:
            yield Text(self.empty)
            return
        on_one_line = self.in_full or options.max_width >= ONE_LINE_FROM
        with_intervals = options.max_width >= INTERVALS_FROM
        table = self._on_one_line() if on_one_line else self._folded(with_intervals)
        reasons = [(_number(row), Text(about, style="dim")) for row in self.rows for about in _about(row)]
        yield Group(
            with_reasons(table, reasons),
            *(Text(note, style="dim") for note in self._notes(on_one_line, with_intervals)),
        )

    def _on_one_line(self) -> Table:
        """Return the table whose rows take a line each: latencies on further devices have columns of their own."""
        targets = list(dict.fromkeys(target for row in self.rows for target in row.latencies)) or ["host"]
        further = [f">ms on {one_line(target, DEVICE_LETTERS)}" for target in targets[1:]]
        state = ["state"] if self.with_state else []
        more = ["origin", ">trained for"] if self.in_full else []
        headers = [">#", "config", f">{_score_name(self.rows)}", _heading(targets[0]), *further, ">macs", ">params"]
        table = plain_table(*headers, *state, *more)
        for row in self.rows:
            first, *others = [row.latencies.get(target) for target in targets]
            texts = [_marked(latency) if self.in_full else _median(latency) for latency in others]
            cells: list[str | Text] = [_number(row), Text(_config_line(row)), percent(row.score), _marked(first)]
            cells += [*texts, count(row.macs), count(row.params)]
            cells += [state_text(row.state)] if self.with_state else []
            cells += [str(row.origin), duration(row.train_seconds)] if self.in_full else []
            table.add_row(*cells)
        return table

    def _folded(self, with_intervals: bool) -> Table:
        """Return the table for narrow terminals, with what has no room beside a number below it."""
        mixed = shared_label(self.rows) is None
        targets = list(dict.fromkeys(row.latency.target for row in self.rows if row.latency is not None))
        heading = _heading(targets[0]) if len(targets) == 1 else ">latency ms"
        last = "state" if self.with_state else ">params"
        table = plain_table(">#", "~config", f">{_score_name(self.rows)}", heading, ">macs", last)
        for row in self.rows:
            end = state_text(row.state) if self.with_state else count(row.params)
            table.add_row(
                _number(row),
                _config_cell(row, mixed),
                percent(row.score),
                _latency_cell(row, mixed, _marked if with_intervals else _median),
                count(row.macs),
                end,
            )
        return table

    def _further(self) -> Mapping[str, list[LatencyRecord]]:
        """Return the latencies on the devices that no trial is judged by, by the device's name."""
        further: dict[str, list[LatencyRecord]] = defaultdict(list)
        for row in self.rows:
            for latency in row.others:
                further[latency.target].append(latency)
        return further

    def _notes(self, on_one_line: bool, with_intervals: bool) -> list[str]:
        shared = shared_label(self.rows)
        latencies = [latency for row in self.rows for latency in row.latencies.values()]
        what = "latency: median [95 % interval] in ms" if with_intervals else "latency: median in ms"
        notes = [f"{what}, {shared}"] if shared else []
        if shared is None and on_one_line:
            notes += [f"{what}; {text}" for text in _counted_kinds(latencies)]
        elif on_one_line:
            for target, further in self._further().items():
                notes += [f"ms on {one_line(target, DEVICE_LETTERS)}: {text}" for text in _counted_kinds(further)]
        present = {latency.kind for latency in latencies}
        notes += [note for kind, note in KIND_NOTES.items() if kind in present]
        precisions = {latency.precision for latency in latencies}
        notes += [note for precision, note in PRECISION_NOTES.items() if precision in precisions]
        notes += [f"{STAR_MARK}: on the shortlist"] if any(row.starred for row in self.rows) else []
        notes.append(f"config: {code_legend(str(row.config) for row in self.rows)}")
        replayed = replayed_note(self.replayed)
        return [*notes, *([replayed] if replayed else [])]


def _counted_kinds(latencies: Iterable[LatencyRecord]) -> list[str]:
    """Return "12 measured, on phone, ncnn 1.0, 1 thread" for each kind of latency and place where one was found."""
    kinds = Counter(f"{common_label(latency)}, on {place_label(latency)}" for latency in latencies)
    return [f"{number} {label}" for label, number in kinds.items()]


def _score_name(rows: Sequence[TrialRow]) -> str:
    return NAMES[rows[0].objective]


def _heading(target: str) -> str:
    """Return the heading of the latencies on a device."""
    return f">ms on {one_line(target, DEVICE_LETTERS)}"


def _number(row: TrialRow) -> str:
    return f"{STAR_MARK} {row.number}" if row.starred else str(row.number)


def _about(row: TrialRow) -> Iterator[str]:
    """Yield what is to be said of a trial below the table: why it has no result, and what a user noted."""
    if row.reason and row.duplicate_of is None:
        yield one_line(row.reason, 300)
    if row.note:
        yield f"note: {one_line(row.note, 300)}"


def _marked(latency: LatencyRecord | None) -> str:
    """Return median, interval and marks."""
    return NOTHING if latency is None else f"{latency_text(latency)}{_kind_mark(latency)}"


def _median(latency: LatencyRecord | None) -> str:
    if latency is None:
        return NOTHING
    return f"{digits_ms(latency.median_ms, 4)}{marks_text(latency.steady, latency.extrapolates)}{_kind_mark(latency)}"


def _kind_mark(latency: LatencyRecord) -> str:
    marks = [KIND_MARKS.get(latency.kind, ""), PRECISION_MARKS.get(latency.precision, "")]
    return "".join(f" {mark}" for mark in marks if mark)


def _latency_cell(row: TrialRow, mixed: bool, text_of: Callable[[LatencyRecord | None], str]) -> Text:
    cell = Text(text_of(row.latency))
    if mixed and row.latency is not None:
        cell.append(f"\n{latency_label(row.latency)}", style="dim")
    for other in row.others:
        label = f", {latency_label(other)}" if mixed else ""
        cell.append(f"\n{text_of(other)}\non {one_line(other.target, 24)}{label}", style="dim")
    return cell


def _config_line(row: TrialRow) -> str:
    if row.duplicate_of is not None:
        return f"{row.config} (as {row.duplicate_of})"
    return str(row.config) if row.continues is None else f"{row.config} (continues {row.continues})"


def _config_cell(row: TrialRow, mixed: bool) -> Text:
    cell = Text(str(row.config))
    if row.duplicate_of is not None:
        cell.append(f"\nsame as trial {row.duplicate_of}", style="dim")
    elif row.continues is not None:
        cell.append(f"\ncontinues trial {row.continues}", style="dim")
    if mixed and row.latency is not None:
        cell.append(f"\non {place_label(row.latency)}", style="dim")
    return cell
