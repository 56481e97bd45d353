"""The trials table: the server sorts, filters and cuts rows out of the columns, so that ten thousand trials stay light.

Sorting and filtering follow AG Grid's models: `[{"colId", "sort"}, …]` and `{column: condition}`, a condition being one
of its number or text filters or several of them joined. A value that isn't there sorts last, whichever way.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from dashboards.data.columns import Floats, Latencies, Mask, StudyColumns, View
from dashboards.data.latency_marks import latency_words
from dashboards.formats import STARRED, count, digits_ms, duration, marks_text, one_line, percent, spreadsheet_text
from search.store.notes import LONGEST_NOTE
from search.store.replayed import replayed_from
from search.store.vocabulary import STATES
from workers.metrics import NAMES

CSV_NAMES = {"config": "architecture", "trained": "train_seconds"}  # what the report calls them


@dataclass(frozen=True)
class Question:
    """Which rows a table asks for."""

    start: int = 0
    end: int = 100
    sort: Sequence[Mapping[str, Any]] = ()
    filters: Mapping[str, Any] = field(default_factory=dict)
    among: Mask | None = None  # only these trials


@dataclass(frozen=True, eq=False)
class TableColumn:
    """One column: its values (numbers, or texts), and how a number looks."""

    name: str
    title: str
    values: Floats | Sequence[str]
    text: Callable[[int], str]  # of the trial at this place
    width_px: int = 110

    @property
    def is_number(self) -> bool:
        """Whether it holds numbers."""
        return isinstance(self.values, np.ndarray)


def table_columns(columns: StudyColumns, view: View) -> list[TableColumn]:
    """Return the columns of a study's table; latencies of the view's group, and of every further device's own."""
    reasons = [columns.reason_of(place) for place in range(len(columns))]
    states = [STATES[code] for code in columns.state]
    noted = [columns.shortlist.get(number) for number in columns.number.tolist()]
    stars = [STARRED if one is not None and one.starred else "" for one in noted]
    notes = [one_line(one.note, LONGEST_NOTE) if one is not None else "" for one in noted]
    front = ["◆ front" if member else "" for member in columns.front(view.group)]
    return [
        _number("number", "trial", columns.number.astype(np.float64), lambda v: f"{v:.0f}", 104),
        TableColumn("starred", "shortlist", stars, stars.__getitem__, 118),
        TableColumn("state", "state", states, lambda place: states[place], 118),
        TableColumn("front", "front", front, lambda place: front[place], 104),
        *_metric_columns(columns, first=True),
        *_latency_columns(columns, view),
        _number("macs", "macs", columns.macs.astype(np.float64), count, 112),
        _number("params", "params", columns.params.astype(np.float64), count, 122),
        TableColumn("config", "config", columns.config_text, lambda place: columns.config_text[place], 330),
        _number("groups", "groups G", columns.groups_1x1.astype(np.float64), lambda v: f"{v:.0f}", 124),
        _number("condense", "condense C", columns.condense_factor.astype(np.float64), lambda v: f"{v:.0f}", 140),
        *_metric_columns(columns, first=False),
        _number("trained", "trained", columns.train_seconds, duration, 120),
        TableColumn("reason", "reason", reasons, lambda place: reasons[place], 360),
        TableColumn("note", "note", notes, notes.__getitem__, 300),
    ]


def _metric_columns(columns: StudyColumns, first: bool) -> Iterator[TableColumn]:
    """Yield the figures of the deployed networks: the `first` is what the study maximises, the others come later."""
    for name, values in {"top1": columns.top1, **columns.metrics}.items():
        if (name == columns.objective) == first:
            yield _number(name, NAMES[name], values, percent, 112 if name == "top1" else 150)


def _number(name: str, title: str, values: Floats, text_of: Callable[[float], str], width_px: int) -> TableColumn:
    def text(place: int) -> str:
        value = float(values[place])
        return text_of(value) if np.isfinite(value) else ""

    return TableColumn(name, title, values, text, width_px)


def _latency_columns(columns: StudyColumns, view: View) -> Iterator[TableColumn]:
    """Yield a device's latencies and what they are. Those of one group are sorted, the others have no place among them.

    The group is the view's, on a device that the view doesn't show the fullest.
    """
    shown_target = None if view.group is None else columns.latency_groups[view.group].target
    for target, latencies in columns.latencies.items():
        group = view.group if target == shown_target else columns.fullest_group(target)
        names = [*_kinds(columns, group), ""]  # the last for -1
        kinds = [names[place] for place in latencies.group.tolist()]

        alone = latencies.median_ms if group is None else latencies.only(group).median_ms
        kind = "" if group is None else f"{columns.latency_groups[group].kind} "
        yield TableColumn(
            f"latency:{target}", f"{kind}ms on {target} [95 %]", alone, partial(_latency_text, latencies), 210
        )
        yield TableColumn(f"kind:{target}", f"kind on {target}", kinds, kinds.__getitem__, 140)


def _latency_text(latencies: Latencies, place: int) -> str:
    median = float(latencies.median_ms[place])
    if not np.isfinite(median):
        return ""
    low, high = digits_ms(latencies.low_ms[place], 4), digits_ms(latencies.high_ms[place], 4)
    return f"{digits_ms(median, 4)} [{low}, {high}]{marks_text(latencies.steady[place], latencies.extrapolates[place])}"


def _kinds(columns: StudyColumns, shown: int | None) -> Iterator[str]:
    """Yield what each group is called; one of the shown kind that still can't be compared says all that it is."""
    for place, group in enumerate(columns.latency_groups):
        same = shown not in (None, place) and group.kind == columns.latency_groups[shown or 0].kind
        yield one_line(group if same else group.kind, 160)


