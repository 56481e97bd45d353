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
from space.errors import DatabaseUnavailable


def names(details: Sequence[TrialDetail]) -> str:
    """Return some trials' numbers as part of a key."""
    return "-".join(str(detail.row.number) for detail in details)


def part(
    name: str, title: str, info_of: Callable[[], Any], figure_of: Callable[[Any], Any], with_table: bool = True
) -> Component:
    """Return a titled figure with its caption and its table, or the sentence that says why there is none.

    Raises:
        DatabaseUnavailable: the database can't be read now.
    """

    def compute() -> dict[str, Any]:
        info = info_of()
        if info.reason is not None:
            return {"reason": info.reason, "table": info.table()}
        sentence = info.sentence() if hasattr(info, "sentence") else " ".join(getattr(info, "notes", ()))
        note = getattr(info, "share_note", "")
        return {
            "figure": figure_of(info).to_plotly_json(),
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
        content = [*_chart(name, title, payload["figure"]), html.P(payload["caption"], className="caption")]
        if with_table:
            content.append(folded(name, "The chart as a table", table_of(payload["table"], title)))
    return html.Div([html.H4(title), *content], className="part", key=name)


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


def differences(details: Sequence[TrialDetail], replayed: str | None = None) -> Component:
    """Return the comparison: an open table, in which a sign and a colour mark the rows that differ.

    `replayed` is the table that the study was replayed from.
    """
    from dashboards.panels.trial.compare import compare_figure, compare_info

    info = compare_info(details)
    marked = frozenset(place for place, row in enumerate(info.rows) if row.differs)
    draw = marking(compare_figure, replayed)
    chart = part(f"{names(details)}/compare", "Against the first", lambda: info, draw, with_table=False)
    return html.Div(
        [html.H3("What differs", className="trial-head"), table_of(info.table(), "What differs", marked), chart]
    )


def folded(key: str, title: str, content: Component) -> Component:
    """Return something under a title that opens it."""
    return html.Details([html.Summary(title), content], **words({"data-key": key}))


def table_of(table: DataTable, title: str, marked: frozenset[int] = frozenset()) -> Component:
    """Return a table that scrolls; rows of `marked` stand out."""
    head = html.Thead(html.Tr([html.Th(text, scope="col") for text in table.headers]))
    body = html.Tbody(
        [
            html.Tr(
                [html.Td(text, className="wrap" if len(text) > 40 else "") for text in row],
                className="pick" if place in marked else "",
            )
            for place, row in enumerate(table.rows)
        ]
    )
    rest = [html.P(table.rest, className="muted")] if table.rest else []
    return html.Div([html.Table([head, body]), *rest], className="scroll tall", **region(title))


def facts(detail: TrialDetail) -> Component:
    """Return the trial's config, and its results and costs as tiles."""
    row = detail.row
    tiles = [
        ("State", row.state, one_line(row.reason or "", 300) or _progress_note(detail)),
        *_score_tiles(detail),
        ("Top-1, test", percent(row.test_top1), "" if row.test_top1 is not None else "evaluated once, by `pick`"),
        *(
            (f"Latency on {latency.target}", f"{latency.median_ms:.4g} ms", _latency_note(latency))
            for latency in row.latencies.values()
        ),
        ("Multiply-adds", count(row.macs), f"{row.macs:,}"),
        ("Parameters", count(row.params), f"{row.params:,}"),
        ("Trained for", duration(row.train_seconds), f"attempt {row.attempt}" if row.attempt else "not yet"),
    ]
    boxes = [html.Div([html.Dt(name), html.Dd([value, html.Small(note)])]) for name, value, note in tiles]
    remarks = [html.P(one_line(text), className="remark") for text in detail.seen.remarks]
    code = html.P(html.Code(str(row.config)), className="config")
    return html.Div([code, html.Dl(boxes, className="tiles small"), *remarks])


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
    """Return outcome, settings, curve, files, attempts and events as tables, folded."""
    from dashboards.panels.trial.tables import settings_json, trial_tables

    number = detail.row.number
    tables = {title: table for title, table in trial_tables(detail).items() if table.rows}
    exact = html.Pre(settings_json(detail), className="tall", **region("Exact settings"))
    return html.Div(
        [
            *(folded(f"{number}/{title}", title, table_of(table, title)) for title, table in tables.items()),
            folded(f"{number}/settings", "Exact settings, to copy", exact),
        ],
        className="folded",
    )
