"""The parts of a trial on the page: figures with titles, words and tables, facts, and what is folded away.

Texts are Dash components, which show any text as it is; figures travel in stores and are drawn in the reader's colours.
What can be opened has a key, by which the page keeps it open when the part is made again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dash import dcc, html
from dash.development.base_component import Component

from dashboards.data.metrics import metric_lines
from dashboards.data.trial_detail import TrialDetail
from dashboards.formats import NOTHING, count, duration, latency_label, one_line, percent, place_label, progress_text
from dashboards.page.layout import aria, region, words
from dashboards.page.study_cache import guarded
from dashboards.panels import PLOT_CONFIG
from dashboards.panels.data_table import DataTable
from search.store.replayed import replayed_words
from search.store.vocabulary import TrialState
from space.errors import DatabaseUnavailable


def names(details: Sequence[TrialDetail]) -> str:
    """Return some trials' numbers as part of a key."""
    return "-".join(str(detail.row.number) for detail in details)


def part(
    name: str, title: str, info_of: Callable[[], Any], figure_of: Callable[[Any], Any], height_px: int | None = None
) -> Component:
    """Return a titled figure with its caption and its table, or the sentence that says why there is none.

    `height_px` is the figure's, where its own is too high for the drawer.

    Raises:
        DatabaseUnavailable: the database can't be read now.
    """

    def compute() -> dict[str, Any]:
        info = info_of()
        if info.reason is not None:
            return {"reason": info.reason, "table": info.table()}
        sentence = info.sentence() if hasattr(info, "sentence") else " ".join(getattr(info, "notes", ()))
        note = getattr(info, "share_note", "")
        figure = figure_of(info)
        if height_px is not None:
            figure.update_layout(height=height_px)
        return {
            "figure": figure.to_plotly_json(),
            "caption": " ".join(filter(None, (sentence, note))),
            "table": info.table(),
        }

    payload = guarded(title, compute)
    if payload.get("away"):
        raise DatabaseUnavailable(payload["reason"])
    content: list[Component]
    if "reason" in payload:
        content = [html.Div(html.P(payload["reason"]), className="state small")]
    else:
        table = folded(name, "The chart as a table", table_of(payload["table"], title))
        content = [*_chart(name, title, payload["figure"]), html.P(payload["caption"], className="caption"), table]
    return html.Div([html.H3(title), *content], className="part", key=name)


def marking(draw: Callable[[Any], Any], replayed: str | None) -> Callable[[Any], Any]:
    """Return what draws as `draw` does, and says above the figure which table the study was replayed from, if any."""
    from dashboards.panels.style import marked

    return lambda info: marked(draw(info), replayed_words(replayed))


def _chart(name: str, title: str, figure: dict[str, Any]) -> list[Component]:
    """Return the place of a part's figure, and the stores by which the browser draws and zooms it."""
    height = {"height": f"{figure['layout'].get('height', 420)}px"}
    graph = dcc.Graph(id={"type": "part-graph", "of": name}, config=PLOT_CONFIG, responsive=True, style=height)
    return [
        dcc.Store(id={"type": "part", "of": name}, data={"figure": figure}),
        dcc.Store(id={"type": "part-zoom", "of": name}),
        html.Div(graph, role="figure", **aria(label=title)),
    ]


def differences(details: Sequence[TrialDetail]) -> Component:
    """Return the comparison as a table: a sign and a colour mark the rows that differ, the others are folded away.

    Each trial's name is a button, which shows it alone (`assets/page_selection.js`).
    """
    from dashboards.panels.trial.compare import compare_info

    info = compare_info(details)
    if info.reason is not None:
        return html.Div(html.P(info.reason), className="state small")
    names_row = [
        html.Th(html.Button(f"Trial {number}", type="button", **words({"data-trial": str(number)})), scope="col")
        for number in dict.fromkeys(detail.row.number for detail in details)
    ]
    head = html.Thead(html.Tr([html.Th("", scope="col"), *names_row]))
    rows: list[Component] = []
    for place, row in enumerate(info.rows):
        if place == 0 or row.section != info.rows[place - 1].section:
            own = [other for other in info.rows if other.section == row.section]
            alike = "" if any(other.differs for other in own) else " same"
            heading = html.Th(row.section, colSpan=len(info.names) + 1, scope="rowgroup")
            rows.append(html.Tr(heading, className=f"group{alike}"))
        cells = [html.Td(text, className="wrap") for text in row.values]
        label = html.Th([html.Span(f"{row.mark} ", className="sign"), row.label], scope="row")
        rows.append(html.Tr([label, *cells], className="differs" if row.differs else "same"))
    title = "What differs"
    sentence = html.P(info.sentence(), className="caption")
    table = html.Div(html.Table([head, html.Tbody(rows)], className="differences"), className="scroll", **region(title))
    return html.Div([sentence, table])


