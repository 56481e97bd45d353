"""Parallel coordinates: every trained network as a line through what was varied and what came of it.

A dimension is plotted where it stays when the study grows, so that a brush means the same an hour later: macs, latency
and whatever is a power of two by its logarithm, all else as it is. Ranges of a brush are in these plotted coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dashboards.data.columns import Floats, Ints, Mask, StudyColumns, View
from dashboards.formats import count, digits_ms, percent
from dashboards.panels.data_table import DataTable
from dashboards.panels.style import SCALE, empty_figure, escaped, is_log, message, slim

MOST_DIMENSIONS = 13  # that one screen can hold
WIDTH_PX = 74  # that one of them needs
LEAST_NETWORKS = 2
MOST_TICKS = 8
OUTCOMES = ("macs", "latency", "top1")
Ranges = Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True, eq=False)
class Dimension:
    """One axis; `values` are real, `plotted` where they stand on it, both (k,)."""

    key: str
    label: str
    values: Floats
    log: bool

    @property
    def plotted(self) -> Floats:
        """Where the values stand on the axis."""
        return _plotted(self.values, self.log)

    def text(self, value: float) -> str:
        """Return one of its values as people read it."""
        if self.key == "top1":
            return percent(value / 100)
        if self.key == "macs":
            return count(value)
        return digits_ms(value, 4) if self.key == "latency" else f"{value:.4g}"

    def ticks(self) -> tuple[list[float], list[str]]:
        """Return where the axis has which words: at its values where these are few, else at round ones."""
        known = np.unique(self.values[np.isfinite(self.values)])
        if len(known) <= MOST_TICKS and self.key not in OUTCOMES:
            return _plotted(known, self.log).tolist(), [self.text(value) for value in known]
        inside = round_values(float(known[0]), float(known[-1]), self.log)
        return _plotted(np.array(inside), self.log).tolist(), [_short(value) for value in inside]


def round_values(low: float, high: float, log: bool) -> list[float]:
    """Return some round values from `low` to `high`; the end itself where there is no rounder one."""
    if log and low > 0:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
            found = [digit * 10.0**power for power in powers for digit in digits]
            found = [value for value in found if low <= value <= high]
            if len(found) >= 4:
                return found
    if high <= low:
        return [low]
    unit = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(unit * factor for factor in (1, 2, 5, 10) if (high - low) / (unit * factor) <= 6)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{place * step:.9g}") for place in range(first, last + 1)]


def _plotted(values: Floats, log: bool) -> Floats:
    if not log:
        return values
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log10(values)


def _short(value: float) -> str:
    for limit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g} {name}"
    return f"{value:g}"


@dataclass(frozen=True, eq=False)
class ParallelInfo:
    """The trained networks as lines; `number` (k,) has the trials, in the order of the dimensions' values."""

    dimensions: tuple[Dimension, ...]
    number: Ints
    left_out: tuple[str, ...] = ()  # dimensions beyond what one screen can hold
    notes: tuple[str, ...] = ()
    reason: str | None = None

    def table(self) -> DataTable:
        """Return one line for each network, the most accurate first."""
        if self.reason is not None:
            return DataTable(("trial",))
        order = np.argsort(-self.dimensions[-1].values, kind="stable")
        lines = (
            (str(self.number[place]), *(one.text(float(one.values[place])) for one in self.dimensions))
            for place in order
        )
        return DataTable.of(("trial", *(one.label for one in self.dimensions)), lines, len(order))


def dimension_values(columns: StudyColumns, view: View) -> dict[str, Floats]:
    """Return by dimension where every trial (n,) of the study stands on it, NaN where nowhere."""
    return {one.key: one.plotted for one in _dimensions(columns, view)}


def brushed(info: ParallelInfo, ranges: Ranges) -> Mask:
    """Return which of the info's networks (k,) lie in a range of every brushed dimension.

    Args:
        info: what is shown.
        ranges: (low, high) in plotted coordinates by a dimension's key; unknown keys and empty lists brush nothing.
    """
    return inside({one.key: one.plotted for one in info.dimensions}, ranges, len(info.number))


