"""The Pareto front: accuracy against what it costs, and where the trials that came to nothing stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dashboards.columns import Axis, Floats, StudyColumns, View
from dashboards.formats import count, milliseconds, percent
from dashboards.panels.baselines import Baseline, comparable
from dashboards.panels.look import (
    FRONT,
    GREY,
    REFERENCE,
    TableTwin,
    add_budget,
    add_limit,
    add_recommended,
    empty_figure,
    escaped,
    is_log,
    message,
    note,
    on_axis,
    scatter,
    slim,
    style_axis,
    twin,
)
from dashboards.panels.points import (
    HEADERS,
    LastEpoch,
    Points,
    bars,
    hover,
    points_of,
    why_no_points,
    with_last_accuracy,
)

STOPPED = ("pruned", "failed", "cancelled")
LOWEST_SHOWN = 0.05  # of the trained trials may lie below what the chart opens with
BASELINE_COST = 3.0  # times beyond the study's own costs that a reference mark may lie
BASELINE_PCT = 10.0  # and % top-1 beyond its accuracies
TITLES = {"macs": "multiply-adds (macs), millions", "params": "parameters, millions"}


@dataclass(frozen=True, eq=False)
class FrontInfo:
    """Accuracy in % against a cost (ms, million macs or million params), every group of points cheapest first."""

    axis: Axis
    title: str  # of the cost axis
    target: str | None  # device of the latencies
    front: Points
    trained: Points  # not on the front
    infeasible: Points  # refused, never trained
    stopped: Points  # ended early, failed or cancelled, at the accuracy of their last epoch
    running: Points  # at the accuracy of their newest epoch
    line: tuple[Floats, Floats]  # cost and accuracy of the trials more accurate than every cheaper one
    baselines: tuple[Baseline, ...]  # that fit into the chart
    far_baselines: tuple[Baseline, ...]  # that don't
    budget: float | None  # limit on the cost axis, in its unit
    recommended: int | None  # trial
    bottom_pct: float | None  # the accuracy that the chart opens with; None = all are seen
    notes: tuple[str, ...] = ()  # sentences for the caption
    reason: str | None = None  # why there is nothing to see
    roles: Mapping[str, Points] = field(default_factory=dict)  # all of the above by what a table calls them

    def table(self) -> TableTwin:
        """Return the points, the front first."""
        lines = ((role, *points.row(index)) for role, points in self.roles.items() for index in points)
        marks = (baseline.row(self.axis) for baseline in (*self.baselines, *self.far_baselines))
        total = sum(map(len, self.roles.values()))
        found = twin(("", *HEADERS), lines, total)
        return TableTwin(found.headers, (*found.rows, *marks), found.left_out)


@dataclass(frozen=True)
class FrontOptions:
    """What a front chart shows beside the study's columns."""

    budget: float | None = None  # limit on the view's axis: ms, macs or params
    recommended: int | None = None  # number of the trial to deploy
    last_epochs: Mapping[int, LastEpoch] = field(default_factory=dict)  # of trials that aren't done, by number
    baselines: bool = True


def front_info(columns: StudyColumns, view: View, options: FrontOptions | None = None) -> FrontInfo:
    """Return what the chart of accuracy against the view's axis shows; latencies are of the view's group alone."""
    options = options or FrontOptions()
    cost = columns.axis_values(view)
    priced = np.isfinite(cost)
    on_front = columns.front(view.group) & priced
    seen = np.array([number in options.last_epochs for number in columns.number.tolist()], dtype=bool)
    halted = np.isin(columns.state, _codes(STOPPED)) & priced & seen
    masks = {
        "on the front": on_front,
        "trained": columns.trained & priced & ~on_front,
        "over a budget": columns.is_state("infeasible") & priced,
        "stopped": halted,
        "training": columns.is_state("running") & priced & seen,
    }
    roles = {name: points_of(columns, view, mask, cost) for name, mask in masks.items()}
    for name in ("stopped", "training"):
        roles[name] = with_last_accuracy(roles[name], options.last_epochs)
    line = _steps(cost[columns.trained & priced], 100 * columns.top1[columns.trained & priced])
    near, far = _baselines(columns, view, roles) if options.baselines else ((), ())
    unit = 1.0 if view.axis == "latency" else 1e6
    info = FrontInfo(
        axis=view.axis,
        title=_title(columns, view),
        target=None if view.group is None else columns.latency_groups[view.group].target,
        front=roles["on the front"],
        trained=roles["trained"],
        infeasible=roles["over a budget"],
        stopped=roles["stopped"],
        running=roles["training"],
        line=(line[0] / unit, line[1]),
        baselines=near,
        far_baselines=far,
        budget=None if options.budget is None else options.budget / unit,
        recommended=options.recommended,
        bottom_pct=_bottom(roles),
        roles=roles,
        reason=None if any(map(len, roles.values())) else why_no_points(columns, view),
    )
    return _with_notes(info, columns, view)