def folded(key: str, title: str, content: Component) -> Component:
    """Return something under a title that opens it."""
    return html.Details([html.Summary(title), content], **words({"data-key": key}))


def table_of(table: DataTable, title: str) -> Component:
    """Return a table that scrolls."""
    head = html.Thead(html.Tr([html.Th(text, scope="col") for text in table.headers]))
    body = html.Tbody(
        [html.Tr([html.Td(text, className="wrap" if len(text) > 40 else "") for text in row]) for row in table.rows]
    )
    rest = [html.P(table.rest, className="muted")] if table.rest else []
    return html.Div([html.Table([head, body]), *rest], className="scroll tall", **region(title))


def facts(detail: TrialDetail) -> Component:
    """Return the trial's figures: config, results and costs; what the drawer shows first."""
    row = detail.row
    state = ("State", row.state, one_line(row.reason or "", 300) or _progress_note(detail))
    tiles = [
        *([] if row.state == TrialState.DONE else [state]),
        *_score_tiles(detail),
        *(
            (f"Latency on {latency.target}", f"{latency.median_ms:.4g} ms", _latency_note(latency))
            for latency in row.latencies.values()
        ),
        ("Multiply-adds", count(row.macs), f"{row.macs:,}"),
        ("Parameters", count(row.params), f"{row.params:,}"),
        ("Top-1, test", percent(row.test_top1), "" if row.test_top1 is not None else "evaluated once, by `pick`"),
        ("Trained for", duration(row.train_seconds), f"attempt {row.attempt}" if row.attempt else "not yet"),
        *([state] if row.state == TrialState.DONE else []),
    ]
    boxes = [html.Div([html.Dt(name), html.Dd([value, html.Small(note)])]) for name, value, note in tiles]
    remarks = [html.P(one_line(text), className="remark") for text in detail.seen.remarks]
    code = html.P(html.Code(str(row.config)), className="config")
    return html.Div([code, html.Dl(boxes, className="tiles small"), *remarks], id=f"trial-{row.number}")


def _score_tiles(detail: TrialDetail) -> list[tuple[str, str, str]]:
    """Return the figures on the validation images, what the study maximises first."""
    tiles = [(f"{name[:1].upper()}{name[1:]}, validation", value, "") for name, value in metric_lines(detail.row)]
    if not tiles:
        return [("Top-1, validation", NOTHING, "of the deployed network")]
    return [(*tiles[0][:2], "of the deployed network"), *tiles[1:]]


def _progress_note(detail: TrialDetail) -> str:
    """Return how far a running trial is; nothing for another."""
    report = detail.report
    return "" if report is None else progress_text(report, detail.row.training.get("epochs"))


def _latency_note(latency: Any) -> str:
    interval = f"[{latency.interval_low_ms:.4g}, {latency.interval_high_ms:.4g}]"
    return f"{interval}, {latency_label(latency)}, {place_label(latency)}"


def more(detail: TrialDetail) -> Component:
    """Return files, outcome, settings, curve, attempts and events as tables, folded but for the files."""
    from dashboards.panels.trial.tables import settings_json, trial_tables

    number = detail.row.number
    tables = {title: table for title, table in trial_tables(detail).items() if table.rows}
    files = tables.pop("Files", None)
    none = html.Div(html.P("No file of this trial is recorded."), className="state small")
    exact = html.Pre(settings_json(detail), className="tall", **region("Exact settings"))
    return html.Div(
        [
            html.Div([html.H3("Files"), none if files is None else table_of(files, "Files")], className="part"),
            html.H3("Everything recorded", className="part"),
            *(folded(f"{number}/{title}", title, table_of(table, title)) for title, table in tables.items()),
            folded(f"{number}/settings", "Exact settings, to copy", exact),
        ],
        className="folded",
    )
