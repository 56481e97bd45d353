"""Parallel coordinates: every trained network as a line through its settings and its results.

How a dimension is scaled doesn't change when the study grows, so that a brush means the same an hour later: macs,
latency and powers of two are on a logarithmic scale, everything else on a linear one. The ranges of a brush are in
these plotted coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dashboards.data.columns import Floats, Ints, Mask, StudyColumns, View
from dashboards.formats import count, digits_ms, percent
from dashboards.panels.data_table import DataTable
from dashboards.panels.style import SCALE, empty_figure, escaped, is_log, message, slim
from workers.wording import agreeing

MOST_DIMENSIONS = 13  # more don't fit on one screen
WIDTH_PX = 74  # of one dimension
LEAST_NETWORKS = 2
MOST_TICKS = 8
OUTCOMES = ("macs", "latency", "score")
Ranges = Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True, eq=False)
class Dimension:
    """One axis; `values` are the parameter's own, `plotted` their positions on the axis, both (k,)."""

    key: str
    label: str
    values: Floats
    log: bool

    @property
    def plotted(self) -> Floats:
        """The positions of the values on the axis."""
        return _plotted(self.values, self.log)

    def text(self, value: float) -> str:
        """Return one of its values as people read it."""
        if self.key == "score":
            return percent(value / 100)
        if self.key == "macs":
            return count(value)
        return digits_ms(value, 4) if self.key == "latency" else f"{value:.4g}"

    def ticks(self) -> tuple[list[float], list[str]]:
        """Return places and texts of the axis's ticks: at its values where these are few, else at round ones."""
        distinct = np.unique(self.values[np.isfinite(self.values)])
        if len(distinct) <= MOST_TICKS and self.key not in OUTCOMES:
            return _plotted(distinct, self.log).tolist(), [self.text(value) for value in distinct]
        ticks = round_values(float(distinct[0]), float(distinct[-1]), self.log)
        return _plotted(np.array(ticks), self.log).tolist(), [_short(value) for value in ticks]


def round_values(low: float, high: float, log: bool) -> list[float]:
    """Return some round values from `low` to `high`; `low` alone where the two are equal."""
    if log and low > 0:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
            candidates = (digit * 10.0**power for power in powers for digit in digits)
            values = [value for value in candidates if low <= value <= high]
            if len(values) >= 4:
                return values
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
    """The trained networks as lines; `number` (k,) says which trial each value of a dimension belongs to."""

    dimensions: tuple[Dimension, ...]
    number: Ints
    left_out: tuple[str, ...] = ()  # dimensions beyond `MOST_DIMENSIONS`
    notes: tuple[str, ...] = ()
    reason: str | None = None

    def table(self) -> DataTable:
        """Return one line for each network, the most accurate first."""
        if self.reason is not None:
            return DataTable(("trial",))
        order = np.argsort(-self.dimensions[-1].values, kind="stable")
        lines = (
            (
                str(self.number[place]),
                *(dimension.text(float(dimension.values[place])) for dimension in self.dimensions),
            )
            for place in order
        )
        return DataTable.of(("trial", *(dimension.label for dimension in self.dimensions)), lines, len(order))


def dimension_values(columns: StudyColumns, view: View) -> dict[str, Floats]:
    """Return the position of every trial (n,) of the study, by dimension; NaN where it has no value."""
    return {dimension.key: dimension.plotted for dimension in _dimensions(columns, view)}


def brushed(info: ParallelInfo, ranges: Ranges) -> Mask:
    """Return which of the info's networks (k,) lie in a range of every brushed dimension.

    Args:
        info: what is shown.
        ranges: (low, high) in plotted coordinates by a dimension's key; unknown keys and empty lists exclude nothing.
    """
    return inside({dimension.key: dimension.plotted for dimension in info.dimensions}, ranges, len(info.number))


def inside(values: Mapping[str, Floats], ranges: Ranges, total: int) -> Mask:
    """Return which of `total` trials lie in a range of every brushed dimension; `values` of `dimension_values`."""
    mask = np.ones(total, dtype=bool)
    for key, pairs in ranges.items():
        if key in values and pairs:
            plotted = values[key]
            mask &= np.logical_or.reduce([(plotted >= low) & (plotted <= high) for low, high in pairs])
    return mask


