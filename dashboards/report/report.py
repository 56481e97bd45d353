"""One study as one HTML file to send to others: the answer first, then the charts, every trial, and what it rests on.

The charts are the panels of the live page, and the reader's browser answers budgets by the same script as there.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import sqlalchemy as sa

from dashboards.budget.recorded import read_recorded
from dashboards.budget.table import BudgetTable
from dashboards.data.column_reader import read_columns
from dashboards.data.columns import View
from dashboards.data.study_settings import budget_of, instead_of_pick
from dashboards.formats import one_line
from dashboards.panels import PLOT_CONFIG
from dashboards.report.charts import Drawn, Source, changing_charts, name_of, steady_charts, views_of
from dashboards.report.markup import document, packed
from dashboards.report.networks import networks_json
from dashboards.report.sections import body
from dashboards.report.trials_data import trials_data
from workers.files import write_atomically
from workers.latency.record import LatencyStatistic

OWN_LIMIT = ("Study's limit", "The study's own limit")  # text and name of the button that restores it
FIRST_LIMIT = ("First limit", "The first limit")  # of the same button where the report was asked for another limit
LARGEST_BYTES = 5_700_000  # of a report; views that would make it larger are left out
FIXED_BYTES = 2_400_000  # of these, for plotly.js, style, scripts and tables


def write_report(
    engine: sa.Engine,
    study_name: str,
    path: Path,
    limits_ms: Mapping[str, float] | None = None,
    command_words: str = "",
    statistic: LatencyStatistic | None = None,
) -> None:
    """Write a study's report to `path`, replacing what is there in one step; the database is only read.

    Args:
        engine: the study database.
        study_name: which study.
        path: the HTML file; its folder is made when it isn't there.
        limits_ms: latency limits that the page opens with, by device; other devices have the study's own.
        command_words: what names this database in the command that the page offers.
        statistic: the figure of a latency that must keep a limit, which the page opens with; None: the study's own.

    Raises:
        StudyNotFound: there is no such study.
        ReadOnlyFolder, DiskFull: the file can't be written.
    """
    columns = read_columns(engine, study_name)
    budget = budget_of(columns.study.settings)
    if limits_ms:
        budget = budget.with_limits_ms(limits_ms, next(iter(columns.latencies)))
    budget = replace(budget, latency_statistic=statistic or budget.latency_statistic)
    table = BudgetTable.of(columns, budget, partial(read_recorded, engine, columns.study))
    source = Source.read(engine, columns, budget, table)
    write_atomically(path, report_html(source, command_words).encode("utf-8"), retry="write the report again")


def report_html(source: Source, command_words: str = "") -> str:
    """Return the report of a study."""
    columns = source.columns
    first, *others = views_of(columns)
    charts = dict(changing_charts(source, first)) | dict(steady_charts(source))
    name = one_line(columns.study.name, 300)
    data = {
        "charts": _json_of(charts),
        "trials": json.dumps(trials_data(columns, source.budget)).encode(),
        "networks": networks_json(source.engine, columns),
    }
    parts = [packed(key, content) for key, content in data.items()]
    left = LARGEST_BYTES - FIXED_BYTES - sum(map(len, parts))
    more, names = _further_views(source, others, left)
    core = {
        "table": source.table.to_dict(),
        "words": " ".join(filter(None, (shlex.quote(columns.study.name), command_words))),
        "instead": instead_of_pick(columns.study, command_words),
        "own": OWN_LIMIT if source.budget == budget_of(columns.study.settings) else FIRST_LIMIT,
        "config": PLOT_CONFIG,
        "views": [name_of(columns, first), *names],
        "left_out": [name_of(columns, view) for view in others[len(names) :]],
    }
    parts = [packed("core", json.dumps(core).encode()), *parts, *more]
    return document(f"{name} - Condensery", body(source, name, charts), parts)


def _further_views(source: Source, views: Sequence[View], left: int) -> tuple[list[str], list[str]]:
    """Return the packed charts of as many views as fit into `left` bytes, and the views' names."""
    parts: list[str] = []
    for place, view in enumerate(views, start=1):
        part = packed(f"view-{place}", _json_of(dict(changing_charts(source, view))))
        left -= len(part)
        if left < 0:
            break
        parts.append(part)
    return parts, [name_of(source.columns, view) for view in views[: len(parts)]]


def _json_of(charts: dict[str, Drawn]) -> bytes:
    return ("{" + ", ".join(f"{json.dumps(name)}: {chart.to_json()}" for name, chart in charts.items()) + "}").encode()
