"""The HTML of the report: one file that holds its style, scripts and data and asks the network for nothing.

Notable choices:
- Data and plotly.js are packed (gzip, base64) and unpacked by the reader's browser; unpacked, plotly.js alone would
  take five megabytes.
- Scripts run only if the page's policy has their SHA-256, and nothing may be fetched: markup that a name brings in
  could neither run nor ask for anything.
- The answer and the tables are in the page as text, so they can be read where scripts can't run.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from dashboards.panels import Caption, DataTable
from dashboards.panels.captions import HOW

STYLES = (  # the first three are the live page's too
    "assets/condensery.css",
    "assets/answer.css",
    "assets/charts.css",
    "report/assets/report.css",
)
SHARED_SCRIPTS = (  # of every report, in the order in which they run
    "assets/budget_answer.js",
    "assets/chart_marks.js",
    "assets/chart_figures.js",
    "assets/condensery.js",
    "assets/budget_control.js",
)
SCRIPTS = (
    *SHARED_SCRIPTS,
    "assets/budget_figures.js",
    "report/assets/unpacking.js",
    "report/assets/report_table.js",
    "report/assets/report.js",
)


def esc(value: Any) -> str:
    """Return the value as text that is safe in an element and in a quoted attribute."""
    return html.escape("".join(c for c in str(value) if c.isprintable() or c in "\n\t"), quote=True)


def asset(name: str) -> str:
    """Return one of the files that the page is made of."""
    return resources.files("dashboards").joinpath(name).read_text(encoding="utf-8")


def packed(name: str, content: bytes) -> str:
    """Return an element that carries `content`; the page's script unpacks it by its id."""
    text = base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()
    return f'<script type="text/plain" id="packed-{esc(name)}">{text}</script>'


@cache
def _plotly() -> tuple[str, str]:
    """Return plotly.js as an element, and its source for the page's policy."""
    from plotly.offline import get_plotlyjs

    code = get_plotlyjs()
    return packed("plotly", code.encode()), _source(code)


def _source(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def policy(scripts: Sequence[str]) -> str:
    """Return the page's content security policy: these scripts, our styles, nothing from anywhere.

    Plotly compiles its WebGL code from text, so scripts may evaluate text; still, only these may run.
    """
    sources = " ".join([*map(_source, scripts), _plotly()[1]])
    return (
        f"default-src 'none'; script-src {sources} 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def document(
    title: str, body: str, parts: Sequence[str], styles: Sequence[str] = STYLES, scripts: Sequence[str] = SCRIPTS
) -> str:
    """Return the whole page; `parts` are elements that `packed` returned, `styles` and `scripts` are our files."""
    scripts = [asset(name) for name in scripts]
    style = "\n".join(map(asset, styles))
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy(scripts)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="generator" content="Condensery">',
            '<link rel="icon" href="data:,">',
            f"<title>{esc(title)}</title>",
            f"<style>{style}</style>",
            "</head>",
            "<body>",
            body,
            *parts,
            _plotly()[0],
            *(f"<script>{script}</script>" for script in scripts),
            "</body>",
            "</html>",
            "",
        )
    )


def section(name: str, title: str, lead: str, inner: str, controls: str = "") -> str:
    """Return a section of the page under its heading."""
    head = f'<div><h2 id="{name}-title">{esc(title)}</h2>' + (f'<p class="muted">{esc(lead)}</p>' if lead else "")
    return (
        f'<section id="{name}" aria-labelledby="{name}-title"><div class="section-head">{head}</div>'
        f'<div class="controls" id="{name}-controls">{controls}</div></div>{inner}</section>'
    )


def chart(name: str, height_px: int | None, reason: str | None, caption: Caption, table: DataTable) -> str:
    """Return the place of a chart with its caption and its table; a `reason` takes the chart's place."""
    if reason is not None:
        place = f'<div class="state" id="{name}-state"><p>{esc(reason)}</p></div>'
    else:
        place = (
            f'<div class="state" id="{name}-state" style="min-height:{height_px or 300}px"><p>Drawing …</p></div>'
            f'<div class="chart-box marked"><div class="chart" id="{name}-chart" role="figure" '
            f'aria-labelledby="{name}-title" aria-describedby="{name}-caption" hidden></div></div>'
        )
    words = f'<p class="caption" id="{name}-caption">{esc(caption.short)}</p>{how_to_read(name, caption.rest)}'
    return f"{place}{words}{chart_table(name, table)}"


def how_to_read(name: str, sentences: Sequence[str]) -> str:
    """Return what a caption has no room for, closed; hidden where there is nothing more to say."""
    items = "".join(f"<li>{esc(sentence)}</li>" for sentence in sentences)
    hidden = "" if items else " hidden"
    return f'<details class="how" id="{name}-how"{hidden}><summary>{HOW}</summary><ul>{items}</ul></details>'


def chart_table(name: str, table: DataTable, title: str = "The chart as a table") -> str:
    """Return a chart's table, closed; hidden while it has no rows."""
    hidden = "" if table.rows else " hidden"
    return (
        f'<details id="{name}-data-table"{hidden}><summary>{esc(title)}</summary>'
        f'<div class="scroll tall" role="region" tabindex="0" aria-label="{esc(title)}">{html_table(table)}</div>'
        f'<p class="muted">{esc(table.rest)}</p></details>'
    )


def html_table(table: DataTable) -> str:
    """Return headers and rows as a table."""
    head = "".join(f'<th scope="col">{esc(header)}</th>' for header in table.headers)
    rows = "".join("<tr>" + "".join(f"<td>{esc(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
