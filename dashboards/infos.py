"""The first step of every chart: an info, plain data from rows. `figures` makes the figure of it.

- Latencies that can't be compared (other kind, device, runtime or thread count) form groups; a trace never mixes them.
- An info that can't be computed carries the reason, and its figure shows the reason in place of a chart.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dashboards.formats import latency_label, place_label
from search.gate import Budget
from search.pareto import latency_key
from search.pick import rank
from search.store.reader import LatencyRow, TrialRow

Role = Literal["front", "done", "infeasible"]


@dataclass(frozen=True)
class PointInfo:
    """One priced trial as a chart shows it. Latencies in ms, `top1` a fraction (None: never trained)."""

    number: int
    role: Role
    group: int  # place in the info's `groups`
    latency_ms: float
    low_ms: float
    high_ms: float
    top1: float | None
    macs: int
    params: int
    config: str
    label: str  # kind and policy of the latency


@dataclass(frozen=True)
class FrontInfo:
    """Accuracy against latency: the points, their latency groups, the budget and the pick."""

    groups: tuple[str, ...]
    points: tuple[PointInfo, ...]
    budget_ms: float | None
    recommended: int | None
    reason: str | None  # why there is nothing to see

    def of(self, group: int, role: Role) -> list[PointInfo]:
        """Return a group's points in one role, fastest first."""
        return [point for point in self.points if point.group == group and point.role == role]

    def line(self, group: int) -> list[PointInfo]:
        """Return the front points that are more accurate than every faster one: the corners of the step line.

        The others stand on the front because they need fewer macs.
        """
        corners: list[PointInfo] = []
        for point in self.of(group, "front"):
            if not corners or (point.top1 or 0.0) > (corners[-1].top1 or 0.0):
                corners.append(point)
        return corners


@dataclass(frozen=True)
class MacsLatencyInfo:
    """Macs against latency of every priced trial; `rank_correlations` has Spearman's rho per group (None below 3)."""

    groups: tuple[str, ...]
    points: tuple[PointInfo, ...]
    budget_ms: float | None
    rank_correlations: tuple[float | None, ...]
    reason: str | None


@dataclass(frozen=True)
class CurveInfo:
    """One trial's learning curve; all of one length. `top1` are fractions, NaN where an epoch has none."""

    number: int
    config: str
    epochs: tuple[int, ...]
    progress: tuple[float, ...]
    top1: tuple[float, ...]
    stages: tuple[int, ...]  # condensing stages performed by then
    forms: tuple[str, ...]  # training, condensed or deployed: whose accuracy it is


@dataclass(frozen=True)
class CurvesInfo:
    """Learning curves to compare; `left_out` trials are beyond what one chart can tell apart."""

    curves: tuple[CurveInfo, ...]
    left_out: int
    reason: str | None


def recommended(rows: Sequence[TrialRow], max_latency_ms: float | None) -> TrialRow | None:
    """Return the trial to deploy inside a latency budget in ms, by the rules of `search.pick`; None when none fits."""
    ranked = rank(rows, Budget(max_latency_ms=max_latency_ms))
    return ranked[0] if ranked else None


def front_info(rows: Sequence[TrialRow], front: Collection[int], budget_ms: float | None) -> FrontInfo:
    """Return what the accuracy-latency chart shows.

    Args:
        rows: the study's trials.
        front: numbers of those on the front.
        budget_ms: latency budget of the line and the recommendation; None draws no line.
    """
    groups, points = _points(rows, front)
    best = recommended(rows, budget_ms)
    reason = None if points else _why_no_points(rows)
    return FrontInfo(groups, points, budget_ms, None if best is None else best.number, reason)


def macs_latency_info(rows: Sequence[TrialRow], front: Collection[int], budget_ms: float | None) -> MacsLatencyInfo:
    """Return what the macs-latency chart shows; arguments as in `front_info`."""
    groups, points = _points(rows, front)
    correlations = tuple(_rank_correlation([p for p in points if p.group == i]) for i in range(len(groups)))
    return MacsLatencyInfo(groups, points, budget_ms, correlations, None if points else _why_no_points(rows))


