"""All of a study's trials in the compact form from which the browser makes the report's table and its CSV.

A column is `{"name", "title", "kind", "values"}`: one value for each trial, in the order of their numbers; null where
there is none. `kind` says how values are shown: text, state, percent (of a fraction), ms, count, seconds, number.
Columns without a title are in the CSV alone. Rows are identified by their places.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dashboards.budget.table import trained_inside
from dashboards.data.columns import Latencies, LatencyGroup, StudyColumns
from dashboards.data.latency_marks import latency_words, marks_note
from dashboards.formats import STARRED, marks_text, one_line
from search.budget import Budget
from search.store.notes import LONGEST_NOTE
from search.store.replayed import replayed_from
from search.store.vocabulary import STATES
from workers.latency.record import LatencyStatistic

Column = dict[str, Any]
HELD: Mapping[LatencyStatistic, str] = {"upper": "latency_high_ms", "median": "latency_ms", "p90": "p90_ms"}


def trials_data(columns: StudyColumns, budget: Budget) -> dict[str, Any]:
    """Return the table's columns, and which rows are on the front, or trained inside the limits on macs and params."""
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in one_line(columns.study.name, 80))
    return {
        "file": f"{name}-trials.csv",
        "columns": trial_columns(columns),
        "front": np.flatnonzero(columns.front(columns.default_group)).tolist(),
        "trained": np.flatnonzero(trained_inside(columns, budget)).tolist(),
        "note": marks_note(columns),
        "held": {  # the columns of what is held to a limit, by statistic and device
            statistic: {target: f"{name}.{one_line(target, 80)}" for target in columns.latencies}
            for statistic, name in HELD.items()
        },
    }


def trial_columns(columns: StudyColumns) -> list[Column]:
    """Return the study's trials as columns."""
    many, replayed = len(columns.latencies) > 1, replayed_from(columns.study.settings)
    leading = [
        _column("number", "trial", "number", columns.number.tolist()),
        _coded("state", "state", "state", [STATES[state] for state in columns.state.tolist()]),
        _coded("architecture", "architecture", "text", [one_line(text, 200) for text in columns.config_text]),
        _floats(columns.objective, columns.score_name, "percent", columns.score),
    ]
    scores = {"top1": columns.top1, **columns.metrics}
    further = [_floats(name, "", "percent", values) for name, values in scores.items() if name != columns.objective]
    for target, latencies in columns.latencies.items():
        leading += _latency_columns(columns, target, latencies, many)
    return [
        *leading,
        _column("macs", "macs", "count", columns.macs.tolist()),
        _column("params", "params", "count", columns.params.tolist()),
        _floats("train_seconds", "trained for", "seconds", columns.train_seconds),
        _coded("reason", "reason", "text", [columns.reason_of(place) or None for place in range(len(columns))]),
        *_shortlist_columns(columns),
        *further,
        _floats("val_loss", "", "number", columns.val_loss),
        _floats("test_top1", "", "percent", columns.test_top1),
        _column("attempt", "", "number", columns.attempt.tolist()),
        _column("asked_at", "", "number", [round(at, 1) for at in columns.asked_at.tolist()]),
        _coded("config", "", "text", list(columns.config_json)),
        *([] if replayed is None else [_coded("replayed_from", "", "text", [replayed] * len(columns))]),
    ]


def _shortlist_columns(columns: StudyColumns) -> Iterable[Column]:
    """Yield which trials are starred, and what is noted about them; only in the CSV where no trial is."""
    noted = [columns.shortlist.get(number) for number in columns.number.tolist()]
    stars = [STARRED if one is not None and one.starred else None for one in noted]
    notes = [one_line(one.note, LONGEST_NOTE) if one is not None and one.note else None for one in noted]
    yield _coded("starred", "shortlist" if any(stars) else "", "text", stars)
    yield _coded("note", "note" if any(notes) else "", "text", notes)


def _latency_columns(columns: StudyColumns, target: str, device: Latencies, many: bool) -> Iterable[Column]:
    """Yield a device's columns; the first names its usual kind, and marks and sorts apart latencies of other groups."""
    name = one_line(target, 80)
    groups = [None if group < 0 else columns.latency_groups[group] for group in device.group.tolist()]
    fullest = columns.fullest_group(target)
    usual = None if fullest is None else columns.latency_groups[fullest]
    low, high = f"latency_low_ms.{name}", f"latency_high_ms.{name}"
    title = ", ".join(filter(None, (f"latency on {name}" if many else "latency", usual.kind if usual else "", "ms")))
    marks = [_marks(device, row, group, usual) for row, group in enumerate(groups)]
    apart = [row for row, group in enumerate(groups) if group not in (None, usual)]
    interval = {"low": low, "high": high, "marks": _coded("", "", "text", marks), "apart": apart}
    yield {**_floats(f"latency_ms.{name}", title, "ms", device.median_ms), **interval}
    yield _floats(low, "", "ms", device.low_ms)
    yield _floats(high, "", "ms", device.high_ms)
    yield _floats(f"p90_ms.{name}", "", "ms", device.p90_ms)
    yield _coded(f"latency_kind.{name}", "", "text", [None if group is None else group.kind for group in groups])
    words = [latency_words(columns, device, row) or None for row in range(len(groups))]
    yield _coded(f"latency_is.{name}", "", "text", words)


def _marks(device: Latencies, row: int, group: LatencyGroup | None, usual: LatencyGroup | None) -> str:
    """Return what follows a latency: the marks of the terminal's tables, and how it isn't of the usual group."""
    if group is None or usual is None:
        return ""
    int8 = " int8" if device.int8[row] else ""
    other = f" {one_line(group.kind, 20)}" if group.kind != usual.kind else ""
    other = other or ("" if group == usual else " other runtime or device")
    return int8 + marks_text(device.steady[row], device.extrapolates[row]) + other


def _column(name: str, title: str, kind: str, values: Sequence[Any]) -> Column:
    return {"name": name, "title": title, "kind": kind, "values": values}


def _floats(name: str, title: str, kind: str, values: np.ndarray[Any, np.dtype[np.float64]]) -> Column:
    """Return a column of numbers with six digits; null where a number isn't finite."""
    texts = (float(f"{value:.6g}") if np.isfinite(value) else None for value in values.tolist())
    return _column(name, title, kind, list(texts))


def _coded(name: str, title: str, kind: str, texts: Sequence[str | None]) -> Column:
    """Return a column of texts, each stored once: `values` are places in `texts`."""
    places: dict[str | None, int] = {}
    values = [places.setdefault(text, len(places)) for text in texts]
    return {**_column(name, title, kind, values), "texts": list(places)}
