"""Networks in 8 or 16 bits beside the same in fp32, for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from dashboards.formats import digits_ms, one_line, percent
from dashboards.terminal.documents import plain
from dashboards.terminal.tables import plain_table
from search.results.latency_labels import doubts_text
from search.results.pareto import latency_key
from search.store.rows import PointRow, TrialRow
from workers.latency.record import LatencyRecord


def points_table(points: Sequence[PointRow], rows: Sequence[TrialRow], winners: Sequence[PointRow]) -> RenderableType:
    """Return a row for each point: what it is worth in fp32 and in 8 or 16 bits, and whether it wins."""
    table = plain_table(">#", "~device", "in", ">score", ">fp32's", ">ms", ">fp32's", ">kB", "")
    trials = {row.number: row for row in rows}
    for one in points:
        row, latency = trials[one.number], one.latency
        before = in_fp32(row, latency)
        table.add_row(
            str(one.number),
            one_line(f"{latency.target} ({latency.runtime}, {latency.kind}{doubts_text(latency)})", 90),
            latency.precision,
            percent(one.score) + (", fine-tuned" if one.fine_tuned else ""),
            percent(row.score),
            digits_ms(latency.median_ms, 4),
            "" if before is None else digits_ms(before.median_ms, 4),
            f"{one.file_bytes / 1e3:,.0f}",
            "wins" if one in winners else "",
        )
    note = "Wins: no network in fp32 and no other of these is at least as accurate and as fast on that device."
    return Group(table, Text(note, style="dim"))


def in_fp32(row: TrialRow, latency: LatencyRecord) -> LatencyRecord | None:
    """Return the latency that a trial's network has in fp32 where it can be compared; None where there is none."""
    known = row.latencies.get(latency.target)
    return known if known is not None and latency_key(known) == latency_key(latency) else None


def points_document(
    points: Sequence[PointRow], rows: Sequence[TrialRow], winners: Sequence[PointRow]
) -> dict[str, Any]:
    """Return the points as plain JSON values."""
    trials = {row.number: row for row in rows}
    return {"points": [_point_document(one, trials[one.number], one in winners) for one in points]}


def _point_document(one: PointRow, row: TrialRow, wins: bool) -> dict[str, Any]:
    latency, before = one.latency, in_fp32(row, one.latency)
    return {
        "trial": one.number,
        "precision": latency.precision,
        "device": latency.target,
        "runtime": f"{latency.runtime} {latency.runtime_version}",
        "kind": str(latency.kind),
        "score": plain(one.score),
        "score_fp32": plain(row.score),
        "top1": plain(one.top1),
        "latency_ms": plain(latency.median_ms),
        "latency_fp32_ms": None if before is None else plain(before.median_ms),
        "steady": latency.steady,
        "extrapolates": latency.extrapolates,
        "file_bytes": one.file_bytes,
        "fine_tuned": one.fine_tuned,
        "wins": wins,
    }
