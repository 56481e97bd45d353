"""The page's skeleton: every section in its place, empty. What they hold comes from callbacks and `assets/page.js`.

Landmarks, headings and names are here, so that the page makes sense to a screen reader before anything has loaded.
"""

from __future__ import annotations

from typing import Any

import dash_ag_grid as dag
from dash import dcc, html
from dash.development.base_component import Component

from dashboards.page.charts import CHARTS, Chart
from dashboards.panels import PLOT_CONFIG
from dashboards.panels.captions import HOW
from dashboards.panels.titles import SHORT_TITLES

POLL_MS = 1500
PARTS = ("head", "table", *CHARTS, "facts", "comparison")  # what the server computes again when there is news
LAST = ("progress", "timeline", "belief")  # charts below the trials
GRID_OPTIONS: dict[str, Any] = {
    "theme": "themeQuartz",
    "cacheBlockSize": 100,
    "maxBlocksInCache": 12,
    "maxConcurrentDatasourceRequests": -1,  # no limit: loads that the component's own source has taken never end
    "rowHeight": 36,
    "headerHeight": 40,
    "rowSelection": {"mode": "multiRow", "checkboxes": True, "headerCheckbox": False, "enableClickSelection": False},
    "selectionColumnDef": {"width": 42, "minWidth": 30, "pinned": "left"},
    "rowClassRules": {"recommended": "isRecommended(params)", "outside": "isOutside(params)"},
    "suppressCellFocus": False,
    "suppressDragLeaveHidesColumns": True,
    "suppressMovableColumns": True,
    "enableCellTextSelection": True,
    "ensureDomOrder": True,
    "tooltipShowDelay": 400,
    "localeText": {"noRowsToShow": "No trial matches."},
}
FILTERS_NOTE = (
    "Filters take the units shown: 94.5 is at least 94.5 %, 0.08 at most 0.08 ms; 1.2M, 90 s, <1, =1, 1..2 too."
)
COLUMN_DEFAULTS: dict[str, Any] = {
    "resizable": True,
    "sortable": True,
    "wrapHeaderText": True,
    "autoHeaderHeight": True,
    "floatingFilter": True,
    "filter": "agTextColumnFilter",  # whatever the column holds: the server reads what is typed in the column's units
    "filterParams": {"filterOptions": ["contains"], "maxNumConditions": 1, "debounceMs": 250, "trimInput": True},
    "suppressFloatingFilterButton": True,
    "suppressHeaderFilterButton": True,
    "suppressHeaderMenuButton": True,
}


def words(attributes: dict[str, str]) -> Any:
    """Return attributes whose names aren't Python names; untyped, since Dash's types know only its own."""
    return attributes


def aria(**attributes: str) -> Any:
    """Return `aria-` attributes."""
    return {f"aria-{name}": value for name, value in attributes.items()}


def region(name: str) -> Any:
    """Return the attributes of a part that scrolls, so that it can be reached by keyboard and has a name."""
    return {"role": "region", "tabIndex": 0, **aria(label=name)}


def page_layout() -> Component:
    """Return the layout, the same for every study.

    On a wide screen it is a workbench: the answer stays above, the charts scroll below it, and the drawer stays at the
    side. `assets/workbench.css` and `assets/drawer.css` place them.
    """
    return html.Div(
        [
            html.A("Skip to the answer", href="#answer", className="skip"),
            html.Div([_header(), _main(), _footer()], className="bench"),
            _drawer(),
            *_stores(),
        ],
        id="page",
        className="workbench",
    )


def _main() -> Component:
    return html.Main(
        [
            html.Div([_answer(), _places()], id="bar"),
            _answer_more(),
            *(_chart_section(name, chart) for name, chart in CHARTS.items() if name not in LAST),
            _trials(),
            *(_chart_section(name, CHARTS[name]) for name in LAST),
        ]
    )