def parallel_info(columns: StudyColumns, view: View) -> ParallelInfo:
    """Return the trained networks over what varies among them; latencies are of the view's group."""
    places = np.flatnonzero(columns.trained)
    latency = columns.axis_values(View(view.group, "latency"))
    priced = places[np.isfinite(latency[places])]
    unpriced = len(places) - len(priced) if len(priced) >= LEAST_NETWORKS else 0
    if unpriced:  # Plotly draws no line with a gap
        places = priced
    places = places[np.argsort(columns.score[places], kind="stable")]  # the best are drawn last, above the others
    if len(places) < LEAST_NETWORKS:
        return ParallelInfo((), columns.number[:0], reason=_why_none(len(places)))
    varied = [
        replace(dimension, values=dimension.values[places])
        for dimension in _dimensions(columns, view)
        if _varies(dimension.values[places]) and np.isfinite(dimension.plotted[places]).all()
    ]
    varied = _without_repeats(varied)
    settings = [dimension for dimension in varied if dimension.key not in OUTCOMES]
    if not settings:
        return ParallelInfo((), columns.number[:0], reason="The trained networks differ in nothing but their results.")
    kept = sorted(settings, key=_weight)[: MOST_DIMENSIONS - len(OUTCOMES)]
    left_out = tuple(dimension.label for dimension in settings if dimension not in kept)
    chosen = [dimension for dimension in varied if dimension in kept or dimension.key in ("macs", "latency")]
    score = Dimension("score", f"{columns.score_name}, %", 100 * columns.score[places], False)
    notes = _notes(columns, view, len(places), unpriced, left_out)
    return ParallelInfo((*chosen, score), columns.number[places], left_out, notes)


def _notes(
    columns: StudyColumns, view: View, networks: int, unpriced: int, left_out: tuple[str, ...]
) -> tuple[str, ...]:
    notes = [
        f"{networks:,} trained networks, coloured by {columns.score_name}. Drag along an axis to choose a part of it."
    ]
    if unpriced:
        have = agreeing(unpriced, "has no latency of this kind and is", "have no latency of this kind and are")
        notes.append(f"{unpriced:,} more {have} not shown.")
    if left_out:
        notes.append(f"Not shown, because there is no room: {', '.join(left_out)}.")
    if view.group is not None:
        notes.append(f"Latency: {columns.latency_groups[view.group]}.")
    return tuple(notes)


def _why_none(trained: int) -> str:
    have = "there is none yet" if trained == 0 else "there is only one yet"
    return f"Parallel coordinates compare at least {LEAST_NETWORKS} trained networks: {have}."


def _dimensions(columns: StudyColumns, view: View) -> list[Dimension]:
    """Return every dimension of a study in the order in which they are shown, with the values (n,) of all trials.

    A stage that a network doesn't have counts as a stage of no layers and no growth.
    """
    dimensions = [
        Dimension("G", "G", columns.groups_1x1.astype(float), True),
        Dimension("C", "C", columns.condense_factor.astype(float), True),
        Dimension("bottleneck", "bottleneck", columns.bottleneck.astype(float), True),
        Dimension("groups_3x3", "3×3 groups", columns.groups_3x3.astype(float), True),
        Dimension("stages", "stages", np.isfinite(columns.stages).sum(axis=1).astype(float), False),
        Dimension("layers", "layers", columns.layers.astype(float), False),
    ]
    for name, values in (("layers", columns.stages), ("growth", columns.growth)):
        for stage in range(values.shape[1]):
            dimensions.append(
                Dimension(f"{name}_{stage + 1}", f"{name} {stage + 1}", np.nan_to_num(values[:, stage]), False)
            )
    for name, values in training_values(columns).items():
        dimensions.append(Dimension(f"training.{name}", name.replace("_", " "), values, is_log(values)))
    dimensions.append(Dimension("macs", "macs", columns.macs.astype(float), True))
    latency = columns.axis_values(View(view.group, "latency"))
    dimensions.append(Dimension("latency", "latency, ms", latency, True))
    dimensions.append(
        Dimension("score", f"{columns.score_name}, %", np.where(columns.trained, 100 * columns.score, np.nan), False)
    )
    return dimensions


