"""The report's charts: what the panels give for each view, as JSON for its script and as tables for readers without."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from dashboards import panels
from dashboards.budget.table import BudgetTable
from dashboards.data.beliefs import StudyBelief, read_study_belief
from dashboards.data.columns import StudyColumns, View
from dashboards.data.curves import read_curves, read_last_epochs
from dashboards.data.timeline import read_timeline
from dashboards.formats import one_line
from dashboards.panels.style import marked
from dashboards.panels.titles import TITLES, heading_of
from search.budget import Budget

MOST_GROUPS = 4  # of latencies that a report can show


@dataclass(frozen=True)
class Source:
    """What the charts are drawn from."""

    engine: sa.Engine
    columns: StudyColumns
    budget: Budget
    table: BudgetTable
    last_epochs: Mapping[int, Any]
    curves: Mapping[int, Sequence[Mapping[str, Any]]]
    curve_numbers: Sequence[int]
    believed: StudyBelief

    @classmethod
    def read(cls, engine: sa.Engine, columns: StudyColumns, budget: Budget, table: BudgetTable) -> Source:
        """Return a source with what the columns don't hold: newest epochs, curves, what the sampler believes."""
        numbers = panels.curve_numbers(columns, View(columns.default_group))
        return cls(
            engine,
            columns,
            budget,
            table,
            read_last_epochs(engine, columns.study.id),
            read_curves(engine, columns.study.id, numbers[: panels.MOST_CURVES]),
            numbers,
            read_study_belief(engine, columns.study.id),
        )


@dataclass(frozen=True)
class Drawn:
    """One chart: its figure as JSON (None: `reason` says why there is none), its caption and its table."""

    figure: str | None
    height_px: int | None
    reason: str | None
    caption: panels.Caption
    table: panels.DataTable
    heading: tuple[str, ...] = ()  # of a picture of the chart
    lines: tuple[int, ...] = ()  # the number of each line's trial, for parallel coordinates

    @classmethod
    def of(cls, info: Any, draw: Callable[[Any], Any], heading: panels.Heading) -> Drawn:
        """Return a panel's info as a drawn chart."""
        caption = panels.Caption.of(getattr(info, "notes", ()))
        if info.reason is not None:
            return cls(None, None, info.reason, caption, info.table())
        figure = marked(draw(info), heading.replayed)
        lines = tuple(info.number.tolist()) if isinstance(info, panels.ParallelInfo) else ()
        return cls(figure.to_json(), figure.layout.height, None, caption, info.table(), heading.lines, lines)

    def to_json(self) -> str:
        """Return the chart as the page's script reads it."""
        words = {
            "reason": self.reason,
            "caption": self.caption.short,
            "how": self.caption.rest,
            "heading": self.heading,
            "lines": self.lines,
            "table": self.table.to_dict(),
        }
        return f'{json.dumps(words)[:-1]}, "figure": {self.figure or "null"}}}'


def views_of(columns: StudyColumns) -> list[View]:
    """Return the views to choose from: latency (the first one shown), macs, params, further groups of latencies."""
    first = columns.default_group
    priced = [
        group
        for group in range(len(columns.latency_groups))
        if np.isfinite(columns.of_group(group).median_ms[columns.trained]).any()
    ]
    groups = [first, *(group for group in priced if group != first)][:MOST_GROUPS]
    return [View(first), View(first, "macs"), View(first, "params"), *(View(group) for group in groups[1:])]


def name_of(columns: StudyColumns, view: View) -> str:
    """Return what the page calls a view: "latency: measured on host (...)", "macs"."""
    if view.axis != "latency":
        return {"macs": "multiply-adds", "params": "parameters"}[view.axis]
    return "latency" if view.group is None else f"latency, {one_line(columns.latency_groups[view.group], 160)}"


def changing_charts(source: Source, view: View) -> Iterator[tuple[str, Drawn]]:
    """Yield the charts that differ from view to view, by name."""
    columns, recommended = source.columns, source.table.recommended

    def of(name: str, info: Any, draw: Callable[[Any], Any]) -> tuple[str, Drawn]:
        return name, Drawn.of(info, draw, heading_of(columns, view, TITLES[name][0]))

    target = None if view.group is None else columns.latency_groups[view.group].target
    limit_ms = source.table.limits_ms.get(target) if target is not None else None
    limit = {"latency": limit_ms, "macs": source.budget.max_macs, "params": source.budget.max_params}[view.axis]
    options = panels.FrontOptions(limit, recommended, source.last_epochs)
    yield of("front", panels.front_info(columns, view, options), panels.front_figure)
    if view.axis == "latency":  # these charts show what the device does, whatever accuracy is plotted against
        info = panels.macs_latency_info(columns, view, limit_ms, recommended)
        yield of("macs-latency", info, panels.macs_latency_figure)
        yield of("parallel", panels.parallel_info(columns, view), panels.parallel_figure)
        yield of("importance", panels.importance_info(columns, view), panels.importance_figure)
    yield of("progress", progress_of(source, view), panels.progress_figure)
    if source.believed.belief is not None:
        yield of("belief", panels.belief_info(columns, view, source.believed), panels.belief_figure)


def steady_charts(source: Source) -> Iterator[tuple[str, Drawn]]:
    """Yield the charts that are the same in every view, by name."""
    columns, view = source.columns, View(source.columns.default_group)
    timeline = read_timeline(source.engine, columns.study.id, list(columns.latencies))
    charts = (
        ("contour", panels.contour_info(columns, view), panels.contour_figure),
        ("slice", panels.slice_info(columns, view), panels.slice_figure),
        ("curves", panels.curves_info(columns, source.curves, source.curve_numbers), panels.curves_figure),
        ("timeline", panels.timeline_info(columns, timeline), panels.timeline_figure),
    )
    for name, info, draw in charts:
        yield name, Drawn.of(info, draw, heading_of(columns, view, TITLES[name][0], of_latencies=False))


def progress_of(source: Source, view: View) -> panels.ProgressInfo:
    """Return the study's progress, without who is alive: the file is read later."""
    return panels.progress_info(source.columns, view, last_epochs=source.last_epochs)