def _places() -> Component:
    """Return the links to the sections; `assets/page.js` scrolls to them and marks the one in sight."""
    titles = {name: SHORT_TITLES[name] for name in CHARTS if name not in LAST}
    titles |= {"trials": "Trials"} | {name: SHORT_TITLES[name] for name in LAST}
    links = [html.Li(html.A(title, href=f"#{name}")) for name, title in titles.items()]
    return html.Nav(html.Ul(links), id="places", **aria(label="Sections"))


def _footer() -> Component:
    return html.Footer(html.P("Condensery.", id="writes"))  # says what the page writes, or why it can only read


def _header() -> Component:
    return html.Header(
        [
            html.Div(
                [
                    html.Div([html.H1(id="name"), html.P(id="subtitle", className="muted"), html.Ul(id="counts")]),
                    html.Div(
                        [
                            html.Span("Loading", id="badge", className="badge waiting", role="status"),
                            html.A("All studies", id="all-studies", href="/", className="button", hidden=True),
                            html.Button("Copy link", id="share", type="button"),
                            html.Button("Colours: system", id="theme", type="button"),
                        ],
                        className="head-tools",
                    ),
                ],
                className="head-row",
            ),
            html.P(id="stale-reason", className="stale-reason", hidden=True),
            html.Div(id="search-actions"),
        ],
    )


def _answer() -> Component:
    return html.Section(
        [
            html.H2("Which network fits your budget?", id="answer-title"),
            html.Div(id="budget", role="group", **aria(label="Latency budget")),
            html.Div(
                [
                    html.Button("Open trial", id="open-best", type="button", hidden=True),
                    html.Div(id="headline", className="headline"),
                    html.Button("Download bundle", id="bundle", type="button", hidden=True),
                    html.Button("Copy pick command", id="copy-pick", type="button", className="primary", hidden=True),
                ],
                className="answer-head",
            ),
            html.P(id="said", className="muted", role="status"),
            html.Dl(id="tiles", className="tiles"),
            html.Div(id="choices", hidden=True, role="group", **aria(label="Network to take")),
            html.Div(id="sentence", className="sentence", role="status", **aria(live="polite")),
        ],
        id="answer",
        className="answer",
        tabIndex=-1,
        **aria(labelledby="answer-title"),
    )


def _answer_more() -> Component:
    """Return what belongs to the answer and scrolls away with the charts: its command, and how it was found."""
    return html.Div(
        [
            html.Pre(html.Code(id="command"), id="command-box", hidden=True, **region("The command")),
            html.P(id="no-network", className="muted", hidden=True),
            html.Details(
                [
                    html.Summary("The answer in words, and how it was found"),
                    html.Div([html.Div(id="words-said"), html.Div(id="rules")], className="words"),
                ],
                id="answer-words",
                hidden=True,
            ),
        ],
        id="answer-more",
    )


def _section_head(name: str, title: str, lead: str, controls: Component) -> Component:
    texts = html.Div([html.H2(title, id=f"{name}-title"), html.P(lead, className="muted")])
    return html.Div([texts, controls], className="section-head")


def _chart_section(name: str, chart: Chart) -> Component:
    return html.Section(
        [
            _section_head(name, chart.title, chart.lead, html.Div(id=f"{name}-controls", className="controls")),
            html.Div(html.P("Loading …"), id=f"{name}-state", className="state"),
            html.Div(
                dcc.Graph(id=f"{name}-graph", config=PLOT_CONFIG, responsive=True),
                id=f"{name}-box",
                hidden=True,
                className="marked",
                role="figure",
                tabIndex=-1,
                **aria(labelledby=f"{name}-title", describedby=f"{name}-caption"),
            ),
            html.P(id=f"{name}-caption", className="caption"),
            html.Details([html.Summary(HOW), html.Ul()], id=f"{name}-how", className="how", hidden=True),
            html.Div(id=f"{name}-beside"),
            html.Details(
                [
                    html.Summary(chart.table_title),
                    html.Div(className="scroll tall", **region(f"{chart.title}: {chart.table_title}")),
                ],
                id=f"{name}-data-table",
                **words({"data-chart": name}),
            ),
        ],
        id=name,
        tabIndex=-1,
        **aria(labelledby=f"{name}-title"),
    )