def inside(values: Mapping[str, Floats], ranges: Ranges, total: int) -> Mask:
    """Return which of `total` trials lie in a range of every brushed dimension; `values` of `dimension_values`."""
    mask = np.ones(total, dtype=bool)
    for key, wanted in ranges.items():
        if key in values and wanted:
            found = values[key]
            mask &= np.logical_or.reduce([(found >= low) & (found <= high) for low, high in wanted])
    return mask


def parallel_info(columns: StudyColumns, view: View) -> ParallelInfo:
    """Return the trained networks over what varies among them; latencies are of the view's group."""
    places = np.flatnonzero(columns.trained)
    latency = columns.axis_values(View(view.group, "latency"))
    priced = places[np.isfinite(latency[places])]
    unpriced = len(places) - len(priced) if len(priced) >= LEAST_NETWORKS else 0
    if unpriced:  # plotly draws no line with a gap
        places = priced
    places = places[np.argsort(columns.top1[places], kind="stable")]  # the best are drawn last, over the others
    if len(places) < LEAST_NETWORKS:
        return ParallelInfo((), columns.number[:0], reason=_why_none(len(places)))
    shown = [
        Dimension(one.key, one.label, one.values[places], one.log)
        for one in _dimensions(columns, view)
        if _varies(one.values[places]) and np.isfinite(one.plotted[places]).all()
    ]
    shown = _without_repeats(shown)
    settings = [one for one in shown if one.key not in OUTCOMES]
    kept = sorted(settings, key=_weight)[: MOST_DIMENSIONS - len(OUTCOMES)]
    if not shown or not settings:
        return ParallelInfo((), columns.number[:0], reason="The trained networks differ in nothing but their results.")
    top1 = Dimension("top1", "top-1, %", 100 * columns.top1[places], False)
    others = [one for one in shown if one in kept or (one.key in OUTCOMES and one.key != "top1")]
    left_out = tuple(one.label for one in settings if one not in kept)
    notes = [f"{len(places):,} trained networks, coloured by top-1. Drag along an axis to choose a part of it."]
    if unpriced:
        notes.append(f"{unpriced:,} more have no latency of this kind and are not shown.")
    if left_out:
        notes.append(f"Not shown for want of room: {', '.join(left_out)}.")
    if view.group is not None:
        notes.append(f"Latency: {columns.latency_groups[view.group]}.")
    return ParallelInfo((*others, top1), columns.number[places], left_out, tuple(notes))


def _why_none(trained: int) -> str:
    have = "there is none" if trained == 0 else "there is one"
    return f"Parallel coordinates compare trained networks, at least {LEAST_NETWORKS}: {have} yet."


def _dimensions(columns: StudyColumns, view: View) -> list[Dimension]:
    """Every dimension of a study, in the order they are shown; values (n,) of all trials.

    A stage that a network doesn't have counts as one of no layers that adds no channels.
    """
    found = [
        Dimension("G", "G", columns.groups_1x1.astype(float), True),
        Dimension("C", "C", columns.condense_factor.astype(float), True),
        Dimension("bottleneck", "bottleneck", columns.bottleneck.astype(float), True),
        Dimension("groups_3x3", "3×3 groups", columns.groups_3x3.astype(float), True),
        Dimension("stages", "stages", np.isfinite(columns.stages).sum(axis=1).astype(float), False),
        Dimension("layers", "layers", columns.layers.astype(float), False),
    ]
    for name, values in (("layers", columns.stages), ("growth", columns.growth)):
        for stage in range(values.shape[1]):
            found.append(
                Dimension(f"{name}_{stage + 1}", f"{name} {stage + 1}", np.nan_to_num(values[:, stage]), False)
            )
    for name, values in training_values(columns).items():
        found.append(Dimension(f"training.{name}", name.replace("_", " "), values, is_log(values)))
    found.append(Dimension("macs", "macs", columns.macs.astype(float), True))
    latency = columns.axis_values(View(view.group, "latency"))
    found.append(Dimension("latency", "latency, ms", latency, True))
    found.append(Dimension("top1", "top-1, %", np.where(columns.trained, 100 * columns.top1, np.nan), False))
    return found


