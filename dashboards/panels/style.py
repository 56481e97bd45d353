"""The house style of every chart, for page, report, plots and notebooks: its colours, marks, axes and title.

- A thing has the same mark and the same colour wherever it is shown (`MARKS`); tables and legends beside the charts
  take them from `assets/charts.css`, which a test holds to the values here.
- Colours have a contrast of at least 3:1 on white and on the dark background alike, and stay apart for readers who see
  two of three primary colours (a test simulates that); what a colour says is also said by a shape. Text and grid take
  the page's colours; the background is transparent.
- A chart with more than `SVG_UP_TO` points draws all of its traces by WebGL: that is ten times faster for so many, and
  it is drawn above SVG, so the two can't be mixed.
- Plotly understands some HTML in its texts: every text of a user goes through `escaped` first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboards.budget.table import limit_text
from dashboards.formats import one_line
from space.errors import ChartUnavailable

PLOT_CONFIG = {
    "showSendToCloud": False,
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}
SVG_UP_TO = 1000  # points of a chart
LOG_FROM_RATIO = 10.0
LINE_PX = 18  # height of a line of words above a figure
LONGEST_TEXT = 120  # characters of a user's text in a chart

GREY = "#6E6E72"
STAR = "#D27800"
FRONT = "#2289EE"
REFERENCE = "#694BFF"
INT8 = "#C300C3"
REFUSED = "#B478B4"
PREDICTED = "#5A965A"
MISLED = "#D2002D"
COLOURS = (FRONT, STAR, PREDICTED, INT8, REFERENCE, MISLED, REFUSED, GREY)
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "hexagon", "cross")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
# Even in lightness, so that both ends are seen on either background; the axis that it belongs to shows the order.
SCALE = ((0.0, FRONT), (0.35, "#8A6FD0"), (0.65, "#D6498F"), (1.0, STAR))


@dataclass(frozen=True)
class Mark:
    """How one kind of thing is drawn; `symbol` is Plotly's name of the shape."""

    symbol: str
    colour: str
    size: int = 8

    def marker(self, **changed: Any) -> dict[str, Any]:
        """Return the mark as Plotly's marker; open and thin shapes are drawn by their lines."""
        lines = "open" in self.symbol or "thin" in self.symbol
        line = {"color": self.colour, "width": 1.8 if lines else 0}
        return {"symbol": self.symbol, "size": self.size, "color": self.colour, "line": line} | changed


MARKS: Mapping[str, Mark] = {
    "front": Mark("diamond", FRONT, 11),
    "front-off-line": Mark("diamond-open", FRONT, 11),  # on the front for what the chart's axes don't show
    "trained": Mark("circle", GREY, 7),
    "refused": Mark("triangle-up", REFUSED, 6),
    "stopped": Mark("x-thin-open", GREY, 8),
    "running": Mark("circle-open", GREY, 8),
    "int8": Mark("square", INT8, 10),
    "fp16": Mark("hexagon", INT8, 11),
    "priced-in-int8": Mark("square-open", INT8, 9),  # a trial that is judged by its file in 8 bits
    "recommended": Mark("star", STAR, 18),
    "published": Mark("cross-open", REFERENCE, 9),
    "predicted": Mark("diamond-open", PREDICTED, 11),
    "misled": Mark("circle-open", MISLED, 15),
}


@dataclass(frozen=True)
class Heading:
    """What stands above a figure that is sent to others by itself."""

    title: str  # of the chart
    study: str
    place: str = ""  # which latencies are shown: kind, device, runtime
    replayed: str = ""  # "replayed from TABLE"

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines, ready to be shown."""
        first = f"<b>{escaped(self.title)}</b> - {escaped(self.study)}"
        return (first, *(escaped(text, 160) for text in (self.place, self.replayed) if text))


def empty_figure(height_px: int) -> Any:
    """Return a figure in the house style."""
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


def drawable(info: Any) -> None:
    """Refuse to draw what can't be computed; page and report show the reason in the chart's place.

    Raises:
        ChartUnavailable: the info has a reason why it can't be shown.
    """
    if info.reason is not None:
        raise ChartUnavailable(info.reason)


def message(text: str) -> Any:
    """Return a figure that shows this text in the place of a chart."""
    figure = empty_figure(140)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.update_layout(margin={"t": 20, "b": 20}, showlegend=False)
    return note(figure, wrapped(escaped(text, 600)))


def note(figure: Any, text: str) -> Any:
    """Write a text into the middle of a figure."""
    figure.add_annotation(x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, text=text, font={"size": 15})
    return figure


def wrapped(text: str, width: int = 44) -> str:
    """Return a text broken into lines that fit a narrow screen."""
    import textwrap

    return "<br>".join(textwrap.wrap(text, width, break_long_words=False))


def escaped(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return a user's text as one line, cut to `longest` characters, that Plotly shows as it is."""
    return one_line(text, longest).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def marked(figure: Any, words: str) -> Any:
    """Return the figure with these words ("replayed from TABLE") above it, for it may be sent to others by itself."""
    return _with_lines(figure, (escaped(words),)) if words else figure


