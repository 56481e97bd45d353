"""Trials as points of a chart, from columns to a trace: what the front and the macs-latency chart share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from dashboards.data.columns import Floats, Ints, Mask, StudyColumns, View
from dashboards.data.curves import LastEpoch
from dashboards.data.quantities import CountUnit, Quantity, count_units
from dashboards.formats import digits_ms, percent
from dashboards.panels.style import Mark, escaped, slim
from search.store.vocabulary import STATES, TrialState
from workers.metrics import NAMES

BARS_UP_TO = 100  # points of a trace that have error bars; those of more points would hide them
CONFIGS_UP_TO = 1000  # points of a trace that show their architecture under the pointer
LONGEST_REASON = 100
# What a reason repeats of the point's own latency: left out of thousands of tooltips, which say it anyway.
OWN_LATENCY = re.compile(r"^latency [^ ]+ ms \(up to [^ )]+\)")
CARRIED = ("latency", "macs", "params")  # costs under the pointer, whatever the axes show
IN_BITS = {"int8": "in 8 bits", "fp16": "in 16 bits"}  # the roles of networks in other precisions
INT8_NOTE = "{} judged by the faster file, which is in 8 bits (int8): latency and {} are that file's."


@dataclass(frozen=True, eq=False)
class Series:
    """Points that share a mark and a line of the legend."""

    points: Points
    name: str  # in the legend
    mark: Mark
    marker: Mapping[str, Any] = field(default_factory=dict)  # what differs from the mark: size or opacity in a crowd
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
    reason: tuple[str, ...]  # why a trial was refused or stopped; "" of the others
    int8: Mask  # whose latency is of the network in 8 bits
    units: Mapping[str, CountUnit]  # of macs and params
    further: Mapping[str, Floats] = field(default_factory=dict)  # other quantities on an axis, by key
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

    def along(self, key: str) -> Floats:
        """Return the positions of the points on an axis: %, ms, or counts in their units."""
        if key in self.further:
            return self.further[key]
        if key in ("macs", "params"):
            counts: Floats = getattr(self, key) / self.units[key].factor
            return counts
        return self.score_pct if key == "score" else self.latency_ms

    def only(self, chosen: Mask) -> Points:
        """Return some of the points."""
        places = np.flatnonzero(chosen)
        arrays = ("number", "score_pct", "latency_ms", "low_ms", "high_ms", "macs", "params", "int8")
        changed: dict[str, Any] = {name: getattr(self, name)[places] for name in arrays}
        for name in ("state", "config", "reason"):
            texts = getattr(self, name)
            changed[name] = tuple(texts[place] for place in places)
        return replace(
            self,
            **changed,
            further={key: values[places] for key, values in self.further.items()},
            epoch=None if self.epoch is None else self.epoch[places],
        )

    def row(self, index: int) -> tuple[str, ...]:
        """Return one line of a table: trial, score, latency, interval, macs, params, architecture."""
        return (
            str(self.number[index]),
            percent(self.score_pct[index] / 100) + ("" if self.epoch is None else _not_deployed(self.epoch[index])),
            digits_ms(self.latency_ms[index], 4) + (" int8" if self.int8[index] else ""),
            f"{digits_ms(self.low_ms[index], 4)} to {digits_ms(self.high_ms[index], 4)}",
            self.units["macs"].text(float(self.macs[index])),
            self.units["params"].text(float(self.params[index])),
            self.config[index],
        )


def _not_deployed(epoch: Any) -> str:
    return f" at epoch {epoch}, not the deployed network"


def headers(score_name: str, units: Mapping[str, CountUnit]) -> tuple[str, ...]:
    """Return the headings of `Points.row`."""
    counts = (", ".join(filter(None, (name, units[name].prefix))) for name in ("macs", "params"))
    return ("trial", score_name, "latency, ms", "95 % interval, ms", *counts, "architecture")


def points_of(
    columns: StudyColumns,
    view: View,
    chosen: Mask,
    order: Floats | None = None,
    quantities: Sequence[Quantity] = (),
) -> Points:
    """Return the chosen trials as points, sorted by `order` (n,), or by their numbers; with further quantities."""
    places = np.flatnonzero(chosen)
    if order is not None:
        places = places[np.argsort(order[places], kind="stable")]
    latencies = None if view.group is None else columns.of_group(view.group)
    missing = np.full(len(places), np.nan)
    further = {one.key: one.values[places] for one in quantities if one.key not in ("score", *CARRIED)}
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
        reason=tuple(columns.reason[place] or "" for place in places),
        int8=np.zeros(len(places), dtype=bool) if latencies is None else latencies.int8[places],
        units=count_units(columns),
        further=further,
        score_name=columns.score_name,
    )


def in_precision(columns: StudyColumns, view: View, precision: str) -> Points:
    """Return the networks in a precision that win in the view's group, fastest first, as their files are worth."""
    winning = [pair for pair in columns.winning_points(view.group) if pair[1].latency.precision == precision]
    won = sorted(winning, key=lambda pair: pair[1].latency.median_ms)
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
        reason=("",) * len(won),
        int8=np.full(len(won), precision == "int8"),
        units=count_units(columns),
        score_name=columns.score_name,
    )


