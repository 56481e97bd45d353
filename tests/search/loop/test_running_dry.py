"""Searches that run out of networks inside their limits: what is known ends them, what isn't makes them give up."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from search.engines.fake import FakeEngine
from search.store import reader
from search.store.rows import TrialRow
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.errors import BudgetUnreachable, SearchFailed
from tests.search.loop.test_taking_up import Killed, WithCheckpoints
from tests.search.loop.test_taking_up_the_rest import WITHOUT_HOPE, EndsAll
from tests.search.tiny_studies import SMALLEST, Bench, assert_consistent


def configs_of_the_space(bench: Bench) -> set[CondenseNetConfig]:
    space, rng = bench.settings.search_space(), np.random.default_rng(0)
    found: set[CondenseNetConfig] = set()
    while len(found) < space.size:
        found.add(space.sample(rng))
    return found


@pytest.mark.parametrize("sampler", ["price-aware", "random"])
def test_a_budget_below_everything_is_refused_with_the_smallest_costs_before_anything_is_asked(make_bench, sampler):
    bench = make_bench(budget__max_macs=10, search__sampler=sampler)
    costs = [cost_of(config) for config in configs_of_the_space(bench)]
    macs, params = min(cost.macs for cost in costs), min(cost.params for cost in costs)
    smallest = re.escape(f"(10 macs; smallest macs {macs:,}, smallest params {params:,}); widen the space")
    with pytest.raises(BudgetUnreachable, match=f"no network of the space is inside the budget {smallest}"):
        bench.run()
    assert bench.rows == []
    assert bench.probe.measured == []


def test_a_latency_nothing_reaches_is_named_with_the_smallest_latency_seen(make_bench):
    bench = make_bench(budget__max_latency_ms=0.001, search__give_up_after=5)
    with pytest.raises(BudgetUnreachable, match=r"smallest macs seen [\d,]+, smallest latency seen [\d.]+ ms"):
        bench.run()
    assert 5 <= len(bench.rows) <= 6
    assert_consistent(bench)


@pytest.mark.parametrize(("sampler", "workers"), [("tpe", 1), ("tpe", 3), ("price-aware", 3)])
def test_running_dry_after_some_trainings_is_a_failed_search(make_bench, sampler: str, workers: int):
    limit_ms = 1.05 * cost_of(SMALLEST).macs / 1e4  # by the probe of these tests, whose intervals are narrower
    bench = make_bench(
        search__sampler=sampler,
        study__trainings=50,
        budget__max_latency_ms=limit_ms,
        search__give_up_after=10,
        engine__workers=workers,
    )
    bench.engine = FakeEngine(slots=workers)
    bench.open()
    bench.study.store.enqueue(SMALLEST, bench.settings.training)
    with pytest.raises(SearchFailed, match=r"1\d proposals in a row were refused or repeated"):
        bench.run(resume=True)
    assert [row.config for row in bench.done()] == [SMALLEST]
    assert len(bench.rows) < 1 + 10 + 2 * workers
    assert_consistent(bench)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("sampler", ["price-aware", "random"])
def test_a_search_ends_once_every_network_inside_limits_that_are_known_was_tried(make_bench, sampler, workers):
    """A sampler that knows costs asks for none over them; another does, but for none once all inside are tried."""
    bench = make_bench(
        search__sampler=sampler,
        engine__workers=workers,
        study__trainings=50,
        budget__max_macs=16_000,
        budget__max_params=700,
        search__give_up_after=10_000,
    )
    inside = {
        config
        for config in configs_of_the_space(bench)
        if (cost := cost_of(config)).macs <= 16_000 and cost.params <= 700
    }
    assert 5 < len(inside) < 30
    bench.engine = FakeEngine(slots=workers)
    assert bench.run() == "exhausted"
    assert {row.config for row in bench.done()} == inside
    assert ("infeasible" in bench.states()) == (sampler != "price-aware")
    belief = reader.read_belief(bench.study.engine, bench.study.store.study_id)
    assert (belief is None) == (sampler != "price-aware")
    assert belief is None or (belief.trainings, belief.ahead) == (len(inside), ())  # nothing comes next
    before = len(bench.rows)
    assert bench.run(resume=True) == "exhausted"
    assert len(bench.rows) == before
    assert_consistent(bench)


# -- what was paused --

TRAININGS = 500  # more than there are networks


def paused_study(make_bench: Callable[..., Bench], **changes: Any) -> Bench:
    return make_bench(study__trainings=TRAININGS, search__stopping="aggressive", **changes)


def launch(bench: Bench, slots: int, resume: bool = False, dies_at: int | None = None) -> str:
    bench.engine = WithCheckpoints([], dies_at)
    bench.engine.slots = slots
    return bench.run(resume, EndsAll())


def assert_all_with_hope_went_on(rows: Sequence[TrialRow]) -> None:
    paused = {row.number for row in rows if row.state == "pruned"}
    later = [row for row in rows if row.continues is not None]
    assert len(paused) >= 3
    assert {row.state for row in later} == {"done"}
    assert sorted(row.continues for row in later) == sorted(paused - {WITHOUT_HOPE})


@pytest.mark.parametrize(("workers", "every"), [(1, None), (3, None), (3, 7)])
def test_what_was_paused_goes_on_once_no_network_inside_known_limits_is_left(make_bench, workers, every):
    bench = paused_study(make_bench, budget__max_macs=12_000, engine__workers=workers)
    ending, kills = None, 0
    while ending is None:
        try:
            ending = launch(bench, workers, resume=kills > 0, dies_at=every)
        except Killed:
            kills += 1
            assert kills < 60
    assert ending == "exhausted"
    assert bool(kills) == (every is not None)
    assert set(bench.states()) == {"pruned", "done"}
    assert_all_with_hope_went_on(bench.rows)
    assert_consistent(bench)


@pytest.mark.parametrize(
    ("sampler", "workers", "every"), [("price-aware", 1, 9), ("price-aware", 3, None), ("random", 1, None)]
)
def test_what_was_paused_goes_on_before_a_search_that_is_refused_everything_fails(make_bench, sampler, workers, every):
    """A latency isn't known before it is measured: that nothing is inside any more can't be known, only given up."""
    limits = {"budget__max_latency_ms": 1.2, "search__give_up_after": 12, "search__sampler": sampler}
    bench = paused_study(make_bench, engine__workers=workers, **limits)
    kills, failed = 0, None
    while failed is None:
        try:
            launch(bench, workers, resume=kills > 0, dies_at=every)
        except SearchFailed as error:
            failed = str(error)
        except Killed:
            kills += 1
            assert kills < 60
    assert bool(kills) == (every is not None)
    assert "proposals in a row were refused or repeated (budget 1.2 ms; smallest macs seen" in failed
    assert_all_with_hope_went_on(bench.rows)
    first_rest = next(row.number for row in bench.rows if row.continues is not None)
    assert all(row.continues is not None for row in bench.rows[first_rest:])  # killed or not, nothing else is asked
    assert_consistent(bench)
