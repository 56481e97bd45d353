"""The front: what a network is worth against what it costs, and the trials that were refused, stopped or still train.

Any two quantities may be its axes (`dashboards.data.quantities`). The line joins the networks that none beats in these
two. The front itself is over three objectives, score, latency and macs: its members beside the line are on it for the
objective that the axes don't show.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from dashboards.data.columns import Axis, Floats, Mask, StudyColumns, View
from dashboards.data.curves import LastEpoch
from dashboards.data.quantities import Further, Quantity, quantity_of
from dashboards.panels.study.baselines import Baseline, comparable
from dashboards.panels.study.front_contents import OBJECTIVES, FrontInfo
from dashboards.panels.study.front_notes import notes_of
from dashboards.panels.study.points import (
    IN_BITS,
    Points,
    in_precision,
    latencies_shown,
    points_of,
    recommended_name,
    why_no_points,
    with_last_score,
)
from search.results.pareto import non_dominated
from search.store.vocabulary import TrialState

STOPPED = (TrialState.PRUNED, TrialState.FAILED, TrialState.CANCELLED)
LOWEST_SHOWN = 0.05  # share of the trained trials that may lie below what the chart opens with
BASELINE_COST = 3.0  # a reference mark may cost this many times as much, or as little, as the study's networks
BASELINE_PCT = 10.0  # and lie this many % top-1 beyond their accuracies
CLIP = 1.5  # times the budget: how far the cost axis opens where more lies beyond
LEAST_INSIDE = 3  # trained networks; with fewer inside, clipping would hide what there is to see


@dataclass(frozen=True)
class FrontOptions:
    """What a front chart shows beside the study's columns."""

    budget: float | None = None  # limit on the x axis as it is recorded: ms, macs or params
    recommended: int | None = None  # number of the trial to deploy
    last_epochs: Mapping[int, LastEpoch] = field(default_factory=dict)  # by number, of trials that aren't done
    baselines: bool = True  # whether published networks are shown
    x: str | None = None  # key of the quantity on the x axis; None = the view's axis
    y: str | None = None  # of the y axis; None = the score
    log: tuple[bool | None, bool | None] = (None, None)
    further: Further = field(default_factory=Further)
    budget_y: float | None = None  # limit on the y axis
    near: float | None = None  # a limit near which the chart opens, where no budget is drawn


def front_info(columns: StudyColumns, view: View, options: FrontOptions | None = None) -> FrontInfo:
    """Return what the chart shows; latencies are of the view's group alone.

    Raises:
        InvalidSettings: the study has no such quantity.
    """
    options = options or FrontOptions()
    x = quantity_of(columns, view, options.x or view.axis, options.further)
    y = quantity_of(columns, view, options.y or "score", options.further)
    roles = _roles(columns, view, (x, y), options.last_epochs)
    standing = columns.trained & np.isfinite(x.values) & np.isfinite(y.values)
    line = best_line(x.values[standing], y.values[standing], (x.more_is_better, y.more_is_better))
    with_baselines = options.baselines and y.key == "score" and x.key in ("latency", "macs", "params")
    near, far = _baselines(columns, view, x, roles) if with_baselines else ((), ())
    nothing = (np.isfinite(x.values) & (np.isfinite(y.values) | (y.key == "score"))).any()
    limit = None if options.budget is None else options.budget / x.factor
    clip_at = limit if options.near is None else options.near / x.factor
    none = points_of(columns, view, np.zeros(len(columns), dtype=bool))
    info = FrontInfo(
        x=x,
        y=y,
        latencies=latencies_shown(columns, view),
        front=roles["on the front"],
        trained=roles["trained"],
        infeasible=roles["over a budget"],
        stopped=roles["stopped"],
        running=roles["training"],
        int8=roles.get(IN_BITS["int8"], none),
        fp16=roles.get(IN_BITS["fp16"], none),
        line=line,
        on_line=_are_on(line, roles["on the front"], (x, y)),
        baselines=near,
        far_baselines=far,
        budget=limit,
        budget_y=None if options.budget_y is None else options.budget_y / y.factor,
        recommended=options.recommended,
        recommended_name=recommended_name(columns, view, options.recommended, (x.key, y.key)),
        bottom_pct=_bottom(roles) if y.key == "score" else None,
        right=_right(roles, x, clip_at),
        log=options.log,
        roles=roles,
        reason=None if any(map(len, roles.values())) else _why_none(columns, view, (x, y), bool(nothing)),
    )
    return replace(info, notes=tuple(notes_of(info, columns, view)))