def places(columns: Sequence[TableColumn], question: Question) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Return the places of the trials that are asked for, filtered and in order, whatever `start` and `end` are."""
    by_name = {column.name: column for column in columns}
    total = len(columns[0].values)
    mask = np.ones(total, dtype=bool) if question.among is None else question.among.copy()
    for name, condition in question.filters.items():
        if name in by_name and isinstance(condition, Mapping):
            mask &= _matching(by_name[name], condition)
    matching = np.flatnonzero(mask)
    for key in reversed([key for key in question.sort if key.get("colId") in by_name]):
        matching = matching[_order(by_name[key["colId"]], matching, key.get("sort") == "desc")]
    return matching


def _order(
    column: TableColumn, rows: np.ndarray[Any, np.dtype[np.intp]], falling: bool
) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Return the stable order of some trials by a column."""
    if isinstance(column.values, np.ndarray):
        values = column.values[rows]
        return np.argsort(np.where(np.isnan(values), np.inf, -values if falling else values), kind="stable")
    texts = np.array([column.values[place] for place in rows], dtype=object)
    _, ranks = np.unique(texts.astype(str), return_inverse=True)
    empty = texts == ""
    return np.argsort(np.where(empty, len(texts), -ranks if falling else ranks), kind="stable")


def _matching(column: TableColumn, condition: Mapping[str, Any]) -> Mask:
    parts = condition.get("conditions")
    if isinstance(parts, Sequence) and parts:
        masks = [_matching(column, part) for part in parts if isinstance(part, Mapping)]
        either = condition.get("operator") == "OR"
        return np.asarray((np.logical_or if either else np.logical_and).reduce(masks), dtype=bool)
    kind = str(condition.get("type", ""))
    if isinstance(column.values, np.ndarray):
        return _numbers_matching(column.values, kind, condition)
    wanted = str(condition.get("filter", "")).casefold()
    test = _TEXT_TESTS.get(kind)
    if test is None:
        return np.ones(len(column.values), dtype=bool)
    return np.fromiter((test(text.casefold(), wanted) for text in column.values), bool, len(column.values))


_TEXT_TESTS: dict[str, Callable[[str, str], bool]] = {
    "contains": lambda text, wanted: wanted in text,
    "notContains": lambda text, wanted: wanted not in text,
    "equals": lambda text, wanted: text == wanted,
    "notEqual": lambda text, wanted: text != wanted,
    "startsWith": lambda text, wanted: text.startswith(wanted),
    "endsWith": lambda text, wanted: text.endswith(wanted),
    "blank": lambda text, _: not text,
    "notBlank": lambda text, _: bool(text),
}


def _numbers_matching(values: Floats, kind: str, condition: Mapping[str, Any]) -> Mask:
    if kind in ("blank", "notBlank"):
        return np.asarray(np.isnan(values) == (kind == "blank"), dtype=bool)
    try:
        low, high = float(condition.get("filter", "nan")), float(condition.get("filterTo") or "nan")
    except (TypeError, ValueError):
        return np.ones(len(values), dtype=bool)
    tests: dict[str, Callable[[], Mask]] = {
        "equals": lambda: values == low,
        "notEqual": lambda: values != low,
        "greaterThan": lambda: values > low,
        "greaterThanOrEqual": lambda: values >= low,
        "lessThan": lambda: values < low,
        "lessThanOrEqual": lambda: values <= low,
        "inRange": lambda: (values >= low) & (values <= high),
    }
    return tests[kind]() if kind in tests else np.ones(len(values), dtype=bool)


def rows(trials: Sequence[TableColumn], question: Question) -> dict[str, Any]:
    """Return the rows asked for as texts, how many pass the filters (`total`), and how many there are (`all`)."""
    matching = places(trials, question)
    cut = matching[max(0, question.start) : max(0, question.end)].tolist()
    texts = [{column.name: column.text(place) for column in trials} for place in cut]
    return {"rows": texts, "total": len(matching), "all": len(trials[0].values)}


def as_csv(columns: StudyColumns, trials: Sequence[TableColumn], question: Question) -> str:
    """Return the rows asked for, all of them, as CSV: plain numbers, and no text that a spreadsheet would run."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    fields = [field for column in trials for field in _csv_fields(columns, column)]
    replayed = replayed_from(columns.study.settings)
    if replayed is not None:
        fields.append(("replayed_from", [replayed] * len(columns)))
    writer.writerow([name for name, _ in fields])
    for place in places(trials, question).tolist():
        writer.writerow([_csv_cell(values[place]) for _, values in fields])
    return file.getvalue()


def _csv_fields(columns: StudyColumns, column: TableColumn) -> list[tuple[str, Floats | Sequence[str]]]:
    """Return a column's fields, named as in the report's CSV; a latency has one field for each end of its interval."""
    kind, _, target = column.name.partition(":")
    latencies = columns.latencies.get(target)
    if latencies is None or kind not in ("latency", "kind"):
        return [(CSV_NAMES.get(column.name, column.name), column.values)]
    target = one_line(target, 80)
    if kind == "latency":
        ends = (("", latencies.median_ms), ("low_", latencies.low_ms), ("high_", latencies.high_ms))
        return [(f"latency_{name}ms.{target}", values) for name, values in ends]
    kinds = [*(group.kind for group in columns.latency_groups), ""]  # the last for -1
    return [
        (f"latency_kind.{target}", [kinds[group] for group in latencies.group.tolist()]),
        (f"latency_is.{target}", [latency_words(columns, latencies, row) for row in range(len(latencies.group))]),
    ]


def _csv_cell(value: Any) -> str:
    if not isinstance(value, str):
        number = float(value)
        return "" if not np.isfinite(number) else str(int(number)) if number.is_integer() else repr(number)
    return spreadsheet_text(value)
