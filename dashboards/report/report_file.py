"""One study as one HTML file to send around: the answer first, then the charts, every trial, and what it rests on.

The charts are the panels of the live page, and the budget is answered in the reader's browser by the same script.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import sqlalchemy as sa

from dashboards.budget.table import BudgetTable
from dashboards.data.columns import StudyColumns, View
from dashboards.data.live_study import read_columns
from dashboards.formats import budget_of, one_line, public_settings
from dashboards.panels import PLOT_CONFIG, DataTable
from dashboards.panels.titles import TITLES
from dashboards.report.charts import Drawn, Source, changing_charts, name_of, progress_of, steady_charts, views_of
from dashboards.report.data import trials_data
from dashboards.report.html import chart, document, esc, html_table, packed, section, twin_table
from dashboards.report.networks import front_places, networks_json
from dashboards.terminal.tables import moment, study_subtitle
from space.errors import DiskFull, ReadOnlyFolder

HEADS = {  # a file has no controls in its charts' heads, and nobody who works
    **TITLES,
    "parallel": ("Every choice at once", "Drag along an axis to brush: the table below keeps the trials inside."),
    "networks": ("One network of the front", "What it looks like, and what each of its parts costs."),
    "progress": ("Progress", "Whether the search still gained, what it saved, and what failed."),
}
OWN_LIMIT = ("Study's limit", "The study's own limit")  # text and name of the button that leads back to it
FIRST_LIMIT = ("First limit", "The first limit")  # where the report was asked for another
LARGEST_BYTES = 5_700_000  # of a report; further views are left out rather than going beyond
FIXED_BYTES = 2_400_000  # what plotly.js, style, scripts and tables take of it


def write_report(
    engine: sa.Engine,
    study_name: str,
    path: Path,
    limits_ms: Mapping[str, float] | None = None,
    command_words: str = "",
) -> None:
    """Write a study's report to `path`, replacing what is there in one step; the database is only read.

    Args:
        engine: the study database.
        study_name: which study.
        path: the HTML file; its folder is made when it isn't there.
        limits_ms: latency limits that the page opens with, by device; the others are the study's own.
        command_words: what names this database in the command that the page offers.

    Raises:
        StudyNotFound: there is no such study.
        ReadOnlyFolder, DiskFull: the file can't be written.
    """
    columns = read_columns(engine, study_name)
    budget = budget_of(columns.study.settings)
    if limits_ms:
        budget = budget.with_limits_ms(limits_ms, next(iter(columns.latencies)))
    source = Source.read(engine, columns, budget, BudgetTable.of(columns, budget))
    _put_in_place(path, report_html(source, command_words).encode("utf-8"))


def report_html(source: Source, command_words: str = "") -> str:
    """Return the report of a study."""
    columns = source.columns
    first, *others = views_of(columns)
    shown = dict(changing_charts(source, first)) | dict(steady_charts(source))
    name = one_line(columns.study.name, 300)
    data = {
        "charts": _json_of(shown),
        "trials": json.dumps(trials_data(columns, source.budget)).encode(),
        "networks": networks_json(source.engine, columns),
    }
    parts = [packed(key, content) for key, content in data.items()]
    left = LARGEST_BYTES - FIXED_BYTES - sum(map(len, parts))
    more, names = _further_views(source, others, left)
    core = {
        "table": source.table.to_dict(),
        "words": " ".join(filter(None, (shlex.quote(name), command_words))),
        "own": OWN_LIMIT if source.budget == budget_of(columns.study.settings) else FIRST_LIMIT,
        "config": PLOT_CONFIG,
        "views": [name_of(columns, first), *names],
        "left_out": [name_of(columns, view) for view in others[len(names) :]],
    }
    parts = [packed("core", json.dumps(core).encode()), *parts, *more]
    return document(f"{name} - Condensery", _body(source, name, shown), parts)


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
    return ("{" + ", ".join(f"{json.dumps(name)}: {one.to_json()}" for name, one in charts.items()) + "}").encode()


# ---- sections -------------------------------------------------------------------------------------------


def _body(source: Source, name: str, shown: dict[str, Drawn]) -> str:
    columns = source.columns
    return "\n".join(
        (
            '<a class="skip" href="#answer">Skip to the answer</a>',
            f'<header><h1>{esc(name)}</h1><p class="muted">{esc(study_subtitle(columns.study))}</p>',
            f"{_counts(columns)}</header>",
            f"<main>{_answer(source)}",
            *(_chart(key, shown) for key in ("front", "macs-latency", "parallel", "importance", "curves")),
            _trials(columns),
            _networks(columns),
            _chart("progress", shown, _facts(source)),
            _basis(columns),
            "</main>",
            f"<footer><p>Written by Condensery on {esc(moment(time.time()))} UTC.</p></footer>",
        )
    )


def _chart(key: str, shown: dict[str, Drawn], more: str = "") -> str:
    drawn = shown[key]
    return section(key, *HEADS[key], more + chart(key, drawn.height_px, drawn.reason, drawn.caption, drawn.twin))


def _counts(columns: StudyColumns) -> str:
    chips = {"trial" if len(columns) == 1 else "trials": len(columns), **columns.counts}
    items = (f'<li class="chip"><b class="state-{name}">{number:,}</b> {name}</li>' for name, number in chips.items())
    return f'<ul class="chips">{"".join(items)}</ul>'


def _answer(source: Source) -> str:
    """The answer as text; the script puts the controls above it and changes it as they move."""
    table = source.table
    kind = "answer" if table.recommended is not None else "answer none"
    return (
        f'<section id="answer" class="{kind}" aria-labelledby="answer-title" tabindex="-1">'
        '<h2 id="answer-title">Which network fits your budget?</h2>'
        '<div id="budget" role="group" aria-label="Latency budget"></div>'
        '<div id="sentence" class="sentence" role="status" aria-live="polite">'
        f"<p>{esc(table.sentence(table.limits_ms))}</p></div>"
        '<dl id="tiles" class="tiles"></dl>'
        '<div id="answer-buttons" class="buttons" hidden>'
        '<button type="button" id="copy-pick" class="primary">Copy pick command</button>'
        '<span id="copied" class="muted" role="status"></span></div>'
        '<pre id="command-box" tabindex="0" aria-label="The pick command" hidden><code id="command"></code></pre>'
        '<p id="cannot" class="muted" hidden></p>'
        '<noscript><p class="muted">Without scripts this page answers the budget that it was written with. The front '
        "and every chart are there as tables: open &ldquo;The chart as a table&rdquo;.</p></noscript></section>"
    )


def _trials(columns: StudyColumns) -> str:
    if not len(columns):
        return section("trials", "Trials", "", '<div class="state"><p>None yet.</p></div>')
    inner = (
        '<div id="trials-table" class="scroll" role="region" tabindex="0" aria-label="Trials"></div>'
        '<nav id="trials-pages" class="controls" aria-label="Pages of the table"></nav>'
        '<noscript><p class="muted">The table of all trials needs scripts.</p></noscript>'
    )
    return section("trials", "Trials", "Every trial: sort by a heading, filter, download as CSV.", inner)


def _networks(columns: StudyColumns) -> str:
    places = front_places(columns)
    if not places:
        return section("networks", *HEADS["networks"], '<div class="state"><p>The front is empty.</p></div>')
    inner = (
        '<div class="state" id="networks-state"><p>Drawing …</p></div>'
        '<div class="chart-box"><div class="chart" id="networks-chart" role="figure" '
        'aria-labelledby="networks-title" aria-describedby="networks-caption" hidden></div></div>'
        '<p class="caption" id="networks-caption"></p>'
        + twin_table("networks", DataTable((), ()), "Its parts, with macs, params and shares")
        + '<details id="networks-settings" hidden><summary>Its exact settings</summary>'
        + '<pre tabindex="0"></pre></details>'
    )
    return section("networks", *HEADS["networks"], inner)


def _facts(source: Source) -> str:
    """What the search did, as facts, and why trainings failed."""
    info = progress_of(source, View(source.columns.default_group))
    facts = "".join(f"<div><dt>{esc(what)}</dt><dd>{esc(value)}</dd></div>" for what, value in info.facts)
    failures = info.failures_table()
    table = f'<h3>Failures</h3><div class="scroll">{html_table(failures)}</div>' if failures.rows else ""
    return f'<dl class="facts">{facts}</dl>{table}'


def _basis(columns: StudyColumns) -> str:
    study = columns.study
    settings = json.dumps(public_settings(study.settings), indent=2, ensure_ascii=False)
    versions = "\n".join(f"{name} {version}" for name, version in study.versions.items())
    data = json.dumps(study.data_info, indent=2, ensure_ascii=False) if study.data_info else "not read yet"
    inner = (
        "<details><summary>Settings, data and versions</summary>"
        f"<h3>Settings</h3><pre tabindex=0>{esc(settings)}</pre>"
        f"<h3>Data</h3><pre tabindex=0>{esc(data)}</pre>"
        f"<h3>Versions</h3><pre tabindex=0>{esc(versions)}</pre>"
        f'<p class="muted">Settings hash {esc(study.settings_hash)}</p></details>'
    )
    return section("basis", "What this rests on", "", inner)


# ---- the file -------------------------------------------------------------------------------------------


def _put_in_place(path: Path, content: bytes) -> None:
    """Write by way of a temporary file beside it, so that a reader sees the old report or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFull(f"no space is left to write the report {path}; free some and write it again.") from error
        raise ReadOnlyFolder(
            f"the report can't be written to {path} ({error.strerror}); choose a file in a folder you may write."
        ) from error
