"""The latency summary: what it must not depend on, what it must contain, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from workers.latency.stats import summarise

times_ms = st.floats(min_value=1e-3, max_value=1e4)
processes = st.lists(st.lists(times_ms, min_size=1, max_size=30), min_size=1, max_size=5)
few = settings(max_examples=60, deadline=None)


@few
@given(processes)
def test_the_interval_contains_the_latency_which_is_the_mean_of_the_processes_medians(samples):
    summary = summarise(samples)
    pooled = np.concatenate(samples)
    medians = [np.median(process) for process in samples]
    assert 0 <= summary.interval_low_ms <= summary.median_ms <= summary.interval_high_ms
    assert summary.median_ms == pytest.approx(np.exp(np.mean(np.log(medians))))
    assert summary.p90_ms == pytest.approx(np.percentile(pooled, 90))
    assert summary.samples == pooled.size


@few
@given(processes, st.floats(min_value=1e-3, max_value=1e3))
def test_scaling_every_sample_scales_every_time_and_leaves_the_relative_spread(samples, factor):
    plain = summarise(samples)
    scaled = summarise([[factor * value for value in process] for process in samples])
    for name in ("median_ms", "p90_ms", "interval_low_ms", "interval_high_ms"):
        assert getattr(scaled, name) == pytest.approx(factor * getattr(plain, name), rel=1e-9)
    assert scaled.relative_spread == pytest.approx(plain.relative_spread, rel=1e-6, abs=1e-9)


@few
@given(processes, st.randoms(use_true_random=False))
def test_the_order_of_the_samples_inside_a_process_does_not_matter(samples, random):
    shuffled = [random.sample(process, len(process)) for process in samples]
    assert summarise(shuffled) == summarise(samples)


@given(times_ms, st.integers(1, 20), st.integers(1, 4))
@few
def test_equal_samples_have_no_spread_and_a_point_as_interval(value, runs, count):
    summary = summarise([[value] * runs] * count)
    assert summary.interval_low_ms == summary.median_ms == summary.interval_high_ms == summary.p90_ms == value
    assert summary.relative_spread == 0


def test_the_interval_is_students_of_the_medians_logs():
    medians = [10.0, 10.2, 9.9, 10.1]
    summary = summarise([[ms] * 5 for ms in medians])
    low, high = stats.t.interval(0.95, 3, np.mean(np.log(medians)), stats.sem(np.log(medians)))
    assert summary.interval_low_ms == pytest.approx(np.exp(low), rel=1e-4)
    assert summary.interval_high_ms == pytest.approx(np.exp(high), rel=1e-4)


def test_a_thousand_runs_of_a_process_say_no_more_of_the_next_process_than_ten_do():
    few_runs, many_runs = ([[ms] * runs for ms in (10.0, 10.2, 9.9)] for runs in (10, 1000))
    assert summarise(few_runs).interval_high_ms == summarise(many_runs).interval_high_ms


def test_processes_that_said_how_many_it_takes_give_the_width_alone():
    medians = [10.0, 10.1, 9.9, 10.0, 10.0, 10.0]
    samples = [[ms] for ms in medians]
    planned = summarise(samples, planned_from=3)
    half = stats.t.ppf(0.975, 2) * np.std(np.log(medians[:3]), ddof=1) / np.sqrt(6)
    assert planned.interval_high_ms / planned.median_ms == pytest.approx(np.exp(half), rel=1e-4)
    assert planned.interval_high_ms > summarise(samples).interval_high_ms


def test_one_process_has_the_interval_of_its_runs():
    rng, held = np.random.default_rng(11), 0
    for _ in range(400):
        summary = summarise([rng.normal(10, 0.3, 41).tolist()])
        held += summary.interval_low_ms <= 10 <= summary.interval_high_ms
    assert 0.93 <= held / 400 <= 0.99


@pytest.mark.parametrize(
    ("samples", "rule"),
    [
        ([], "at least 1 process"),
        ([[1.0], []], "process 1 has none"),
        ([[1.0, float("nan")]], "process 0 has nan"),
        ([[1.0, float("inf")]], "process 0 has inf"),
        ([[1.0], [2.0, -0.5]], "process 1 has -0.5"),
        ([[0.0]], "process 0 has 0.0"),
    ],
)
def test_samples_that_no_clock_gives_are_refused_with_the_process_and_value(samples, rule):
    with pytest.raises(ValueError, match=rule):
        summarise(samples)