def _roles(
    columns: StudyColumns, view: View, axes: tuple[Quantity, Quantity], last: Mapping[int, LastEpoch]
) -> dict[str, Points]:
    """Return the trials that have a place, by what a table calls them; refused ones may lack a score."""
    x, y = axes
    placed = np.isfinite(x.values)
    both = placed & np.isfinite(y.values)
    with_epoch = np.array([number in last for number in columns.number.tolist()], dtype=bool)
    scored = placed & with_epoch if y.key == "score" else both
    on_front = columns.front(view.group) & both
    rug = placed if y.more_is_better else both  # without a score, a refused candidate stands below the chart
    masks = {
        "on the front": on_front,
        "trained": columns.trained & both & ~on_front,
        "over a budget": columns.is_state(TrialState.INFEASIBLE) & rug,
        "stopped": columns.is_state(*STOPPED) & scored,
        "training": columns.is_state(TrialState.RUNNING) & scored,
    }
    roles = {name: points_of(columns, view, mask, x.values, axes) for name, mask in masks.items()}
    if y.key == "score":
        for name in ("stopped", "training"):
            roles[name] = with_last_score(roles[name], last)
    if (x.key, y.key) == ("latency", "score"):
        others = {name: in_precision(columns, view, precision) for precision, name in IN_BITS.items()}
        roles |= {name: points for name, points in others.items() if len(points)}
    return roles


def best_line(x: Floats, y: Floats, more_is_better: tuple[bool, bool]) -> tuple[Floats, Floats]:
    """Return the places that no other beats in both quantities, from the lowest x on: the corners of the step line.

    Of several at the same place one is kept.
    """
    signs = np.where(more_is_better, -1.0, 1.0)
    places = np.unique(np.stack((x, y), axis=1), axis=0).reshape(-1, 2)
    corners = places[non_dominated(places * signs)]
    return corners[:, 0], corners[:, 1]


def _are_on(line: tuple[Floats, Floats], points: Points, axes: tuple[Quantity, Quantity]) -> Mask:
    corners = set(zip(*(values.tolist() for values in line), strict=True))
    places = zip(*(points.along(axis.key).tolist() for axis in axes), strict=True)
    return np.array([place in corners for place in places], dtype=bool)


def _right(roles: Mapping[str, Points], x: Quantity, limit: float | None) -> float | None:
    """Return how far the x axis opens: somewhat beyond the budget where more lies further out, else to the end."""
    if limit is None or not math.isfinite(limit) or limit <= 0:
        return None
    right = CLIP * limit
    trained = np.concatenate([roles[name].along(x.key) for name in ("on the front", "trained")])
    farthest = max((float(points.along(x.key).max()) for points in roles.values() if len(points)), default=0.0)
    inside = int((trained <= right).sum())
    return right if farthest > right and (inside >= LEAST_INSIDE or inside == len(trained)) else None


def _bottom(roles: Mapping[str, Points]) -> float | None:
    """Return the lowest score in % that the chart opens with, so that a few poor trials don't flatten the rest."""
    front, trained = roles["on the front"].score_pct, roles["trained"].score_pct
    best = np.concatenate((front, trained))
    everything = np.concatenate([points.score_pct for points in roles.values()])
    everything = everything[np.isfinite(everything)]
    if not len(best):
        return None
    low = min(np.quantile(best, LOWEST_SHOWN), *front) if len(front) else np.quantile(best, LOWEST_SHOWN)
    low -= 0.1 * max(best.max() - low, 0.1)
    return float(low) if everything.min() < low - 0.5 * (best.max() - low) else None


def _baselines(
    columns: StudyColumns, view: View, x: Quantity, roles: Mapping[str, Points]
) -> tuple[tuple[Baseline, ...], tuple[Baseline, ...]]:
    """Return the networks that may be compared: those near enough to be drawn, and the others."""
    axis: Axis = "latency" if x.key == "latency" else "macs" if x.key == "macs" else "params"
    networks = comparable(columns, replace(view, axis=axis))
    trained = [roles["on the front"], roles["trained"]]
    costs = np.concatenate([points.along(x.key) for points in trained])
    if not networks or not len(costs):
        return (), tuple(networks)
    accuracies = np.concatenate([points.score_pct for points in trained])
    cost_range = costs.min() / BASELINE_COST, costs.max() * BASELINE_COST
    pct_range = accuracies.min() - BASELINE_PCT, accuracies.max() + BASELINE_PCT
    near = [
        network
        for network in networks
        if cost_range[0] <= network.cost(axis) / x.factor <= cost_range[1]
        and pct_range[0] <= network.top1_pct <= pct_range[1]
    ]
    return tuple(near), tuple(network for network in networks if network not in near)


def _why_none(columns: StudyColumns, view: View, axes: tuple[Quantity, Quantity], some: bool) -> str:
    missing = [axis for axis in axes if axis.key not in OBJECTIVES and not np.isfinite(axis.values).any()]
    if len(columns) and missing:
        what = {
            "file": "the trained files aren't on this machine",
            "memory": "it is known of networks that were measured on a device that reports it",
            "time": "no network has been trained yet",
        }.get(missing[0].key, "no trial has one yet")
        return f"No trial has a place here, because its {missing[0].name} isn't known: {what}. Choose another axis."
    if len(columns) and some and view.group is not None:
        return "No trial has both of these yet: choose another axis, or wait for the first training."
    return why_no_points(columns, view)
