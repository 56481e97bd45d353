"""Macs against latency: how well macs order networks as the device does, and where they mislead most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np

from dashboards.data.columns import Floats, Mask, StudyColumns, View
from dashboards.formats import count, milliseconds
from dashboards.panels.data_table import DataTable
from dashboards.panels.study.points import (
    Points,
    Series,
    bars,
    headers,
    hover,
    latencies_shown,
    points_of,
    recommended_name,
    why_no_points,
)
from dashboards.panels.style import (
    COLOURS,
    FRONT,
    GREY,
    REFERENCE,
    add_budget,
    add_recommended,
    empty_figure,
    escaped,
    is_log,
    message,
    scatter,
    slim,
    style_axis,
)
from search.store.vocabulary import TrialState

MOST_MISLED = 6  # trials that are marked
TRAINED = COLOURS[2]  # in a crowd shape alone doesn't tell trained networks from refused ones
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
    """Latency in ms against million macs of every priced trial of one latency group."""

    title: str  # of the latency axis
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
        return DataTable.of(("rank", *headers(self.trained.score_name)), chain(lines, rest), self.total)


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
        title="latency, ms" if group is None else f"{escaped(group.kind)} latency on {escaped(group.target)}, ms",
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
    notes = [f"Latency: {group}."] if group is not None else []
    if info.correlation is not None:
        among = f", {info.front_correlation:.2f} among the front" if info.front_correlation is not None else ""
        notes.append(
            f"Rank correlation of macs and latency: {info.correlation:.2f} over {info.total:,} networks{among}. "
            "At 1, macs alone would order the networks as the device does; below 1, measuring pays."
        )
    if info.contradiction is not None:
        notes.append(f"Strongest contradiction: {info.contradiction}.")
    if len(info.misled):
        notes.append("Ringed: the networks whose place by macs is furthest from their place by latency.")
    return tuple(notes)


# ---- the figure -----------------------------------------------------------------------------------------


def macs_latency_figure(info: MacsLatencyInfo) -> Any:
    """Return the chart of latency against macs."""
    if info.reason is not None:
        return message(info.reason)
    figure = empty_figure(440)
    trace = scatter(info.total)
    crowd = 7 if info.total <= 300 else 5
    refused = {"symbol": "triangle-down", "size": crowd, "color": GREY, "opacity": 0.55}
    _add(figure, trace, Series(info.infeasible, "over a budget", refused))
    trained = {"symbol": "circle", "size": crowd, "color": TRAINED}
    _add(figure, trace, Series(info.trained, "other trained", trained, bars(info.trained, TRAINED)))
    front = {"symbol": "diamond", "size": 10, "color": FRONT}
    _add(figure, trace, Series(info.front, "on the front", front, bars(info.front, FRONT, always=True)))
    misled = {"symbol": "circle-open", "size": 15, "color": REFERENCE}
    _add(figure, trace, Series(info.misled, "macs mislead most", misled))
    macs = np.concatenate([points.along("macs") for points in info.roles.values()])
    latency_ms = np.concatenate([points.latency_ms for points in info.roles.values()])
    log = is_log(latency_ms)
    style_axis(figure.layout.xaxis, is_log(macs))
    style_axis(figure.layout.yaxis, log)
    figure.update_xaxes(title={"text": "multiply-adds (macs), millions"})
    figure.update_yaxes(title={"text": info.title})
    add_budget(figure, "y", info.budget, log)
    number = np.concatenate([points.number for points in info.roles.values()])
    place = np.flatnonzero(number == info.recommended)
    star = (float(macs[place[0]]), float(latency_ms[place[0]])) if len(place) else None
    add_recommended(figure, info.recommended_name, star, trace)
    figure.layout.meta = {**info.latencies, "x": "macs", "y": "latency"}
    return figure


def _add(figure: Any, trace: Any, series: Series) -> None:
    points, marker = series.points, series.marker
    if not len(points):
        return
    width = 2.0 if "open" in marker["symbol"] else 0.0
    figure.add_trace(
        trace(
            x=slim(points.along("macs")),
            y=slim(points.latency_ms),
            error_y=series.error_bars,
            mode="markers",
            name=series.name,
            marker={**marker, "line": {"width": width, "color": marker["color"]}},
            **hover(points, "macs", "latency"),
        )
    )
