"""Learning curves: accuracy over progress, with the condensing stages and where a training stopped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dashboards.data.columns import Floats, StudyColumns, View
from dashboards.formats import percent
from dashboards.panels.data_table import DataTable
from dashboards.panels.style import (
    COLOURS,
    DASHES,
    GREY,
    MARKS,
    SYMBOLS,
    add_label,
    drawable,
    empty_figure,
    escaped,
    scatter,
    slim,
)
from search.store.vocabulary import STATES, TrialState
from workers.metrics import NAMES
from workers.wording import agreeing

MOST_CURVES = 8  # more can't be told apart in one chart
DEPLOYED = MARKS["trained"].symbol  # as the trained network has in the other charts
PLOT_PX, NAME_PX = 340, 15  # heights of the plot and of a trial's name beside its curve
EARLY = 0.2  # until this progress a curve rises so steeply that it would flatten the rest of the chart
ENDED_EARLY = (TrialState.PRUNED, TrialState.FAILED, TrialState.CANCELLED)


@dataclass(frozen=True, eq=False)
class Curve:
    """One trial's curve; arrays of one length, `score` fractions (NaN where an epoch has none)."""

    number: int
    state: str
    config: str
    epochs: tuple[int, ...]
    progress: Floats
    score: Floats
    stages: tuple[int, ...]  # condensing stages that were done by each epoch
    forms: tuple[str, ...]  # whose score it is: training, condensed or deployed
    why_stopped: str | None  # why a trial was ended early, failed or was cancelled

    @property
    def condensed_at(self) -> list[int]:
        """Places of the first epochs after each condensing stage."""
        return [place for place in range(len(self.stages)) if self.stages[place] > self.stages[max(0, place - 1)]]


@dataclass(frozen=True, eq=False)
class CurvesInfo:
    """Learning curves to compare; `left_out` trials are beyond `MOST_CURVES`."""

    curves: tuple[Curve, ...]
    left_out: int = 0
    without: tuple[int, ...] = ()  # chosen trials without a curve
    notes: tuple[str, ...] = ()
    reason: str | None = None
    score_name: str = NAMES["top1"]

    def table(self) -> DataTable:
        """Return one line for each stretch between two events: the start, a condensing stage, the end."""
        lines = [line for curve in self.curves for line in _lines(curve)]
        headers = ("trial", "epoch", "progress", self.score_name, "condensing stage", "form", "event")
        return DataTable.of(headers, lines, len(lines))


def curve_numbers(columns: StudyColumns, view: View, chosen: Sequence[int] = ()) -> list[int]:
    """Return whose curves to show: the chosen trials, else the most accurate of the front, else those that trained.

    They are more than `MOST_CURVES` where more were chosen, or are on the front.
    """
    if chosen:
        return list(dict.fromkeys(chosen))
    front = np.flatnonzero(columns.front(view.group))
    if not front.size:
        front = np.flatnonzero(columns.trained)
    if front.size:
        return [int(n) for n in columns.number[front[np.argsort(-columns.score[front], kind="stable")]]]
    started = np.flatnonzero(np.isfinite(columns.started_at))
    return [int(number) for number in columns.number[started[::-1]][:MOST_CURVES]]


def curves_info(
    columns: StudyColumns, curves: Mapping[int, Sequence[Mapping[str, Any]]], numbers: Sequence[int]
) -> CurvesInfo:
    """Return the curves of `numbers`, in that order, the first `MOST_CURVES` that have one.

    Args:
        columns: the study.
        curves: rows of `condensery_curve` by trial number; may lack trials beyond the first `MOST_CURVES`.
        numbers: whose curves to show; see `curve_numbers`.
    """
    existing = [number for number in numbers if columns.index_of(number) is not None]
    first = existing[:MOST_CURVES]
    shown = tuple(_curve(columns, number, curves[number]) for number in first if curves.get(number))
    without = tuple(number for number in first if not curves.get(number))
    reason = None if shown else _why_none(columns, numbers)
    left_out = len(existing) - len(first)
    return CurvesInfo(shown, left_out, without, _notes(shown, left_out, without), reason, columns.score_name)


