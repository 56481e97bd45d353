"""Trials as points of a chart, from columns to a trace: what the front and the macs-latency chart share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from dashboards.data.columns import Floats, Ints, Mask, StudyColumns, View
from dashboards.data.curves import LastEpoch
from dashboards.formats import count, digits_ms, percent
from dashboards.panels.style import escaped, slim
from search.store.vocabulary import STATES, TrialState
from workers.metrics import NAMES

BARS_UP_TO = 300  # points of a trace that have error bars; those of more points would hide them
CONFIGS_UP_TO = 1000  # points of a trace that show their architecture under the pointer
UNITS = {"latency": "ms", "macs": "million macs", "params": "million params"}
MILLION = 1e6


@dataclass(frozen=True, eq=False)
class Series:
    """Points that share a marker and a line of the legend."""

    points: Points
    name: str  # in the legend
    marker: Mapping[str, Any]  # symbol, size and colour
    error_bars: Any = None


@dataclass(frozen=True, eq=False)
class Points:
    """Trials as points; arrays of shape (k,), latencies in ms (NaN: none in the view's group), the score in %."""

    number: Ints
    state: tuple[str, ...]
    score_pct: Floats
    latency_ms: Floats
    low_ms: Floats
    high_ms: Floats
    macs: Ints
    params: Ints
    config: tuple[str, ...]
    score_name: str = NAMES["top1"]
    epoch: Ints | None = None  # whose score `score_pct` is, where it isn't the deployed network's

    def __len__(self) -> int:
        return len(self.number)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    @cached_property
    def bars(self) -> tuple[Floats, Floats]:
        """How far the 95 % interval reaches above and below each latency, in ms."""
        return np.maximum(self.high_ms - self.latency_ms, 0), np.maximum(self.latency_ms - self.low_ms, 0)

    def along(self, axis: str) -> Floats:
        """Return the positions of the points on an axis, in `UNITS`."""
        if axis == "latency":
            return self.latency_ms
        return (self.macs if axis == "macs" else self.params) / MILLION

    def row(self, index: int) -> tuple[str, ...]:
        """Return one line of a table: trial, score, latency, interval, macs, params, architecture."""
        return (
            str(self.number[index]),
            percent(self.score_pct[index] / 100) + ("" if self.epoch is None else _not_deployed(self.epoch[index])),
            digits_ms(self.latency_ms[index], 4),
            f"{digits_ms(self.low_ms[index], 4)} to {digits_ms(self.high_ms[index], 4)}",
            count(float(self.macs[index])),
            count(float(self.params[index])),
            self.config[index],
        )


def _not_deployed(epoch: Any) -> str:
    return f" at epoch {epoch}, not the deployed network"


def headers(score_name: str) -> tuple[str, ...]:
    """Return the headings of `Points.row`."""
    return ("trial", score_name, "latency, ms", "95 % interval, ms", "macs", "params", "architecture")


def points_of(columns: StudyColumns, view: View, chosen: Mask, order: Floats | None = None) -> Points:
    """Return the chosen trials as points, sorted by `order` (n,), or by their numbers."""
    places = np.flatnonzero(chosen)
    if order is not None:
        places = places[np.argsort(order[places], kind="stable")]
    latencies = None if view.group is None else columns.of_group(view.group)
    missing = np.full(len(places), np.nan)
    return Points(
        number=columns.number[places],
        state=tuple(STATES[state] for state in columns.state[places]),
        score_pct=100 * columns.score[places],
        latency_ms=missing if latencies is None else latencies.median_ms[places],
        low_ms=missing if latencies is None else latencies.low_ms[places],
        high_ms=missing if latencies is None else latencies.high_ms[places],
        macs=columns.macs[places],
        params=columns.params[places],
        config=tuple(columns.config_text[place] for place in places),
        score_name=columns.score_name,
    )


def in_other_precisions(columns: StudyColumns, view: View) -> Points:
    """Return the networks in 8 bits that win in the view's group, fastest first; with what their files are worth."""
    won = sorted(columns.winning_points(view.group), key=lambda pair: pair[1].latency.median_ms)
    places = np.array([place for place, _ in won], dtype=np.int64)
    rows = [one for _, one in won]
    return Points(
        number=columns.number[places],
        state=tuple(one.latency.precision for one in rows),
        score_pct=np.array([100 * one.score for one in rows]),
        latency_ms=np.array([one.latency.median_ms for one in rows]),
        low_ms=np.array([one.latency.interval_low_ms for one in rows]),
        high_ms=np.array([one.latency.interval_high_ms for one in rows]),
        macs=columns.macs[places],
        params=columns.params[places],
        config=tuple(f"{columns.config_text[place]}, {one.latency.precision}" for place, one in won),
        score_name=columns.score_name,
    )


def latencies_shown(columns: StudyColumns, view: View) -> dict[str, Any]:
    """Return which latencies a chart shows, for its `layout.meta`: target, kind and the group's place."""
    group = None if view.group is None else columns.latency_groups[view.group]
    return {
        "target": None if group is None else group.target,
        "kind": None if group is None else group.kind,
        "group": view.group,
    }


def recommended_name(columns: StudyColumns, view: View, number: int | None, axes: tuple[str, str]) -> str:
    """Return what the legend calls the recommended trial, and why it has no star if its latency isn't in the chart.

    `assets/condensery.js` says the same when the budget moves.
    """
    if number is None:
        return "recommended"
    name, row = f"recommended: trial {number}", columns.index_of(number)
    if "latency" not in axes or view.group is None or row is None:
        return name
    group = columns.latency_groups[view.group]
    own_group = int(columns.latencies[group.target].group[row])
    if own_group == view.group:
        return name
    if own_group < 0:
        return f"{name} (no latency here)"
    kind = columns.latency_groups[own_group].kind
    other = kind if kind != group.kind else f"{kind} with another runtime or device"
    return f"{name} ({escaped(other)}: not shown here)"


def with_last_score(points: Points, last: Mapping[int, LastEpoch]) -> Points:
    """Return the points at the score of their newest epoch, which is not a deployed network's."""
    newest = [last[int(number)] for number in points.number]
    return replace(
        points,
        score_pct=np.array([100 * epoch.score for epoch in newest]),
        epoch=np.array([epoch.epoch for epoch in newest], dtype=np.int64),
    )


def why_no_points(columns: StudyColumns, view: View) -> str:
    """Return why a chart of priced trials is empty."""
    if not len(columns):
        return "No trials yet."
    if view.axis == "latency" and view.group is None:
        refused = columns.is_state(TrialState.INFEASIBLE).any()
        reason = ": the candidates refused so far are over a limit on macs or params" if refused else ""
        return f"No trial has a latency yet{reason}."
    return "No trial has been trained or refused yet."


def bars(points: Points, colour: str, always: bool = False) -> dict[str, Any] | None:
    """Return the latencies' intervals as error bars; None for more points than `BARS_UP_TO`."""
    if not len(points) or (len(points) > BARS_UP_TO and not always):
        return None
    above, below = points.bars
    style = {"type": "data", "symmetric": False, "color": colour, "thickness": 1.2, "width": 3}
    return style | {"array": slim(above), "arrayminus": slim(below)}


def hover(points: Points, x: str, y: str) -> dict[str, Any]:
    """Return what a trace needs to describe a point under the pointer.

    `x` and `y` name what the axes show (of score, latency, macs, params); everything else is carried in customdata,
    after the trial's number.
    """
    carried: list[Any] = [points.number]

    def value(name: str, values: Floats) -> str:
        if name in (x, y):
            return "x" if name == x else "y"
        carried.append(values)
        return f"customdata[{len(carried) - 1}]"

    lines = ["<b>trial %{customdata[0]:d}</b>"]
    if np.isfinite(points.score_pct).any():
        lines[0] += f": %{{{value('score', points.score_pct)}:.2f}} % {escaped(points.score_name)}"
    if points.epoch is not None:
        lines[0] += _not_deployed(f"%{{{value('epoch', points.epoch.astype(np.float64))}:d}}")
    if len(points) <= CONFIGS_UP_TO:
        lines.append("%{text}")
    if np.isfinite(points.latency_ms).any():
        times = ("latency", points.latency_ms), ("low", points.low_ms), ("high", points.high_ms)
        lines.append("%{{{}:.4g}} ms, 95 %: %{{{}:.4g}} to %{{{}:.4g}}".format(*(value(*time) for time in times)))
    counts = ("macs", points.along("macs")), ("params", points.along("params"))
    lines.append("%{{{}:.4~g}} million macs, %{{{}:.4~g}} million params".format(*(value(*count) for count in counts)))
    hovering: dict[str, Any] = {
        "customdata": slim(np.stack(carried, axis=1)),
        "hovertemplate": "<br>".join(lines) + "<extra></extra>",
    }
    if len(points) <= CONFIGS_UP_TO:
        hovering["text"] = [escaped(config) for config in points.config]
    return hovering
