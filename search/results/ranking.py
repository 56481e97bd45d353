"""Choosing the network to deploy: the one with the best score whose latency surely fits the budget.

The score is what the study maximises: top-1, or another of `workers.metrics.OBJECTIVES`. A latency is judged by the
upper end of its 95 % interval, unless the budget names another of its figures. Ties in the score go to the lower median
latency, then to fewer macs. The choice rests on the validation split; `search.results.picking` alone uses the test
split, once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from search.budget import Budget, refusal
from search.store.rows import StudyRow, TrialRow
from search.store.vocabulary import TrialState
from space.errors import NothingFeasible
from workers.latency.record import STATISTIC_WORDS
from workers.wording import none_of


def rows_on(study: StudyRow, rows: Sequence[TrialRow], device: str) -> list[TrialRow]:
    """Return a study's trials as they are judged on a device; those without a latency there are left out.

    On the study's own devices they are judged as they are recorded.
    """
    if device in study.settings["latency"]["devices"]:
        return list(rows)
    return [judged for row in rows if (judged := row.judged_on(device)) is not None]


def rank(rows: Sequence[TrialRow], budget: Budget) -> list[TrialRow]:
    """Return the done trials inside the budget, best first: score, then median latency, then macs."""
    inside = [row for row in rows if _trained(row) and _fits(row, budget)]
    return sorted(inside, key=lambda row: (-(row.score or 0.0), _median(row), row.macs, row.number))


def best(rows: Sequence[TrialRow], budget: Budget) -> list[TrialRow]:
    """Return `rank`, never empty.

    Raises:
        NothingFeasible: no trained network fits; the message names the smallest latency.
    """
    ranked = rank(rows, budget)
    if ranked:
        return ranked
    raise NothingFeasible(_reason_for_none(rows, budget))


def _reason_for_none(rows: Sequence[TrialRow], budget: Budget) -> str:
    trained = [row for row in rows if _trained(row)]
    if not trained:
        return f"{none_of(len(rows), 'trial')} has finished its training yet; launch the study, or resume it."
    if budget.max_ram_mb is not None and rank(rows, replace(budget, max_ram_mb=None)):
        known = [(row.latency.peak_memory_mb or 0, row.number) for row in trained if row.latency is not None]
        memory_mb, number = min(known)
        return f"no trained network is inside {budget}; the least memory is {memory_mb:.1f} MB (trial {number})."
    without_latency = Budget(None, budget.max_macs, budget.max_params)
    measured = [row for row in trained if row.latency is not None and _fits(row, without_latency)]
    elsewhere = Budget(None, elsewhere_ms=budget.elsewhere_ms, latency_statistic=budget.latency_statistic)
    if measured and not any(_fits(row, elsewhere) for row in measured):
        device, limit = next(iter(budget.elsewhere_ms.items()))
        there = (row.latencies[device] for row in measured if device in row.latencies)
        reached = [judged_ms for one in there if (judged_ms := budget.judged_ms(one)) is not None]
        least = f"{min(reached):.4g} ms" if reached else "not measured"
        return f"no trained network is inside {budget}; the smallest latency on {device} is {least} (limit {limit:g})."
    if not measured:
        fewest = min(trained, key=lambda row: row.macs)
        return (
            f"no trained network is inside {budget}; the smallest (trial {fewest.number}) has {fewest.macs:,} macs and "
            f"{fewest.params:,} params."
        )
    fastest = min(measured, key=lambda row: _judged(row, budget))
    if math.isinf(_judged(fastest, budget)):
        return f"no trained network is inside {budget}: their latencies have no {budget.latency_statistic}."
    return (
        f"no trained network is inside {budget}; the smallest feasible latency is {_judged(fastest, budget):.4g} ms "
        f"(trial {fastest.number}, {STATISTIC_WORDS[budget.latency_statistic]})."
    )


def _trained(row: TrialRow) -> bool:
    return row.state == TrialState.DONE and row.score is not None


def _fits(row: TrialRow, budget: Budget) -> bool:
    if budget.max_latency_ms is not None and row.latency is None:
        return False
    if not budget.elsewhere_ms.keys() <= row.latencies.keys():
        return False
    return refusal(budget, row.macs, row.params, row.latency, row.others) is None


def _judged(row: TrialRow, budget: Budget) -> float:
    judged_ms = None if row.latency is None else budget.judged_ms(row.latency)
    return math.inf if judged_ms is None else judged_ms


def _median(row: TrialRow) -> float:
    return float("inf") if row.latency is None else row.latency.median_ms
