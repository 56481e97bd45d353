"""What the search believes: where it predicts the front, what it proposes next and why, and how right it was so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dashboards.data.beliefs import (
    SAYS_WHY,
    StudyBelief,
    interval_of,
    possible,
    predicted_text,
    reason_text,
)
from dashboards.data.columns import Axis, Floats, StudyColumns, View
from dashboards.data.quantities import CountUnit, count_units
from dashboards.data.study_settings import search_of
from dashboards.formats import digits_ms, moment, one_line, percent
from dashboards.panels.data_table import DataTable
from dashboards.panels.style import (
    FRONT,
    GREY,
    MARKS,
    PREDICTED,
    add_label,
    drawable,
    empty_figure,
    escaped,
    is_log,
    on_axis,
    slim,
    style_axis,
)
from search.store.rows import Believed
from search.store.vocabulary import TrialState
from workers.wording import counted

BAND = "rgba(90,150,90,0.2)"  # PREDICTED's colour, through which trained networks are seen


@dataclass(frozen=True, eq=False)
class Predicted:
    """Candidates that were not trained, cheapest first; scores are predictions in %, with their 95 % intervals."""

    candidates: tuple[Believed, ...]
    cost: Floats  # in the axis's unit
    score_pct: Floats
    low_pct: Floats
    high_pct: Floats

    def __len__(self) -> int:
        return len(self.candidates)


@dataclass(frozen=True, eq=False)
class BeliefInfo:
    """What a sampler believes, beside what was trained."""

    axis: Axis
    units: Mapping[str, CountUnit]
    score_name: str
    trained: tuple[Floats, Floats]  # cost and score in % of the networks more accurate than every cheaper one
    front: Predicted
    ahead: Predicted
    facts: tuple[tuple[str, str], ...]
    tables: tuple[tuple[str, DataTable], ...]  # by their titles, for what is beside the chart
    opened: tuple[str, ...] = ("Next candidates",)  # of the tables, what is shown at once
    target: str = ""  # the device whose latencies are predicted
    notes: tuple[str, ...] = ()
    reason: str | None = None

    def table(self) -> DataTable:
        """Return the predicted front and the next candidates."""
        lines = [_line("next", one, self.target, self.units) for one in self.ahead.candidates]
        lines += [_line("predicted front", one, self.target, self.units) for one in self.front.candidates]
        return DataTable.of(_headers(self.units), lines, len(lines))


def belief_info(columns: StudyColumns, view: View, believed: StudyBelief) -> BeliefInfo:
    """Return what a study's sampler believes; the score is plotted against the view's axis."""
    target = "" if view.group is None else columns.latency_groups[view.group].target
    reached, facts = _reached(columns, believed)
    belief, units = believed.belief, count_units(columns)
    factor = units[view.axis].factor if view.axis in units else 1.0
    front = _predicted(() if belief is None else belief.front, view.axis, target, factor)
    ahead = _predicted(() if belief is None else belief.ahead, view.axis, target, factor, keep_order=True)
    if belief is not None:
        facts = (("rests on", f"{counted(belief.trainings, 'training')}, {moment(belief.at)} UTC"), *facts)
    return BeliefInfo(
        axis=view.axis,
        units=units,
        score_name=columns.score_name,
        trained=_trained(columns, view, factor),
        front=_steps(front),
        ahead=ahead,
        facts=facts,
        tables=(("Next candidates", _ahead_table(ahead, target, units)), ("Predicted, then reached", reached)),
        target=target,
        notes=_notes(target if view.axis == "latency" else ""),
        reason=_why_none(columns, believed, len(front) + len(ahead)),
    )


def _predicted(
    candidates: Sequence[Believed], axis: Axis, target: str, factor: float, keep_order: bool = False
) -> Predicted:
    kept = [
        (cost / factor, one, interval)
        for one in candidates
        if (cost := _cost(one, axis, target)) is not None and (interval := interval_of(one.proposal)) is not None
    ]
    if not keep_order:
        kept.sort(key=lambda part: part[0])
    ends = np.array([interval for _, _, interval in kept], dtype=float).reshape(len(kept), 2)
    return Predicted(
        tuple(one for _, one, _ in kept),
        np.array([cost for cost, _, _ in kept], dtype=float),
        100 * np.array([possible(one.proposal.score) for _, one, _ in kept], dtype=float),
        100 * ends[:, 0],
        100 * ends[:, 1],
    )


def _cost(candidate: Believed, axis: Axis, target: str) -> float | None:
    if axis == "latency":
        return candidate.latencies_ms.get(target)
    return candidate.macs if axis == "macs" else candidate.params


def _steps(front: Predicted) -> Predicted:
    """Return the candidates of a front that are predicted to be more accurate than every cheaper one on its axis."""
    before = np.maximum.accumulate(np.concatenate([[-np.inf], front.score_pct[:-1]]))
    kept = np.flatnonzero(front.score_pct > before)
    arrays = (front.cost, front.score_pct, front.low_pct, front.high_pct)
    return Predicted(tuple(front.candidates[place] for place in kept), *(array[kept] for array in arrays))


def _trained(columns: StudyColumns, view: View, factor: float) -> tuple[Floats, Floats]:
    cost = columns.axis_values(view) / factor
    members = np.flatnonzero(columns.trained & np.isfinite(cost))
    members = members[np.lexsort((-columns.score[members], cost[members]))]
    score_pct = 100 * columns.score[members]
    rises = score_pct > np.maximum.accumulate(np.concatenate([[-np.inf], score_pct[:-1]]))
    return cost[members][rises], score_pct[rises]


def _reached(columns: StudyColumns, believed: StudyBelief) -> tuple[DataTable, tuple[tuple[str, str], ...]]:
    """Return the trained trials beside what was predicted for them, the newest first, and how right that was."""
    lines, off, inside = [], [], []
    for number, proposal in believed.proposals.items():
        place, interval = columns.index_of(number), interval_of(proposal)
        if place is None or not columns.trained[place] or interval is None or proposal.score is None:
            continue
        score = float(columns.score[place])
        off.append(100 * (score - proposal.score))
        inside.append(interval[0] <= score <= interval[1])
        verdict = "inside" if inside[-1] else "outside"
        predicted = predicted_text(proposal).removesuffix(" predicted")
        lines.append((str(number), reason_text(proposal), predicted, percent(score), f"{off[-1]:+.2f}", verdict))
    headers = ("trial", "why it was proposed", "predicted", "reached", "points off", "95 % interval")
    table = DataTable.of(headers, lines, len(lines))
    if not off:
        return table, ()
    words = f"{sum(inside)} of {counted(len(off), 'training')} ended inside the 95 % interval predicted for it"
    return table, (("how right it was", f"{words}; the median error was {np.median(np.abs(off)):.2g} points"),)


def _ahead_table(ahead: Predicted, target: str, units: Mapping[str, CountUnit]) -> DataTable:
    lines = [_line(str(place + 1), one, target, units) for place, one in enumerate(ahead.candidates)]
    return DataTable.of(_headers(units), lines, len(lines))


def _headers(units: Mapping[str, CountUnit]) -> tuple[str, ...]:
    counts = (", ".join(filter(None, (name, units[name].prefix))) for name in ("macs", "params"))
    return ("", "why", "predicted", "latency, ms, predicted", *counts, "architecture")


def _line(name: str, one: Believed, target: str, units: Mapping[str, CountUnit]) -> tuple[str, ...]:
    latency = one.latencies_ms.get(target)
    return (
        name,
        "no candidate is predicted to beat it" if name == "predicted front" else reason_text(one.proposal),
        predicted_text(one.proposal).removesuffix(" predicted"),
        digits_ms(latency),
        units["macs"].text(one.macs),
        units["params"].text(one.params),
        one.text,
    )


def _notes(target: str) -> tuple[str, ...]:
    return (
        "Predicted: what networks that were not trained are expected to reach, with 95 % intervals. Only the solid "
        "line was trained.",
        *([f"Latencies of candidates are predicted, too, for {one_line(target, 80)}."] if target else []),
        "Each training that ends may change what is proposed next.",
    )


def _why_none(columns: StudyColumns, believed: StudyBelief, shown: int) -> str | None:
    search = search_of(columns.study.settings)
    if (sampler := search.get("sampler")) != SAYS_WHY:
        return (
            f"This study's sampler ({one_line(sampler or 'unknown', 40)}) gives no reasons: it has no belief to show. "
            f"Studies with search.sampler = {SAYS_WHY!r} have one."
        )
    if believed.belief is None:
        begun = int(columns.is_state(TrialState.DONE, TrialState.RUNNING).sum())
        startup = search.get("startup", 0)
        if isinstance(startup, int) and begun <= startup:
            return (
                f"Nothing is predicted yet: the first {startup} trainings are spread over the known costs "
                f"({begun} of them begun)."
            )
        return "No belief of this study was recorded."
    if not (believed.belief.front or believed.belief.ahead):
        return "Every candidate of the space was proposed: nothing is left to predict."
    return None if shown else "No latency can be predicted on this device yet; look at macs or params."


# ---- the figure -----------------------------------------------------------------------------------------


def belief_figure(info: BeliefInfo) -> Any:
    """Return the trained front, the predicted one with its interval, and the next candidates.

    Raises:
        ChartUnavailable: the sampler has no belief to show.
    """
    import plotly.graph_objects as go

    drawable(info)
    figure, front, ahead = empty_figure(400), info.front, info.ahead
    line: dict[str, Any] = {"mode": "lines", "hoverinfo": "skip"}
    figure.add_trace(go.Scatter(x=slim(front.cost), y=slim(front.low_pct), line={"width": 0}, showlegend=False, **line))
    band = {"fill": "tonexty", "fillcolor": BAND, "line": {"width": 0}, "name": "predicted, 95 % interval"}
    figure.add_trace(go.Scatter(x=slim(front.cost), y=slim(front.high_pct), **band, **line))
    figure.add_trace(
        go.Scatter(
            x=slim(front.cost),
            y=slim(front.score_pct),
            mode="lines",
            line={"color": PREDICTED, "width": 2, "dash": "dash"},
            name="predicted front",
            showlegend=False,
            **_hover(front),
        )
    )
    steps = {"shape": "hv", "color": FRONT, "width": 2}
    cost, score_pct = info.trained
    figure.add_trace(
        go.Scatter(x=slim(cost), y=slim(score_pct), line=steps, name="trained front", showlegend=False, **line)
    )
    figure.add_trace(
        go.Scatter(
            x=slim(ahead.cost),
            y=slim(ahead.score_pct),
            error_y={
                "array": slim(ahead.high_pct - ahead.score_pct),
                "arrayminus": slim(ahead.score_pct - ahead.low_pct),
                "color": GREY,
                "thickness": 1,
            },
            mode="markers+text",
            text=[str(place + 1) for place in range(len(ahead))],
            textposition=["middle right", "middle left"] * (len(ahead) // 2) + ["middle right"] * (len(ahead) % 2),
            marker=MARKS["predicted"].marker(),
            name="next candidates (predicted)",
            **_hover(ahead),
        )
    )
    log = is_log(np.concatenate([cost, front.cost, ahead.cost]))
    style_axis(figure.layout.xaxis, log)
    if len(front):  # beside the lines, away from their ends, where both meet; other names stay in the legend
        middle = len(front) // 2
        place = on_axis(float(front.cost[middle]), log), float(front.score_pct[middle])
        add_label(figure, "predicted", place, xanchor="right", xshift=-4, yshift=12)
    if len(cost):
        place = on_axis(float(cost[0]), log), float(score_pct[0])
        add_label(figure, "trained", place, xshift=4, yshift=-9)
    title = "latency, ms (predicted for candidates)"
    count_title = info.units[info.axis].words(info.axis) if info.axis in info.units else ""
    figure.update_xaxes(title={"text": title if info.axis == "latency" else count_title})
    figure.update_yaxes(title={"text": f"{info.score_name}, %"})
    return figure


def _hover(predicted: Predicted) -> dict[str, Any]:
    texts = [
        f"{escaped(one.text)}<br>{escaped(reason_text(one.proposal))}<br>{escaped(predicted_text(one.proposal))}"
        for one in predicted.candidates
    ]
    return {"hovertext": texts, "hovertemplate": "%{hovertext}<br>%{x:.4~g}<extra></extra>"}
