"""The timeline: what ran on which worker and device, when, after what wait, and how each attempt ended.

A worker is a process of a host; it keeps its row while it lives, and a later process of the host may take it over. So
there are as many rows of a host (of a Ray cluster: of a node) as it had workers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from dashboards.data.columns import StudyColumns
from dashboards.data.timeline import Span, Timeline
from dashboards.formats import duration, moment, one_line, percent
from dashboards.panels.data_table import DataTable
from dashboards.panels.style import FRONT, GREY, INT8, MISLED, PREDICTED, REFERENCE, drawable, empty_figure, escaped
from search.store.vocabulary import AttemptOutcome, LeaseOutcome
from workers.wording import counted

MOST_ROWS = 40
LONGEST_PLACE = 40  # letters of a host's or device's name
LONGEST_REASON = 160
UNKNOWN = "not known yet"  # where it runs
GREEN, RED = PREDICTED, MISLED
# How work ended: colour, and the pattern that says the same without colours.
LOOKS: Mapping[str, tuple[str, str]] = {
    "trained": (GREEN, ""),
    "running": (FRONT, "/"),
    "ended early": (INT8, "\\"),
    "stopped or cancelled": (GREY, "."),
    "failed or lost": (RED, "x"),
    "measured": (REFERENCE, ""),
    "measuring": (REFERENCE, "/"),
    "not measured": (RED, "-"),
    "waiting for a worker": (GREY, ""),
}
_TRAININGS = {
    None: "running",
    AttemptOutcome.DONE: "trained",
    AttemptOutcome.PRUNED: "ended early",
    AttemptOutcome.STOPPED: "stopped or cancelled",
    AttemptOutcome.CANCELLED: "stopped or cancelled",
    AttemptOutcome.FAILED: "failed or lost",
    AttemptOutcome.LOST: "failed or lost",
}
WAITING = "waiting for a worker"


@dataclass(frozen=True)
class Bar:
    """One piece of work in one row of the chart."""

    row: str
    kind: str  # of `LOOKS`
    span: Span


@dataclass(frozen=True)
class TimelineInfo:
    """What the timeline shows; `rows` from the bottom to the top."""

    rows: tuple[str, ...]
    bars: tuple[Bar, ...]  # the oldest first
    notes: tuple[str, ...] = ()
    reason: str | None = None

    def table(self) -> DataTable:
        """Return the pieces of work, the newest first."""
        headers = ("began (UTC)", "where", "trial", "attempt", "took", "waited", "how it ended", "why")
        shown = [bar for bar in reversed(self.bars) if bar.kind != WAITING]
        return DataTable.of(headers, map(_line, shown), len(shown))


def timeline_info(columns: StudyColumns, timeline: Timeline) -> TimelineInfo:
    """Return the newest work for a study, over the time that both trainings and measurements are shown for."""
    if not timeline.trainings and not timeline.measurements:
        why = "No training has begun yet, and no device has measured for this study."
        return TimelineInfo((), (), reason=why if len(columns) else "No trial has been asked for yet.")
    begin = _window_start(timeline)
    trainings = [span for span in timeline.trainings if span.ended_at >= begin]
    measurements = [span for span in timeline.measurements if span.ended_at >= begin]
    bars = [*_training_bars(trainings), *_measurement_bars(measurements)]
    rows = _rows(bars)
    shown = [bar for bar in bars if bar.row in rows]
    left_out = (
        timeline.earlier_trainings + len(timeline.trainings) - len(trainings),
        timeline.earlier_measurements + len(timeline.measurements) - len(measurements),
    )
    notes = (*_left_out(begin, left_out, len({bar.row for bar in bars}) - len(rows)), *_summary(trainings))
    return TimelineInfo(rows, tuple(sorted(shown, key=lambda bar: bar.span.began_at)), notes)


def _window_start(timeline: Timeline) -> float:
    """Return from when on everything is shown: later than the newest work of either kind that is left out."""
    starts = [timeline.trainings[0].began_at] if timeline.earlier_trainings else []
    if timeline.earlier_measurements:
        starts.append(timeline.measurements[0].began_at)
    return max(starts, default=0.0)


def _training_bars(spans: Sequence[Span]) -> Iterator[Bar]:
    """Yield the bars of trainings and, in a row of their own, of the waits before them."""
    lanes = _lanes(spans)
    for span in spans:
        yield Bar(lanes.get(span.place, UNKNOWN), _TRAININGS[span.outcome], span)  # type: ignore[index]
        if span.waited_s:
            yield Bar(WAITING, WAITING, span)


def _lanes(spans: Sequence[Span]) -> dict[str, str]:
    """Return the row of each worker: the first of its host's that no other of its workers needs meanwhile."""
    lives: dict[str, tuple[float, float]] = {}
    for span in spans:
        if span.place:
            began, ended = lives.get(span.place, (span.began_at, span.ended_at))
            lives[span.place] = (min(began, span.began_at), max(ended, span.ended_at))
    free_at: dict[str, list[float]] = {}  # by host: from when on each of its rows is free
    lanes: dict[str, str] = {}
    for place, (began, ended) in sorted(lives.items(), key=lambda life: (life[1], life[0])):
        host = place.rpartition(":")[0] or place
        ends = free_at.setdefault(host, [])
        lane = next((lane for lane, free in enumerate(ends) if free <= began), len(ends))
        ends[lane : lane + 1] = [ended]
        lanes[place] = f"{one_line(host, LONGEST_PLACE)} #{lane + 1}"
    return lanes


