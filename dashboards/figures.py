"""Plotly figures from the infos of `panels`: no decision is made here, only drawing (see `drawing` for the style)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from dashboards.drawing import (
    DASHES,
    GREY,
    STAR,
    add_budget,
    add_points,
    empty_figure,
    escaped,
    interval,
    known,
    latency_title,
    look,
    message,
    note,
    on_axis,
    style_axis,
    suffix,
    top1_pct,
)
from dashboards.formats import milliseconds, percent

if TYPE_CHECKING:
    from dashboards.infos import CurveInfo, CurvesInfo, FrontInfo, MacsLatencyInfo

CURVE_COLOURS = ("#2F7FD1", "#D9660A", "#1E9E77", "#D6498F", "#9467BD", "#A87B00", "#4C8F9E", "#C0504D")
STAGE_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "hexagon", "cross")


def front_figure(info: FrontInfo) -> Any:
    """Return top-1 in % against latency in ms: the front as steps, other trials, refused ones as a rug, the pick."""
    figure = empty_figure(460)
    if info.reason is not None:
        return message(figure, info.reason)
    for group in range(len(info.groups)):
        _add_front_group(figure, info, group)
    rugs = [rug for group in range(len(info.groups)) if (rug := info.of(group, "infeasible"))]
    for rug in rugs:
        marker = {"symbol": "line-ns-open", "size": 13, "color": GREY, "line": {"width": 1.5, "color": GREY}}
        name = "over a budget, not trained" + suffix(info.groups, rug[0].group)
        add_points(figure, rug, name, marker, yaxis="y2", y=np.zeros(len(rug)))
    log = style_axis(figure.layout.xaxis, [p.latency_ms for p in info.points] + known(info.budget_ms))
    figure.layout.xaxis.title.text = latency_title(info)
    figure.update_layout(
        yaxis={"title": {"text": "top-1 of the deployed network, %"}, "domain": [0.12 if rugs else 0.0, 1.0]},
        yaxis2={"domain": [0.0, 0.08], "range": [-1, 1], "visible": False, "fixedrange": True},
    )
    if rugs:
        figure.layout.xaxis.anchor = "y2"
    if all(point.top1 is None for point in info.points):
        figure.layout.yaxis.visible = False
        note(figure, "No trained network yet:<br>these candidates are over a budget.")
    if info.budget_ms is not None:
        add_budget(figure, "x", info.budget_ms, log)
    _add_star(figure, info, log)
    return figure


def macs_latency_figure(info: MacsLatencyInfo) -> Any:
    """Return latency in ms against macs in millions, refused candidates included."""
    figure = empty_figure(420)
    if info.reason is not None:
        return message(figure, info.reason)
    for group in range(len(info.groups)):
        colour, symbol = look(group)
        looks: tuple[tuple[str, str, dict[str, Any]], ...] = (
            ("infeasible", "over a budget, not trained", {"symbol": "x", "size": 6, "color": GREY}),
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
                    "error_y": interval(points, marker["color"]),
                }
                add_points(figure, points, name + suffix(info.groups, group), marker, **changed)
    style_axis(figure.layout.xaxis, [point.macs / 1e6 for point in info.points])
    log = style_axis(figure.layout.yaxis, [p.latency_ms for p in info.points] + known(info.budget_ms))
    figure.update_xaxes(title={"text": "multiply-adds (macs), millions"})
    figure.update_yaxes(title={"text": latency_title(info)})
    if info.budget_ms is not None:
        add_budget(figure, "y", info.budget_ms, log)
    return figure


def curves_figure(info: CurvesInfo) -> Any:
    """Return top-1 in % over training progress; a new condensing stage is a new marker, the deployed form a star."""
    figure = empty_figure(460)
    if info.reason is not None:
        return message(figure, info.reason)
    for index, curve in enumerate(info.curves):
        dash = DASHES[index // len(CURVE_COLOURS) % len(DASHES)]
        _add_curve(figure, curve, CURVE_COLOURS[index % len(CURVE_COLOURS)], dash)
    for stage in sorted({stage for curve in info.curves for stage in curve.stages}):
        name = "before condensing" if stage == 0 else f"stage {stage}"
        _add_key(figure, name, STAGE_SYMBOLS[stage % len(STAGE_SYMBOLS)], 8)
    if any("deployed" in curve.forms for curve in info.curves):
        _add_key(figure, "deployed", "star", 13)
    figure.update_xaxes(title={"text": "training progress, % of the schedule"}, range=[-2, 104])
    figure.update_yaxes(title={"text": "top-1 on the validation images, %"}, range=_settled_range(info))
    return figure


def _add_front_group(figure: Any, info: FrontInfo, group: int) -> None:
    colour, symbol = look(group)
    others, front, corners = info.of(group, "done"), info.of(group, "front"), info.line(group)
    words = suffix(info.groups, group)
    if others:
        add_points(figure, others, f"other trained{words}", {"symbol": "circle", "size": 7, "color": GREY})
    if len(corners) > 1:
        figure.add_scatter(
            x=np.array([point.latency_ms for point in corners]),
            y=np.array([top1_pct(point) for point in corners]),
            mode="lines",
            line={"shape": "hv", "color": colour, "width": 2, "dash": DASHES[group % len(DASHES)]},
            name=f"most accurate so far{words}",
            hoverinfo="skip",
        )
    if front:
        add_points(figure, front, f"on the front{words}", {"symbol": symbol, "size": 11, "color": colour})


def _add_star(figure: Any, info: FrontInfo, log: bool) -> None:
    """Mark the recommended trial; its label goes above it, where no faster network is more accurate."""
    star = next((point for point in info.points if point.number == info.recommended and point.top1 is not None), None)
    if star is None:
        return
    marker = {"symbol": "star", "size": 18, "color": STAR}
    add_points(figure, [star], f"recommended: trial {star.number}", marker, error_x=None)
    xs = [on_axis(p.latency_ms, log) for p in info.points] + [on_axis(b, log) for b in known(info.budget_ms)]
    x = on_axis(star.latency_ms, log)
    place = (x - min(xs)) / (max(xs) - min(xs) or 1.0)
    figure.add_annotation(
        x=x,
        y=top1_pct(star),
        text=f"<b>trial {star.number}</b>: {percent(star.top1)}, {milliseconds(star.latency_ms)}",
        xanchor="left" if place < 0.25 else "right" if place > 0.45 else "center",
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
        f"<b>trial {curve.number}</b>, epoch {epoch}: {percent(top1)}<br>{escaped(form)} form, stage {stage}"
        for epoch, top1, form, stage in zip(curve.epochs, curve.top1, curve.forms, curve.stages, strict=True)
    ]
    figure.add_scatter(
        x=np.array([100 * value for value in curve.progress]),
        y=np.array([100 * value for value in curve.top1]),
        mode="lines+markers",
        name=f"trial {curve.number}",
        line={"color": colour, "width": 2, "dash": dash},
        marker={
            "symbol": forms,
            "opacity": 1.0,
            "size": [13 if form == "deployed" else 7 for form in curve.forms],
            "color": colour,
            "line": {"width": 0},
        },
        text=text,
        hovertemplate="%{text}<extra></extra>",
    )


def _settled_range(info: CurvesInfo) -> list[float] | None:
    """The axis in % without the first fifth of the schedule, whose steep rise would flatten all that follows."""
    settled = [
        100 * top1
        for curve in info.curves
        for progress, top1 in zip(curve.progress, curve.top1, strict=True)
        if progress >= 0.2 and math.isfinite(top1)
    ]
    if not settled or max(settled) == min(settled):
        return None
    room = 0.06 * (max(settled) - min(settled))
    return [min(settled) - room, max(settled) + room]


def _add_key(figure: Any, name: str, symbol: str, size: int) -> None:
    """Add a legend entry that explains a marker."""
    marker = {"symbol": symbol, "size": size, "color": GREY}
    figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=name, hoverinfo="skip")