def _trials() -> Component:
    columns = html.Details(
        [
            html.Summary("Columns", className="button"),
            html.Div(id="columns-choice", className="choice", role="group", **aria(label="Columns shown")),
        ],
        id="columns-chooser",
        className="chooser",
    )
    controls = [
        html.Span(id="rows-shown", className="muted", role="status"),
        html.Button("Clear filters", id="clear-filters", type="button", hidden=True),
        html.Button("Best within the budget first", id="best-first", type="button", hidden=True),
        columns,
        html.A("Download CSV", id="csv", className="button", href="/trials.csv"),
    ]
    lead = "Select a row to see the trial in the drawer; tick up to four to compare them."
    return html.Section(
        [
            _section_head("trials", "Trials", lead, html.Div(controls, className="controls")),
            html.P(
                [html.Span(id="rows-order"), " ", html.Span(FILTERS_NOTE, className="filters-note")],
                className="caption",
                id="rows-note",
            ),
            html.P(id="rows-wrong", className="wrong", role="status"),
            html.Div(html.Div(html.P("Loading …"), className="state"), id="grid-box"),
            html.P(id="table-note", className="caption"),
        ],
        id="trials",
        tabIndex=-1,
        **aria(labelledby="trials-title"),
    )


def trials_grid(columns: list[dict[str, Any]]) -> Component:
    """Return the table; it is added when the front has been drawn, and asks for its rows itself."""
    grid: Component = dag.AgGrid(
        id="trials-grid",
        rowModelType="infinite",
        columnDefs=columns,
        defaultColDef=COLUMN_DEFAULTS,
        getRowId="params.data.number",
        dashGridOptions=GRID_OPTIONS,
        className="trials-grid",
        style={"height": "min(560px, 80vh)"},
    )
    return grid


def _drawer() -> Component:
    """Return the drawer: its head stays, and its content scrolls by itself."""
    head = html.Div(
        [
            html.Div(
                [
                    html.H2("No trial selected", id="drawer-title", tabIndex=-1),
                    html.Button("\u00d7", id="drawer-close", type="button", className="plain", hidden=True,
                                **aria(label="Close the drawer (Escape)")),
                ],
                className="drawer-title",
            ),
            html.Div(id="trial-actions", className="buttons"),
            html.Div(id="drawer-controls", className="controls"),
            html.P(id="drawer-said", className="muted", role="status"),
        ],
        className="drawer-head",
    )  # fmt: skip
    state = html.P("Click a point of a chart or a row of the table, or enter a number.")
    content = [
        html.Div(state, id="comparison-state", className="state"),
        html.Div(id="facts-body"),
        html.Div(id="comparison-body"),
    ]
    body = html.Div(content, id="drawer-body", **region("The selected trials"))
    return html.Aside([head, body], id="drawer", **aria(labelledby="drawer-title"))


def _stores() -> list[Component]:
    """Return what passes values between server and page.

    `late` is the view once the front has been drawn; `retry` counts how often the database came back. For each part
    that the server computes there is the stamp of what is shown and whether it is being computed.
    """
    names = ("view", "late", "fast", "slow", "pulse", "retry", "chosen", "theme-data", "head", "table", "drawn")
    stores = [dcc.Store(id=name) for name in (*names, *(f"{name}-payload" for name in CHARTS))]
    for name in PARTS:
        stores += [dcc.Store(id=f"{name}-stamp"), dcc.Store(id=f"{name}-busy")]
    return [*stores, dcc.Interval(id="clock", interval=POLL_MS)]