def _codes(names: Sequence[str]) -> list[int]:
    from search.store.tables import STATES

    return [STATES.index(name) for name in names]


def _title(columns: StudyColumns, view: View) -> str:
    if view.axis != "latency":
        return TITLES[view.axis]
    if view.group is None:
        return "latency, ms"
    group = columns.latency_groups[view.group]
    return f"{escaped(group.kind)} latency on {escaped(group.target)}, ms"


def _steps(cost: Floats, top1_pct: Floats) -> tuple[Floats, Floats]:
    """Return the trials that are more accurate than every cheaper one: the corners of the step line."""
    order = np.lexsort((-top1_pct, cost))
    cost, top1_pct = cost[order], top1_pct[order]
    before = np.concatenate(([-np.inf], np.maximum.accumulate(top1_pct)[:-1])) if len(cost) else top1_pct
    better = top1_pct > before
    return cost[better], top1_pct[better]


def _bottom(roles: Mapping[str, Points]) -> float | None:
    """Return the accuracy in % that the chart opens with, so that a few poor trials don't flatten the rest."""
    front, trained = roles["on the front"].top1_pct, roles["trained"].top1_pct
    best = np.concatenate((front, trained))
    everything = np.concatenate([points.top1_pct for points in roles.values()])
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
    found = comparable(columns, view)
    trained = [roles["on the front"], roles["trained"]]
    costs = np.concatenate([points.along(view.axis) for points in trained])
    if not found or not len(costs):
        return (), tuple(found)
    accuracies = np.concatenate([points.top1_pct for points in trained])
    cost_range = costs.min() / BASELINE_COST, costs.max() * BASELINE_COST
    pct_range = accuracies.min() - BASELINE_PCT, accuracies.max() + BASELINE_PCT
    near = [
        one
        for one in found
        if cost_range[0] <= one.cost(view.axis) <= cost_range[1] and pct_range[0] <= one.top1_pct <= pct_range[1]
    ]
    return tuple(near), tuple(one for one in found if one not in near)


def _with_notes(info: FrontInfo, columns: StudyColumns, view: View) -> FrontInfo:
    from dataclasses import replace

    notes = []
    if len(info.front):
        notes.append(
            "No network beats one on the front in accuracy, latency and macs at once."
            if view.group is not None
            else "No network beats one on the front in accuracy and macs at once."
        )
        notes.append("The steps follow the most accurate network up to each cost.")
    if view.axis == "latency" and view.group is not None and info.reason is None:
        notes.append(f"Latency: {columns.latency_groups[view.group]}; bars are 95 % intervals.")
    if len(info.infeasible):
        notes.append(f"Ticks at the bottom: {len(info.infeasible):,} candidates over a budget, priced, never trained.")
    if len(info.stopped):
        notes.append("A stopped trial stands at the accuracy of its last epoch.")
    if info.bottom_pct is not None:
        shown = np.concatenate([points.top1_pct for points in info.roles.values()])
        below = int((shown < info.bottom_pct).sum())
        notes.append(f"{below:,} below {info.bottom_pct:.1f} % are out of sight; a double click shows all.")
    if info.baselines or info.far_baselines:
        notes.append("Published networks: their accuracy on the test images, as printed; the study's own is on its")
        notes[-1] += " validation images."
    if info.far_baselines:
        names = ", ".join(f"{one.name} ({_cost_text(one, info.axis)})" for one in info.far_baselines)
        notes.append(f"Outside the chart: {names}.")
    return replace(info, notes=tuple(notes))


def _cost_text(one: Baseline, axis: Axis) -> str:
    cost = one.cost(axis)
    return f"{percent(one.top1_pct / 100, 1)}, {milliseconds(cost) if axis == 'latency' else count(1e6 * cost)}"


# ---- the figure -----------------------------------------------------------------------------------------


def front_figure(info: FrontInfo) -> Any:
    """Return the chart of a front."""
    if info.reason is not None:
        return message(info.reason)
    figure = empty_figure(460)
    trace = scatter(sum(map(len, info.roles.values())))
    crowd = 7 if len(info.trained) <= 300 else 5
    _add(figure, trace, info, info.trained, "other trained", {"symbol": "circle", "size": crowd, "color": GREY})
    _add(figure, trace, info, info.stopped, "stopped", {"symbol": "x-thin-open", "size": 8, "color": GREY})
    _add(figure, trace, info, info.running, "training now", {"symbol": "circle-open", "size": 8, "color": GREY})
    _add_rug(figure, trace, info)
    _add_baselines(figure, trace, info)
    if len(info.line[0]) > 1:
        figure.add_trace(
            trace(
                x=slim(info.line[0]),
                y=slim(info.line[1]),
                mode="lines",
                line={"shape": "hv", "color": FRONT, "width": 2},
                name="best up to here",
                hoverinfo="skip",
            )
        )
    _add(figure, trace, info, info.front, "on the front", {"symbol": "diamond", "size": 11, "color": FRONT})
    _style(figure, info)
    return figure


