"""The figure of a front; the module `front` says what is in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from dashboards.formats import count
from dashboards.panels.study.front import FrontInfo
from dashboards.panels.study.points import Series, bars, hover
from dashboards.panels.style import (
    FRONT,
    GREY,
    INT8,
    REFERENCE,
    Limit,
    add_budget,
    add_limit,
    add_recommended,
    empty_figure,
    is_log,
    message,
    note,
    on_axis,
    scatter,
    slim,
    style_axis,
)


def front_figure(info: FrontInfo) -> Any:
    """Return the chart of a front."""
    if info.reason is not None:
        return message(info.reason)
    figure = empty_figure(460)
    trace = scatter(sum(map(len, info.roles.values())))
    crowd = {"symbol": "circle", "size": 7 if len(info.trained) <= 300 else 5, "color": GREY}
    crowd_bars = bars(info.trained, GREY) if info.axis == "latency" else None
    behind = (
        Series(info.trained, "other trained", crowd, crowd_bars),
        Series(info.stopped, "stopped", {"symbol": "x-thin-open", "size": 8, "color": GREY}),
        Series(info.running, "training now", {"symbol": "circle-open", "size": 8, "color": GREY}),
    )
    for series in behind:
        _add(figure, trace, series, info.axis)
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
    front_bars = bars(info.front, FRONT, always=True) if info.axis == "latency" else None
    front = Series(info.front, "on the front", {"symbol": "diamond", "size": 11, "color": FRONT}, front_bars)
    _add(figure, trace, front, info.axis)
    int8_bars = bars(info.int8, INT8, always=True) if info.axis == "latency" else None
    _add(
        figure,
        trace,
        Series(info.int8, "in 8 bits", {"symbol": "square", "size": 10, "color": INT8}, int8_bars),
        info.axis,
    )
    _style(figure, info)
    return figure


def _add(figure: Any, trace: Any, series: Series, axis: str) -> None:
    points, marker = series.points, series.marker
    if not len(points):
        return
    line = {"color": marker["color"], "width": 1.5 if "open" in marker["symbol"] else 0}
    figure.add_trace(
        trace(
            x=slim(points.along(axis)),
            y=slim(points.score_pct),
            error_x=series.error_bars,
            mode="markers",
            name=series.name,
            marker={**marker, "line": line},
            **hover(points, axis, "score"),
        )
    )


def _add_rug(figure: Any, trace: Any, info: FrontInfo) -> None:
    """Add refused candidates, which have a cost and no accuracy, as triangles below the chart.

    They are small and filled, for there may be thousands: without a graphics card, ticks take a third of the first
    drawing.
    """
    if not len(info.infeasible):
        return
    figure.add_trace(
        trace(
            x=slim(info.infeasible.along(info.axis)),
            y=np.zeros(len(info.infeasible), dtype=np.int8),
            yaxis="y2",
            mode="markers",
            name="over a budget",
            marker={"symbol": "triangle-up", "size": 5, "color": GREY},
            **hover(info.infeasible, info.axis, "nothing"),
        )
    )


def _add_baselines(figure: Any, trace: Any, info: FrontInfo) -> None:
    if not info.baselines:
        return
    log, by_layers = _is_log(info), all(network.short.isdigit() for network in info.baselines)
    figure.add_trace(
        trace(
            x=slim([network.cost(info.axis) for network in info.baselines]),
            y=slim([network.top1_pct for network in info.baselines]),
            mode="markers",
            name="published (layers)" if by_layers else "published",
            marker={"symbol": "cross-open", "size": 9, "color": REFERENCE, "line": {"color": REFERENCE, "width": 2}},
            text=[f"<b>{network.name}</b><br>{network.origin}" for network in info.baselines],
            hovertemplate="%{text}<br>%{y:.2f} % top-1, %{x:.4~g}<extra></extra>",
        )
    )
    cheapest_first = sorted(info.baselines, key=lambda network: network.cost(info.axis))
    for index, network in enumerate(cheapest_first):  # in the layout, since the text of a WebGL trace is blurred
        figure.add_annotation(
            x=on_axis(network.cost(info.axis), log),
            y=network.top1_pct,
            text=network.short,
            showarrow=False,
            yshift=13 + 11 * (index % 2),
            font={"size": 11},
        )


def _is_log(info: FrontInfo) -> bool:
    values = [points.along(info.axis) for points in info.roles.values()]
    values += [np.array([network.cost(info.axis) for network in info.baselines])]
    return is_log(np.concatenate(values))


def _style(figure: Any, info: FrontInfo) -> None:
    log, rug = _is_log(info), bool(len(info.infeasible))
    style_axis(figure.layout.xaxis, log)
    figure.layout.xaxis.title.text = info.title
    figure.update_layout(
        yaxis={"title": {"text": f"{info.front.score_name}, %"}, "domain": [0.12 if rug else 0.0, 1.0]},
        yaxis2={"domain": [0.0, 0.08], "range": [-1, 1], "visible": False, "fixedrange": True},
    )
    if rug:
        figure.layout.xaxis.anchor = "y2"
    trained = np.concatenate((info.front.score_pct, info.trained.score_pct))
    if not len(trained) + len(info.stopped) + len(info.running):
        figure.layout.yaxis.visible = False
        note(figure, "No trained network yet:<br>these candidates are over a budget.")
    elif info.bottom_pct is not None:
        top = max([*trained, *(network.top1_pct for network in info.baselines)])
        figure.layout.yaxis.range = [info.bottom_pct, top + 0.06 * (top - info.bottom_pct)]
    if info.axis == "latency":
        add_budget(figure, "x", info.budget, log)
    elif info.budget is not None:
        add_limit(figure, "x", Limit(info.budget, f"limit {count(1e6 * info.budget)}"), log)
    place = np.flatnonzero(np.concatenate((info.front.number, info.trained.number)) == info.recommended)
    cost = np.concatenate((info.front.along(info.axis), info.trained.along(info.axis)))
    star = (float(cost[place[0]]), float(trained[place[0]])) if len(place) else None
    trace = scatter(sum(map(len, info.roles.values())))
    add_recommended(figure, info.recommended_name, star, trace)
    figure.layout.meta = {**info.latencies, "x": info.axis, "y": "score"}