def _curve(columns: StudyColumns, number: int, rows: Sequence[Mapping[str, Any]]) -> Curve:
    place = columns.index_of(number) or 0
    state, score = STATES[columns.state[place]], f"val_{columns.objective}"
    return Curve(
        number=number,
        state=state,
        config=columns.config_text[place],
        epochs=tuple(int(row["epoch"]) for row in rows),
        progress=np.array([float(row["progress"]) for row in rows]),
        score=np.array([math.nan if row[score] is None else float(row[score]) for row in rows]),
        stages=tuple(int(row["condensing_stage"]) for row in rows),
        forms=tuple(str(row["form"]) for row in rows),
        why_stopped=(columns.reason[place] or str(state)) if state in ENDED_EARLY else None,
    )


def _why_none(columns: StudyColumns, numbers: Sequence[int]) -> str:
    if not len(columns):
        return "No trials yet: curves come with the first training of `condensery launch`."
    trials = "no trial has" if len(numbers) != 1 else f"trial {numbers[0]} hasn't"
    if len(numbers) > 1:
        trials = f"none of the trials {', '.join(map(str, numbers[:MOST_CURVES]))} has"
    return (
        f"No learning curve to show: {trials} finished an epoch. It comes with the next epoch, or choose other trials."
    )


def _notes(curves: Sequence[Curve], left_out: int, without: Sequence[int]) -> tuple[str, ...]:
    notes = []
    if any(curve.condensed_at for curve in curves):
        notes.append("A mark is a condensing stage: connections were removed there, and the score often dips.")
    if any("deployed" in curve.forms for curve in curves):
        notes.append("The dot is the deployed network, the one that counts.")
    if any(curve.why_stopped is not None for curve in curves):
        notes.append("A cross is where a training stopped before its end.")
    if any((curve.progress < EARLY).any() for curve in curves):
        notes.append("The chart opens on what comes after the first fifth of a training; a double click shows all.")
    if left_out:
        notes.append(
            f"{left_out:,} more {agreeing(left_out, 'is', 'are')} not shown: a chart has room for {MOST_CURVES}."
        )
    if without and curves:
        notes.append(f"No epoch yet: {agreeing(len(without), 'trial', 'trials')} {', '.join(map(str, without))}.")
    return tuple(notes)


def _lines(curve: Curve) -> list[tuple[str, ...]]:
    last = len(curve.epochs) - 1
    events = {0: "first epoch", last: "newest epoch" if curve.why_stopped is None else f"stopped: {curve.why_stopped}"}
    events |= {place: "condensed" for place in curve.condensed_at if place != last}
    if curve.forms[last] == "deployed":
        events[last] = "deployed"
    return [
        (
            str(curve.number),
            str(curve.epochs[place]),
            percent(float(curve.progress[place]), 0),
            percent(float(curve.score[place])),
            str(curve.stages[place]),
            curve.forms[place],
            event,
        )
        for place, event in sorted(events.items())
    ]


# ---- the figure -----------------------------------------------------------------------------------------


def curves_figure(info: CurvesInfo) -> Any:
    """Return the score over progress: marks at condensing stages, a dot for the deployed form, a cross at a stop.

    Raises:
        ChartUnavailable: no trial has a curve.
    """
    drawable(info)
    figure = empty_figure(460)
    trace = scatter(sum(len(curve.epochs) for curve in info.curves))
    for index, curve in enumerate(info.curves):
        _add_curve(figure, trace, curve, index)
    stages = sorted({curve.stages[place] for curve in info.curves for place in curve.condensed_at})
    for stage in stages:
        _add_key(figure, trace, f"condensing stage {stage}", SYMBOLS[stage % len(SYMBOLS)], 9)
    if any("deployed" in curve.forms for curve in info.curves):
        _add_key(figure, trace, "deployed", DEPLOYED, 10)
    if any(curve.why_stopped is not None for curve in info.curves):
        _add_key(figure, trace, "stopped", "x", 10)
    settled = _settled(info.curves)
    figure.update_xaxes(title={"text": "training progress, % of the schedule"}, range=[-2, 113])
    figure.update_yaxes(title={"text": f"{info.score_name} on the validation images, %"}, range=settled)
    _add_names(figure, info.curves, settled)
    return figure