def _add(figure: Any, trace: Any, info: FrontInfo, points: Points, name: str, marker: dict[str, Any]) -> None:
    if not len(points):
        return
    marker = marker | {"line": {"color": marker["color"], "width": 1.5 if "open" in marker["symbol"] else 0}}
    with_bars = info.axis == "latency" and name in ("on the front", "other trained")
    figure.add_trace(
        trace(
            x=slim(points.along(info.axis)),
            y=slim(points.top1_pct),
            error_x=bars(points, marker["color"], points is info.front) if with_bars else None,
            mode="markers",
            name=name,
            marker=marker,
            **hover(points, info.axis, "top1"),
        )
    )


def _add_rug(figure: Any, trace: Any, info: FrontInfo) -> None:
    """Refused candidates have a cost and no accuracy: ticks below the chart."""
    if not len(info.infeasible):
        return
    figure.add_trace(
        trace(
            x=slim(info.infeasible.along(info.axis)),
            y=np.zeros(len(info.infeasible), dtype=np.int8),
            yaxis="y2",
            mode="markers",
            name="over a budget",
            marker={"symbol": "line-ns-open", "size": 11, "color": GREY, "line": {"width": 1.5, "color": GREY}},
            **hover(info.infeasible, info.axis, "nothing"),
        )
    )


def _add_baselines(figure: Any, trace: Any, info: FrontInfo) -> None:
    if not info.baselines:
        return
    log, by_layers = _is_log(info), all(one.short.isdigit() for one in info.baselines)
    figure.add_trace(
        trace(
            x=slim([one.cost(info.axis) for one in info.baselines]),
            y=slim([one.top1_pct for one in info.baselines]),
            mode="markers",
            name="published (layers)" if by_layers else "published",
            marker={"symbol": "cross-open", "size": 9, "color": REFERENCE, "line": {"color": REFERENCE, "width": 2}},
            text=[f"<b>{one.name}</b><br>{one.origin}" for one in info.baselines],
            hovertemplate="%{text}<br>%{y:.2f} % top-1, %{x:.4~g}<extra></extra>",
        )
    )
    cheapest_first = sorted(info.baselines, key=lambda one: one.cost(info.axis))
    for index, one in enumerate(cheapest_first):  # of the layout: text of a WebGL trace is blurred
        figure.add_annotation(
            x=on_axis(one.cost(info.axis), log),
            y=one.top1_pct,
            text=one.short,
            showarrow=False,
            yshift=13 + 11 * (index % 2),
            font={"size": 11},
        )


def _is_log(info: FrontInfo) -> bool:
    values = [points.along(info.axis) for points in info.roles.values()]
    values += [np.array([one.cost(info.axis) for one in info.baselines])]
    return is_log(np.concatenate(values))


def _style(figure: Any, info: FrontInfo) -> None:
    log, rug = _is_log(info), bool(len(info.infeasible))
    style_axis(figure.layout.xaxis, log)
    figure.layout.xaxis.title.text = info.title
    figure.update_layout(
        yaxis={"title": {"text": "top-1 of the deployed network, %"}, "domain": [0.12 if rug else 0.0, 1.0]},
        yaxis2={"domain": [0.0, 0.08], "range": [-1, 1], "visible": False, "fixedrange": True},
    )
    if rug:
        figure.layout.xaxis.anchor = "y2"
    trained = np.concatenate((info.front.top1_pct, info.trained.top1_pct))
    if not len(trained) + len(info.stopped) + len(info.running):
        figure.layout.yaxis.visible = False
        note(figure, "No trained network yet:<br>these candidates are over a budget.")
    elif info.bottom_pct is not None:
        top = max([*trained, *(one.top1_pct for one in info.baselines)])
        figure.layout.yaxis.range = [info.bottom_pct, top + 0.06 * (top - info.bottom_pct)]
    if info.axis == "latency":
        add_budget(figure, "x", info.budget, log)
    elif info.budget is not None:
        add_limit(figure, "x", info.budget, f"limit {count(1e6 * info.budget)}", log)
    place = np.flatnonzero(np.concatenate((info.front.number, info.trained.number)) == info.recommended)
    cost = np.concatenate((info.front.along(info.axis), info.trained.along(info.axis)))
    star = (float(cost[place[0]]), float(trained[place[0]])) if len(place) else None
    trace = scatter(sum(map(len, info.roles.values())))
    add_recommended(figure, info.recommended if star else None, star, trace)
    figure.layout.meta = {"target": info.target, "x": info.axis, "y": "top1"}
