"""The latency summary: what it must not depend on, what it must contain, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.latency.stats import summarise

times_ms = st.floats(min_value=1e-3, max_value=1e4)
processes = st.lists(st.lists(times_ms, min_size=1, max_size=30), min_size=1, max_size=5)
few = settings(max_examples=60, deadline=None)


@few
@given(processes)
def test_the_interval_contains_the_median_and_stays_inside_the_samples(samples):
    summary = summarise(samples)
    pooled = np.concatenate(samples)
    assert pooled.min() <= summary.interval_low_ms <= summary.median_ms
    assert summary.median_ms <= summary.interval_high_ms <= pooled.max()
    assert summary.median_ms == pytest.approx(np.median(pooled))
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


def test_processes_that_disagree_widen_the_interval_although_each_agrees_with_itself():
    rng = np.random.default_rng(3)
    run = rng.normal(0, 0.01, (3, 500))
    agreeing = summarise(10 + run)
    disagreeing = summarise(10 + run + np.array([[-0.5], [0.0], [0.5]]))
    assert agreeing.interval_high_ms - agreeing.interval_low_ms < 0.005
    assert disagreeing.interval_low_ms < 9.55
    assert disagreeing.interval_high_ms > 10.45


def test_the_interval_covers_the_true_median_about_as_often_as_it_says():
    rng = np.random.default_rng(11)
    covered = 0
    for _ in range(200):
        processes = rng.normal(10, 0.2, (10, 1)) + rng.normal(0, 0.3, (10, 20))
        summary = summarise(processes)
        covered += summary.interval_low_ms <= 10 <= summary.interval_high_ms
    assert 0.85 <= covered / 200 <= 0.99


def test_processes_of_unequal_length_weigh_by_their_samples():
    summary = summarise([[1.0] * 300, [2.0] * 2])
    assert (summary.median_ms, summary.samples) == (1.0, 302)
    assert summary.interval_high_ms == 2.0  # both draws may be the second process


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
