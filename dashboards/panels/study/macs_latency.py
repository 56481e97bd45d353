"""Macs against latency: how well macs order networks as the device does, and where they mislead most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np

from dashboards.data.columns import Floats, Mask, StudyColumns, View
from dashboards.data.quantities import Quantity, quantity_of
from dashboards.formats import count, milliseconds
from dashboards.panels.data_table import DataTable
from dashboards.panels.study.points import (
    INT8_NOTE,
    Points,
    Series,
    add_series,
    bars,
    headers,
    latencies_shown,
    points_of,
    recommended_name,
    why_no_points,
)
from dashboards.panels.style import (
    MARKS,
    add_budget,
    add_label,
    add_recommended,
    drawable,
    empty_figure,
    escaped,
    is_log,
    on_axis,
    scatter,
    style_axis,
)
from search.store.vocabulary import TrialState
from workers.wording import counted

MOST_MISLED = 6  # trials that are marked
LEAST_FOR_RANKS = 3
LEAST_TO_MARK = 10  # priced trials; among fewer, a difference of ranks says nothing


@dataclass(frozen=True)
class Contradiction:
    """Two networks that macs put in the wrong order: `fewer` has fewer macs and is slower, with intervals apart."""

    fewer: int  # number of the trial with fewer macs
    more: int  # and of the one with more
    macs: tuple[int, int]
    latency_ms: tuple[float, float]

    def __str__(self) -> str:
        saved = 100 * (1 - self.macs[0] / self.macs[1])
        slower = self.latency_ms[0] / self.latency_ms[1]
        fewer = f"{saved:.0f} % fewer macs than" if saved >= 0.5 else "hardly fewer macs than"
        return (
            f"trial {self.fewer} has {fewer} trial {self.more} "
            f"({count(self.macs[0])} against {count(self.macs[1])}) and takes {slower:.2f} times as long "
            f"({milliseconds(self.latency_ms[0])} against {milliseconds(self.latency_ms[1])})"
        )


@dataclass(frozen=True, eq=False)
class MacsLatencyInfo:
    """Latency against macs of every priced trial of one latency group."""

    macs: Quantity
    latency: Quantity
    latencies: Mapping[str, Any]  # target, kind and group of the latencies shown
    front: Points
    trained: Points
    infeasible: Points
    misled: Points  # those of all these whose rank by macs is furthest from their rank by latency
    rank_by_macs: Floats  # of `misled`, 1 = fewest
    rank_by_latency: Floats  # of `misled`, 1 = fastest
    correlation: float | None  # Spearman's rho over all; None where it isn't defined
    front_correlation: float | None  # the same over the front alone
    contradiction: Contradiction | None  # the strongest one
    budget: float | None  # ms
    recommended: int | None
    recommended_name: str = "recommended"  # what the legend calls it
    notes: tuple[str, ...] = ()
    reason: str | None = None
    roles: Mapping[str, Points] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many trials are shown."""
        return sum(map(len, self.roles.values()))

    def table(self) -> DataTable:
        """Return the points; first those that macs mislead most about, with their ranks among all."""
        pairs = zip(self.rank_by_macs, self.rank_by_latency, strict=True)
        ranks = (f"{macs:g} by macs, {latency:g} by latency" for macs, latency in pairs)
        lines = ((rank, *self.misled.row(index)) for rank, index in zip(ranks, self.misled, strict=True))
        marked = set(self.misled.number.tolist())
        rest = (
            ("", *points.row(index))
            for points in self.roles.values()
            for index in points
            if points.number[index] not in marked
        )
        names = headers(self.trained.score_name, self.trained.units)
        return DataTable.of(("rank", *names), chain(lines, rest), self.total)


