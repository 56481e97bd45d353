"""The figure of a front; the module `front` says what is in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dashboards.data.columns import Floats
from dashboards.data.quantities import OTHER_DEVICE, Quantity
from dashboards.formats import count
from dashboards.panels.study.front import CLIP, LEAST_INSIDE
from dashboards.panels.study.front_contents import FrontInfo
from dashboards.panels.study.front_notes import off_line_for
from dashboards.panels.study.points import IN_BITS, Points, Series, add_series, bars, hover
from dashboards.panels.style import (
    FRONT,
    MARKS,
    Limit,
    Mark,
    add_budget,
    add_label,
    add_limit,
    add_recommended,
    drawable,
    empty_figure,
    escaped,
    is_log,
    note,
    on_axis,
    scatter,
    slim,
    style_axis,
)

CROWD = 300  # points; more are drawn smaller
RUG = 0.12  # of the height, where refused candidates stand below the chart
ROOM = 0.04  # of an axis, left free at an end


def front_figure(info: FrontInfo) -> Any:
    """Return the chart of a front.

    Raises:
        ChartUnavailable: there is nothing to see.
    """
    drawable(info)
    figure = empty_figure(460)
    trace = scatter(sum(map(len, info.roles.values())))
    for series in _behind(info):
        add_series(figure, trace, series, info.axes)
    _add_rug(figure, trace, info)
    _add_baselines(figure, trace, info)
    _add_line(figure, trace, info)
    for series in _in_front(info):
        add_series(figure, trace, series, info.axes)
    _style(figure, info)
    _add_limits(figure, info)
    _add_star(figure, trace, info)
    _add_beyond(figure, info)
    figure.layout.meta = _meta(info)
    return figure


def _by_latency(info: FrontInfo) -> bool:
    return info.x.key == "latency"


def _behind(info: FrontInfo) -> Iterator[Series]:
    """Yield what lies behind the front: other trained networks, stopped, running and refused trials."""
    crowd = {"size": 7} if len(info.trained) <= CROWD else {"size": 5, "opacity": 0.7}
    yield from _by_precision(info, Series(info.trained, "other trained", MARKS["trained"], crowd))
    yield Series(info.stopped, "stopped", MARKS["stopped"])
    yield Series(info.running, "training now", MARKS["running"])
    if not info.y.more_is_better:
        yield Series(info.infeasible, "over a budget", MARKS["refused"], {"opacity": 0.6})


def _in_front(info: FrontInfo) -> Iterator[Series]:
    """Yield the front: members on the line, members beside it, networks in 8 and 16 bits."""
    yield from _by_precision(info, Series(info.front.only(info.on_line), "on the front", MARKS["front"]))
    aside = info.front.only(~info.on_line)
    yield from _by_precision(info, Series(aside, f"on the front for {off_line_for(info)}", MARKS["front-off-line"]))
    for precision, points in (("int8", info.int8), ("fp16", info.fp16)):
        mark = MARKS[precision]
        yield Series(points, IN_BITS[precision], mark, error_bars=_bars(info, points, mark))


def _by_precision(info: FrontInfo, series: Series) -> Iterator[Series]:
    """Yield a series in two: latencies of fp32 and of int8 are never drawn alike."""
    on_front = series.mark.colour == FRONT
    int8 = series.points.int8 & bool({"latency"} & {info.x.key, info.y.key})
    own = series.points.only(~int8) if int8.any() else series.points
    yield Series(own, series.name, series.mark, series.marker, _bars(info, own, series.mark, on_front))
    if int8.any():
        mark, priced = MARKS["priced-in-int8"], series.points.only(int8)
        yield Series(priced, f"{series.name}, int8", mark, series.marker, _bars(info, priced, mark, on_front))


def _bars(info: FrontInfo, points: Points, mark: Mark, always: bool = True) -> Any:
    return bars(points, mark.colour, always) if _by_latency(info) else None


def _add_line(figure: Any, trace: Any, info: FrontInfo) -> None:
    if len(info.line[0]) < 2:
        return
    figure.add_trace(
        trace(
            x=slim(info.line[0]),
            y=slim(info.line[1]),
            mode="lines",
            line={"shape": "vh" if info.x.more_is_better else "hv", "color": FRONT, "width": 2},
            name="best in both",
            showlegend=False,
            hoverinfo="skip",
        )
    )


def _add_rug(figure: Any, trace: Any, info: FrontInfo) -> None:
    """Add refused candidates, which have a cost and no score, as triangles below the chart.

    They are small and filled, for there may be thousands: without a graphics card, ticks take a third of the first
    drawing.
    """
    if not _has_rug(info):
        return
    points = info.infeasible
    figure.add_trace(
        trace(
            x=slim(points.along(info.x.key)),
            y=np.zeros(len(points), dtype=np.int8),
            yaxis="y2",
            mode="markers",
            name="over a budget",
            showlegend=False,
            marker=MARKS["refused"].marker(),
            **hover(points, info.x, None),
        )
    )
    words = f"{len(points):,} over a budget, never trained"
    below = {"xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom", "xshift": 2}
    add_label(figure, words, (0, 0.075), **below, font={"size": 11})


def _has_rug(info: FrontInfo) -> bool:
    return info.y.more_is_better and len(info.infeasible) > 0


def _add_baselines(figure: Any, trace: Any, info: FrontInfo) -> None:
    if not info.baselines:
        return
    log, by_layers = _is_log(info, 0), all(network.short.isdigit() for network in info.baselines)
    figure.add_trace(
        trace(
            x=slim([_cost(info, network) for network in info.baselines]),
            y=slim([network.top1_pct for network in info.baselines]),
            mode="markers",
            name="published (layers)" if by_layers else "published",
            marker=MARKS["published"].marker(),
            text=[f"<b>{network.name}</b><br>{network.origin}" for network in info.baselines],
            hovertemplate=f"%{{text}}<br>%{{y:.2f}} % top-1, %{{x:,.4~r}} {info.x.unit}<extra></extra>",
        )
    )
    cheapest_first = sorted(info.baselines, key=lambda network: _cost(info, network))
    for index, network in enumerate(cheapest_first):
        place = (on_axis(_cost(info, network), log), network.top1_pct)
        above = {"xanchor": "center", "xshift": 0, "yshift": 13 + 11 * (index % 2), "font": {"size": 11}}
        add_label(figure, network.short, place, **above)


def _cost(info: FrontInfo, network: Any) -> float:
    return float(network.cost(info.x.key) / info.x.factor)


def _is_log(info: FrontInfo, place: int) -> bool:
    """Return whether an axis is logarithmic: as it was asked for, else as the values that are shown first call for."""
    axis, asked = info.axes[place], info.log[place]
    values = _values(info, axis)
    if asked is not None:
        return asked and bool((values > 0).all())
    if axis.more_is_better:
        return False
    return is_log(values if place or info.right is None else values[values <= info.right])


def _values(info: FrontInfo, axis: Quantity) -> Floats:
    parts = [
        points.along(axis.key)
        for name, points in info.roles.items()
        if name not in IN_BITS.values() or axis.key in ("latency", "score")
    ]
    if axis is info.x:
        parts.append(np.array([_cost(info, network) for network in info.baselines]))
    values = np.concatenate(parts)
    finite: Floats = values[np.isfinite(values)]
    return finite


def _style(figure: Any, info: FrontInfo) -> None:
    log, rug = _is_log(info, 0), _has_rug(info)
    style_axis(figure.layout.xaxis, log)
    if not info.y.more_is_better:
        style_axis(figure.layout.yaxis, _is_log(info, 1))
    figure.layout.xaxis.title.text = escaped(info.x.title)
    figure.update_layout(
        yaxis={"title": {"text": escaped(info.y.title)}, "domain": [RUG if rug else 0.0, 1.0]},
        yaxis2={"domain": [0.0, 0.07], "range": [-1, 1], "visible": False, "fixedrange": True},
    )
    if rug:
        figure.layout.xaxis.anchor = "y2"
    trained = np.concatenate((info.front.score_pct, info.trained.score_pct))
    if info.y.key == "score" and not len(trained) + len(info.stopped) + len(info.running):
        figure.layout.yaxis.visible = False
        note(figure, "No trained network yet:<br>these candidates are over a budget.")
    elif info.bottom_pct is not None:
        top = max([*trained, *(network.top1_pct for network in info.baselines)])
        figure.layout.yaxis.range = [info.bottom_pct, top + 0.06 * (top - info.bottom_pct)]
    if info.right is not None:
        figure.layout.xaxis.range = _opening(_values(info, info.x), info.right, log)


def _opening(values: Floats, right: float, log: bool) -> list[float]:
    """Return the range of the x axis up to `right`, as Plotly wants it; `assets/chart_marks.js` does the same."""
    low = float(values.min())
    if log:
        least, most = np.log10(low), np.log10(right)
        return [float(least - ROOM * (most - least)), float(most)]
    return [max(0.0, low - ROOM * (right - low)) if low >= 0 else low, right]


def _add_limits(figure: Any, info: FrontInfo) -> None:
    for name, axis, limit, place in (("x", info.x, info.budget, 0), ("y", info.y, info.budget_y, 1)):
        if _is_latency(axis):
            add_budget(figure, name, limit, _is_log(info, place))
        elif limit is not None:
            words = Limit(limit, f"limit {count(limit * axis.factor)}")
            add_limit(figure, name, words, _is_log(info, place))


def _is_latency(axis: Quantity) -> bool:
    return axis.key == "latency" or axis.key.startswith(OTHER_DEVICE)


def _add_star(figure: Any, trace: Any, info: FrontInfo) -> None:
    shown = (info.front, info.trained)
    place = np.flatnonzero(np.concatenate([points.number for points in shown]) == info.recommended)
    x, y = (np.concatenate([points.along(axis.key) for points in shown]) for axis in info.axes)
    star = (float(x[place[0]]), float(y[place[0]])) if len(place) else None
    if star is not None:
        at = on_axis(star[0], _is_log(info, 0)), on_axis(star[1], _is_log(info, 1))
        words = {"name": "star", "xshift": 10, "yshift": -10, "font": {"size": 12}}
        add_label(figure, f"<b>trial {info.recommended}</b>", at, **words)
    add_recommended(figure, info.recommended_name, star, trace)


def _add_beyond(figure: Any, info: FrontInfo) -> None:
    """Say at the edge how much lies beyond what the chart opens with; a page has a button there instead."""
    if info.beyond:
        corner = {"xref": "paper", "yref": "paper", "xanchor": "right", "yanchor": "bottom", "xshift": -2}
        words = {"name": "beyond"}
        add_label(figure, f"{info.beyond:,} more →", (1, RUG + 0.01 if _has_rug(info) else 0.01), **corner, **words)


def _meta(info: FrontInfo) -> dict[str, Any]:
    """Return what a page needs to know of the figure, to move the budget's marks and to open it near the budget."""
    own = info.latencies["target"]
    targets = {
        place: axis.key.removeprefix(OTHER_DEVICE) if axis.key.startswith(OTHER_DEVICE) else own
        for place, axis in (("x", info.x), ("y", info.y))
        if _is_latency(axis)
    }
    values = _values(info, info.x)
    trained = np.sort(np.concatenate([points.along(info.x.key) for points in (info.front, info.trained)]))
    known = {
        "clip": CLIP,
        "limit": None if _is_latency(info.x) else info.budget,  # one in ms is the reader's
        "room": ROOM,
        "extent": [float(values.min()), float(values.max())] if len(values) else None,
        "inside": float(trained[min(LEAST_INSIDE, len(trained)) - 1]) if len(trained) else 0.0,
    }
    return {**info.latencies, "x": info.x.key, "y": info.y.key, "targets": targets, **known}
