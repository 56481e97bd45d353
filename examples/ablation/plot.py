"""The plot of a saved result: error over macs, a panel for each comparison; an info first, then a figure of it."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dashboards.panels.image_files import Paper, write_figure
from dashboards.panels.style import COLOURS, DASHES, GREY, SYMBOLS, empty_figure
from examples.ablation.plan import COMPARISONS, LINES

COLUMNS, GAP = 2, 0.1
WIDTH_PX, HEIGHT_PX = 1000, 860
# A line looks the same in every panel, and differs from the others by shape and dashes as well as by colour.
LOOKS = dict(zip(LINES, zip((*COLOURS, GREY), (*SYMBOLS, "x"), itertools.cycle(DASHES), strict=False), strict=True))


@dataclass(frozen=True)
class DrawnLine:
    """One line of a panel; macs in millions, errors in percent, one of each for every network."""

    line: str  # key in LINES
    label: str
    macs: tuple[float, ...]
    error: tuple[float, ...]  # mean over the seeds
    spread: tuple[float, ...]  # standard deviation over the seeds


@dataclass(frozen=True)
class Panel:
    """One comparison."""

    title: str
    lines: tuple[DrawnLine, ...]


def panels_of(result: Mapping[str, Any]) -> tuple[Panel, ...]:
    """Return what is drawn of a result (see `results.summary`); lines without a finished network are left out."""
    return tuple(
        Panel(
            comparison.title,
            tuple(
                _drawn(line, label, result["lines"][line])
                for line, label in comparison.lines.items()
                if result["lines"].get(line)
            ),
        )
        for comparison in COMPARISONS.values()
    )


def _drawn(line: str, label: str, points: Sequence[Mapping[str, Any]]) -> DrawnLine:
    ordered = sorted(points, key=lambda point: point["macs"])
    errors = [point["errors"] for point in ordered]
    return DrawnLine(
        line,
        label,
        tuple(point["macs"] / 1e6 for point in ordered),
        tuple(statistics.fmean(values) for values in errors),
        tuple(statistics.stdev(values) if len(values) > 1 else 0.0 for values in errors),
    )


def figure_of(panels: Sequence[Panel]) -> Any:
    """Return the figure of some panels, two beside each other; all share both axes."""
    from plotly.subplots import make_subplots

    rows = -(-len(panels) // COLUMNS)
    grid = make_subplots(
        rows, COLUMNS, shared_xaxes="all", shared_yaxes="all", horizontal_spacing=0.05, vertical_spacing=GAP,
        subplot_titles=[panel.title for panel in panels],
    )  # fmt: skip
    style = empty_figure(HEIGHT_PX).layout
    grid.update_layout(template="none", font=style.font, height=HEIGHT_PX, margin={"l": 60, "r": 20, "t": 40, "b": 60})
    grid.update_xaxes(style.xaxis)
    grid.update_yaxes(style.yaxis)
    for place, panel in enumerate(panels):
        _draw(grid, panel, place)
    every = [macs for panel in panels for line in panel.lines for macs in line.macs]
    grid.update_xaxes(type="log", tickvals=_ticks(every), tickformat="~g", showticklabels=True)
    grid.update_yaxes(showticklabels=True)
    for column in range(1, COLUMNS + 1):
        grid.update_xaxes(title_text="million multiply-adds of the deployed network", row=rows, col=column)
    for row in range(1, rows + 1):
        grid.update_yaxes(title_text="error on the test images, %", row=row, col=1)
    return grid


def _draw(grid: Any, panel: Panel, place: int) -> None:
    """Draw one panel and its legend, in the panel's upper right corner."""
    row, column = place // COLUMNS + 1, place % COLUMNS + 1
    legend = "legend" if place == 0 else f"legend{place + 1}"
    for drawn in panel.lines:
        colour, symbol, dash = LOOKS[drawn.line]
        grid.add_scatter(
            x=drawn.macs, y=drawn.error, name=drawn.label, legend=legend, mode="lines+markers",
            line={"color": colour, "dash": dash, "width": 2},
            marker={"symbol": symbol, "size": 9},
            error_y={"type": "data", "array": drawn.spread, "thickness": 1.2, "width": 4},
            row=row, col=column,
        )  # fmt: skip
    axes = grid.get_subplot(row, column)
    corner = {"x": axes.xaxis.domain[1], "y": axes.yaxis.domain[1], "xanchor": "right", "yanchor": "top"}
    grid.update_layout({legend: {**corner, "bgcolor": "rgba(255,255,255,0.75)", "font": {"size": 12}, "itemwidth": 40}})


def _ticks(macs: Sequence[float]) -> list[float]:
    """Return round numbers for a logarithmic axis over less than a decade or two."""
    return [
        value
        for value in (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10)
        if min(macs) / 1.3 <= value <= max(macs) * 1.3
    ]


def write_plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw a result into a file, whose suffix says the format.

    Raises:
        PlotUnavailable: an image needs kaleido and Chromium.
    """
    write_figure(figure_of(panels_of(result)), path, Paper(width_px=WIDTH_PX, height_px=HEIGHT_PX))
