"""The report's tables of trials: the twins of its charts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dashboards.formats import (
    count,
    duration,
    latency_label,
    latency_text,
    one_line,
    percent,
    place_label,
    shared_label,
)
from dashboards.page import Cell, Column, table
from search.store.reader import TrialRow

COLUMNS: dict[str, tuple[Column, Callable[[TrialRow], Cell]]] = {
    "number": (Column("trial", True), lambda row: Cell(str(row.number), row.number)),
    "state": (Column("state"), lambda row: Cell(row.state, kind=f"state-{row.state}")),
    "config": (Column("config"), lambda row: Cell(str(row.config), kind="config")),
    "top1": (Column("top-1", True), lambda row: Cell(percent(row.top1), row.top1)),
    "latency": (
        Column("latency ms [95 %]", True),
        lambda row: Cell(latency_text(row.latency), None if row.latency is None else row.latency.median_ms),
    ),
    "kind": (Column("latency is"), lambda row: Cell(_kind(row), kind="wrap")),
    "macs": (Column("macs", True), lambda row: Cell(count(row.macs), row.macs)),
    "params": (Column("params", True), lambda row: Cell(count(row.params), row.params)),
    "trained": (Column("trained", True), lambda row: Cell(duration(row.train_seconds), row.train_seconds)),
    "reason": (Column("reason"), lambda row: Cell(_reason(row), kind="wrap")),
}
FRONT_COLUMNS = ("number", "config", "top1", "latency", "kind", "macs", "params")
ALL_COLUMNS = ("number", "state", "config", "top1", "latency", "kind", "macs", "params", "trained", "reason")


def trials_html(rows: Sequence[TrialRow], names: Sequence[str], pick: TrialRow | None, caption: str) -> str:
    """Return a table of trials with these `COLUMNS`; `pick`'s row stands out.

    Where all latencies are of one kind and place their column is left out: the caller says it once, beside the table.
    """
    shown = [name for name in names if name != "kind" or shared_label(rows) is None]
    number = None if pick is None else pick.number
    lines = [("pick" if row.number == number else "", [COLUMNS[name][1](row) for name in shown]) for row in rows]
    return table([COLUMNS[name][0] for name in shown], lines, caption)


def _kind(row: TrialRow) -> str:
    return "" if row.latency is None else f"{latency_label(row.latency)}, on {place_label(row.latency)}"


def _reason(row: TrialRow) -> str:
    return f"same as trial {row.duplicate_of}" if row.duplicate_of is not None else one_line(row.reason or "", 300)
