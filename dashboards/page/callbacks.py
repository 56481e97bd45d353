"""The page's callbacks: read the study, call a panel, send what has changed. What needs no server runs in the browser.

Every answer carries a stamp. The page sends back the stamps of what it shows, and gets nothing anew that it has.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from dash import MATCH, ClientsideFunction, Dash, Input, Output, State
from dash.exceptions import PreventUpdate

from dashboards.page import heading
from dashboards.page.charts import CHARTS, payload_of
from dashboards.page.comparison import Compared
from dashboards.page.layout import PARTS, trials_grid
from dashboards.page.study_cache import CachedStudy, Payload, Studies, guarded
from dashboards.page.view import numbers_of, view_of
from space.errors import CondenseryError

Asked = Mapping[str, Any] | None


def add_callbacks(app: Dash, studies: Studies, command_words: str) -> None:
    """Add the callbacks to a page; `command_words` name the database in commands that are shown."""
    _in_the_browser(app)

    def study_of(asked: Asked) -> CachedStudy:
        return studies.get((asked or {}).get("study"))

    def once(compute: Callable[[CachedStudy, Asked], Payload]) -> Callable[..., tuple[Any, Any]]:
        """Wrap what computes a payload: send it only where its stamp is another than the page's."""

        def answer(asked: Asked, _news: Any, _retry: Any, known: str | None) -> tuple[Any, Any]:
            payload = None if asked is None else guarded("This part", lambda: compute(study_of(asked), asked))
            if payload is None or payload["stamp"] == known:
                raise PreventUpdate
            return payload, payload["stamp"]

        return answer

    def head(shown: CachedStudy, asked: Asked) -> Payload:
        return heading.head(shown, asked, command_words, studies)

    def chart_of(name: str) -> Callable[[CachedStudy, Asked], Payload]:
        return lambda shown, asked: payload_of(shown, name, asked)

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

    def grid(asked: Asked, _retry: Any, shown: Any) -> Any:
        if asked is None or not isinstance(shown, dict) or shown.get("type") != "Div":
            raise PreventUpdate  # it is there
        found = guarded("The table", lambda: head(study_of(asked), asked))
        if "columns" not in found:
            raise PreventUpdate
        return trials_grid(found["columns"])

    app.callback(
        Output("grid-box", "children"),
        Input("late", "data"),
        Input("retry", "data"),
        State("grid-box", "children"),
        prevent_initial_call=True,
    )(grid)

    makers: dict[str, Compared] = {}
    lock = threading.Lock()

    def compared(chosen: Any, asked: Asked, _news: Any, _retry: Any, known: str | None) -> tuple[Any, Any, Any]:
        numbers = numbers_of(chosen)
        if not numbers:
            return [], False, ""
        try:
            shown = study_of(asked)
        except CondenseryError:
            raise PreventUpdate from None  # the heading says why
        with lock:
            maker = makers.setdefault(shown.live.name, Compared(shown))
        found = maker.section(numbers, view_of(shown.columns, asked), known or "")
        if found is None:
            raise PreventUpdate
        return found.content, True, found.stamp

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
    )(compared)


def busy(name: str) -> list[tuple[Output, bool, bool]]:
    """Return what a callback says of a part while it computes."""
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