def headed(figure: Any, heading: Heading) -> Any:
    """Return the figure with title, study and device above it, as it is complete by itself."""
    return _with_lines(figure, heading.lines)


def _with_lines(figure: Any, lines: tuple[str, ...]) -> Any:
    more, top = LINE_PX * len(lines) + 12, figure.layout.margin.t or 0
    words = {"text": "<br>".join(lines), "font": {"size": 12}, "x": 0, "xanchor": "left", "y": 1, "yanchor": "top"}
    figure.update_layout(
        title={**words, "xref": "paper", "yref": "container", "pad": {"t": 14}},
        height=(figure.layout.height or 450) + more,
        margin={"t": top + more},
    )
    return figure


def scatter(points: int) -> Any:
    """Return the class for every trace of a chart with this number of points in all."""
    import plotly.graph_objects as go

    return go.Scattergl if points > SVG_UP_TO else go.Scatter


def slim(values: Any) -> NDArray[np.float32]:
    """Return values in the precision of a chart, which makes the page a third as large."""
    return np.asarray(values, dtype=np.float32)


def is_log(values: NDArray[np.float64]) -> bool:
    """Return whether an axis of these values is logarithmic: all are above 0 and span more than a decade."""
    finite = values[np.isfinite(values)]
    return bool(finite.size) and float(finite.min()) > 0 and float(finite.max()) > LOG_FROM_RATIO * float(finite.min())


def style_axis(axis: Any, log: bool) -> None:
    """Make an axis logarithmic where its values call for it; else it starts at no less than 0."""
    if log:
        axis.update(type="log", dtick="D2", tickformat="~g")
    else:
        axis.update(rangemode="nonnegative")


def on_axis(value: float, log: bool) -> float:
    """Return a value as annotations and ranges state it: Plotly wants the exponent on a logarithmic axis."""
    return math.log10(value) if log else value


def add_budget(figure: Any, axis: str, limit: float | None, log: bool) -> None:
    """Draw the budget in ms as a line across axis "x" or "y", with its name at the end; hidden while there is none.

    Shape and annotation are called "budget", by which a page finds and moves them without a new figure.
    """
    text = "budget" if limit is None else f"budget {limit_text(limit)} ms"
    add_limit(figure, axis, Limit(limit, text, "budget"), log)


@dataclass(frozen=True)
class Limit:
    """A limit on an axis, what the chart says beside it, and the name of its shape and annotation."""

    value: float | None  # None: there is none now
    text: str
    name: str = "limit"


def add_limit(figure: Any, axis: str, limit: Limit, log: bool) -> None:
    """Draw a limit as a line across an axis; hidden where there is none."""
    hidden = limit.value is None or not math.isfinite(limit.value) or limit.value <= 0
    at = 1.0 if hidden or limit.value is None else limit.value
    across = "y" if axis == "x" else "x"
    figure.add_shape(
        name=limit.name,
        type="line",
        visible=not hidden,
        line={"color": STAR, "dash": "dash", "width": 1.5},
        **{f"{axis}0": at, f"{axis}1": at, f"{across}0": 0, f"{across}1": 1, f"{across}ref": "paper"},
    )
    place: dict[str, Any] = {axis: on_axis(at, log), across: 1, f"{across}ref": "paper", "yanchor": "bottom"}
    if axis == "y":
        place["xanchor"] = "right"
    figure.add_annotation(name=limit.name, text=limit.text, showarrow=False, visible=not hidden, **place)


def add_recommended(figure: Any, name: str, place: tuple[float, float] | None, trace: Any) -> None:
    """Add the last trace, the star of the recommended trial (`meta="recommended"`); empty where there is none.

    A trial that has no place in the chart (its latency is of another kind) has only an entry in the legend, which says
    so.
    """
    none = [] if name == "recommended" else [None]
    figure.add_trace(
        trace(
            x=none if place is None else slim(place[:1]),
            y=none if place is None else slim(place[1:]),
            mode="markers",
            name=name,
            meta="recommended",
            marker=MARKS["recommended"].marker(),
            hoverinfo="skip",  # the trial's own point, below it, answers the pointer
        )
    )


def add_label(figure: Any, text: str, place: tuple[float, float], **changed: Any) -> None:
    """Write a name beside what it names, in its colour, where a legend would send the eye away.

    `place` is in the axes' own coordinates: exponents on logarithmic ones. It is in the layout, since the text of a
    WebGL trace is blurred.
    """
    label = {"showarrow": False, "xanchor": "left", "xshift": 6, "font": {"size": 12}, "name": "label"}
    figure.add_annotation(x=place[0], y=place[1], text=text, **(label | changed))
