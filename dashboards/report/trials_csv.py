"""A study's trials as CSV: the columns of the report's table, plain numbers, a line for each trial."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

from dashboards.data.columns import StudyColumns
from dashboards.formats import spreadsheet_text
from dashboards.report.trials_data import Column, trial_columns


def trials_csv(columns: StudyColumns, numbers: Iterable[int] | None = None) -> str:
    """Return the trials of these numbers, in this order, or all of them; a value that isn't there is empty."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    fields = trial_columns(columns)
    writer.writerow([field["name"] for field in fields])
    place_of = {number: place for place, number in enumerate(columns.number.tolist())}
    for place in place_of.values() if numbers is None else map(place_of.__getitem__, numbers):
        writer.writerow([_cell(field, place) for field in fields])
    return file.getvalue()


def _cell(field: Column, place: int) -> Any:
    value = field["values"][place]
    if "texts" in field:
        value = field["texts"][value]
    if isinstance(value, str):
        return spreadsheet_text(value)
    return "" if value is None else value
