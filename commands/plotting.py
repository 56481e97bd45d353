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
    CONTOUR = "contour"
    SLICE = "slice"
    CURVES = "curves"
    PROGRESS = "progress"
    TIMELINE = "timeline"
    BELIEF = "belief"


class AxisName(StrEnum):
    """The costs that accuracy can be plotted against."""

    LATENCY = "latency"
    MACS = "macs"
    PARAMS = "params"


class KindName(StrEnum):
    """Where a latency comes from."""

    MEASURED = "measured"
    ESTIMATED = "estimated"
    PREDICTED = "predicted"


Quantity = Annotated[
    str | None,
    typer.Option(
        help="Quantity on this axis of the front: score, latency, macs, params, memory, file, time, a metric, or "
        "latency@DEVICE."
    ),
]


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
    device: Annotated[
        str | None, typer.Option(help="Device whose latencies to show.", show_default="the study's first")
    ] = None,
    kind: Annotated[
        KindName | None, typer.Option(help="Kind of latencies to show.", show_default="what the device has most of")
    ] = None,
    axis: Annotated[
        AxisName, typer.Option(help="Cost on the x axis of front, progress and belief.")
    ] = AxisName.LATENCY,
    x: Quantity = None,
    y: Quantity = None,
    log: Annotated[
        bool | None,
        typer.Option("--log/--linear", help="Scale of the front's x axis.", show_default="as values call for"),
    ] = None,
    trial: Annotated[
        list[int] | None, typer.Option(min=0, max=2**31 - 1, help="Trial whose curve to plot; may be repeated.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            help="Setting of contour and slice, such as G or growth_1; twice.", show_default="what matters most"
        ),
    ] = None,
    outcome: Annotated[str, typer.Option(help="What contour and slice show: a quantity, as --x.")] = "score",
    front_only: Annotated[bool, typer.Option("--front-only", help="Only the front in parallel coordinates.")] = False,
    width: Annotated[int, typer.Option(min=300, max=4000, help="Width in pixels; a PNG gets twice as many.")] = 1000,
    dark: Annotated[bool, typer.Option("--dark", help="Plot light on dark.")] = False,
    storage: Storage = None,
) -> None:
    """Write one plot of a study as PNG, SVG, PDF or HTML."""
    from dashboards.panels.image_files import Paper, write_figure
    from dashboards.panels.notebook import PlotOptions, StudyFigures

    engine, row, _ = open_named(study, storage)
    path = Path(f"{panel.value}.png") if out is None else out
    options = PlotOptions(
        budget_ms=budget or None,
        axis=axis.value,
        x=x,
        y=y,
        log=log,
        device=device,
        kind=None if kind is None else kind.value,
        trials=trial or (),
        settings=tuple(setting or ()),
        outcome=outcome,
        front_only=front_only,
    )
    figure = StudyFigures(engine, row.name).plot(panel.value, options)
    write_figure(figure, path, Paper(width_px=width, dark=dark))
    show_written(path)
