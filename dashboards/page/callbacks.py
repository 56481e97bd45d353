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
from dashboards.page.comparison import Comparison, Section
from dashboards.page.layout import PARTS, trials_grid
from dashboards.page.study_cache import CachedStudy, Payload, Studies, guarded
from dashboards.page.view import choice_of, numbers_of, view_of
from space.errors import CondenseryError

Choice = Mapping[str, Any] | None  # what the reader looks at: study, group, axis


def add_callbacks(app: Dash, studies: Studies, command_words: str) -> None:
    """Add the callbacks to a page; `command_words` name the database in commands that are shown."""
    _in_the_browser(app)

    def head(study: CachedStudy, choice: Choice) -> Payload:
        return heading.head(study, choice, command_words, studies)

    def chart_of(name: str) -> Callable[[CachedStudy, Choice], Payload]:
        return lambda study, choice: payload_of(study, name, choice)

    for name, compute in (("head", head), ("table", heading.budget_table)):
        _add_part(app, studies, compute, (name, name), ("view", "fast"))
    for name, chart in CHARTS.items():
        view = "view" if name == "front" else "late"
        _add_part(app, studies, chart_of(name), (name, f"{name}-payload"), (view, chart.clock))
    _add_grid(app, studies, head)
    _add_drawer(app, studies)


def _study_of(studies: Studies, choice: Choice) -> CachedStudy:
    return studies.get((choice or {}).get("study"))


def _add_part(
    app: Dash,
    studies: Studies,
    compute: Callable[[CachedStudy, Choice], Payload],
    names: tuple[str, str],
    causes: tuple[str, str],
) -> None:
    """Add the callback of one part, which sends its payload only if its stamp differs from the page's.

    Args:
        app: the page.
        studies: what the page may show.
        compute: returns the payload.
        names: of the part, and of the store that takes its payload.
        causes: the stores whose changes have it computed: the reader's choice, and a clock.
    """
    name, store = names

    def answer(sent: Any, _news: Any, _retry: Any, stamp: Any) -> tuple[Any, Any]:
        choice = choice_of(sent)
        payload = None if sent is None else guarded("This part", lambda: compute(_study_of(studies, choice), choice))
        if payload is None or payload["stamp"] == stamp:
            raise PreventUpdate
        return payload, payload["stamp"]

    app.callback(
        Output(store, "data"),
        Output(f"{name}-stamp", "data"),
        *(Input(cause, "data") for cause in (*causes, "retry")),
        State(f"{name}-stamp", "data"),
        running=busy(name),
        prevent_initial_call=True,
    )(answer)


def _add_grid(app: Dash, studies: Studies, head: Callable[[CachedStudy, Choice], Payload]) -> None:
    """Add the callback that makes the trials table, once."""

    def grid(sent: Any, _retry: Any, content: Any) -> Any:
        choice = choice_of(sent)
        if sent is None or not isinstance(content, dict) or content.get("type") != "Div":
            raise PreventUpdate  # the table is there already
        payload = guarded("The table", lambda: head(_study_of(studies, choice), choice))
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


def _add_drawer(app: Dash, studies: Studies) -> None:
    """Add the callbacks that show the selected trials: first their figures, then what is drawn of them."""
    comparisons: dict[str, Comparison] = {}
    lock = threading.Lock()

    def comparison_of(study: CachedStudy) -> Comparison:
        with lock:
            return comparisons.setdefault(study.live.name, Comparison(study))

    for name, method in (("facts", Comparison.facts), ("comparison", Comparison.section)):
        app.callback(
            Output(f"{name}-body", "children"),
            Output(f"{name}-stamp", "data"),
            *(Input(cause, "data") for cause in ("chosen", "late", "fast", "retry")),
            State(f"{name}-stamp", "data"),
            running=busy(name),
            prevent_initial_call=True,
        )(_of_drawer(studies, comparison_of, method))


def _of_drawer(
    studies: Studies, comparison_of: Callable[[CachedStudy], Comparison], method: Callable[..., Section | None]
) -> Callable[..., tuple[Any, Any]]:
    """Return what answers for one part of the drawer."""

    def answer(chosen: Any, sent: Any, _news: Any, _retry: Any, stamp: Any) -> tuple[Any, Any]:
        numbers, choice = numbers_of(chosen), choice_of(sent)
        if not numbers:
            return [], ""
        try:
            study = _study_of(studies, choice)
        except CondenseryError:
            raise PreventUpdate from None  # the heading says why
        shown = stamp if isinstance(stamp, str) else ""
        section = method(comparison_of(study), numbers, view_of(study.columns, choice), shown)
        if section is None:
            raise PreventUpdate
        return section.content, section.stamp

    return answer


def busy(name: str) -> list[tuple[Output, bool, bool]]:
    """Return what marks a part as busy while its callback computes."""
    return [(Output(f"{name}-busy", "data"), True, False)]


def _in_the_browser(app: Dash) -> None:
    """Add the callbacks of `assets/page.js`."""
    register: Any = app.clientside_callback  # untyped

    def page(function: str, *parts: Any, **options: Any) -> None:
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
    drawn_again = Output("drawn", "data", allow_duplicate=True)
    page("head", drawn_again, Input("head", "data"), prevent_initial_call=True)
    page("budget", Output("drawn", "data"), Input("table", "data"))
    page("news", Output("clock", "disabled"), Input("fast", "data"))
    for name in CHARTS:
        _draw_chart(page, name)
    page("brushed", drawn_again, Input("parallel-graph", "restyleData"), prevent_initial_call=True)
    graph = {"type": "part-graph", "of": MATCH}
    part = Input({"type": "part", "of": MATCH}, "data")
    page("part", Output(graph, "figure"), part, Input("theme-data", "data"))
    page("zoomed", Output({"type": "part-zoom", "of": MATCH}, "data"), Input(graph, "relayoutData"))


def _draw_chart(page: Callable[..., None], name: str) -> None:
    """Add what draws a chart in the browser."""
    graph = f"{name}-graph"
    page(
        "draw",
        Output(graph, "figure"),
        Output(f"{name}-box", "hidden"),
        Output(f"{name}-state", "hidden"),
        Output(f"{name}-state", "children"),
        Output(f"{name}-caption", "children"),
        Input(f"{name}-payload", "data"),
        Input("theme-data", "data"),
        State(graph, "id"),
    )
