"""What the page shows of the study as a whole: its name and counts, the views to choose from, the budget's table."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from functools import partial
from typing import Any

from dashboards.budget.recorded import read_recorded
from dashboards.budget.table import BudgetTable
from dashboards.data.latency_marks import marks_note
from dashboards.data.study_settings import budget_of, instead_of_pick, study_subtitle
from dashboards.formats import one_line
from dashboards.page.study_cache import CachedStudy, Computed, Payload, Studies
from dashboards.page.table import TableColumn
from dashboards.page.view import token_of, view_of
from search.store.connection.database_errors import driver_errors
from workers.metrics import METRICS

Choice = Mapping[str, Any] | None


def head(study: CachedStudy, choice: Choice, command_words: str, studies: Studies) -> Payload:
    """Return name, subtitle, counts, groups of latencies, the table's columns, and how a command names the study."""
    columns = study.columns
    view, several = view_of(columns, choice), studies.are_several()

    def compute() -> Computed:
        payload = {
            "study": columns.study.name,
            "name": one_line(columns.study.name, 300),
            "subtitle": study_subtitle(columns.study),
            "trials": len(columns),
            "counts": columns.counts,
            "groups": [{"token": token_of(group), "text": one_line(group, 160)} for group in columns.latency_groups],
            "group": None if view.group is None else token_of(columns.latency_groups[view.group]),
            "axis": view.axis,
            "words": " ".join(filter(None, (shlex.quote(columns.study.name), command_words))),
            "instead": instead_of_pick(columns.study, command_words),
            "choosable": several,
            "table_note": marks_note(columns),
            "columns": [_column_of_grid(column) for column in study.table(view)[1]],
        }
        return Computed(payload, {})

    return study.computed(("head", view), f"{columns.revision} {several}", compute).payload


def _column_of_grid(column: TableColumn) -> dict[str, Any]:
    """Return AG Grid's definition of a column; `context` has what the browser shows it by (`page_trials.js`)."""
    definition: dict[str, Any] = {
        "field": column.field,
        "colId": column.name,
        "headerName": column.title,
        "headerTooltip": column.note or column.title,
        "width": column.width_px,
        "sortingOrder": ["desc", "asc", None] if column.name in (*METRICS, "front") else ["asc", "desc", None],
        "context": {
            "rank": column.rank,
            "width_px": column.width_px,
            "narrow_px": column.narrow_px,
            "hint": column.unit.hint if column.unit else "contains",
        },
    }
    if column.is_number:
        definition["type"] = "rightAligned"
    if column.name in ("config", "reason"):
        definition |= {"flex": 1, "minWidth": 150, "tooltipField": definition["field"]}
    cells = {"number": "TrialNumber", "state": "TrialState"}
    if column.name.startswith("latency:"):
        definition["cellRenderer"] = "TrialLatency"
    elif column.name in cells:
        definition["cellRenderer"] = cells[column.name]
    return definition | ({"pinned": "left"} if column.name == "number" else {})


def budget_table(study: CachedStudy, choice: Choice) -> Payload:
    """Return the table that the budget control answers from."""
    columns = study.columns

    def compute() -> Computed:
        with driver_errors(study.live.url):
            read = partial(read_recorded, study.live.engine, columns.study)
            table = BudgetTable.of(columns, budget_of(columns.study.settings), read)
        return Computed({"table": table.to_dict()}, {})

    return study.computed("table", columns.revision, compute).payload
