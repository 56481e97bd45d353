"""The front: what no other trial beats.

Dominance of a over b, both objectives minimised (> a dominates b, < b dominates a, = neither):

              b: (0,0)  (0,1)  (1,0)  (1,1)
    a: (0,0)       =      >      >      >
       (0,1)       <      =      =      >
       (1,0)       <      =      =      >
       (1,1)       <      <      <      =
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.results.pareto import latency_key, non_dominated, pareto_front
from search.store.rows import TrialRow
from space.config import CondenseNetConfig
from workers.latency.record import LatencyRecord

ORDERED = [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)]
TRUTH = ["=>>>", "<==>", "<==>", "<<<="]


@pytest.mark.parametrize(("a", "b"), list(itertools.product(range(4), range(4))))
def test_dominance_of_two_is_the_table_above(a: int, b: int):
    expected = {"=": [True, True], ">": [True, False], "<": [False, True]}[TRUTH[a][b]]
    assert non_dominated(np.array([ORDERED[a], ORDERED[b]])).tolist() == expected


def by_brute_force(rows: list[tuple[float, ...]]) -> list[bool]:
    def dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        pairs = list(zip(a, b, strict=True))
        return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)

    whole = [row for row in rows if not any(map(math.isnan, row))]
    return [not any(map(math.isnan, row)) and not any(dominates(other, row) for other in whole) for row in rows]


values = st.sampled_from([0.0, 0.5, 1.0, 2.0, math.inf, -math.inf, math.nan]) | st.floats(allow_nan=True)


@given(rows=st.integers(1, 4).flatmap(lambda m: st.lists(st.tuples(*[values] * m), min_size=1, max_size=25)))
def test_the_front_is_what_brute_force_finds(rows: list[tuple[float, ...]]):
    assert non_dominated(np.array(rows)).tolist() == by_brute_force(rows)


@pytest.mark.parametrize("levels", [2, 12, 10_000])
def test_the_front_of_many_rows_is_what_brute_force_finds(levels: int):
    rows = np.random.default_rng(levels).integers(0, levels, (500, 3)).astype(float)
    rows[::97] = math.nan
    assert non_dominated(rows).tolist() == by_brute_force([tuple(row) for row in rows.tolist()])


def test_no_rows_have_no_front():
    assert non_dominated(np.zeros((0, 3))).tolist() == []


MEASURED = LatencyRecord("measured", "standard", "host:x", "onnxruntime", "1.20", 1, 1.0, 1.1, 0.9, 1.1, True)
CONFIG = CondenseNetConfig(stages=(1,), growth=(4,), input_shape=(1, 8, 8))


def trial(number: int, top1: float | None, ms: float, macs: int, **changes) -> TrialRow:
    latency = replace(MEASURED, median_ms=ms, **changes.pop("latency", {}))
    plain = dict.fromkeys(TrialRow.__dataclass_fields__)
    plain |= {"number": number, "state": "done", "config": CONFIG, "top1": top1, "macs": macs, "latency": latency}
    plain["objective"] = "top1"
    return TrialRow(**{**plain, **changes})


def numbers(rows: list[TrialRow]) -> list[int]:
    return [row.number for row in pareto_front(rows)]


def test_the_front_is_sorted_from_fast_to_slow():
    rows = [trial(0, 0.9, 3.0, 30), trial(1, 0.5, 1.0, 10), trial(2, 0.4, 2.0, 20), trial(3, 0.7, 2.0, 20)]
    assert numbers(rows) == [1, 3, 0]


def test_equal_trials_all_stand_on_the_front():
    assert numbers([trial(n, 0.9, 1.0, 10) for n in range(3)]) == [0, 1, 2]


def test_a_trial_with_fewer_macs_stands_beside_a_faster_one():
    assert numbers([trial(0, 0.9, 1.0, 20), trial(1, 0.9, 2.0, 10)]) == [0, 1]


@pytest.mark.parametrize("broken", [trial(0, math.nan, 1.0, 1), trial(0, 0.9, math.nan, 1), trial(0, None, 1.0, 1)])
def test_a_trial_without_a_number_is_never_on_the_front_and_beats_nothing(broken: TrialRow):
    assert numbers([broken, trial(1, 0.1, 9.0, 900)]) == [1]


@pytest.mark.parametrize("state", ["asked", "queued", "running", "infeasible", "duplicate", "failed", "cancelled"])
def test_only_finished_trainings_are_on_the_front(state: str):
    assert numbers([trial(0, 0.9, 1.0, 1, state=state), trial(1, 0.1, 9.0, 900)]) == [1]


def test_a_trial_without_a_latency_is_not_on_the_front():
    unpriced = replace(trial(1, 1.0, 1.0, 1), latency=None)
    assert numbers([trial(0, 0.9, 1.0, 1), unpriced]) == [0]


@pytest.mark.parametrize(
    "other",
    [
        {"kind": "estimated"},
        {"kind": "predicted"},
        {"device": "host:y"},
        {"runtime": "ncnn"},
        {"runtime_version": "1.21"},
        {"threads": 4},
    ],
)
def test_latencies_that_differ_in_kind_device_runtime_or_threads_are_never_compared(other: dict):
    worse = trial(0, 0.5, 5.0, 50)
    better_elsewhere = trial(1, 0.9, 1.0, 10, latency=other)
    assert sorted(numbers([worse, better_elsewhere])) == [0, 1]
    assert latency_key(worse.latency) != latency_key(better_elsewhere.latency)


@pytest.mark.parametrize("other", [{"policy": "quick"}, {"steady": False}, {"p90_ms": 9.0}])
def test_how_carefully_a_latency_was_measured_does_not_separate_fronts(other: dict):
    assert numbers([trial(0, 0.5, 5.0, 50), trial(1, 0.9, 1.0, 10, latency=other)]) == [1]
