"""Plotly figures from the infos of `panels`: no decision is made here, only drawing.

The colours keep a contrast of 3:1 on white and on the report's dark ground alike, and shape says what colour says. Text
and grid take the page's colours. Backgrounds are transparent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dashboards.formats import count, digits_ms, milliseconds, percent

if TYPE_CHECKING:
    from dashboards.panels import CurveInfo, CurvesInfo, FrontInfo, MacsLatencyInfo, PointInfo

PLOT_CONFIG = {
    "showSendToCloud": False,
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}
GL_FROM_POINTS = 2000  # SVG takes seconds for each step from a few thousand points up
LOG_FROM_RATIO = 10.0

GREY = "#848B96"
STAR = "#D9660A"
GROUP_COLOURS = ("#2F7FD1", "#1E9E77", "#9467BD", "#D6498F", "#A87B00", "#4C8F9E")
CURVE_COLOURS = ("#2F7FD1", "#D9660A", "#1E9E77", "#D6498F", "#9467BD", "#A87B00", "#4C8F9E", "#C0504D")
FRONT_SYMBOLS = ("diamond", "square", "triangle-up", "pentagon", "hexagon", "star-triangle-down")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
STAGE_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "hexagon", "cross")


def front_figure(info: FrontInfo) -> Any:
    """Return top-1 in % against latency in ms: the front as steps, other trials, refused ones as a rug, the pick."""
    figure = _empty_figure(460)
    if info.reason is not None:
        return _message(figure, info.reason)
    gl = len(info.points) > GL_FROM_POINTS
    for group in range(len(info.groups)):
        _add_front_group(figure, info, group, gl)
    rugs = [rug for group in range(len(info.groups)) if (rug := info.of(group, "infeasible"))]
    for rug in rugs:
        marker = {"symbol": "line-ns-open", "size": 13, "color": GREY, "line": {"width": 1.5, "color": GREY}}
        name = "over a budget, not trained" + _suffix(info.groups, rug[0].group)
        _add_points(figure, rug, name, marker, gl, yaxis="y2", y=np.zeros(len(rug)))
    log = _style_axis(figure.layout.xaxis, [p.latency_ms for p in info.points] + _known(info.budget_ms))
    figure.layout.xaxis.title.text = _latency_title(info)
    figure.update_layout(
        yaxis={"title": {"text": "top-1 of the deployed network, %"}, "domain": [0.12 if rugs else 0.0, 1.0]},
        yaxis2={"domain": [0.0, 0.08], "range": [-1, 1], "visible": False, "fixedrange": True},
    )
    if rugs:
        figure.layout.xaxis.anchor = "y2"
    if all(point.top1 is None for point in info.points):
        figure.layout.yaxis.visible = False
        _note(figure, "No trained network yet:<br>these candidates are over a budget.")
    if info.budget_ms is not None:
        _add_budget(figure, "x", info.budget_ms, log)
    _add_star(figure, info, log, gl)
    return figure


def macs_latency_figure(info: MacsLatencyInfo) -> Any:
    """Return latency in ms against macs in millions, refused candidates included."""
    figure = _empty_figure(420)
    if info.reason is not None:
        return _message(figure, info.reason)
    gl = len(info.points) > GL_FROM_POINTS
    for group in range(len(info.groups)):
        colour, symbol = _look(group)
        looks: tuple[tuple[str, str, dict[str, Any]], ...] = (
            ("infeasible", "over a budget, not trained", {"symbol": "x-thin-open", "size": 7, "color": GREY}),
            ("done", "other trained", {"symbol": "circle", "size": 7, "color": GREY}),
            ("front", "on the front", {"symbol": symbol, "size": 10, "color": colour}),
        )
        for role, name, marker in looks:
            points = [point for point in info.points if (point.group, point.role) == (group, role)]
            if points:
                changed = {
                    "x": np.array([point.macs / 1e6 for point in points]),
                    "y": np.array([point.latency_ms for point in points]),
                    "error_x": None,
                    "error_y": _interval(points, marker["color"]),
                }
                _add_points(figure, points, name + _suffix(info.groups, group), marker, gl, **changed)
    _style_axis(figure.layout.xaxis, [point.macs / 1e6 for point in info.points])
    log = _style_axis(figure.layout.yaxis, [p.latency_ms for p in info.points] + _known(info.budget_ms))
    figure.update_xaxes(title={"text": "multiply-adds (macs), millions"})
    figure.update_yaxes(title={"text": _latency_title(info)})
    if info.budget_ms is not None:
        _add_budget(figure, "y", info.budget_ms, log)
    return figure


def curves_figure(info: CurvesInfo) -> Any:
    """Return top-1 in % over training progress; a new condensing stage is a new marker, the deployed form a star."""
    figure = _empty_figure(460)
    if info.reason is not None:
        return _message(figure, info.reason)
    for index, curve in enumerate(info.curves):
        dash = DASHES[index // len(CURVE_COLOURS) % len(DASHES)]
        _add_curve(figure, curve, CURVE_COLOURS[index % len(CURVE_COLOURS)], dash)
    for stage in sorted({stage for curve in info.curves for stage in curve.stages}):
        name = "not condensed yet" if stage == 0 else f"after condensing stage {stage}"
        _add_key(figure, name, STAGE_SYMBOLS[stage % len(STAGE_SYMBOLS)], 8)
    if any("deployed" in curve.forms for curve in info.curves):
        _add_key(figure, "deployed network", "star", 13)
    figure.update_xaxes(title={"text": "training progress, % of the schedule"}, range=[-2, 104])
    figure.update_yaxes(title={"text": "top-1 on the validation images, %"})
    return figure


# ---- parts ----------------------------------------------------------------------------------------------


def _empty_figure(height_px: int) -> Any:
    import plotly.graph_objects as go

    axis = {
        "gridcolor": GREY,
        "linecolor": GREY,
        "gridwidth": 0.5,
        "griddash": "dot",
        "showline": True,
        "zeroline": False,
        "automargin": True,
        "title": {"standoff": 10},
    }
    return go.Figure(
        layout={
            "template": "none",
            "height": height_px,
            "margin": {"l": 50, "r": 16, "t": 36, "b": 50},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "system-ui, sans-serif", "size": 13},
            "showlegend": True,
            "legend": {"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0, "xanchor": "left"},
            "hoverlabel": {"align": "left"},
            "hovermode": "closest",
            "uirevision": "constant",  # a live page keeps its zoom when data is added
            "xaxis": axis,
            "yaxis": axis,
        }
    )


def _message(figure: Any, text: str) -> Any:
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.update_layout(height=140, margin={"t": 20, "b": 20})
    return _note(figure, text)


def _note(figure: Any, text: str) -> Any:
    figure.add_annotation(x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, text=text, font={"size": 15})
    return figure


def _look(group: int) -> tuple[str, str]:
    return GROUP_COLOURS[group % len(GROUP_COLOURS)], FRONT_SYMBOLS[group % len(FRONT_SYMBOLS)]


def _suffix(groups: Sequence[str], group: int) -> str:
    """What a legend entry adds about its latencies: nothing where all are of one group."""
    return f" ({_escaped(groups[group])})" if len(groups) > 1 else ""


def _escaped(text: str) -> str:
    """Plotly reads a small HTML in its texts, and a device may be called anything."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _known(value: float | None) -> list[float]:
    return [] if value is None else [value]


