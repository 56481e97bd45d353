"""The HTML of the report: one page with its style, its script and plotly.js inside, that asks the network for nothing.

Figures travel as JSON in the page and are drawn in the reader's colours (light or dark). Without scripts the tables
still say everything.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dashboards.assets import SCRIPT, STYLE

# Nothing may be fetched, whatever a study's names say: even an injected tag would stay silent.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'"
)


def esc(value: Any) -> str:
    """Return the value as text that is safe in an element and in a quoted attribute."""
    return html.escape("".join(c for c in str(value) if c.isprintable() or c in "\n\t"), quote=True)


def json_script(name: str, text: str) -> str:
    """Return JSON in an element that no value inside can end."""
    safe = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return f'<script type="application/json" id="{esc(name)}">{safe}</script>'


@dataclass(frozen=True)
class Cell:
    """One cell of a table: what is read, and the number it is sorted by (for columns of numbers)."""

    text: str
    value: float | None = None
    kind: str = ""  # CSS classes


@dataclass(frozen=True)
class Column:
    """One column: its header, and whether it holds numbers."""

    title: str
    numbers: bool = False


def table(columns: Sequence[Column], rows: Sequence[tuple[str, Sequence[Cell]]], caption: str) -> str:
    """Return a sortable table in a box that scrolls; a row is (CSS class, cells)."""
    head = "".join(
        f'<th scope="col" class="{"n" if c.numbers else "t"}"><button type="button">{esc(c.title)}</button></th>'
        for c in columns
    )
    lines = []
    for kind, cells in rows:
        line = "".join(_cell(cell, column) for cell, column in zip(cells, columns, strict=True))
        lines.append(f'<tr class="{esc(kind)}">{line}</tr>' if kind else f"<tr>{line}</tr>")
    tall = " tall" if len(rows) > 15 else ""
    return (
        f'<div class="scroll{tall}" role="region" tabindex="0" aria-label="{esc(caption)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(cell: Cell, column: Column) -> str:
    classes = " ".join(filter(None, ("n" if column.numbers else "", cell.kind)))
    number = "" if cell.value is None else repr(float(cell.value))
    value = f' data-v="{number}"' if column.numbers else ""
    kind = f' class="{esc(classes)}"' if classes else ""
    return f"<td{kind}{value}>{esc(cell.text)}</td>"


def chart(name: str, figure: Any, label: str, caption: str) -> str:
    """Return a figure's place in the page and its data; `label` is what a screen reader says."""
    height = figure.layout.height
    return (
        f'<figure><div class="chart" id="{esc(name)}" data-figure="{esc(name)}-data" role="img" '
        f'aria-label="{esc(label)}" style="height:{int(height)}px"></div>'
        f"<figcaption>{esc(caption)}</figcaption></figure>{json_script(f'{name}-data', figure.to_json())}"
    )


def page(title: str, body: str, plot_config: str) -> str:
    """Return the whole document."""
    from plotly.offline import get_plotlyjs

    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{esc(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n"
        f"{json_script('plot-config', plot_config)}\n<script>{get_plotlyjs()}</script>\n<script>{SCRIPT}</script>\n"
        "</body>\n</html>\n"
    )