def latencies_shown(columns: StudyColumns, view: View) -> dict[str, Any]:
    """Return which latencies a chart shows, for its `layout.meta`: target, kind, the group's place; units of counts."""
    group = None if view.group is None else columns.latency_groups[view.group]
    return {
        "target": None if group is None else group.target,
        "kind": None if group is None else group.kind,
        "group": view.group,
        "units": {name: unit.factor for name, unit in count_units(columns).items()},
    }


def recommended_name(columns: StudyColumns, view: View, number: int | None, axes: tuple[str, str]) -> str:
    """Return what the legend calls the recommended trial, and why it has no star if its latency isn't in the chart.

    `assets/chart_marks.js` says the same when the budget moves.
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
    """Return why a chart of priced trials is empty, and what to do."""
    if not len(columns):
        return "No trials yet: they come as soon as `condensery launch` runs this study."
    if view.axis == "latency" and view.group is None:
        refused = columns.is_state(TrialState.INFEASIBLE).any()
        reason = ": the candidates refused so far are over a limit on macs or params" if refused else ""
        return f"No trial has a latency yet{reason}. Macs or params can be shown meanwhile."
    return "No trial has been trained or refused yet: wait for the first training, or look at Progress for what failed."


def bars(points: Points, colour: str, always: bool = False) -> dict[str, Any] | None:
    """Return the latencies' intervals as error bars; None for more points than `BARS_UP_TO`."""
    if not len(points) or (len(points) > BARS_UP_TO and not always):
        return None
    above, below = points.bars
    style = {"type": "data", "symmetric": False, "color": colour, "thickness": 1.2, "width": 3}
    return style | {"array": slim(above), "arrayminus": slim(below)}


def add_series(figure: Any, trace: Any, series: Series, axes: tuple[Quantity, Quantity], bars_along: str = "x") -> None:
    """Add points to a figure as one trace; nothing where there are none."""
    points = series.points
    if not len(points):
        return
    figure.add_trace(
        trace(
            x=slim(points.along(axes[0].key)),
            y=slim(points.along(axes[1].key)),
            **({} if series.error_bars is None else {f"error_{bars_along}": series.error_bars}),
            mode="markers",
            name=series.name,
            marker=series.mark.marker(**series.marker),
            **hover(points, *axes),
        )
    )


def hover(points: Points, x: Quantity | None, y: Quantity | None) -> dict[str, Any]:
    """Return what a trace needs to describe a point under the pointer.

    `x` and `y` are what the axes show (None: nothing of the trial); everything else is carried in customdata, after the
    trial's number.
    """
    carried: list[Any] = [points.number]
    shown = {axis.key: place for place, axis in (("x", x), ("y", y)) if axis is not None}

    def value(name: str, values: Floats) -> str:
        if name in shown:
            return shown[name]
        carried.append(values)
        return f"customdata[{len(carried) - 1}]"

    lines = ["<b>trial %{customdata[0]:d}</b>"]
    if np.isfinite(points.score_pct).any():
        lines[0] += f": %{{{value('score', points.score_pct)}:.2f}} % {escaped(points.score_name)}"
    if points.epoch is not None:
        lines[0] += _not_deployed(f"%{{{value('epoch', points.epoch.astype(np.float64))}:d}}")
    texts = _texts(points)
    if texts is not None:
        lines.append("%{text}")
    if np.isfinite(points.latency_ms).any():
        times = ("latency", points.latency_ms), ("low", points.low_ms), ("high", points.high_ms)
        int8 = " (int8)" if points.int8.all() else ""
        low_to_high = f"{{}} ms{int8}, 95 %: {{}} to {{}}"
        lines.append(low_to_high.format(*(f"%{{{value(*time)}:,.4~r}}" for time in times)))
    counts = (f"%{{{value(name, points.along(name))}:,.3~r}} {unit.words(name)}" for name, unit in points.units.items())
    lines.append(", ".join(counts))
    lines += [
        f"{escaped(axis.name)}: %{{{shown[axis.key]}:,.4~r}} {axis.unit}"
        for axis in (x, y)
        if axis is not None and axis.key not in ("score", *CARRIED)
    ]
    hovering: dict[str, Any] = {
        "customdata": slim(np.stack(carried, axis=1)),
        "hovertemplate": "<br>".join(lines) + "<extra></extra>",
    }
    return hovering | ({} if texts is None else {"text": texts})


def _texts(points: Points) -> list[str] | None:
    """Return the words of each point: its architecture where there are few enough, why it was refused or stopped."""
    with_configs, with_reasons = len(points) <= CONFIGS_UP_TO, any(points.reason)
    if not (with_configs or with_reasons):
        return None
    texts = []
    for config, reason, state in zip(points.config, points.reason, points.state, strict=True):
        verb = "refused" if state == TrialState.INFEASIBLE else str(state)
        why = reason if with_configs else OWN_LATENCY.sub("latency", reason)
        words = f"{verb}: {escaped(why, LONGEST_REASON)}" if reason else ""
        texts.append("<br>".join(filter(None, (escaped(config) if with_configs else "", words))))
    return texts
