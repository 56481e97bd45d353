"""Which trained networks an answer can ever name: of ten thousand a few dozen, which is what the browser gets.

A network is named as the best or the second best under some budget, or as the smallest one that is as good as the best.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from dashboards.data.columns import Mask, StudyColumns
from search.results.pareto import non_dominated
from workers.metrics import wilson_interval

Ranked = NDArray[np.float64]  # (n, devices): what is held to a limit, in ms; rows in the order of a ranking


def best_first(columns: StudyColumns, rows: NDArray[np.int64], judged_by: str) -> NDArray[np.int64]:
    """Return the order of some rows by score; ties by latency on the judging device, macs, then number."""
    latencies = columns.latencies.get(judged_by)
    medians = np.full(len(columns), np.nan) if latencies is None else latencies.priced_ms
    return np.lexsort((columns.number[rows], columns.macs[rows], medians[rows], -columns.score[rows]))


def contenders(
    scores: NDArray[np.float64], params: NDArray[np.int64], held: Iterable[Ranked], images: int | None
) -> Mask:
    """Return which networks, (n,) in the order of their ranking, can be named by an answer.

    Args:
        scores: (n,), falling.
        params: (n,).
        held: what is held to a limit, by each of the statistics that a budget can be put on.
        images: validation images, by which scores are as good as each other; None where it isn't known how many.
    """
    named = np.zeros(len(scores), dtype=bool)
    for ranked in held:
        named |= _first_or_second(scores, ranked)
        named |= _smallest(scores, params, ranked, images)
    return named


def _first_or_second(scores: NDArray[np.float64], ranked: Ranked) -> Mask:
    """Return which networks can be the best or the second best under some budget.

    One can't where two better ones fit every budget that it fits itself.
    """
    objectives = np.column_stack([-scores, ranked])
    possible = non_dominated(objectives)  # whatever two beat, one of these beats, and one of those without these
    rest = np.flatnonzero(~possible)
    possible[rest[non_dominated(objectives[rest])]] = True
    kept: list[int] = []
    for index in np.flatnonzero(possible).tolist():
        if (ranked[kept] <= ranked[index]).all(axis=1).sum() < 2:
            kept.append(index)
    mask = np.zeros(len(scores), dtype=bool)
    mask[kept] = True
    return mask


def _smallest(scores: NDArray[np.float64], params: NDArray[np.int64], ranked: Ranked, images: int | None) -> Mask:
    """Return which networks can be the smallest that is as good as the best under some budget.

    At the lowest budget that a network fits, the best one is the least far ahead of it; if it isn't as good there, it
    is nowhere.
    """
    mask = np.zeros(len(scores), dtype=bool)
    if not images:
        return mask
    for index in np.flatnonzero(non_dominated(np.column_stack([-scores, ranked, params]))).tolist():
        best = int((ranked <= ranked[index]).all(axis=1).argmax())  # the first in the ranking
        _, high = wilson_interval(float(scores[index]), images)
        low, _ = wilson_interval(float(scores[best]), images)
        mask[index] = params[index] < params[best] and high >= low
    return mask