def training_values(columns: StudyColumns) -> dict[str, Floats]:
    """Return by name the training settings (n,) that are numbers and differ between trials."""
    names = dict.fromkeys(name for training in columns.training for name in training)
    varied = {}
    for name in names:
        raw = [training.get(name) for training in columns.training]
        if all(isinstance(value, int | float | None) for value in raw):
            values = np.array([math.nan if value is None else float(value) for value in raw])
            if _varies(values):
                varied[name] = values
    return varied


def _varies(values: Floats) -> bool:
    finite = values[np.isfinite(values)]
    return bool(finite.size) and bool((finite != finite[0]).any())


def _without_repeats(dimensions: list[Dimension]) -> list[Dimension]:
    """Leave out what an earlier dimension of the same family says already: growth 2 if it is always twice growth 1."""
    kept: list[Dimension] = []
    for dimension in dimensions:
        family = dimension.key.partition("_")[0]
        leaders = [other for other in kept if other.key.partition("_")[0] == ("G" if family == "groups" else family)]
        if dimension.key in OUTCOMES or not any(_says_the_same(other.values, dimension.values) for other in leaders):
            kept.append(dimension)
    return kept


def _says_the_same(first: Floats, second: Floats) -> bool:
    pairs = len(np.unique(np.stack((first, second), axis=1), axis=0))
    return pairs == len(np.unique(first)) == len(np.unique(second))


def _weight(dimension: Dimension) -> int:
    """Return how soon a dimension is left out: the layers of each stage first, then the growths of later stages."""
    family, _, stage = dimension.key.partition("_")
    if family == "layers" and stage:
        return 2
    return 1 if family == "growth" and stage != "1" else 0


# ---- the figure -----------------------------------------------------------------------------------------


def parallel_figure(info: ParallelInfo) -> Any:
    """Return the lines; `layout.meta` has the width in pixels below which a page should let the chart scroll."""
    import plotly.graph_objects as go

    if info.reason is not None:
        return message(info.reason)
    figure = empty_figure(420)
    score = info.dimensions[-1].values
    low = float(np.quantile(score, 0.05)) if np.ptp(score) else float(score.min()) - 1
    figure.add_trace(
        go.Parcoords(
            dimensions=[_axis(dimension) for dimension in info.dimensions],
            line={
                "color": slim(score),
                "colorscale": SCALE,
                "cmin": low,
                "cmax": float(score.max()),
                "showscale": False,
            },
            unselected={"line": {"opacity": 0.06}},
            labelside="top",
            name="networks",
            customdata=slim(info.number),
        )
    )
    figure.update_layout(
        margin={"l": 46, "r": 46, "t": 64, "b": 20},
        showlegend=False,
        meta={"min_width_px": WIDTH_PX * len(info.dimensions)},
    )
    return figure


def _axis(dimension: Dimension) -> dict[str, Any]:
    axis: dict[str, Any] = {"name": dimension.key, "label": escaped(dimension.label), "values": slim(dimension.plotted)}
    axis["tickvals"], axis["ticktext"] = dimension.ticks()
    finite = dimension.plotted[np.isfinite(dimension.plotted)]
    low, high = float(finite.min()), float(finite.max())
    # Plotly lets a brush reach from the first tick to the last: without a tick at its end the best is beyond it.
    if low < axis["tickvals"][0] - 1e-9:
        axis["tickvals"], axis["ticktext"] = [low, *axis["tickvals"]], ["", *axis["ticktext"]]
    if high > axis["tickvals"][-1] + 1e-9:
        axis["tickvals"], axis["ticktext"] = [*axis["tickvals"], high], [*axis["ticktext"], ""]
    return axis | {"range": [low, high]}
