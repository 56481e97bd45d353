"""The page's callbacks: read the study, call a panel, send what has changed. What needs no server runs in the browser.

Every answer carries a stamp. The page sends back the stamps of what it shows, and nothing that it has is sent again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from dash import MATCH, ClientsideFunction, Dash, Input, Output, State
from dash.exceptions import PreventUpdate

from dashboards.page import heading
from dashboards.page.charts import CHARTS, payload_of
from dashboards.page.comparison import Comparison
from dashboards.page.layout import PARTS, trials_grid
from dashboards.page.study_cache import CachedStudy, Payload, Studies, guarded
from dashboards.page.view import numbers_of, view_of
from space.errors import CondenseryError

Choice = Mapping[str, Any] | None  # what the reader looks at: study, group, axis


def add_callbacks(app: Dash, studies: Studies, command_words: str) -> None:
    """Add the callbacks to a page; `command_words` name the database in commands that are study."""
    _in_the_browser(app)

    def study_of(choice: Choice) -> CachedStudy:
        return studies.get((choice or {}).get("study"))

    def once(compute: Callable[[CachedStudy, Choice], Payload]) -> Callable[..., tuple[Any, Any]]:
        """Wrap a function that computes a payload, so that it is sent only if its stamp differs from the page's."""

        def answer(choice: Choice, _news: Any, _retry: Any, stamp: str | None) -> tuple[Any, Any]:
            payload = None if choice is None else guarded("This part", lambda: compute(study_of(choice), choice))
            if payload is None or payload["stamp"] == stamp:
                raise PreventUpdate
            return payload, payload["stamp"]

        return answer

    def head(study: CachedStudy, choice: Choice) -> Payload:
        return heading.head(study, choice, command_words, studies)

    def chart_of(name: str) -> Callable[[CachedStudy, Choice], Payload]:
        return lambda study, choice: payload_of(study, name, choice)

    for name, compute in (("head", head), ("table", heading.budget_table)):
        app.callback(
            Output(name, "data"),
            Output(f"{name}-stamp", "data"),
            Input("view", "data"),
            Input("fast", "data"),
            Input("retry", "data"),
            State(f"{name}-stamp", "data"),
            running=busy(name),
            prevent_initial_call=True,
        )(once(compute))
    for name, chart in CHARTS.items():
        app.callback(
            Output(f"{name}-payload", "data"),
            Output(f"{name}-stamp", "data"),
            Input("view" if name == "front" else "late", "data"),
            Input(chart.clock, "data"),
            Input("retry", "data"),
            State(f"{name}-stamp", "data"),
            running=busy(name),
            prevent_initial_call=True,
        )(once(chart_of(name)))

    def grid(choice: Choice, _retry: Any, study: Any) -> Any:
        if choice is None or not isinstance(study, dict) or study.get("type") != "Div":
            raise PreventUpdate  # the table is there already
        payload = guarded("The table", lambda: head(study_of(choice), choice))
        if "columns" not in payload:
            raise PreventUpdate
        return trials_grid(payload["columns"])

    app.callback(
        Output("grid-box", "children"),
        Input("late", "data"),
        Input("retry", "data"),
        State("grid-box", "children"),
        prevent_initial_call=True,
    )(grid)

    comparisons: dict[str, Comparison] = {}
    lock = threading.Lock()

    def comparison(chosen: Any, choice: Choice, _news: Any, _retry: Any, stamp: str | None) -> tuple[Any, Any, Any]:
        numbers = numbers_of(chosen)
        if not numbers:
            return [], False, ""
        try:
            study = study_of(choice)
        except CondenseryError:
            raise PreventUpdate from None  # the heading says why
        with lock:
            of_study = comparisons.setdefault(study.live.name, Comparison(study))
        section = of_study.section(numbers, view_of(study.columns, choice), stamp or "")
        if section is None:
            raise PreventUpdate
        return section.content, True, section.stamp

    app.callback(
        Output("comparison-body", "children"),
        Output("comparison-state", "hidden"),
        Output("comparison-stamp", "data"),
        Input("chosen", "data"),
        Input("late", "data"),
        Input("fast", "data"),
        Input("retry", "data"),
        State("comparison-stamp", "data"),
        running=busy("comparison"),
        prevent_initial_call=True,
    )(comparison)


def busy(name: str) -> list[tuple[Output, bool, bool]]:
    """Return what marks a part as busy while its callback computes."""
    return [(Output(f"{name}-busy", "data"), True, False)]


def _in_the_browser(app: Dash) -> None:
    """Add the callbacks of `assets/page.js`."""

    def page(function: str, *parts: Any, **options: Any) -> None:
        register: Any = app.clientside_callback  # untyped
        register(ClientsideFunction("page", function), *parts, **options)

    page("start", Output("view", "data"), Output("chosen", "data"), Output("theme-data", "data"), Input("page", "id"))
    page(
        "poll",
        Input("clock", "n_intervals"),
        State("fast", "data"),
        State("slow", "data"),
        State("pulse", "data"),
        State("retry", "data"),
        *(State(f"{name}-busy", "data") for name in PARTS),
        prevent_initial_call=True,
    )
    page("head", Output("drawn", "data", allow_duplicate=True), Input("head", "data"), prevent_initial_call=True)
    page("budget", Output("drawn", "data"), Input("table", "data"))
    page("news", Output("clock", "disabled"), Input("fast", "data"))
    for name in CHARTS:
        page(
            "draw",
            Output(f"{name}-graph", "figure"),
            Output(f"{name}-box", "hidden"),
            Output(f"{name}-state", "hidden"),
            Output(f"{name}-state", "children"),
            Output(f"{name}-caption", "children"),
            Input(f"{name}-payload", "data"),
            Input("theme-data", "data"),
            State(f"{name}-graph", "id"),
        )
        graph = f"{name}-graph"
        page("clicked", Output(graph, "clickData"), Input(graph, "clickData"), State(graph, "id"))
    page(
        "brushed",
        Output("drawn", "data", allow_duplicate=True),
        Input("parallel-graph", "restyleData"),
        prevent_initial_call=True,
    )
    page(
        "part",
        Output({"type": "part-graph", "of": MATCH}, "figure"),
        Input({"type": "part", "of": MATCH}, "data"),
        Input("theme-data", "data"),
    )
    zoom = Input({"type": "part-graph", "of": MATCH}, "relayoutData")
    page("zoomed", Output({"type": "part-zoom", "of": MATCH}, "data"), zoom)
