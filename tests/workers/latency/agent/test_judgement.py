"""Which processes count for a model, what is steady, and how often the interval holds the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from workers.latency.agent.judgement import Choice, Rule, Timed, choose, processes_for, t_quantile
from workers.latency.stats import interval_of

RULE = Rule(processes=3, most=9, tolerance=0.05, within=0.02)


def timed(median_ms: float, anchor_ms: tuple[float, float] = (1.0, 1.0), disturbed: str | None = None) -> Timed:
    return Timed(median_ms, anchor_ms, disturbed)


def choice_of(*medians_ms: float) -> Choice:
    return choose([timed(ms) for ms in medians_ms], RULE)


# ---- what is steady -----------------------------------------------------------------------------------------


def test_processes_that_agree_are_steady_and_enough():
    assert choice_of(10, 10.01, 10.02) == Choice((0, 1, 2), steady=True, anchor_drift=0.0, wanted=3)
    assert choice_of(10, 10.01, 10.02).is_enough


def test_too_few_processes_are_not_steady_however_well_they_agree():
    assert not choice_of(10, 10).steady


def test_the_models_own_spread_counts_as_much_as_the_anchors():
    assert not choice_of(10, 10.3, 10.6).steady
    assert not choose([timed(10, (1.0, 1.03)), timed(10, (1.03, 1.06)), timed(10)], RULE).steady


def test_a_disturbed_process_does_not_count_although_its_times_agree():
    assert not choose([timed(10), timed(10), timed(10, disturbed="a hog")], RULE).steady
    again = choose([timed(10), timed(10), timed(10, disturbed="a hog"), timed(10)], RULE)
    assert (again.kept, again.steady) == ((0, 1, 3), True)


def test_a_process_that_stands_apart_is_left_out_once_the_others_are_enough():
    assert not choice_of(10, 10.05, 14).steady
    choice = choice_of(10, 10.05, 14, 10.02)
    assert (choice.kept, choice.steady) == ((0, 1, 3), True)


def test_the_ends_of_what_merely_varies_are_not_left_out():
    choice = choice_of(10, 10.2, 10.4, 10.6, 10.8)
    assert (choice.kept, choice.steady) == ((0, 1, 2, 3, 4), False)


def test_an_agreeing_minority_is_no_truth():
    choice = choice_of(10, 10, 10, 12.0, 12.4, 13.5, 14.5)
    assert not choice.steady


def test_a_process_whose_anchor_moved_does_not_count():
    moved = [timed(10, (1.0, 1.2)), timed(10), timed(10), timed(10)]
    assert choose(moved, RULE).kept == (1, 2, 3)
    other_state = [timed(20, (2.0, 2.0)), timed(10), timed(10), timed(10)]
    assert choose(other_state, RULE).kept == (1, 2, 3)


def test_a_slower_state_of_the_machine_counts_when_most_processes_met_it():
    settled = [timed(9, (0.9, 0.9)), timed(10), timed(10), timed(10)]
    assert choose(settled, RULE).kept == (1, 2, 3)


def test_without_agreement_the_undisturbed_ones_that_disagree_least_are_kept():
    some = [timed(10, (1.0, 1.5)), timed(10, (1.0, 1.1)), timed(10, (1.0, 1.1)), timed(10, (1.0, 1.1))]
    choice = choose(some, RULE)
    assert (choice.steady, choice.anchor_drift) == (False, pytest.approx(0.1))
    busy = [timed(18, disturbed="x"), timed(12, disturbed="x"), timed(30, disturbed="x"), timed(14, disturbed="x")]
    assert choose(busy, RULE).kept == (0, 1, 3)  # the fastest: disturbed least
    assert choose([*busy, timed(20)], RULE).kept == (1, 3, 4)


# ---- how many -----------------------------------------------------------------------------------------------


def test_more_processes_are_wanted_until_the_interval_is_narrow_but_never_more_than_the_policy_allows():
    wide = choice_of(10, 10.15, 10.3)
    assert (wide.steady, wide.is_enough) == (True, False)
    assert 3 < wide.wanted <= RULE.most
    assert choose([timed(10 + 0.05 * i) for i in range(9)], RULE).is_enough


def test_the_first_processes_alone_decide_how_many_there_are():
    first = [math.log(ms) for ms in (10, 10.15, 10.3)]
    wanted = processes_for(first, 0.02)
    assert choice_of(10, 10.15, 10.3).wanted == choice_of(10, 10.15, 10.3, 10.15, 10.15).wanted == min(9, wanted)
    half = t_quantile(2) * float(np.std(first, ddof=1)) / math.sqrt(wanted)
    assert half <= 0.02


@pytest.mark.parametrize("degrees", [1, 2, 3, 8, 15, 16, 20, 40, 99])
def test_quantiles_are_students(degrees):
    assert t_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), abs=1e-3)


# ---- how often the interval holds ---------------------------------------------------------------------------


def simulated(between: float, seed: int, batches: int = 2000) -> tuple[float, float]:
    """Return how often the interval holds the long-run latency, and how many processes a batch takes on average.

    Each process is off by `between` (the standard deviation of its log), and each run by another 2 %.
    """
    rule = Rule(processes=4, most=8, tolerance=0.05, within=0.02)
    rng = np.random.default_rng(seed)
    runs = rng.normal(0, between, (batches, rule.most, 1)) + rng.normal(0, 0.02, (batches, rule.most, 21))
    held, used = 0, 0
    for medians_ms in (10 * np.exp(np.median(runs, axis=2))).tolist():
        count = rule.processes
        while not (choice := choose([timed(ms) for ms in medians_ms[:count]], rule)).is_enough and count < rule.most:
            count += 1
        kept = [medians_ms[place] for place in choice.kept]
        _, low, high = interval_of(kept, rule.processes if choice.steady else None)
        held += low <= 10 <= high
        used += count
    return held / batches, used / batches


@pytest.mark.parametrize(("between", "processes"), [(0.0, 4.01), (0.004, 4.1), (0.01, 5.0)])
def test_the_interval_holds_the_truth_in_95_of_100_cases_whether_or_not_processes_differ(between, processes):
    held, used = simulated(between, seed=7)
    assert 0.93 <= held <= 0.97
    assert used <= processes