def training_values(columns: StudyColumns) -> dict[str, Floats]:
    """Return by name the training settings (n,) that are numbers and differ between trials."""
    names = dict.fromkeys(name for training in columns.training for name in training)
    found = {}
    for name in names:
        raw = [training.get(name) for training in columns.training]
        if all(isinstance(value, int | float | None) for value in raw):
            values = np.array([math.nan if value is None else float(value) for value in raw])
            if _varies(values):
                found[name] = values
    return found


def _varies(values: Floats) -> bool:
    known = values[np.isfinite(values)]
    return bool(known.size) and bool((known != known[0]).any())


def _without_repeats(dimensions: list[Dimension]) -> list[Dimension]:
    """Leave out what an earlier dimension of its family already says: growth 2 where it is always twice growth 1."""
    kept: list[Dimension] = []
    for one in dimensions:
        family = one.key.partition("_")[0]
        leaders = [other for other in kept if other.key.partition("_")[0] == ("G" if family == "groups" else family)]
        if one.key in OUTCOMES or not any(_says_the_same(other.values, one.values) for other in leaders):
            kept.append(one)
    return kept


def _says_the_same(first: Floats, second: Floats) -> bool:
    pairs = len(np.unique(np.stack((first, second), axis=1), axis=0))
    return pairs == len(np.unique(first)) == len(np.unique(second))


def _weight(one: Dimension) -> int:
    """What is left out first has the most: the layers of each stage, then growths of later stages."""
    family, _, stage = one.key.partition("_")
    if family == "layers" and stage:
        return 2
    return 1 if family == "growth" and stage != "1" else 0


# ---- the figure -----------------------------------------------------------------------------------------


def parallel_figure(info: ParallelInfo) -> Any:
    """Return the lines; `layout.meta` says the width in pixels below which a page should let the chart scroll."""
    import plotly.graph_objects as go

    if info.reason is not None:
        return message(info.reason)
    figure = empty_figure(420)
    top1 = info.dimensions[-1].values
    low = float(np.quantile(top1, 0.05)) if np.ptp(top1) else float(top1.min()) - 1
    figure.add_trace(
        go.Parcoords(
            dimensions=[_axis(one) for one in info.dimensions],
            line={"color": slim(top1), "colorscale": SCALE, "cmin": low, "cmax": float(top1.max()), "showscale": False},
            unselected={"line": {"opacity": 0.06}},
            labelside="top",
            name="networks",
        )
    )
    figure.update_layout(
        margin={"l": 46, "r": 46, "t": 64, "b": 20},
        showlegend=False,
        meta={"min_width_px": WIDTH_PX * len(info.dimensions)},
    )
    return figure


def _axis(one: Dimension) -> dict[str, Any]:
    axis: dict[str, Any] = {"name": one.key, "label": escaped(one.label), "values": slim(one.plotted)}
    axis["tickvals"], axis["ticktext"] = one.ticks()
    known = one.plotted[np.isfinite(one.plotted)]
    low, high = float(known.min()), float(known.max())
    # Plotly lets a brush reach from the first tick to the last: without one at the end the best network is beyond it.
    if low < axis["tickvals"][0] - 1e-9:
        axis["tickvals"], axis["ticktext"] = [low, *axis["tickvals"]], ["", *axis["ticktext"]]
    if high > axis["tickvals"][-1] + 1e-9:
        axis["tickvals"], axis["ticktext"] = [*axis["tickvals"], high], [*axis["ticktext"], ""]
    return axis | {"range": [low, high]}