def _measurement_bars(spans: Iterable[Span]) -> Iterator[Bar]:
    for span in spans:
        done = "measured" if span.outcome == LeaseOutcome.ACCEPTED else "not measured"
        yield Bar(f"device {one_line(span.place, LONGEST_PLACE)}", "measuring" if span.outcome is None else done, span)


def _rows(bars: Sequence[Bar]) -> tuple[str, ...]:
    """Return the rows, at most `MOST_ROWS` of those with the newest work: devices at the bottom, workers above."""
    newest: dict[str, float] = {}
    for bar in bars:
        newest[bar.row] = max(newest.get(bar.row, 0.0), bar.span.ended_at)
    kept = sorted(newest, key=lambda row: -newest[row])[:MOST_ROWS]
    return tuple(sorted(kept, key=lambda row: (row != WAITING, not row.startswith("device "), _natural(row))))


def _natural(row: str) -> tuple[str, int]:
    """Return what orders rows from the bottom up: #10 comes after #9."""
    host, _, lane = row.rpartition("#")
    return (host, -int(lane)) if lane.isdigit() else (row, 0)


def _left_out(begin: float, earlier: tuple[int, int], rows: int) -> Iterator[str]:
    trainings, measurements = earlier
    if trainings or measurements:
        parts = [counted(number, noun) for number, noun in ((trainings, "attempt"), (measurements, "measurement"))]
        named = " and ".join(part for part, number in zip(parts, earlier, strict=True) if number)
        yield f"Shown from {moment(begin)} UTC on; {named} before that are left out."
    if rows > 0:
        yield f"{counted(rows, 'row')} without newer work {'is' if rows == 1 else 'are'} left out."


def _summary(trainings: Sequence[Span]) -> Iterator[str]:
    """Yield how busy the workers were, how long trials waited, and how many attempts were in vain."""
    if not trainings:
        return
    began, ended = min(span.began_at for span in trainings), max(span.ended_at for span in trainings)
    workers = len(set(_lanes(trainings).values()))
    busy_s = sum(span.ended_at - span.began_at for span in trainings if span.place)
    waits = [span.waited_s for span in trainings if span.waited_s is not None]
    said = []
    if workers and ended > began:
        busy = percent(min(1.0, busy_s / (workers * (ended - began))), 0)
        said.append(f"{counted(workers, 'worker')} trained {busy} of the time")
    if waits:
        middle, longest = duration(float(np.median(waits))), duration(max(waits))
        said.append(f"trials waited {middle} in the middle and {longest} at most, from proposal to training")
    vain = sum(_TRAININGS[span.outcome] == "failed or lost" for span in trainings)  # type: ignore[index]
    if vain:
        said.append(f"{counted(vain, 'attempt')} failed or {'was' if vain == 1 else 'were'} lost")
    if said:
        text = "; ".join(said)
        yield f"{text[:1].upper()}{text[1:]}."


