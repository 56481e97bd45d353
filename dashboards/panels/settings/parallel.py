"""Parallel coordinates: every trained network as a line through its settings and its results.

The ranges of a brush are in the coordinates in which the dimensions are plotted (`dimensions`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dashboards.data.columns import Floats, Ints, Mask, StudyColumns, View
from dashboards.panels.data_table import DataTable
from dashboards.panels.settings.dimensions import OUTCOMES, Dimension, dimensions_of, says_the_same, varies
from dashboards.panels.style import SCALE, drawable, empty_figure, escaped, slim
from workers.wording import agreeing

MOST_DIMENSIONS = 13  # more don't fit on one screen
WIDTH_PX = 63  # of one dimension
BAR_PX = 60  # of the colour bar
LEAST_NETWORKS = 2
Ranges = Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True, eq=False)
class ParallelInfo:
    """The trained networks as lines; `number` (k,) says which trial each value of a dimension belongs to."""

    dimensions: tuple[Dimension, ...]
    number: Ints
    on_front: Mask  # (k,)
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
    return {dimension.key: dimension.plotted for dimension in dimensions_of(columns, view)}


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


def parallel_info(columns: StudyColumns, view: View, front_only: bool = False) -> ParallelInfo:
    """Return the trained networks, or the front alone, over what varies; latencies are of the view's group."""
    front = columns.front(view.group)
    places = np.flatnonzero(front if front_only else columns.trained)
    latency = columns.axis_values(View(view.group, "latency"))
    priced = places[np.isfinite(latency[places])]
    unpriced = len(places) - len(priced) if len(priced) >= LEAST_NETWORKS else 0
    if unpriced:  # Plotly draws no line with a gap
        places = priced
    places = places[np.argsort(columns.score[places], kind="stable")]  # the best are drawn last, above the others
    if len(places) < LEAST_NETWORKS:
        return ParallelInfo((), columns.number[:0], columns.trained[:0], reason=_why_none(len(places)))
    varied = [
        replace(dimension, values=dimension.values[places])
        for dimension in dimensions_of(columns, view)
        if varies(dimension.values[places]) and np.isfinite(dimension.plotted[places]).all()
    ]
    varied = _without_repeats(varied)
    settings = [dimension for dimension in varied if dimension.key not in OUTCOMES]
    if not settings:
        return ParallelInfo(
            (),
            columns.number[:0],
            columns.trained[:0],
            reason="The trained networks differ in nothing but their results: vary a setting in [space] or [training].",
        )
    kept = sorted(settings, key=_weight)[: MOST_DIMENSIONS - len(OUTCOMES)]
    left_out = tuple(dimension.label for dimension in settings if dimension not in kept)
    chosen = [one for one in varied if one in kept or one.key in ("macs", "latency")]
    score = Dimension("score", f"{columns.score_name}, %", 100 * columns.score[places], False)
    notes = _notes(columns, view, len(places), unpriced, left_out)
    return ParallelInfo((*chosen, score), columns.number[places], front[places], left_out, notes)


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
    return (
        f"Parallel coordinates compare at least {LEAST_NETWORKS} trained networks: {have}. Wait for the next trainings."
    )


def _without_repeats(dimensions: list[Dimension]) -> list[Dimension]:
    """Leave out what an earlier dimension of the same family says already: growth 2 if it is always twice growth 1."""
    kept: list[Dimension] = []
    for dimension in dimensions:
        family = dimension.key.partition("_")[0]
        leaders = [other for other in kept if other.key.partition("_")[0] == ("G" if family == "groups" else family)]
        if dimension.key in OUTCOMES or not any(says_the_same(other.values, dimension.values) for other in leaders):
            kept.append(dimension)
    return kept


def _weight(dimension: Dimension) -> int:
    """Return how soon a dimension is left out: the layers of each stage first, then the growths of later stages."""
    family, _, stage = dimension.key.partition("_")
    if family == "layers" and stage:
        return 2
    return 1 if family == "growth" and stage != "1" else 0


# ---- the figure -----------------------------------------------------------------------------------------


def parallel_figure(info: ParallelInfo) -> Any:
    """Return the lines; `layout.meta` has the least width in pixels, and which lines are on the front.

    Raises:
        ChartUnavailable: there is nothing to compare.
    """
    import plotly.graph_objects as go

    drawable(info)
    figure = empty_figure(440)
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
                "showscale": True,
                "colorbar": {"title": {"text": escaped(info.dimensions[-1].label)}, "thickness": 12, "outlinewidth": 0},
            },
            unselected={"line": {"opacity": 0.06}},
            labelside="top",
            labelfont={"size": 11},
            name="networks",
            customdata=slim(info.number),
        )
    )
    figure.update_layout(
        margin={"l": 46, "r": 46, "t": 64, "b": 20},
        showlegend=False,
        meta={
            "min_width_px": WIDTH_PX * len(info.dimensions) + BAR_PX,
            "front": np.flatnonzero(info.on_front).tolist(),
        },
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