def _style_axis(axis: Any, values: Sequence[float]) -> bool:
    """Make an axis logarithmic where its values span more than a decade; return whether it is."""
    positive = [value for value in values if value > 0]
    log = bool(positive) and len(positive) == len(values) and max(positive) > LOG_FROM_RATIO * min(positive)
    if log:
        axis.update(type="log", dtick="D2", tickformat="~g")
    return log


def _latency_title(info: FrontInfo | MacsLatencyInfo) -> str:
    """The axis names what its latencies are as far as they agree; a legend entry names the rest."""
    labels = {point.label for point in info.points}
    if len(info.groups) > 1:
        return "latency, ms (see the legend)"
    return f"latency, ms ({_escaped(labels.pop())})" if len(labels) == 1 else "latency, ms (policy: see each point)"


def _on_axis(value: float, log: bool) -> float:
    """Where an annotation must say a value stands: plotly wants the exponent on a logarithmic axis."""
    return math.log10(value) if log else value


def _add_budget(figure: Any, axis: Literal["x", "y"], budget_ms: float, log: bool) -> None:
    line = {"color": STAR, "dash": "dash", "width": 1.5}
    text = f"budget {milliseconds(budget_ms)}"
    if axis == "x":
        figure.add_shape(type="line", x0=budget_ms, x1=budget_ms, y0=0, y1=1, yref="paper", line=line)
        place = {"x": _on_axis(budget_ms, log), "y": 1, "yref": "paper", "yanchor": "bottom"}
    else:
        figure.add_shape(type="line", y0=budget_ms, y1=budget_ms, x0=0, x1=1, xref="paper", line=line)
        place = {"y": _on_axis(budget_ms, log), "x": 1, "xref": "paper", "xanchor": "right", "yanchor": "bottom"}
    figure.add_annotation(text=text, showarrow=False, **place)


