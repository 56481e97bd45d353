"""The trials table: the server sorts, filters and cuts rows out of the columns, so that ten thousand trials stay light.

Filters are typed texts by column (`table_filters`). Sorting follows AG Grid's model, `[{"colId", "sort"}, …]`; without
one, the networks inside the budget come first, the most accurate of them at the top. A value that isn't there sorts
last, whichever way.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from dashboards.budget.table import trained_inside
from dashboards.data.columns import Floats, Latencies, Mask, StudyColumns, View
from dashboards.data.latency_marks import latency_words
from dashboards.formats import STARRED, digits_ms, ends_text, marks_text, one_line, spreadsheet_text
from dashboards.page import table_filters as units
from dashboards.page.table_filters import Unit, numbers_matching, texts_matching
from search.budget import Budget
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
    filters: Mapping[str, str] = field(default_factory=dict)  # as typed, by column
    among: Mask | None = None  # only these trials
    inside: Mask | None = None  # the networks inside the budget, which come first where nothing is sorted


@dataclass(frozen=True, eq=False)
class TableColumn:
    """One column: its values (numbers with their unit, or texts), and how the cell of a trial looks."""

    name: str
    title: str
    values: Floats | Sequence[str]
    text: Callable[[int], str]  # of the trial at this place
    width_px: int = 110
    unit: Unit | None = None  # None: of texts
    rank: int = 99  # the lower, the sooner it is shown where not all columns have room
    narrow_px: int = 0  # its width on a narrow screen; 0: the same
    note: str = ""  # what its heading says under the pointer
    searched: Sequence[str] | None = None  # the texts that a filter looks through, where they aren't `values`

    @property
    def field(self) -> str:
        """What a row's value is called: a dot would be a path."""
        return self.name.replace(".", "·")

    @property
    def is_number(self) -> bool:
        """Whether it holds numbers."""
        return self.unit is not None


def table_columns(columns: StudyColumns, view: View) -> list[TableColumn]:
    """Return the columns of a study's table; latencies of the view's group, and of every further device's own."""
    reasons = [columns.reason_of(place) for place in range(len(columns))]
    states = [STATES[code] for code in columns.state]
    noted = [columns.shortlist.get(number) for number in columns.number.tolist()]
    stars = [STARRED if one is not None and one.starred else "" for one in noted]
    notes = [one_line(one.note, LONGEST_NOTE) if one is not None else "" for one in noted]
    front = ["◆ front" if member else "" for member in columns.front(view.group)]
    searched = [f"{state} front" if member else state for state, member in zip(states, front, strict=True)]
    low = units.COUNT
    return [
        _number("number", "trial", columns.number.astype(np.float64), units.NUMBER, 78, rank=0, narrow_px=54),
        TableColumn(
            "state", "state", states, lambda place: states[place], 110, rank=1, narrow_px=80, searched=searched
        ),
        TableColumn("starred", "shortlist", stars, stars.__getitem__, 100, rank=4 if any(stars) else 9),
        TableColumn("front", "front", front, lambda place: front[place], 104, rank=20),
        *_metric_columns(columns, first=True),
        *_latency_columns(columns, view),
        _number("macs", "macs", columns.macs.astype(np.float64), low, 82, rank=5),
        _number("params", "params", columns.params.astype(np.float64), low, 84, rank=6),
        TableColumn("config", "config", columns.config_text, lambda place: columns.config_text[place], 300, rank=7),
        _number("groups", "groups G", columns.groups_1x1.astype(np.float64), units.NUMBER, 100, rank=22),
        _number("condense", "condense C", columns.condense_factor.astype(np.float64), units.NUMBER, 112, rank=23),
        *_metric_columns(columns, first=False),
        _number("trained", "trained", columns.train_seconds, units.SECONDS, 110, rank=8),
        TableColumn("reason", "reason", reasons, lambda place: reasons[place], 360, rank=30),
        TableColumn("note", "note", notes, notes.__getitem__, 300, rank=25),
    ]


def _metric_columns(columns: StudyColumns, first: bool) -> Iterator[TableColumn]:
    """Yield the figures of the deployed networks: the `first` is what the study maximises, the others come later."""
    for name, values in {"top1": columns.top1, **columns.metrics}.items():
        if (name == columns.objective) == first:
            width_px, narrow_px = (88, 64) if name == "top1" else (150, 90)
            note = f"{NAMES[name]} of the deployed network on the validation images"
            rank = 2 if first else 21
            yield _number(name, NAMES[name], values, units.PERCENT, width_px, rank=rank, narrow_px=narrow_px, note=note)


def _number(name: str, title: str, values: Floats, unit: Unit, width_px: int, **looks: Any) -> TableColumn:
    def text(place: int) -> str:
        value = float(values[place])
        return unit.text(value) if np.isfinite(value) else ""

    return TableColumn(name, title, values, text, width_px, unit, **looks)