def macs_latency_info(
    columns: StudyColumns, view: View, budget: float | None = None, recommended: int | None = None
) -> MacsLatencyInfo:
    """Return what the chart of latency against macs shows; `budget` in ms."""
    latency_view = View(view.group, "latency")
    latency_ms = columns.axis_values(latency_view)
    priced = np.isfinite(latency_ms)
    on_front = columns.front(view.group) & priced
    masks = {
        "on the front": on_front,
        "trained": columns.trained & priced & ~on_front,
        "over a budget": columns.is_state(TrialState.INFEASIBLE) & priced,
    }
    roles = {name: points_of(columns, latency_view, mask, latency_ms) for name, mask in masks.items()}
    chosen = masks["on the front"] | masks["trained"] | masks["over a budget"]
    misled, ranks = _misled(columns, latency_ms, chosen)
    group = None if view.group is None else columns.latency_groups[view.group]
    info = MacsLatencyInfo(
        macs=quantity_of(columns, latency_view, "macs"),
        latency=quantity_of(columns, latency_view, "latency"),
        latencies=latencies_shown(columns, view),
        front=roles["on the front"],
        trained=roles["trained"],
        infeasible=roles["over a budget"],
        misled=points_of(columns, latency_view, misled, -np.abs(ranks[0] - ranks[1])),
        rank_by_macs=np.empty(0),
        rank_by_latency=np.empty(0),
        correlation=rank_correlation(columns.macs[chosen].astype(float), latency_ms[chosen]),
        front_correlation=rank_correlation(columns.macs[on_front].astype(float), latency_ms[on_front]),
        contradiction=_contradiction(columns, view, chosen),
        budget=budget,
        recommended=recommended,
        recommended_name=recommended_name(columns, latency_view, recommended, ("macs", "latency")),
        roles=roles,
        reason=None if chosen.any() else why_no_points(columns, latency_view),
    )
    places = np.searchsorted(columns.number, info.misled.number)
    info = replace(info, rank_by_macs=ranks[0][places], rank_by_latency=ranks[1][places])
    return replace(info, notes=_notes(info, None if group is None else str(group)))


def _misled(columns: StudyColumns, latency_ms: Floats, chosen: Mask) -> tuple[Mask, tuple[Floats, Floats]]:
    """Return which of the chosen trials macs mislead most about, and all their ranks (n,) by macs and by latency."""
    ranks = np.full(len(columns), np.nan), np.full(len(columns), np.nan)
    ranks[0][chosen] = mean_ranks(columns.macs[chosen].astype(float))
    ranks[1][chosen] = mean_ranks(latency_ms[chosen])
    misled = np.zeros(len(columns), dtype=bool)
    if int(chosen.sum()) >= LEAST_TO_MARK:
        distance = np.where(chosen, np.abs(ranks[0] - ranks[1]), -1.0)
        first = np.argsort(-distance, kind="stable")[:MOST_MISLED]
        misled[first[distance[first] > 0]] = True
    return misled, ranks


def _contradiction(columns: StudyColumns, view: View, chosen: Mask) -> Contradiction | None:
    """Return the pair whose order by macs contradicts its latencies by the largest ratio, with intervals apart."""
    if view.group is None or not chosen.any():
        return None
    latencies = columns.of_group(view.group)
    places = np.flatnonzero(chosen)
    places = places[np.argsort(columns.macs[places], kind="stable")]
    macs, high = columns.macs[places], latencies.high_ms[places]
    # The lowest upper end among all that have more macs: a network that is surely slower than any of them is surely
    # slower than that one.
    lowest = np.minimum.accumulate(high[::-1])[::-1]
    after = np.searchsorted(macs, macs, side="right")
    beyond = np.where(after < len(places), lowest[np.minimum(after, len(places) - 1)], np.inf)
    ratio = latencies.low_ms[places] / beyond
    if not (ratio > 1).any():
        return None
    slow = int(np.nanargmax(ratio))
    fast = int(after[slow] + np.argmin(high[after[slow] :]))
    pair = places[slow], places[fast]
    return Contradiction(
        fewer=int(columns.number[pair[0]]),
        more=int(columns.number[pair[1]]),
        macs=(int(macs[slow]), int(macs[fast])),
        latency_ms=(float(latencies.median_ms[pair[0]]), float(latencies.median_ms[pair[1]])),
    )


