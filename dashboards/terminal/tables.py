"""What every table of the read commands has: it fits 80 columns and stays plain text where there is no terminal.

Everything from files or users goes in as `Text`, never as markup.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dashboards.formats import STATE_STYLES, one_line

ONE_LINE_FROM = 100  # columns of a terminal that has room for a row on one line


def plain_table(*headers: str) -> Table:
    """A table of columns that keep their width; `>` marks right-aligned ones, `~` those that fold where narrow."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for header in headers:
        folds = header.startswith("~")
        table.add_column(
            header.lstrip(">~"),
            justify="right" if header.startswith(">") else "left",
            no_wrap=not folds,
            overflow="fold" if folds else "ellipsis",
        )
    return table


def facts_table(facts: Sequence[tuple[str, str | Text]]) -> Table:
    """Return names with their values, a line for each pair."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts:
        grid.add_row(name, value if isinstance(value, Text) else Text(one_line(value)))
    return grid


def with_reasons(
    table: RenderableType, reasons: Sequence[tuple[str, str | Text]], number: str = ">#"
) -> RenderableType:
    """Return a table with what is to be said about its rows below it, a row each: a column has no room for a sentence.

    `reasons` are pairs of the row's number, under the heading `number`, and the sentence.
    """
    if not reasons:
        return table
    below = plain_table(number, "~about it")
    for row, reason in reasons:
        below.add_row(row, reason)
    return Group(table, Text(), below)


def state_text(state: str) -> Text:
    """Return a state in its calm colour."""
    return Text(one_line(state, 20), style=STATE_STYLES.get(state, ""))
