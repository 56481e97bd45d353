"""What stands behind a latency: its kind, and the marks that say what is wrong with it."""

from __future__ import annotations

import numpy as np

from dashboards.data.columns import Latencies, StudyColumns
from dashboards.formats import DAGGER_NOTE, STAR_NOTE, one_line
from search.results.latency_labels import doubts


def kind_words(columns: StudyColumns, known: Latencies, row: int) -> str:
    """Return what a trial's latency is: "measured", "measured, not steady", "predicted, extrapolated"; "": none."""
    if known.group[row] < 0:
        return ""
    kind = columns.latency_groups[known.group[row]].kind
    return ", ".join([kind, *doubts(False, known.steady[row], known.extrapolates[row])])


def latency_words(columns: StudyColumns, known: Latencies, row: int) -> str:
    """Return in one line all that a trial's latency is: kind, doubts, device, runtime; "": none."""
    if known.group[row] < 0:
        return ""
    group = columns.latency_groups[known.group[row]]
    words = [group.kind, *doubts(known.quick[row], known.steady[row], known.extrapolates[row])]
    return one_line(f"{', '.join(words)}; {group}", 240)


def marks_note(columns: StudyColumns) -> str:
    """Return what the marks behind a table's latencies mean, as far as there are any, and what isn't sorted."""
    known = columns.latencies.values()
    star = any((~one.steady & (one.group >= 0)).any() for one in known)
    dagger = any((one.extrapolates & (one.group >= 0)).any() for one in known)
    mixed = any(len(np.unique(one.group[one.group >= 0])) > 1 for one in known)
    other = "what is of another kind, runtime or device stands below the latencies that are sorted" if mixed else ""
    notes = ("Latencies with their 95 % intervals", STAR_NOTE if star else "", DAGGER_NOTE if dagger else "", other)
    return "; ".join(filter(None, notes)) + "."
