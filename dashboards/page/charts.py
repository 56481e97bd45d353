"""The page's charts as payloads: what a panel's info and figure give, or why there is nothing to show.

A payload is plain JSON: `figure`, `caption` and `stamp`, or `reason` in the figure's place. It is computed once for
each revision and view, however many pages ask for it (`CachedStudy.computed`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dashboards.data.columns import StudyColumns, View
from dashboards.data.curves import read_curves, read_last_epochs
from dashboards.data.study_settings import budget_of
from dashboards.page.study_cache import CachedStudy, Computed, Payload, guarded
from dashboards.page.view import view_of
from dashboards.panels.titles import TITLES
from search.store.replayed import replayed_from, replayed_words

PULSE_S = 10  # how often a page asks for what no revision shows: who is alive


@dataclass(frozen=True)
class Chart:
    """One chart of the page."""

    title: str
    lead: str  # the question it answers, in a sentence
    info: Callable[[CachedStudy, StudyColumns, View], Any]
    figure: Callable[[Any], Any]
    clock: str = "fast"  # when it is computed again: at a new revision, at a slow one, or at the pulse
    axis_matters: bool = False  # whether it differs from axis to axis
    table_title: str = "The chart as a table"


def _front_info(study: CachedStudy, columns: StudyColumns, view: View) -> Any:
    from dashboards.panels import FrontOptions, front_info

    budget = budget_of(columns.study.settings)
    # Limits in ms are the page's own.
    limit = {"latency": None, "macs": budget.max_macs, "params": budget.max_params}[view.axis]
    last = read_last_epochs(study.live.engine, columns.study.id)
    return front_info(columns, view, FrontOptions(budget=limit, last_epochs=last))


def _curves_info(study: CachedStudy, columns: StudyColumns, view: View) -> Any:
    from dashboards.panels import MOST_CURVES, curve_numbers, curves_info

    numbers = curve_numbers(columns, view)
    first = numbers[:MOST_CURVES]
    return curves_info(columns, read_curves(study.live.engine, columns.study.id, first), numbers)


def _progress_info(study: CachedStudy, columns: StudyColumns, view: View) -> Any:
    from dashboards.data.liveness import read_liveness
    from dashboards.panels.study.progress import progress_info

    engine = study.live.engine
    liveness = read_liveness(engine, columns.study.name)
    return progress_info(columns, view, liveness, read_last_epochs(engine, columns.study.id))


def _timeline_info(study: CachedStudy, columns: StudyColumns, view: View) -> Any:
    from dashboards.data.timeline import read_timeline
    from dashboards.panels import timeline_info

    return timeline_info(columns, read_timeline(study.live.engine, columns.study.id, list(columns.latencies)))


def _belief_info(study: CachedStudy, columns: StudyColumns, view: View) -> Any:
    from dashboards.data.beliefs import read_study_belief
    from dashboards.panels import belief_info

    return belief_info(columns, view, read_study_belief(study.live.engine, columns.study.id))


def _info_of(name: str) -> Callable[[CachedStudy, StudyColumns, View], Any]:
    """Return the info of a panel that needs only columns and view."""
    info = _of_panels(name)
    return lambda study, columns, view: info(columns, view)


def _of_panels(name: str) -> Callable[..., Any]:
    """Return a function of the panels, which are imported when it is called."""

    def call(*arguments: Any) -> Any:
        from dashboards import panels

        return getattr(panels, name)(*arguments)

    return call


CHARTS: Mapping[str, Chart] = {
    "front": Chart(
        *TITLES["front"],
        _front_info,
        _of_panels("front_figure"),
        axis_matters=True,
    ),
    "macs-latency": Chart(
        *TITLES["macs-latency"],
        _info_of("macs_latency_info"),
        _of_panels("macs_latency_figure"),
    ),
    "parallel": Chart(
        *TITLES["parallel"],
        _info_of("parallel_info"),
        _of_panels("parallel_figure"),
        clock="slow",
    ),
    "importance": Chart(
        *TITLES["importance"],
        _info_of("importance_info"),
        _of_panels("importance_figure"),
        clock="slow",
    ),
    "curves": Chart(
        *TITLES["curves"],
        _curves_info,
        _of_panels("curves_figure"),
        clock="slow",
    ),
    "progress": Chart(
        *TITLES["progress"],
        _progress_info,
        _of_panels("progress_figure"),
        clock="pulse",
        axis_matters=True,
    ),
    "timeline": Chart(
        *TITLES["timeline"],
        _timeline_info,
        _of_panels("timeline_figure"),
        clock="pulse",
    ),
    "belief": Chart(
        *TITLES["belief"],
        _belief_info,
        _of_panels("belief_figure"),
        axis_matters=True,
    ),
}


def payload_of(study: CachedStudy, name: str, choice: Mapping[str, Any] | None) -> Payload:
    """Return what the page shows of a chart; never raises."""
    return guarded(CHARTS[name].title, lambda: _computed(study, name, choice).payload)


def chart_table_of(study: CachedStudy, name: str, choice: Mapping[str, Any] | None) -> Payload:
    """Return a chart as a table.

    Raises:
        KeyError: there is no such chart.
    """
    return _computed(study, name, choice).table


def _computed(study: CachedStudy, name: str, choice: Mapping[str, Any] | None) -> Computed:
    chart = CHARTS[name]
    columns = study.slow_columns if chart.clock == "slow" else study.columns
    view = view_of(columns, choice)
    if not chart.axis_matters:
        view = View(view.group)

    def compute() -> Computed:
        info = chart.info(study, columns, view)
        table = info.table().to_dict()
        payload: Payload = {"shows": f"{view.axis} {view.group}"}
        if name in ("progress", "belief"):
            payload |= _beside(info)
        if info.reason is not None:
            return Computed(payload | {"reason": info.reason}, table)
        from dashboards.panels.style import marked

        words = replayed_words(replayed_from(columns.study.settings))
        figure = marked(chart.figure(info), words).to_plotly_json()
        return Computed(payload | {"figure": figure, "caption": " ".join(getattr(info, "notes", ()))}, table)

    revision = columns.revision
    if chart.clock == "pulse":  # who is alive changes without a revision
        revision += f" {time.time() // PULSE_S:.0f}"
    return study.computed((name, view), revision, compute)


def _beside(info: Any) -> Payload:
    """Return what is shown beside a chart: facts in words, and tables."""
    opened = getattr(info, "opened", ())
    tables = [
        {"title": title, "open": title in opened, **table.to_dict()} for title, table in info.tables if table.rows
    ]
    return {"facts": info.facts, "tables": tables}