def _add_front_group(figure: Any, info: FrontInfo, group: int, gl: bool) -> None:
    colour, symbol = _look(group)
    others, front, corners = info.of(group, "done"), info.of(group, "front"), info.line(group)
    suffix = _suffix(info.groups, group)
    if others:
        _add_points(figure, others, f"other trained{suffix}", {"symbol": "circle", "size": 7, "color": GREY}, gl)
    if len(corners) > 1:
        figure.add_trace(
            _trace_class(gl)(
                x=np.array([point.latency_ms for point in corners]),
                y=np.array([_top1_pct(point) for point in corners]),
                mode="lines",
                line={"shape": "hv", "color": colour, "width": 2, "dash": DASHES[group % len(DASHES)]},
                name=f"most accurate so far{suffix}",
                hoverinfo="skip",
            )
        )
    if front:
        _add_points(figure, front, f"on the front{suffix}", {"symbol": symbol, "size": 11, "color": colour}, gl)


def _trace_class(gl: bool) -> Any:
    import plotly.graph_objects as go

    return go.Scattergl if gl else go.Scatter


def _top1_pct(point: PointInfo) -> float:
    return 100 * (point.top1 or 0.0)


def _interval(points: Sequence[PointInfo], colour: str) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": np.array([point.high_ms - point.latency_ms for point in points]),
        "arrayminus": np.array([point.latency_ms - point.low_ms for point in points]),
        "color": colour,
        "thickness": 1.2,
        "width": 3,
    }


def _add_points(
    figure: Any, points: Sequence[PointInfo], name: str, marker: dict[str, Any], gl: bool, **changed: Any
) -> None:
    """Add one trace of trials; `changed` replaces what it says of axes, values and bars."""
    values: dict[str, Any] = {
        "x": np.array([point.latency_ms for point in points]),
        "y": np.array([_top1_pct(point) for point in points]),
        "error_x": _interval(points, marker["color"]) if points[0].top1 is not None else None,
        "mode": "markers",
        "name": name,
        "marker": marker,
        "text": [_hover(point) for point in points],
        "hovertemplate": "%{text}<extra></extra>",
    }
    figure.add_trace(_trace_class(gl)(**{**values, **changed}))


def _hover(point: PointInfo) -> str:
    accuracy = "not trained: over a budget" if point.top1 is None else f"top-1 {percent(point.top1)}"
    interval = f"[{digits_ms(point.low_ms)}, {digits_ms(point.high_ms)}]"
    return "<br>".join(
        (
            f"<b>trial {point.number}</b>: {accuracy}",
            _escaped(point.config),
            f"{milliseconds(point.latency_ms)} {interval}, {_escaped(point.label)}",
            f"{count(point.macs)} macs, {count(point.params)} params",
        )
    )


def _add_star(figure: Any, info: FrontInfo, log: bool, gl: bool) -> None:
    """Mark the recommended trial; its label goes above it, where no faster network is more accurate."""
    star = next((point for point in info.points if point.number == info.recommended and point.top1 is not None), None)
    if star is None:
        return
    marker = {"symbol": "star", "size": 18, "color": STAR}
    _add_points(figure, [star], f"recommended: trial {star.number}", marker, gl, error_x=None)
    xs = [_on_axis(p.latency_ms, log) for p in info.points] + [_on_axis(b, log) for b in _known(info.budget_ms)]
    x = _on_axis(star.latency_ms, log)
    place = (x - min(xs)) / (max(xs) - min(xs) or 1.0)
    figure.add_annotation(
        x=x,
        y=_top1_pct(star),
        text=f"<b>trial {star.number}</b>: {percent(star.top1, 1)}, {milliseconds(star.latency_ms)}",
        xanchor="left" if place < 0.3 else "right" if place > 0.7 else "center",
        arrowcolor=GREY,
        arrowwidth=1,
        ax=0,
        ay=-34,
        standoff=10,
    )


def _add_curve(figure: Any, curve: CurveInfo, colour: str, dash: str) -> None:
    forms = [
        "star" if form == "deployed" else STAGE_SYMBOLS[stage % len(STAGE_SYMBOLS)]
        for form, stage in zip(curve.forms, curve.stages, strict=True)
    ]
    text = [
        f"<b>trial {curve.number}</b>, epoch {epoch}: {percent(top1)}<br>{_escaped(form)} form, stage {stage}"
        for epoch, top1, form, stage in zip(curve.epochs, curve.top1, curve.forms, curve.stages, strict=True)
    ]
    figure.add_scatter(
        x=np.array([100 * value for value in curve.progress]),
        y=np.array([100 * value for value in curve.top1]),
        mode="lines+markers",
        name=f"trial {curve.number}",
        line={"color": colour, "width": 2, "dash": dash},
        marker={"symbol": forms, "size": [13 if form == "deployed" else 7 for form in curve.forms], "color": colour},
        text=text,
        hovertemplate="%{text}<extra></extra>",
    )


def _add_key(figure: Any, name: str, symbol: str, size: int) -> None:
    """Add a legend entry that explains a marker."""
    marker = {"symbol": symbol, "size": size, "color": GREY}
    figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=name, hoverinfo="skip")
