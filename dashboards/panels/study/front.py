"""The Pareto front: accuracy against what it costs, and the trials that were refused, stopped or still train."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dashboards.data.columns import Axis, Floats, StudyColumns, View
from dashboards.data.curves import LastEpoch
from dashboards.formats import count, milliseconds, percent
from dashboards.panels.data_table import DataTable
from dashboards.panels.study.baselines import Baseline, comparable
from dashboards.panels.study.points import (
    Points,
    headers,
    in_other_precisions,
    latencies_shown,
    points_of,
    recommended_name,
    why_no_points,
    with_last_score,
)
from dashboards.panels.style import escaped
from search.store.vocabulary import TrialState
from workers.wording import agreeing, counted

STOPPED = (TrialState.PRUNED, TrialState.FAILED, TrialState.CANCELLED)
LOWEST_SHOWN = 0.05  # share of the trained trials that may lie below what the chart opens with
BASELINE_COST = 3.0  # a reference mark may cost this many times as much, or as little, as the study's networks
BASELINE_PCT = 10.0  # and lie this many % top-1 beyond their accuracies
TITLES = {"macs": "multiply-adds (macs), millions", "params": "parameters, millions"}


@dataclass(frozen=True, eq=False)
class FrontInfo:
    """The score in % against a cost (ms, million macs or million params), every group of points cheapest first."""

    axis: Axis
    title: str  # of the cost axis
    latencies: Mapping[str, Any]  # target, kind and group of the latencies shown
    front: Points
    trained: Points  # not on the front
    infeasible: Points  # refused for a budget, never trained
    stopped: Points  # ended early, failed or cancelled, at the score of their last epoch
    running: Points  # at the score of their newest epoch
    int8: Points  # networks in 8 bits that no other beats; none where another cost than latency is shown
    line: tuple[Floats, Floats]  # cost and score of the trials that are better than every cheaper one
    baselines: tuple[Baseline, ...]  # published networks that fit into the chart
    far_baselines: tuple[Baseline, ...]  # and those that don't
    budget: float | None  # limit on the cost axis, in its unit
    recommended: int | None  # number of the trial to deploy
    recommended_name: str  # what the legend calls it
    bottom_pct: float | None  # the lowest score that the chart opens with; None = all are seen
    notes: tuple[str, ...] = ()  # sentences for the caption
    reason: str | None = None  # why there is nothing to see
    roles: Mapping[str, Points] = field(default_factory=dict)  # all groups of points by what a table calls them

    def table(self) -> DataTable:
        """Return the points, the front first."""
        lines = ((role, *points.row(index)) for role, points in self.roles.items() for index in points)
        marks = (baseline.row(self.axis) for baseline in (*self.baselines, *self.far_baselines))
        total = sum(map(len, self.roles.values()))
        table = DataTable.of(("", *headers(self.front.score_name)), lines, total)
        return replace(table, rows=(*table.rows, *marks))


@dataclass(frozen=True)
class FrontOptions:
    """What a front chart shows beside the study's columns."""

    budget: float | None = None  # limit on the view's axis: ms, macs or params
    recommended: int | None = None  # number of the trial to deploy
    last_epochs: Mapping[int, LastEpoch] = field(default_factory=dict)  # by number, of trials that aren't done
    baselines: bool = True  # whether published networks are shown


def front_info(columns: StudyColumns, view: View, options: FrontOptions | None = None) -> FrontInfo:
    """Return what the chart of the score against the view's axis shows; latencies are of the view's group alone."""
    options = options or FrontOptions()
    cost = columns.axis_values(view)
    priced = np.isfinite(cost)
    on_front = columns.front(view.group) & priced
    with_epoch = np.array([number in options.last_epochs for number in columns.number.tolist()], dtype=bool)
    halted = columns.is_state(*STOPPED) & priced & with_epoch
    masks = {
        "on the front": on_front,
        "trained": columns.trained & priced & ~on_front,
        "over a budget": columns.is_state(TrialState.INFEASIBLE) & priced,
        "stopped": halted,
        "training": columns.is_state(TrialState.RUNNING) & priced & with_epoch,
    }
    roles = {name: points_of(columns, view, mask, cost) for name, mask in masks.items()}
    for name in ("stopped", "training"):
        roles[name] = with_last_score(roles[name], options.last_epochs)
    int8 = in_other_precisions(columns, view if view.axis == "latency" else replace(view, group=None))
    if len(int8):
        roles["in 8 bits"] = int8
    line = _steps(cost[columns.trained & priced], 100 * columns.score[columns.trained & priced])
    near, far = _baselines(columns, view, roles) if options.baselines else ((), ())
    unit = 1.0 if view.axis == "latency" else 1e6
    info = FrontInfo(
        axis=view.axis,
        title=_title(columns, view),
        latencies=latencies_shown(columns, view),
        front=roles["on the front"],
        trained=roles["trained"],
        infeasible=roles["over a budget"],
        stopped=roles["stopped"],
        running=roles["training"],
        int8=int8,
        line=(line[0] / unit, line[1]),
        baselines=near,
        far_baselines=far,
        budget=None if options.budget is None else options.budget / unit,
        recommended=options.recommended,
        recommended_name=recommended_name(columns, view, options.recommended, (view.axis, "score")),
        bottom_pct=_bottom(roles),
        roles=roles,
        reason=None if any(map(len, roles.values())) else why_no_points(columns, view),
    )
    return _with_notes(info, columns, view)


