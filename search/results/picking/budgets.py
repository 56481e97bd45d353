"""The network for each of several budgets, by what is recorded: nothing is measured, and no test split is touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from search.budget import Budget
from search.results.picking.choice import ordered
from search.results.picking.wish import Wish
from search.results.ranking import best
from search.store.rows import TrialRow
from space.errors import NothingFeasible
from workers.latency.record import LatencyStatistic


@dataclass(frozen=True)
class BudgetAnswer:
    """The network for a limit on one device, or why there is none."""

    device: str
    limit_ms: float
    row: TrialRow | None = None
    candidates: int = 0  # trained networks inside the limit
    runner_up: str = ""  # the next one, and how sure the choice is
    latency_statistic: LatencyStatistic = "upper"  # the figure of a latency that keeps the limit
    reason: str = ""  # why there is none, with the nearest miss


def answers(
    engine: sa.Engine,
    study_id: int,
    rows: Sequence[TrialRow],
    budget: Budget,
    limits_ms: Sequence[tuple[str, float]],
    wish: Wish,
    first: str,
) -> list[BudgetAnswer]:
    """Return the network for each limit, (device, ms), beside the other limits of a budget.

    `first` is the study's first device.
    """
    found, of = [], budget.latency_statistic
    for device, limit_ms in limits_ms:
        try:
            ranked = best(rows, budget.with_limits_ms({device: limit_ms}, first))
        except NothingFeasible as nothing:
            found.append(BudgetAnswer(device, limit_ms, latency_statistic=of, reason=str(nothing)))
            continue
        order = ordered(engine, study_id, ranked, wish)
        picked = order.rows[0]
        _, *runner_up = order.reasons(picked, set())
        found.append(BudgetAnswer(device, limit_ms, picked, len(ranked), "".join(runner_up), of))
    return found
