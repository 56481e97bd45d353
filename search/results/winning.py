"""Networks in other precisions as rows of trials, and which of them win. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from search.results.pareto import latency_key, non_dominated
from search.store.rows import PointRow, StudyRow, TrialRow
from space.errors import TrialNotReady
from workers.file_names import Precision
from workers.metrics import METRICS

_WORDS = {"int8": "8 bits", "fp16": "16 bits"}


def rows_in(
    precision: Precision, study: StudyRow, rows: Sequence[TrialRow], points: Sequence[PointRow], device: str
) -> list[TrialRow]:
    """Return the trials whose networks were put into a precision, with the score, top-1 and latencies of their files.

    Raises:
        TrialNotReady: none was, on this device.
    """
    judged = _judged_by(rows, [one for one in points if one.latency.precision == precision], device)
    if not judged:
        option = "" if precision == "int8" else f" --precision {precision}"
        raise TrialNotReady(
            f"no network of study {study.name!r} was put into {_WORDS[precision]} for {device} yet; run `condensery "
            f"quantize{option}` first."
        )
    return judged


def _judged_by(rows: Sequence[TrialRow], points: Sequence[PointRow], device: str) -> list[TrialRow]:
    trials = {row.number: row for row in rows}
    judged = []
    for one in points:
        if one.latency.target == device and one.number in trials:
            row = trials[one.number]
            same = [other.latency for other in points if other.number == one.number and other is not one]
            others = tuple(other for other in same if other.precision == one.latency.precision)
            score: dict[str, Any] = {
                **dict.fromkeys(METRICS),
                row.objective: one.score,
                "top1": one.top1,
                "test_top1": None,
            }
            file_hash = one.latency.model_hash
            judged.append(replace(row, latency=one.latency, others=others, file_hash=file_hash, **score))
    return judged


def winning(points: Sequence[PointRow], rows: Sequence[TrialRow]) -> list[PointRow]:
    """Return the points that no trained network, and no other point, beats in score and latency at once.

    Only latencies that can be compared are: of one kind, device, runtime and number of threads.
    """
    winners = []
    latencies = [(row.score, latency) for row in rows for latency in row.latencies.values()]
    for key in {latency_key(one.latency) for one in points}:
        own = [one for one in points if latency_key(one.latency) == key]
        others = [(score, one.median_ms) for score, one in latencies if score is not None and latency_key(one) == key]
        costs = [(one.score, one.latency.median_ms) for one in own] + others
        kept = non_dominated(np.array([[-score, median_ms] for score, median_ms in costs]))
        winners += [one for one, stays in zip(own, kept, strict=False) if stays]
    return sorted(winners, key=lambda one: (one.latency.target, one.latency.median_ms))


def front_rounded(rows: Sequence[TrialRow], points: Sequence[PointRow], device: str) -> list[TrialRow]:
    """Return the rows in other precisions that win on a device, fastest first; [] where none does."""
    return _judged_by(rows, [one for one in winning(points, rows) if one.latency.target == device], device)
