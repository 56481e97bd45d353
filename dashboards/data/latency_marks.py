"""What follows a latency: its kind, and the marks that say how far it can be trusted."""

from __future__ import annotations

import numpy as np

from dashboards.data.columns import Latencies, StudyColumns
from dashboards.formats import DAGGER_NOTE, STAR_NOTE, one_line
from search.results.latency_labels import doubts


def kind_words(columns: StudyColumns, latencies: Latencies, row: int) -> str:
    """Return what kind of number a trial's latency is: "measured, not steady", "predicted"; "" where it has none."""
    if latencies.group[row] < 0:
        return ""
    kind = columns.latency_groups[latencies.group[row]].kind
    precision = ["int8"] if latencies.int8[row] else []
    return ", ".join([kind, *precision, *doubts(False, latencies.steady[row], latencies.extrapolates[row])])


def latency_words(columns: StudyColumns, latencies: Latencies, row: int) -> str:
    """Return all that a trial's latency is, in one line: kind, doubts, device, runtime; "" where it has none."""
    if latencies.group[row] < 0:
        return ""
    group = columns.latency_groups[latencies.group[row]]
    words = [group.kind, *(["int8"] if latencies.int8[row] else [])]
    words += doubts(latencies.quick[row], latencies.steady[row], latencies.extrapolates[row])
    return one_line(f"{', '.join(words)}; {group}", 240)


def marks_note(columns: StudyColumns) -> str:
    """Return the sentence that explains the marks that occur in a table, and which latencies aren't sorted."""
    devices = columns.latencies.values()
    star = any((~latencies.steady & (latencies.group >= 0)).any() for latencies in devices)
    dagger = any((latencies.extrapolates & (latencies.group >= 0)).any() for latencies in devices)
    mixed = any(len(np.unique(latencies.group[latencies.group >= 0])) > 1 for latencies in devices)
    unsorted = "latencies of another kind, runtime or device are below those that are sorted" if mixed else ""
    notes = (
        "Latencies with their 95 % intervals",
        STAR_NOTE if star else "",
        DAGGER_NOTE if dagger else "",
        unsorted,
    )
    return "; ".join(filter(None, notes)) + "."