def _line(bar: Bar) -> tuple[str, ...]:
    span = bar.span
    where = bar.row if not span.place or bar.row.startswith("device ") else one_line(span.place, 80)
    return (
        _second(span.began_at),
        where,
        "-" if span.number is None else str(span.number),
        str(span.attempt),
        duration(span.ended_at - span.began_at),
        duration(span.waited_s),
        bar.kind if span.outcome is None else one_line(span.outcome, 40),
        one_line(span.reason, LONGEST_REASON),
    )


def _second(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


# ---- the figure -----------------------------------------------------------------------------------------


def timeline_figure(info: TimelineInfo) -> Any:
    """Return a bar for each piece of work, a row for each worker and device, over the time in UTC.

    Raises:
        ChartUnavailable: nothing has worked for the study yet.
    """
    drawable(info)
    figure = empty_figure(max(260, 160 + 26 * len(info.rows)))
    for kind in LOOKS:
        bars = [bar for bar in info.bars if bar.kind == kind]
        if bars:
            figure.add_trace(_trace(kind, bars))
    figure.update_layout(barmode="overlay", bargap=0.25, legend={"y": 1.02, "yanchor": "bottom"})
    figure.update_xaxes(type="date", title={"text": "time (UTC)"})
    figure.update_yaxes(
        type="category", categoryorder="array", categoryarray=list(map(escaped, info.rows)), griddash="solid"
    )
    return figure


def _trace(kind: str, bars: Sequence[Bar]) -> Any:
    import plotly.graph_objects as go

    colour, pattern = LOOKS[kind]
    of: Callable[[Bar], tuple[float, float]] = _wait if kind == WAITING else _work
    spans = [of(bar) for bar in bars]
    return go.Bar(
        name=kind,
        orientation="h",
        base=[1000 * begin for begin, _ in spans],  # a date axis counts milliseconds
        x=[max(1.0, 1000 * (end - begin)) for begin, end in spans],
        y=[escaped(bar.row) for bar in bars],
        width=0.3 if kind == WAITING else 0.8,
        opacity=0.35 if kind == WAITING else 1.0,
        marker={
            "color": colour,
            "line": {"width": 0.5, "color": colour},
            "pattern": {"shape": pattern, "size": 5, "fillmode": "overlay"},
        },
        text=[_hover(bar) for bar in bars],
        textposition="none",
        customdata=["-" if bar.span.number is None else bar.span.number for bar in bars],  # a click selects the trial
        hovertemplate="%{text}<extra></extra>",
    )


def _work(bar: Bar) -> tuple[float, float]:
    return bar.span.began_at, bar.span.ended_at


def _wait(bar: Bar) -> tuple[float, float]:
    return bar.span.began_at - (bar.span.waited_s or 0.0), bar.span.began_at


def _hover(bar: Bar) -> str:
    span = bar.span
    what = "another study's model" if span.number is None else f"trial {span.number}"
    if bar.kind == WAITING:
        return f"{what}<br>waited {duration(span.waited_s)}, from its proposal to its training"
    lines = [f"{what}, attempt {span.attempt}: {bar.kind}", f"on {escaped(span.place or UNKNOWN)}"]
    lines.append(f"{_second(span.began_at)}, {duration(span.ended_at - span.began_at)}")
    if span.waited_s is not None:
        lines.append(f"after {duration(span.waited_s)} of waiting")
    return "<br>".join([*lines, *([escaped(span.reason)] if span.reason else [])])
