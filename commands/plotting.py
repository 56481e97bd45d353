"""Plotting: one plot of a study as a file."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from commands.common import Storage, StudyName, open_named, show_written


class Plot(StrEnum):
    """The plots."""

    FRONT = "front"
    MACS_LATENCY = "macs-latency"
    PARALLEL = "parallel"
    IMPORTANCE = "importance"
    CURVES = "curves"
    PROGRESS = "progress"
    TIMELINE = "timeline"
    BELIEF = "belief"


class AxisName(StrEnum):
    """The costs that accuracy can be plotted against."""

    LATENCY = "latency"
    MACS = "macs"
    PARAMS = "params"


def plot(
    panel: Annotated[Plot, typer.Argument(help="The plot.")],
    study: StudyName = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The .png, .svg, .pdf or .html file to write; - is a PNG on standard output.", show_default="PANEL.png"
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(min=0.0, max=1e9, help="Highest latency allowed, in ms.", show_default="the study's own"),
    ] = None,
    axis: Annotated[
        AxisName, typer.Option(help="Cost on the x axis of front, progress and belief.")
    ] = AxisName.LATENCY,
    trial: Annotated[
        list[int] | None, typer.Option(min=0, max=2**31 - 1, help="Trial whose curve to plot; may be repeated.")
    ] = None,
    width: Annotated[int, typer.Option(min=300, max=4000, help="Width in pixels; a PNG gets twice as many.")] = 1000,
    dark: Annotated[bool, typer.Option("--dark", help="Plot light on dark.")] = False,
    storage: Storage = None,
) -> None:
    """Write one plot of a study as PNG, SVG, PDF or HTML."""
    from dashboards.panels.image_files import Paper, write_figure
    from dashboards.panels.notebook import StudyFigures

    engine, row, _ = open_named(study, storage)
    path = Path(f"{panel.value}.png") if out is None else out
    figure = StudyFigures(engine, row.name).plot(panel.value, budget or None, axis.value, trial or ())
    write_figure(figure, path, Paper(width_px=width, dark=dark))
    show_written(path)