def curves_info(
    rows: Sequence[TrialRow], curves: Mapping[int, Sequence[Mapping[str, Any]]], most: int = 8
) -> CurvesInfo:
    """Return the learning curves of `rows`, in that order, the first `most` of them.

    `curves` has the rows of `condensery_curve` by trial number.
    """
    with_curve = [row for row in rows if curves.get(row.number)]
    shown = tuple(_curve(row, curves[row.number]) for row in with_curve[:most])
    reason = None if shown else "No learning curve to show: no trial among these has finished an epoch."
    return CurvesInfo(shown, max(0, len(with_curve) - most), reason)


def _curve(row: TrialRow, epochs: Sequence[Mapping[str, Any]]) -> CurveInfo:
    return CurveInfo(
        number=row.number,
        config=str(row.config),
        epochs=tuple(int(e["epoch"]) for e in epochs),
        progress=tuple(float(e["progress"]) for e in epochs),
        top1=tuple(math.nan if e["val_top1"] is None else float(e["val_top1"]) for e in epochs),
        stages=tuple(int(e["condensing_stage"]) for e in epochs),
        forms=tuple(str(e["form"]) for e in epochs),
    )


def _points(rows: Sequence[TrialRow], front: Collection[int]) -> tuple[tuple[str, ...], tuple[PointInfo, ...]]:
    """Every trial with a latency that is done or was refused, fastest first, and the names of their groups."""
    on_front = set(front)
    groups: dict[Any, tuple[int, str]] = {}
    points: list[PointInfo] = []
    for row in rows:
        if row.latency is None or not math.isfinite(row.latency.median_ms):
            continue
        trained = row.state == "done" and row.top1 is not None and math.isfinite(row.top1)
        if not trained and row.state != "infeasible":
            continue
        role: Role = "infeasible" if not trained else "front" if row.number in on_front else "done"
        name = f"{row.latency.kind}, {place_label(row.latency)}"
        group, _ = groups.setdefault(latency_key(row.latency), (len(groups), name))
        points.append(_point(row, row.latency, role, group))
    points.sort(key=lambda point: (point.latency_ms, -(point.top1 or 0.0), point.number))
    return tuple(name for _, name in groups.values()), tuple(points)


def _point(row: TrialRow, latency: LatencyRow, role: Role, group: int) -> PointInfo:
    return PointInfo(
        number=row.number,
        role=role,
        group=group,
        latency_ms=latency.median_ms,
        low_ms=latency.interval_low_ms,
        high_ms=latency.interval_high_ms,
        top1=None if role == "infeasible" else row.top1,
        macs=row.macs,
        params=row.params,
        config=str(row.config),
        label=latency_label(latency),
    )


def _why_no_points(rows: Sequence[TrialRow]) -> str:
    if not rows:
        return "No trials yet."
    if all(row.latency is None for row in rows):
        refused = any(row.state == "infeasible" for row in rows)
        why = ": the candidates refused so far are over a limit on macs or params" if refused else ""
        return f"No trial has a latency yet{why}."
    return "No trial has been trained or refused yet."


def _rank_correlation(points: Sequence[PointInfo]) -> float | None:
    """Spearman's rho of macs and latency, ties by their mean rank; None where it isn't defined."""
    if len(points) < 3:
        return None
    macs = _mean_ranks(np.array([float(point.macs) for point in points]))
    latency = _mean_ranks(np.array([point.latency_ms for point in points]))
    if np.ptp(macs) == 0 or np.ptp(latency) == 0:
        return None
    return float(np.corrcoef(macs, latency)[0, 1])


def _mean_ranks(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    _, place, sizes = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    ranks: np.ndarray[Any, np.dtype[np.float64]] = ((last - sizes + 1 + last) / 2)[place]
    return ranks