def _add_names(figure: Any, curves: Sequence[Curve], shown: list[float] | None) -> None:
    """Write each trial's number beside the end of its curve, moved apart where ends lie close together."""
    ends = [(100 * curve.progress[-1], 100 * curve.score[-1], index) for index, curve in enumerate(curves)]
    ends = sorted((end for end in ends if math.isfinite(end[1])), key=lambda end: end[1])
    every = np.concatenate([100 * curve.score[np.isfinite(curve.score)] for curve in curves])
    if not ends or not every.size:
        return
    low, high = shown or (float(every.min()), float(every.max()))
    per_px, below = max(high - low, 1e-9) / PLOT_PX, -math.inf
    for x, y, index in ends:
        at = max(y, below + NAME_PX * per_px)
        below = at
        name = f"trial {curves[index].number}"
        add_label(figure, name, (x, at), xshift=9, yanchor="middle")


def _add_curve(figure: Any, trace: Any, curve: Curve, index: int) -> None:
    colour = COLOURS[index % len(COLOURS)]
    symbols, sizes = ["circle"] * len(curve.epochs), [0.0] * len(curve.epochs)
    for place in curve.condensed_at:
        symbols[place], sizes[place] = SYMBOLS[curve.stages[place] % len(SYMBOLS)], 9.0
    for place, form in enumerate(curve.forms):
        if form == "deployed":
            symbols[place], sizes[place] = DEPLOYED, 10.0
    if curve.why_stopped is not None:
        symbols[-1], sizes[-1] = "x", 10.0
    stopped = "" if curve.why_stopped is None else f"<br>stopped: {escaped(curve.why_stopped)}"
    figure.add_trace(
        trace(
            x=slim(100 * curve.progress),
            y=slim(100 * curve.score),
            mode="lines+markers",
            name=f"trial {curve.number}",
            showlegend=False,
            line={"color": colour, "width": 2, "dash": DASHES[index // 3 % len(DASHES)]},
            marker={"symbol": symbols, "opacity": 1.0, "size": slim(sizes), "color": colour, "line": {"width": 0}},
            customdata=np.array([[curve.number] * len(curve.epochs), curve.epochs, curve.stages], dtype=np.int32).T,
            text=[escaped(form) for form in curve.forms],
            hovertemplate=f"<b>trial {curve.number}</b>, epoch %{{customdata[1]}}: %{{y:.2f}} %<br>"
            f"%{{text}} form, condensing stage %{{customdata[2]}}{stopped.replace('%{', '% {')}<extra></extra>",
        )
    )


def _settled(curves: Sequence[Curve]) -> list[float] | None:
    """Return the range in % of what comes after the first fifth of the schedule; None for the whole range."""
    late = np.concatenate([100 * curve.score[curve.progress >= EARLY] for curve in curves])
    late = late[np.isfinite(late)]
    if not late.size or late.max() == late.min():
        return None
    room = 0.06 * float(late.max() - late.min())
    return [float(late.min()) - room, float(late.max()) + room]


def _add_key(figure: Any, trace: Any, name: str, symbol: str, size: int) -> None:
    """Add a legend entry that explains a marker."""
    marker = {"symbol": symbol, "size": size, "color": GREY}
    figure.add_trace(trace(x=[None], y=[None], mode="markers", marker=marker, name=name, hoverinfo="skip"))