def _title(columns: StudyColumns, view: View) -> str:
    if view.axis != "latency":
        return TITLES[view.axis]
    if view.group is None:
        return "latency, ms"
    group = columns.latency_groups[view.group]
    return f"{escaped(group.kind)} latency on {escaped(group.target)}, ms"


def _steps(cost: Floats, score_pct: Floats) -> tuple[Floats, Floats]:
    """Return the trials that are more accurate than every cheaper one: the corners of the step line."""
    order = np.lexsort((-score_pct, cost))
    cost, score_pct = cost[order], score_pct[order]
    before = np.concatenate(([-np.inf], np.maximum.accumulate(score_pct)[:-1])) if len(cost) else score_pct
    better = score_pct > before
    return cost[better], score_pct[better]


def _bottom(roles: Mapping[str, Points]) -> float | None:
    """Return the lowest accuracy in % that the chart opens with, so that a few poor trials don't flatten the rest."""
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
    columns: StudyColumns, view: View, roles: Mapping[str, Points]
) -> tuple[tuple[Baseline, ...], tuple[Baseline, ...]]:
    """Return the networks that may be compared: those near enough to be drawn, and the others."""
    networks = comparable(columns, view)
    trained = [roles["on the front"], roles["trained"]]
    costs = np.concatenate([points.along(view.axis) for points in trained])
    if not networks or not len(costs):
        return (), tuple(networks)
    accuracies = np.concatenate([points.score_pct for points in trained])
    cost_range = costs.min() / BASELINE_COST, costs.max() * BASELINE_COST
    pct_range = accuracies.min() - BASELINE_PCT, accuracies.max() + BASELINE_PCT
    near = [
        network
        for network in networks
        if cost_range[0] <= network.cost(view.axis) <= cost_range[1]
        and pct_range[0] <= network.top1_pct <= pct_range[1]
    ]
    return tuple(near), tuple(network for network in networks if network not in near)


def _with_notes(info: FrontInfo, columns: StudyColumns, view: View) -> FrontInfo:
    notes = [*_notes_on_front(info, columns, view), *_notes_on_others(info), *_notes_on_baselines(info)]
    return replace(info, notes=tuple(notes))


def _notes_on_front(info: FrontInfo, columns: StudyColumns, view: View) -> Iterator[str]:
    if len(info.front):
        name = "accuracy" if columns.objective == "top1" else columns.score_name
        costs = f"{name}, latency and macs" if view.group is not None else f"{name} and macs"
        yield f"No network beats one on the front in {costs} at once."
        yield f"The steps follow the network with the best {columns.score_name} up to each cost."
    if len(info.int8):
        what = agreeing(len(info.int8), "The square is a network", "Squares are networks")
        yield (
            f"{what} in 8 bits (int8) that none in fp32 beats, at the {columns.score_name} and the latency of "
            "their own files."
        )
    if view.axis == "latency" and view.group is not None and info.reason is None:
        yield f"Latency: {columns.latency_groups[view.group]}; bars are 95 % intervals."


def _notes_on_others(info: FrontInfo) -> Iterator[str]:
    if len(info.infeasible):
        refused = counted(len(info.infeasible), "candidate")
        yield f"Triangles at the bottom: {refused} over a budget, priced, never trained."
    unfinished = [name for name, points in (("stopped", info.stopped), ("running", info.running)) if len(points)]
    if unfinished:
        yield (
            f"A {' or '.join(unfinished)} trial is shown at the {info.front.score_name} of its last epoch, which is "
            "not that of a deployed network; all others are shown at their deployed network's."
        )
    if info.bottom_pct is not None:
        accuracies = np.concatenate([points.score_pct for points in info.roles.values()])
        below = int((accuracies < info.bottom_pct).sum())
        trials, are = agreeing(below, "trial", "trials"), agreeing(below, "is", "are")
        bottom = percent(info.bottom_pct / 100, 1)
        yield f"{below:,} {trials} below {bottom} {are} out of sight; a double click shows all."


def _notes_on_baselines(info: FrontInfo) -> Iterator[str]:
    networks = (*info.baselines, *info.far_baselines)
    if not all(network.published for network in networks):
        yield (
            "Networks of other kinds were trained by this study's recipe on its images: where one lies above and to "
            "the left of the front, no CondenseNet of this study is the one to deploy."
        )
    if any(network.published for network in networks):
        yield (
            "Published networks: their accuracy on the test images, as printed; the study's own is on its validation "
            "images."
        )
    if info.far_baselines:
        names = ", ".join(f"{network.name} ({_cost_text(network, info.axis)})" for network in info.far_baselines)
        yield f"Outside the chart: {names}."


def _cost_text(network: Baseline, axis: Axis) -> str:
    cost = network.cost(axis)
    return f"{percent(network.top1_pct / 100, 1)}, {milliseconds(cost) if axis == 'latency' else count(1e6 * cost)}"
