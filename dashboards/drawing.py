"""What the figures of `figures` share: house style, axes, points with intervals, the budget line.

The colours keep a contrast of 3:1 on white and on the report's dark ground alike, and shape says what colour says. Text
and grid take the page's colours. Backgrounds are transparent. All traces are SVG: WebGL would be faster from some
thousand points up, but a file that is sent around must draw wherever it is opened.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dashboards.formats import count, digits_ms, milliseconds, percent

if TYPE_CHECKING:
    from dashboards.infos import FrontInfo, MacsLatencyInfo, PointInfo

PLOT_CONFIG = {
    "showSendToCloud": False,
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}
BARS_UP_TO_POINTS = 500  # beyond, the bars of trials that are not on the front would only make the page slow
LOG_FROM_RATIO = 10.0

GREY = "#848B96"
STAR = "#D9660A"
GROUP_COLOURS = ("#2F7FD1", "#1E9E77", "#9467BD", "#D6498F", "#A87B00", "#4C8F9E")
FRONT_SYMBOLS = ("diamond", "square", "triangle-up", "pentagon", "hexagon", "star-triangle-down")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def empty_figure(height_px: int) -> Any:
    """Return a figure in the house style; ground transparent, text without a colour of its own."""
    import plotly.graph_objects as go

    axis = {
        "gridcolor": GREY,
        "linecolor": GREY,
        "gridwidth": 0.5,
        "griddash": "dot",
        "showline": True,
        "zeroline": False,
        "rangemode": "nonnegative",
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


def message(figure: Any, text: str) -> Any:
    """Make the figure say this in place of a chart."""
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.update_layout(height=140, margin={"t": 20, "b": 20})
    return note(figure, text)


def note(figure: Any, text: str) -> Any:
    """Write into the middle of the figure."""
    figure.add_annotation(x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, text=text, font={"size": 15})
    return figure


def look(group: int) -> tuple[str, str]:
    """Return a latency group's colour and marker."""
    return GROUP_COLOURS[group % len(GROUP_COLOURS)], FRONT_SYMBOLS[group % len(FRONT_SYMBOLS)]


def suffix(groups: Sequence[str], group: int) -> str:
    """What a legend entry adds about its latencies: nothing where all are of one group."""
    return f" ({escaped(groups[group])})" if len(groups) > 1 else ""


def escaped(text: str) -> str:
    """Plotly reads a small HTML in its texts, and a device may be called anything."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def known(value: float | None) -> list[float]:
    """Return the value in a list, or an empty one."""
    return [] if value is None else [value]


def style_axis(axis: Any, values: Sequence[float]) -> bool:
    """Make an axis logarithmic where its values span more than a decade; return whether it is."""
    positive = [value for value in values if value > 0]
    log = bool(positive) and len(positive) == len(values) and max(positive) > LOG_FROM_RATIO * min(positive)
    if log:
        axis.update(type="log", dtick="D2", tickformat="~g")
    return log


def latency_title(info: FrontInfo | MacsLatencyInfo) -> str:
    """The axis names what its latencies are as far as they agree; a legend entry names the rest."""
    labels = {point.label.removesuffix(", not steady") for point in info.points}
    if len(info.groups) > 1:
        return "latency, ms (see the legend)"
    return f"latency, ms ({escaped(labels.pop())})" if len(labels) == 1 else "latency, ms (policy: see each point)"


def on_axis(value: float, log: bool) -> float:
    """Where an annotation must say a value stands: plotly wants the exponent on a logarithmic axis."""
    return math.log10(value) if log else value


def add_budget(figure: Any, axis: Literal["x", "y"], budget_ms: float, log: bool) -> None:
    """Draw the budget line across one axis, named at its end."""
    line = {"color": STAR, "dash": "dash", "width": 1.5}
    text = f"budget {milliseconds(budget_ms)}"
    if axis == "x":
        figure.add_shape(type="line", x0=budget_ms, x1=budget_ms, y0=0, y1=1, yref="paper", line=line)
        place = {"x": on_axis(budget_ms, log), "y": 1, "yref": "paper", "yanchor": "bottom"}
    else:
        figure.add_shape(type="line", y0=budget_ms, y1=budget_ms, x0=0, x1=1, xref="paper", line=line)
        place = {"y": on_axis(budget_ms, log), "x": 1, "xref": "paper", "xanchor": "right", "yanchor": "bottom"}
    figure.add_annotation(text=text, showarrow=False, **place)


def interval(points: Sequence[PointInfo], colour: str) -> dict[str, Any] | None:
    """Return error bars of the 95 % intervals; None for a crowd that is not on the front."""
    if points[0].role != "front" and len(points) > BARS_UP_TO_POINTS:
        return None
    return {
        "type": "data",
        "symmetric": False,
        "array": np.array([point.high_ms - point.latency_ms for point in points]),
        "arrayminus": np.array([point.latency_ms - point.low_ms for point in points]),
        "color": colour,
        "thickness": 1.2,
        "width": 3,
    }


def add_points(figure: Any, points: Sequence[PointInfo], name: str, marker: dict[str, Any], **changed: Any) -> None:
    """Add one trace of trials; `changed` replaces what it says of axes, values and bars."""
    values: dict[str, Any] = {
        "x": np.array([point.latency_ms for point in points]),
        "y": np.array([top1_pct(point) for point in points]),
        "error_x": interval(points, marker["color"]) if points[0].top1 is not None else None,
        "mode": "markers",
        "name": name,
        "marker": marker,
        "text": [hover(point) for point in points],
        "hovertemplate": "%{text}<extra></extra>",
    }
    figure.add_scatter(**{**values, **changed})


def hover(point: PointInfo) -> str:
    """Return what a point says when it is pointed at."""
    accuracy = "not trained: over a budget" if point.top1 is None else f"top-1 {percent(point.top1)}"
    interval = f"[{digits_ms(point.low_ms)}, {digits_ms(point.high_ms)}]"
    return "<br>".join(
        (
            f"<b>trial {point.number}</b>: {accuracy}",
            escaped(point.config),
            f"{milliseconds(point.latency_ms)} {interval}, {escaped(point.label)}",
            f"{count(point.macs)} macs, {count(point.params)} params",
        )
    )


def top1_pct(point: PointInfo) -> float:
    """Return top-1 in %."""
    return 100 * (point.top1 or 0.0)