def _latency_columns(columns: StudyColumns, view: View) -> Iterator[TableColumn]:
    """Yield a device's latencies and what they are. Those of one group are sorted, the others have no place among them.

    The group is the view's, on a device that the view doesn't show the fullest.
    """
    shown_target = None if view.group is None else columns.latency_groups[view.group].target
    for place, (target, latencies) in enumerate(columns.latencies.items()):
        group = view.group if target == shown_target else columns.fullest_group(target)
        names = [*_kinds(columns, group), ""]  # the last for -1
        kinds = [names[index] for index in latencies.group.tolist()]

        alone = latencies.median_ms if group is None else latencies.only(group).median_ms
        kind = "" if group is None else f"{columns.latency_groups[group].kind} "
        is_first = place == 0
        yield TableColumn(
            f"latency:{target}",
            f"{kind}ms on {one_line(target, 80)}",
            alone,
            partial(_latency_text, latencies, kinds, group),
            width_px=236,  # a latency, its interval and a sign, five digits each
            unit=units.MILLISECONDS,
            rank=3 if is_first else 4,
            narrow_px=104 if is_first else 0,
            note="median and 95 % interval, in ms",
        )
        title = f"kind on {one_line(target, 80)}"
        yield TableColumn(f"kind:{target}", title, kinds, kinds.__getitem__, 140, rank=24)


def _latency_text(latencies: Latencies, kinds: Sequence[str], shown: int | None, place: int) -> str:
    """Return median and interval; of a latency that isn't of the shown group, its kind before the interval."""
    median = float(latencies.median_ms[place])
    if not np.isfinite(median):
        return ""
    interval = ends_text(latencies.low_ms[place], latencies.high_ms[place])
    kind = "" if int(latencies.group[place]) == shown else f"{kinds[place]} "
    int8 = " int8" if latencies.int8[place] else ""
    signs = marks_text(latencies.steady[place], latencies.extrapolates[place])
    return f"{digits_ms(median, 4)} {kind}{interval}{int8}{signs}"


def _kinds(columns: StudyColumns, shown: int | None) -> Iterator[str]:
    """Yield what each group is called; one of the shown kind that still can't be compared says all that it is."""
    for place, group in enumerate(columns.latency_groups):
        same = shown not in (None, place) and group.kind == columns.latency_groups[shown or 0].kind
        yield one_line(group if same else group.kind, 160)


def inside_budget(columns: StudyColumns, budget: Budget) -> Mask:
    """Return which trained networks (n,) are inside a budget, each latency by the budget's statistic."""
    inside = trained_inside(columns, budget)
    judged_by = next(iter(columns.latencies), "")
    for target, limit in budget.limits_ms(judged_by).items():
        if limit is not None and target in columns.latencies:
            inside &= columns.latencies[target].held_ms[budget.latency_statistic] <= limit
    return inside


def places(columns: Sequence[TableColumn], question: Question) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Return the places of the trials that are asked for, filtered and in order, whatever `start` and `end` are."""
    return _found(columns, question)[0]


def _found(
    columns: Sequence[TableColumn], question: Question
) -> tuple[np.ndarray[Any, np.dtype[np.intp]], dict[str, str]]:
    """Return the places that are asked for, and of each filter that can't be read why; such a one keeps every trial."""
    by_name = {column.name: column for column in columns}
    total, wrong = len(columns[0].values), {}
    mask = np.ones(total, dtype=bool) if question.among is None else question.among.copy()
    for name, typed in question.filters.items():
        if name in by_name:
            try:
                mask &= _matching(by_name[name], typed)
            except ValueError as error:
                wrong[name] = f"{by_name[name].title}: {error}."
    matching = np.flatnonzero(mask)
    keys = [key for key in question.sort if key.get("colId") in by_name]
    if not keys and question.inside is not None:
        score = next(column for column in columns if column.rank == 2)
        matching = matching[_order(score, matching, True)]
        return matching[np.argsort(~question.inside[matching], kind="stable")], wrong
    for key in reversed(keys):
        matching = matching[_order(by_name[key["colId"]], matching, key.get("sort") == "desc")]
    return matching, wrong


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


def _matching(column: TableColumn, typed: str) -> Mask:
    if column.unit is not None and isinstance(column.values, np.ndarray):
        return numbers_matching(column.values, column.unit, typed)
    searched = column.values if column.searched is None or typed.strip().startswith("=") else column.searched
    return texts_matching(searched, typed)  # type: ignore[arg-type]  # a column of texts


def rows(trials: Sequence[TableColumn], question: Question) -> dict[str, Any]:
    """Return the rows asked for as texts, how many pass the filters (`total`), and how many there are (`all`).

    A row's "·inside" says whether the network is inside the budget; `wrong` says of each filter that can't be read why,
    by column.
    """
    matching, wrong = _found(trials, question)
    cut = matching[max(0, question.start) : max(0, question.end)].tolist()
    texts: list[dict[str, Any]] = [{column.field: column.text(place) for column in trials} for place in cut]
    if question.inside is not None:
        for row, place in zip(texts, cut, strict=True):
            row["·inside"] = bool(question.inside[place])
    return {"rows": texts, "total": len(matching), "all": len(trials[0].values), "wrong": wrong}


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
