"""What `baselines` prints: networks of other kinds, their cost, their latency, and their score where it is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from dashboards.formats import NOTHING, count, percent
from dashboards.terminal.tables import plain_table
from search.results.baselines import BaselineResult
from workers.metrics import NAMES, Objective


def document(results: Sequence[BaselineResult], objective: Objective, said: Sequence[str]) -> dict[str, Any]:
    """Return the networks as plain JSON values, and which of them no network of the study beats."""
    return {"baselines": [result.to_dict() for result in results], "objective": objective, "remarks": list(said)}


def table(results: Sequence[BaselineResult], objective: Objective, said: Sequence[str]) -> RenderableType:
    """Return the networks, the cheapest first."""
    rows = plain_table("~network", f">{NAMES[objective]}", ">latency ms", ">macs", ">params", "~")
    for result in results:
        score = result.scores.get(objective)
        if result.problem:
            rows.add_row(result.title, NOTHING, NOTHING, NOTHING, NOTHING, Text(result.problem, style="dim"))
            continue
        latency = NOTHING if result.latency is None else f"{result.latency.median_ms:.4g}"
        known = NOTHING if score is None else percent(score)
        rows.add_row(result.title, known, latency, count(result.macs), count(result.params), "")
    first = next((result.latency for result in results if result.latency is not None), None)
    notes = []
    if first is not None:
        notes.append(
            f"latency: {first.kind} on {first.target} ({first.device}), {first.runtime} {first.runtime_version}"
        )
    return Group(rows, *(Text(note, style="dim") for note in notes), *map(Text, said))
