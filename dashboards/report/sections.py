"""The report's sections in the order in which they are read: the answer, the charts, the trials, what it rests on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable

from dashboards.data.columns import StudyColumns, View
from dashboards.data.study_settings import instead_of_pick, public_settings, study_subtitle
from dashboards.formats import moment
from dashboards.panels import DataTable, belief_info
from dashboards.panels.titles import TITLES
from dashboards.report.charts import Drawn, Source, progress_of
from dashboards.report.markup import chart, chart_table, esc, html_table, section
from dashboards.report.networks import front_places
from space.config import code_legend
from workers.wording import agreeing

BEFORE_TRIALS = ("front", "macs-latency", "parallel", "importance", "contour", "slice", "curves")
HEADS = {  # titles and leads; a file has no controls in its charts' heads and shows no one at work
    **TITLES,
    "parallel": ("Every choice at once", "Drag along an axis to brush: the table below keeps the trials inside."),
    "networks": ("One network of the front", "What it looks like, and what each of its parts costs."),
    "progress": ("Progress", "Whether the search still gained, what it saved, and what failed."),
}


def body(source: Source, name: str, charts: dict[str, Drawn]) -> str:
    """Return everything between the page's body tags that people read.

    Args:
        source: what the report is made of.
        name: of the study, as one line.
        charts: of the view that the page opens with.
    """
    columns = source.columns
    return "\n".join(
        (
            '<a class="skip" href="#answer">Skip to the answer</a>',
            f'<header><h1>{esc(name)}</h1><p class="muted">{esc(study_subtitle(columns.study))}</p>',
            f"{_counts(columns)}</header>",
            f"<main>{_answer(source)}",
            *(
                _chart(key, charts)
                for key in ("front", "macs-latency", "parallel", "importance", "contour", "slice", "curves")
            ),
            _trials(columns),
            _networks(columns),
            _chart("progress", charts, _facts(source)),
            _chart("timeline", charts),
            _belief(source, charts),
            _basis(columns),
            "</main>",
            f"<footer><p>Written by Condensery on {esc(moment(time.time()))} UTC.</p></footer>",
        )
    )


def _chart(key: str, charts: dict[str, Drawn], more: str = "") -> str:
    drawn = charts[key]
    return section(key, *HEADS[key], more + chart(key, drawn.height_px, drawn.reason, drawn.caption, drawn.table))


def _counts(columns: StudyColumns) -> str:
    chips = {agreeing(len(columns), "trial", "trials"): len(columns), **columns.counts}
    items = (f'<li class="chip"><b class="state-{name}">{number:,}</b> {name}</li>' for name, number in chips.items())
    return f'<ul class="chips">{"".join(items)}</ul>'


def _answer(source: Source) -> str:
    """Return the answer as text; the script puts the controls above it and changes it as they move."""
    table = source.table
    instead = instead_of_pick(source.columns.study)
    button = "Copy pick command" if instead is None else "Copy training command"
    note = "" if instead is None else f'<p class="muted">{esc(instead["note"])}</p>'
    kind = "answer" if table.recommended is not None else "answer none"
    return (
        f'<section id="answer" class="{kind}" aria-labelledby="answer-title" tabindex="-1">'
        '<h2 id="answer-title">Which network fits your budget?</h2>'
        '<div id="budget" role="group" aria-label="Latency budget"></div>'
        '<div class="answer-head"><strong id="trial"></strong><div id="headline" class="headline"></div>'
        '<div id="answer-buttons" class="buttons" hidden>'
        f'<button type="button" id="copy-pick" class="primary">{button}</button>'
        '<span id="copied" class="muted" role="status"></span></div></div>'
        '<dl id="tiles" class="tiles"></dl>'
        '<div id="choices" role="group" aria-label="Network to take" hidden></div>'
        '<div id="sentence" class="sentence" role="status" aria-live="polite">'
        f"<p>{esc(table.sentence(table.limits_ms))}</p></div>"
        '<details id="answer-words" hidden><summary>The answer in words, and how it was found</summary>'
        '<div class="words"><div id="words-said"></div><div id="rules"></div></div></details>'
        '<pre id="command-box" tabindex="0" aria-label="The command" hidden><code id="command"></code></pre>'
        f"{note}"
        '<p id="cannot" class="muted" hidden></p>'
        '<noscript><p class="muted">Without scripts this page answers only the budget that it was written with. '
        f"A network's line: {esc(code_legend(source.columns.config_text))}. "
        "Every chart is there as a table: open &ldquo;The chart as a table&rdquo;.</p></noscript></section>"
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
        + chart_table("networks", DataTable((), ()), "Its parts, with macs, params and shares")
        + '<details id="networks-settings" hidden><summary>Its exact settings</summary>'
        + '<pre tabindex="0"></pre></details>'
    )
    return section("networks", *HEADS["networks"], inner)


def _facts(source: Source) -> str:
    """Return what the search did, as facts, and why trainings failed."""
    info = progress_of(source, View(source.columns.default_group))
    return _facts_list(info.facts) + _table("Failures", info.failures_table())


def _belief(source: Source, charts: dict[str, Drawn]) -> str:
    """Return where the sampler predicted the front when it last proposed, and how right it was; not of others."""
    if "belief" not in charts:
        return ""
    info = belief_info(source.columns, View(source.columns.default_group), source.believed)
    tables = (
        _table(title, table) if title in info.opened else _folded_table(title, table) for title, table in info.tables
    )
    return _chart("belief", charts, _facts_list(info.facts) + "".join(tables))


def _facts_list(facts: Iterable[tuple[str, str]]) -> str:
    items = "".join(f"<div><dt>{esc(name)}</dt><dd>{esc(value)}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{items}</dl>'


def _table(title: str, table: DataTable) -> str:
    """Return a table under its title; nothing for one without rows."""
    return f'<h3>{esc(title)}</h3><div class="scroll">{html_table(table)}</div>' if table.rows else ""


def _folded_table(title: str, table: DataTable) -> str:
    """Return a long table, to be opened; nothing for one without rows."""
    inner = f'<div class="scroll">{html_table(table)}</div>'
    return f"<details><summary>{esc(title)}</summary>{inner}</details>" if table.rows else ""


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
