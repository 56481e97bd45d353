"""One trial, or up to four beside each other: the network drawn, what it kept, learned and took, and its settings.

What can't be read or drawn says so in its own place, and the rest stands. Texts are Dash components, which show a text
as it is whatever is in it; figures travel in stores and are drawn in the reader's colours.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

from dash import dcc, html
from dash.development.base_component import Component

from dashboards.app.layout import aria
from dashboards.app.shown import ShownStudy, guarded
from dashboards.columns import StudyColumns, View
from dashboards.formats import count, duration, latency_label, one_line, percent, place_label
from dashboards.panels import PLOT_CONFIG
from dashboards.panels.look import TableTwin
from dashboards.trial_detail import TrialDetail, read_trained_network, read_trial_detail
from search.layer_shares import DeviceShares, LayerShares
from search.store.tables import FINAL_STATES, STATES
from space.errors import CondenseryError, DeviceNotFound

Part = tuple[str, str, Callable[[], Any], Callable[[Any], Any]]  # name, title, info, figure


class Compared:
    """Makes the section of one study; threads may share it."""

    def __init__(self, shown: ShownStudy) -> None:
        self._shown = shown
        self._shares = DeviceShares(shown.live.engine)
        self._lock = threading.Lock()  # a fit of a device is kept, and made anew as it grows

    def stamp(self, numbers: Sequence[int], view: View) -> str:
        """Return a text that changes when what the section shows of these trials does; reads nothing."""
        columns = self._shown.columns
        parts = [str(view.group), *(_fingerprint(columns, number) for number in numbers)]
        return hashlib.sha1(json.dumps(parts).encode(), usedforsecurity=False).hexdigest()

    def section(self, numbers: Sequence[int], view: View) -> list[Component]:
        """Return what the section shows."""
        found: list[TrialDetail] = []
        wrong: list[Component] = []
        for number in numbers:
            try:
                found.append(read_trial_detail(self._shown.live.engine, self._shown.columns.study, number))
            except CondenseryError as error:
                wrong.append(html.Div(html.P(str(error)), className="state wrong"))
        differences = [_differences(found)] if len(found) > 1 else []
        curves = [self._curves(found, view)] if found else []
        return [*wrong, *differences, *curves, *(self._trial(detail, len(found) > 1) for detail in found)]

    def _curves(self, found: Sequence[TrialDetail], view: View) -> Component:
        from dashboards.panels import curves_figure, curves_info

        def info() -> Any:
            numbers = [detail.row.number for detail in found]
            return curves_info(self._shown.columns, {one.row.number: one.curve for one in found}, numbers)

        title = "Learning curve" if len(found) == 1 else "Learning curves"
        return _part(f"{_names(found)}/curves", title, info, curves_figure)

    def _trial(self, detail: TrialDetail, several: bool) -> Component:
        from dashboards.panels.kept_channels import kept_channels_figure, kept_channels_info
        from dashboards.panels.measurements import measurements_figure, measurements_info
        from dashboards.panels.network import network_figure, network_info

        config, number = detail.row.config, detail.row.number

        def kept() -> Any:
            return kept_channels_info(config, read_trained_network(self._shown.live.engine, detail.row))

        parts: list[Part] = [
            ("network", "The network", lambda: network_info(config, self._shares_of(detail)), network_figure),
            ("kept", "Which channels each group kept", kept, kept_channels_figure),
            ("measurements", "Latency measurements", lambda: measurements_info(detail), measurements_figure),
        ]
        inner = [
            _facts(detail),
            *(_part(f"{number}/{name}", title, info, figure) for name, title, info, figure in parts),
            _more(detail),
        ]
        head = html.H3(f"Trial {number}", id=f"trial-{number}", className="trial-head")
        if not several:
            return html.Div([head, *inner], className="trial", key=f"trial-{number}")
        return html.Div([head, *inner], className="trial several", key=f"trial-{number}")

    def _shares_of(self, detail: TrialDetail) -> LayerShares | str:
        latency = detail.row.latency
        if latency is None:
            return "it has no latency"
        with self._lock:
            try:
                return self._shares.of(detail.row.config, latency)
            except DeviceNotFound as error:
                return str(error)


def _names(found: Sequence[TrialDetail]) -> str:
    return "-".join(str(detail.row.number) for detail in found)


def _fingerprint(columns: StudyColumns, number: int) -> str:
    place = columns.index_of(number)
    if place is None or STATES[columns.state[place]] not in FINAL_STATES:
        return f"{number} {columns.revision}"
    facts = (columns.state, columns.attempt, columns.top1, columns.test_top1, columns.finished_at)
    medians = [float(known.median_ms[place]) for known in columns.latencies.values()]
    return json.dumps([number, *(float(fact[place]) for fact in facts), *medians])


# ---- parts ----------------------------------------------------------------------------------------------


def _part(
    name: str, title: str, info_of: Callable[[], Any], figure_of: Callable[[Any], Any], with_table: bool = True
) -> Component:
    """Return a titled figure with its words and its table, or the sentence that says why there is none."""

    def compute() -> dict[str, Any]:
        info = info_of()
        sentence = info.sentence() if hasattr(info, "sentence") else " ".join(getattr(info, "notes", ()))
        note = getattr(info, "share_note", "")
        if info.reason is not None:
            return {"reason": info.reason, "table": info.table()}
        return {
            "figure": figure_of(info).to_plotly_json(),
            "caption": " ".join(filter(None, (sentence, note))),
            "table": info.table(),
        }

    found = guarded(title, compute)
    head: list[Any] = [html.H4(title)]
    if "reason" in found:
        return html.Div([*head, html.Div(html.P(found["reason"]), className="state small")], className="part", key=name)
    kind = {"of": name}
    height = {"height": f"{found['figure']['layout'].get('height', 420)}px"}
    return html.Div(
        [
            *head,
            dcc.Store(id={"type": "part", **kind}, data={"figure": found["figure"]}),
            html.Div(
                dcc.Graph(id={"type": "part-graph", **kind}, config=PLOT_CONFIG, responsive=True, style=height),
                role="figure",
                **aria(label=title),
            ),
            html.P(found["caption"], className="caption"),
            *([html.Details([html.Summary("The chart as a table"), table_of(found["table"])])] if with_table else []),
        ],
        className="part",
        key=name,
    )


def _differences(found: Sequence[TrialDetail]) -> Component:
    """Return the comparison: its table stands open, with the rows that differ marked by sign and colour."""
    from dashboards.panels.compare import compare_figure, compare_info

    info = compare_info(found)
    marked = frozenset(place for place, row in enumerate(info.rows) if row.differs)
    chart = _part(f"{_names(found)}/compare", "Against the first", lambda: info, compare_figure, with_table=False)
    return html.Div([html.H3("What differs", className="trial-head"), table_of(info.table(), marked), chart])


def table_of(found: TableTwin, marked: frozenset[int] = frozenset()) -> Component:
    """Return a table; rows of `marked` stand out."""
    head = html.Thead(html.Tr([html.Th(text, scope="col") for text in found.headers]))
    body = html.Tbody(
        [
            html.Tr(
                [html.Td(text, className="wrap" if len(text) > 40 else "") for text in row],
                className="pick" if place in marked else "",
            )
            for place, row in enumerate(found.rows)
        ]
    )
    rest = [html.P(found.rest, className="muted")] if found.rest else []
    return html.Div([html.Table([head, body]), *rest], className="scroll tall", tabIndex=0)


def _facts(detail: TrialDetail) -> Component:
    row = detail.row
    facts = [
        ("State", row.state, one_line(row.reason or "", 300)),
        ("Top-1, validation", percent(row.top1), "of the deployed network"),
        ("Top-1, test", percent(row.test_top1), "" if row.test_top1 is not None else "`pick` evaluates it, once"),
        *(
            (f"Latency on {one.target}", f"{one.median_ms:.4g} ms", _latency_note(one))
            for one in row.latencies.values()
        ),
        ("Multiply-adds", count(row.macs), f"{row.macs:,}"),
        ("Parameters", count(row.params), f"{row.params:,}"),
        ("Trained for", duration(row.train_seconds), f"attempt {row.attempt}" if row.attempt else "not yet"),
    ]
    tiles = [html.Div([html.Dt(name), html.Dd([value, html.Small(note)])]) for name, value, note in facts]
    return html.Div([html.P(html.Code(str(row.config)), className="config"), html.Dl(tiles, className="tiles small")])


def _latency_note(one: Any) -> str:
    return f"[{one.interval_low_ms:.4g}, {one.interval_high_ms:.4g}], {latency_label(one)}, {place_label(one)}"


def _more(detail: TrialDetail) -> Component:
    """Return outcome, settings, curve, files, attempts and events as tables, folded."""
    from dashboards.panels.trial import settings_json, trial_tables

    tables = {title: table for title, table in trial_tables(detail).items() if table.rows}
    exact = html.Details(
        [html.Summary("Exact settings, to copy"), html.Pre(settings_json(detail), tabIndex=0, className="tall")]
    )
    folded = [html.Details([html.Summary(title), table_of(table)]) for title, table in tables.items()]
    return html.Div([*folded, exact], className="folded")
