"""Which trained network is picked for a budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.budget import Budget
from search.results.ranking import best, rank
from search.store.rows import TrialRow
from space.config import CondenseNetConfig
from space.errors import NothingFeasible
from workers.latency.record import LatencyRecord

CONFIG = CondenseNetConfig((1,), (4,), 1, 1)


def row(
    number: int, top1: float | None, median_ms: float, high_ms: float, macs: int = 100, state: str = "done"
) -> TrialRow:
    latency = LatencyRecord(
        "measured", "quick", "host", "onnxruntime", "1", 1, median_ms, high_ms, median_ms * 0.9, high_ms, True
    )
    return TrialRow(
        *(number, number, number, state, "sampled", CONFIG, {}, 0, str(number), macs, 10, 200, latency),
        *(None, None, 1, False, 0.0, 0.0, 1.0, top1, 0.1, 1.0, 100.0, None, True),
    )


def test_the_most_accurate_inside_the_budget_comes_first() -> None:
    rows = [row(0, 0.90, 1.0, 1.1), row(1, 0.95, 1.5, 1.6), row(2, 0.99, 3.0, 3.1)]
    assert [found.number for found in rank(rows, Budget(max_latency_ms=2.0))] == [1, 0]


def test_the_upper_end_of_the_interval_decides_not_the_median() -> None:
    rows = [row(0, 0.99, 1.9, 2.01), row(1, 0.90, 1.0, 2.0)]
    assert [found.number for found in rank(rows, Budget(max_latency_ms=2.0))] == [1]


def test_ties_go_to_the_lower_latency_then_to_fewer_macs() -> None:
    rows = [row(0, 0.9, 1.0, 1.1, macs=50), row(1, 0.9, 0.8, 1.2, macs=90), row(2, 0.9, 0.8, 1.2, macs=70)]
    assert [found.number for found in rank(rows, Budget(max_latency_ms=2.0))] == [2, 1, 0]


def test_what_was_never_trained_is_never_picked() -> None:
    rows = [row(0, None, 0.1, 0.1, state="infeasible"), row(1, None, 0.1, 0.1, state="failed")]
    with pytest.raises(NothingFeasible, match="none of the 2 trials has finished"):
        best(rows, Budget())


def test_nothing_feasible_says_the_smallest_latency_that_was_reached() -> None:
    rows = [row(0, 0.9, 1.0, 1.25), row(1, 0.95, 1.5, 1.6)]
    with pytest.raises(NothingFeasible, match=r"smallest feasible latency is 1\.25 ms \(trial 0"):
        best(rows, Budget(max_latency_ms=1.0))
    with pytest.raises(NothingFeasible, match=r"the smallest \(trial 0\) has 100 macs"):
        best(rows, Budget(max_macs=10))


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0.1, 5), st.floats(0, 2), st.integers(1, 300)), min_size=1),
    st.floats(0.1, 8),
    st.integers(1, 300),
)
def test_nothing_inside_the_budget_is_more_accurate_than_the_pick(
    drawn: list[tuple[float, float, float, int]], limit_ms: float, max_macs: int
) -> None:
    rows = [row(i, top1, ms, ms + more, macs) for i, (top1, ms, more, macs) in enumerate(drawn)]
    ranked = rank(rows, Budget(limit_ms, max_macs))
    inside = [
        r for r in rows if r.latency is not None and r.latency.interval_high_ms <= limit_ms and r.macs <= max_macs
    ]
    assert {r.number for r in ranked} == {r.number for r in inside}
    if ranked:
        assert ranked[0].top1 == max(r.top1 or 0.0 for r in inside)
