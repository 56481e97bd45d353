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
from dashboards.panels.titles import TITLES, heading_of
from search.store.replayed import replayed_from, replayed_words

Asked = Mapping[str, str]  # what a reader chose in a chart's own lists
PULSE_S = 10  # how often a page asks for what no revision shows: who is alive


@dataclass(frozen=True)
class Chart:
    """One chart of the page."""

    title: str
    lead: str  # the question it answers, in a sentence
    info: Callable[[CachedStudy, StudyColumns, View, Asked], Any]
    figure: Callable[[Any], Any]
    clock: str = "fast"  # when it is computed again: at a new revision, at a slow one, or at the pulse
    axis_matters: bool = False  # whether it differs from axis to axis
    asks: tuple[str, ...] = ()  # what else of the reader's choice it depends on
    table_title: str = "The chart as a table"


def _front_info(study: CachedStudy, columns: StudyColumns, view: View, asked: Asked) -> Any:
    from dashboards.data.quantities import Further
    from dashboards.panels import FrontOptions, front_info
    from search.results.trained_files import file_sizes

    budget, first = budget_of(columns.study.settings), next(iter(columns.latencies))
    x, y = asked.get("x") or view.axis, asked.get("y") or "score"
    # Limits in ms are the page's own; the study's says what the chart opens near.
    limits = {"macs": budget.max_macs, "params": budget.max_params}
    target = first if view.group is None else columns.latency_groups[view.group].target
    engine = study.live.engine
    options = FrontOptions(
        budget=limits.get(x),
        last_epochs=read_last_epochs(engine, columns.study.id),
        x=x,
        y=y,
        further=Further(
            file_sizes(engine, columns.study, columns.number[columns.trained].tolist()) if "file" in (x, y) else {}
        ),
        budget_y=limits.get(y),
        near=budget.limits_ms(first).get(target) if x == "latency" else None,
    )
    return front_info(columns, view, options)


def _pair_info(name: str) -> Callable[[CachedStudy, StudyColumns, View, Asked], Any]:
    info = _of_panels(name)

    def call(study: CachedStudy, columns: StudyColumns, view: View, asked: Asked) -> Any:
        first, second = asked.get("first"), asked.get("second")
        return info(columns, view, (first, None if second == first else second), asked.get("outcome") or "score")

    return call


def _curves_info(study: CachedStudy, columns: StudyColumns, view: View, asked: Asked) -> Any:
    from dashboards.panels import MOST_CURVES, curve_numbers, curves_info

    numbers = curve_numbers(columns, view)
    first = numbers[:MOST_CURVES]
    return curves_info(columns, read_curves(study.live.engine, columns.study.id, first), numbers)


def _progress_info(study: CachedStudy, columns: StudyColumns, view: View, asked: Asked) -> Any:
    from dashboards.data.liveness import read_liveness
    from dashboards.panels.study.progress import progress_info

    engine = study.live.engine
    liveness = read_liveness(engine, columns.study.name)
    return progress_info(columns, view, liveness, read_last_epochs(engine, columns.study.id))


def _timeline_info(study: CachedStudy, columns: StudyColumns, view: View, asked: Asked) -> Any:
    from dashboards.data.timeline import read_timeline
    from dashboards.panels import timeline_info

    return timeline_info(columns, read_timeline(study.live.engine, columns.study.id, list(columns.latencies)))


def _belief_info(study: CachedStudy, columns: StudyColumns, view: View, asked: Asked) -> Any:
    from dashboards.data.beliefs import read_study_belief
    from dashboards.panels import belief_info

    return belief_info(columns, view, read_study_belief(study.live.engine, columns.study.id))


def _info_of(name: str) -> Callable[[CachedStudy, StudyColumns, View, Asked], Any]:
    """Return the info of a panel that needs only columns and view."""
    info = _of_panels(name)
    return lambda study, columns, view, asked: info(columns, view)


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
        asks=("x", "y"),
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
    "contour": Chart(
        *TITLES["contour"],
        _pair_info("contour_info"),
        _of_panels("contour_figure"),
        clock="slow",
        asks=("first", "second", "outcome"),
    ),
    "slice": Chart(
        *TITLES["slice"],
        _pair_info("slice_info"),
        _of_panels("slice_figure"),
        clock="slow",
        asks=("first", "second", "outcome"),
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

    asked = {key: word for key in chart.asks if isinstance(word := (choice or {}).get(key), str)}

    def compute() -> Computed:
        info = chart.info(study, columns, view, asked)
        table = info.table().to_dict()
        payload: Payload = {"shows": f"{view.axis} {view.group} {asked}", **_choices(name, columns, view, info)}
        if name in ("progress", "belief"):
            payload |= _beside(info)
        if info.reason is not None:
            return Computed(payload | {"reason": info.reason}, table)
        return Computed(payload | _drawn(name, chart.figure(info), info, columns, view), table)

    revision = columns.revision
    if chart.clock == "pulse":  # who is alive changes without a revision
        revision += f" {time.time() // PULSE_S:.0f}"
    return study.computed((name, view, *asked.items()), revision, compute)


def _drawn(name: str, figure: Any, info: Any, columns: StudyColumns, view: View) -> Payload:
    """Return a figure as the browser draws it, its words, and the heading of a picture of it."""
    from dashboards.panels import Caption
    from dashboards.panels.style import marked

    replayed = replayed_words(replayed_from(columns.study.settings))
    caption = Caption.of(getattr(info, "notes", ()))
    return {
        "figure": marked(figure, replayed).to_plotly_json(),
        "caption": caption.short,
        "how": caption.rest,
        "heading": heading_of(columns, view, CHARTS[name].title).lines,
    }


def _choices(name: str, columns: StudyColumns, view: View, info: Any) -> Payload:
    """Return what can be chosen in a chart's own lists, and what is shown now."""
    from dashboards.data.quantities import quantities_known

    if name == "front":
        return {"choices": {"axes": quantities_known(columns, view)}, "chosen": {"x": info.x.key, "y": info.y.key}}
    if name in ("contour", "slice"):
        outcomes = [pair for pair in quantities_known(columns, view) if pair[0] != "file"]
        chosen = dict(zip(("first", "second"), info.pair.keys, strict=False))
        choices = {"settings": info.pair.choices, "outcomes": outcomes}
        return {"choices": choices, "chosen": {**chosen, "outcome": info.pair.outcome.key}}
    return {}


def _beside(info: Any) -> Payload:
    """Return what is shown beside a chart: facts in words, and tables."""
    opened = getattr(info, "opened", ())
    tables = [
        {"title": title, "open": title in opened, **table.to_dict()} for title, table in info.tables if table.rows
    ]
    return {"facts": info.facts, "tables": tables}