def rank_correlation(first: Floats, second: Floats) -> float | None:
    """Return Spearman's rho, ties by their mean rank; None below 3 values or where one never varies."""
    if len(first) < LEAST_FOR_RANKS:
        return None
    ranks = mean_ranks(first), mean_ranks(second)
    if np.ptp(ranks[0]) == 0 or np.ptp(ranks[1]) == 0:
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def mean_ranks(values: Floats) -> Floats:
    """Return the ranks from 1; equal values share the mean of their ranks."""
    _, place, sizes = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    ranks: Floats = ((last - sizes + 1 + last) / 2)[place]
    return ranks


def _notes(info: MacsLatencyInfo, group: str | None) -> tuple[str, ...]:
    if info.reason is not None:
        return ()
    notes = []
    if info.correlation is not None:
        among = f", {info.front_correlation:.2f} among the front" if info.front_correlation is not None else ""
        notes.append(
            f"Rank correlation of macs and latency: {info.correlation:.2f} over {info.total:,} networks{among}."
        )
    if len(info.misled):
        notes.append("Ringed: the networks whose place by macs is furthest from their place by latency.")
    if info.correlation is not None:
        notes.append("At 1, macs alone would order the networks as the device does; below 1, measuring pays.")
    if info.contradiction is not None:
        notes.append(f"Strongest contradiction: {info.contradiction}.")
    if int8 := sum(int(points.int8.sum()) for points in info.roles.values()):
        notes.append(INT8_NOTE.format(f"Open squares: {counted(int8, 'trial')}", info.trained.score_name))
    return (*notes, *([f"Latency: {group}."] if group is not None else []))


# ---- the figure -----------------------------------------------------------------------------------------


def macs_latency_figure(info: MacsLatencyInfo) -> Any:
    """Return the chart of latency against macs.

    Raises:
        ChartUnavailable: there is nothing to see.
    """
    drawable(info)
    figure = empty_figure(440)
    trace, axes = scatter(info.total), (info.macs, info.latency)
    for series in _series(info):
        add_series(figure, trace, series, axes, bars_along="y")
    macs, latency_ms = (np.concatenate([points.along(axis.key) for points in info.roles.values()]) for axis in axes)
    logs = is_log(macs), is_log(latency_ms)
    style_axis(figure.layout.xaxis, logs[0])
    style_axis(figure.layout.yaxis, logs[1])
    figure.update_xaxes(title={"text": escaped(info.macs.title)})
    figure.update_yaxes(title={"text": escaped(info.latency.title)})
    add_budget(figure, "y", info.budget, logs[1])
    number = np.concatenate([points.number for points in info.roles.values()])
    place = np.flatnonzero(number == info.recommended)
    star = (float(macs[place[0]]), float(latency_ms[place[0]])) if len(place) else None
    if star is not None:
        at = on_axis(star[0], logs[0]), on_axis(star[1], logs[1])
        add_label(figure, f"<b>trial {info.recommended}</b>", at, name="star", xshift=10, yshift=-10)
    add_recommended(figure, info.recommended_name, star, trace)
    target = info.latencies["target"]
    figure.layout.meta = {**info.latencies, "x": "macs", "y": "latency", "targets": {"y": target} if target else {}}
    return figure


def _series(info: MacsLatencyInfo) -> Iterator[Series]:
    """Yield what is drawn, the front above the rest; latencies of int8 by a mark of their own."""
    crowd = {"size": 7} if info.total <= 300 else {"size": 5, "opacity": 0.7}
    roles: tuple[tuple[str, str, Points, Mapping[str, Any]], ...] = (
        ("over a budget", "refused", info.infeasible, crowd | {"opacity": 0.6}),
        ("other trained", "trained", info.trained, crowd),
        ("on the front", "front", info.front, {}),
    )
    for name, mark_name, points, marker in roles:
        mark, always = MARKS[mark_name], mark_name == "front"
        drawn = None if mark_name == "refused" else bars(points.only(~points.int8), mark.colour, always)
        yield Series(points.only(~points.int8), name, mark, marker, drawn)
        yield Series(points.only(points.int8), f"{name}, int8", MARKS["priced-in-int8"], marker)
    yield Series(info.misled, "macs mislead most", MARKS["misled"])
