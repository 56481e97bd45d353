"""The Pareto front over the study's score, latency and macs: the finished trials that no other dominates.

A trial dominates another when it is at least as good in every objective and better in one. Objectives: the deployed
network's score (top-1, or what else the study maximises; larger is better), median latency in ms and macs (smaller is
better). Equal trials don't dominate each other, so all of them are on the front. A trial with a NaN is never on a
front. Latencies of different kinds (measured, estimated, predicted), devices, runtimes or thread counts are never
compared: each such group has its own front.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa

from search.store.reader import read_objectives, read_trials
from search.store.rows import StudyRow, TrialRow
from search.store.vocabulary import TrialState
from space.errors import DeviceNotFound
from workers.latency.record import LatencyRecord

LatencyKey = tuple[str, str, str, int]


def latency_key(latency: LatencyRecord | sa.Row[Any]) -> LatencyKey:
    """Return what two latencies must share to be compared: kind, device, runtime, threads."""
    return (latency.kind, latency.device, f"{latency.runtime} {latency.runtime_version}", latency.threads)


def non_dominated(objectives: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return a mask (n,) of the rows of `objectives` (n, m), all minimised, that no row dominates.

    Rows with a NaN are never in the mask and dominate nothing. O(n * front) after a sort, in `front` steps.
    """
    mask = np.zeros(len(objectives), dtype=bool)
    # In this order no later row can dominate an earlier one: the first that remains is on the front.
    remaining = np.lexsort(objectives.T[::-1])
    remaining = remaining[~np.isnan(objectives[remaining]).any(axis=1)]
    columns = [np.ascontiguousarray(column) for column in objectives[remaining].T]  # fast to compare, one by one
    while remaining.size:
        mask[remaining[0]] = True
        no_better, equal = (np.ones(len(remaining), dtype=bool) for _ in range(2))
        for column in columns:
            no_better &= column >= column[0]
            equal &= column == column[0]
        kept = ~no_better | equal
        kept[0] = False
        remaining, columns = remaining[kept], [column[kept] for column in columns]
    return mask


def pareto_front(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Return the done trials on the front of their latency group, fastest first."""
    groups: dict[LatencyKey, list[TrialRow]] = {}
    for row in rows:
        if row.state == TrialState.DONE and row.score is not None and row.latency is not None:
            groups.setdefault(latency_key(row.latency), []).append(row)
    front: list[TrialRow] = []
    for members in groups.values():
        objectives = np.array([[-_score(r), _median(r), float(r.macs)] for r in members])
        front += [row for row, kept in zip(members, non_dominated(objectives), strict=True) if kept]
    return sorted(front, key=lambda row: (_median(row), -_score(row), row.number))


def front_of_study(engine: sa.Engine, study_id: int) -> list[TrialRow]:
    """Return `pareto_front` of a study's trials; only those on the front are read whole."""
    groups: dict[LatencyKey, list[sa.Row[Any]]] = {}
    for row in read_objectives(engine, study_id):
        groups.setdefault(latency_key(row), []).append(row)
    numbers: list[int] = []
    for members in groups.values():
        objectives = np.array([[-row.score, row.median_ms, float(row.macs)] for row in members])
        numbers += [row.number for row, kept in zip(members, non_dominated(objectives), strict=True) if kept]
    return pareto_front(read_trials(engine, study_id, numbers=numbers))


def front_on(engine: sa.Engine, study: StudyRow, device: str) -> list[TrialRow]:
    """Return `pareto_front` of a study's trials by their latencies on one device, as the study names it.

    Raises:
        DeviceNotFound: none was measured there.
    """
    rows = read_trials(engine, study.id)
    judged = [on_device for row in rows if (on_device := row.judged_on(device)) is not None]
    if not judged:
        there = ", ".join(sorted({name for row in rows for name in row.latencies})) or "none yet"
        raise DeviceNotFound(f"no network of study {study.name!r} was measured on {device!r}; there are: {there}.")
    return pareto_front(judged)


def _score(row: TrialRow) -> float:
    return math.nan if row.score is None else row.score


def _median(row: TrialRow) -> float:
    return math.nan if row.latency is None else row.latency.median_ms
