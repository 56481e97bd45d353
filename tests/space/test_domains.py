"""The values one parameter may take: sampling, neighbours, and the way a study file writes them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from space.domains import Choice, Domain, FloatRange, IntRange, domain_from, domain_to
from space.errors import ImpossibleSpace
from tests.space.strategies import SEEDS

reals = st.floats(1e-6, 1e6)
int_ranges = st.builds(
    lambda low, count, step, log: IntRange(low, low + count * (1 if log else step), 1 if log else step, log),
    st.integers(1, 50),
    st.integers(0, 20),
    st.integers(1, 5),
    st.booleans(),
)
float_ranges = st.builds(
    lambda one, other, log: FloatRange(min(one, other), max(one, other), log), reals, reals, st.booleans()
)
choices = st.lists(st.one_of(st.integers(-9, 9), st.sampled_from(("same", "free"))), min_size=1, unique=True).map(
    lambda values: Choice(tuple(values))
)
domains = st.one_of(int_ranges, float_ranges, choices)


@given(domains, SEEDS)
def test_a_sample_lies_in_its_domain(domain: Domain, seed: int):
    rng = np.random.default_rng(seed)
    assert all(domain.contains(domain.sample(rng)) for _ in range(20))


@given(domains, SEEDS)
def test_the_same_generator_draws_the_same_samples(domain: Domain, seed: int):
    first, second = np.random.default_rng(seed), np.random.default_rng(seed)
    assert [domain.sample(first) for _ in range(5)] == [domain.sample(second) for _ in range(5)]


@given(domains, SEEDS)
def test_neighbours_are_other_values_of_the_domain(domain: Domain, seed: int):
    value = domain.sample(np.random.default_rng(seed))
    others = domain.neighbours(value)
    assert value not in others
    assert len(set(others)) == len(others)
    assert all(domain.contains(other) for other in others)


@given(st.one_of(int_ranges, choices))
def test_neighbourhood_is_mutual_and_reaches_every_listed_value(domain: Domain):
    values = domain.enumerate()
    assert values is not None
    assert all(domain.contains(value) for value in values)
    reached, frontier = {values[0]}, [values[0]]
    while frontier:
        value = frontier.pop()
        for other in domain.neighbours(value):
            assert value in domain.neighbours(other)
            if other not in reached:
                reached.add(other)
                frontier.append(other)
    assert reached == set(values)


@given(domains)
def test_the_extremes_belong_to_the_domain_and_bound_it(domain: Domain):
    extremes = domain.extremes()
    assert all(domain.contains(value) for value in extremes)
    if not isinstance(domain, Choice):
        assert extremes == (domain.low, domain.high)
        assert not domain.contains(math.nextafter(domain.high, math.inf))
        assert not domain.contains(math.nextafter(domain.low, -math.inf))


@given(domains)
def test_a_written_domain_reads_back_equal_even_through_json(domain: Domain):
    assert domain_from("x", domain_to(domain)) == domain
    assert domain_from("x", json.loads(json.dumps(domain_to(domain)))) == domain
    assert domain_from("x", domain) is domain


@pytest.mark.parametrize(
    ("written", "domain"),
    [
        (3, Choice((3,))),
        ("same", Choice(("same",))),
        ([4, 2], Choice((4, 2))),
        ({"low": 1, "high": 8, "step": 3}, IntRange(1, 7, 3)),  # 8 is not on the grid
        ({"low": 1, "high": 8, "log": True}, IntRange(1, 8, 1, True)),
        ({"low": 5, "high": 5}, IntRange(5, 5)),
        ({"low": 0, "high": 0.5}, FloatRange(0.0, 0.5)),
        ({"low": 0.01, "high": 1, "log": True}, FloatRange(0.01, 1.0, True)),
    ],
)
def test_a_study_file_writes_a_value_a_list_or_a_range(written, domain):
    assert domain_from("x", written) == domain


BROKEN = [
    ([], "`x` must list at least one value"),
    ([1, True], "`x` must list numbers or names"),
    (None, "`x` must list numbers or names"),
    ([[1], [2]], "`x` must list numbers or names"),
    ([1, 2, 1], "`x` must not repeat a value"),
    ([0, 0.0], "`x` must not repeat a value"),
    ([0.1, math.nan], "`x` must list finite numbers"),
    ({"low": 1}, "a range for `x` has low, high"),
    ({"low": 1, "high": 2, "base": 2}, "a range for `x` has low, high"),
    ({"low": "1", "high": 2}, "`x` must range over numbers"),
    ({"low": False, "high": 2}, "`x` must range over numbers"),
    ({"low": 1, "high": 2, "step": "1"}, "`x` must range over numbers"),
    ({"low": 1.0, "high": math.inf}, "`x` must range over finite numbers"),
    ({"low": math.nan, "high": 1}, "`x` must range over finite numbers"),
    ({"low": 1, "high": 2, "log": "yes"}, "`log` of `x` must be true or false"),
    ({"low": 5, "high": 3}, "low <= high must hold for `x`, but got low=5, high=3"),
    ({"low": 0, "high": 3, "log": True}, "low > 0 must hold for the logarithmic range `x`, but got low=0"),
    ({"low": 1, "high": 3, "step": 0}, "step >= 1"),
    ({"low": 1, "high": 9, "step": 2, "log": True}, "step >= 1 (and 1 with log) must hold for `x`, but got step=2"),
    ({"low": 0.0, "high": 1.0, "step": 0.1}, "a range of reals has no step, but `x` got step=0.1"),
]


@pytest.mark.parametrize(("written", "fragment"), BROKEN, ids=lambda value: str(value)[:40])
def test_a_domain_that_breaks_a_rule_is_refused_with_the_rule_and_the_name(written, fragment):
    with pytest.raises(ImpossibleSpace) as caught:
        domain_from("x", written)
    assert fragment in str(caught.value)


def test_a_logarithmic_range_draws_small_values_more_often():
    rng = np.random.default_rng(0)
    whole = [IntRange(1, 64, log=True).sample(rng) for _ in range(2000)]
    real = [FloatRange(1e-4, 1.0, log=True).sample(rng) for _ in range(2000)]
    assert np.median(whole) == pytest.approx(math.sqrt(0.5 * 64.5), rel=0.2)
    assert np.median(real) == pytest.approx(1e-2, rel=0.2)


def test_an_even_range_draws_every_value_about_equally_often():
    rng = np.random.default_rng(0)
    drawn = [IntRange(2, 8, 2).sample(rng) for _ in range(4000)]
    assert all(drawn.count(value) == pytest.approx(1000, rel=0.15) for value in (2, 4, 6, 8))


@pytest.mark.parametrize(
    ("domain", "outside"),
    [
        (IntRange(2, 8, 2), (3, 10, 0, "2")),
        (FloatRange(0.0, 0.5), (-0.1, 0.6, "0")),
        (Choice((1, "same")), (2, "other")),
    ],
)
def test_what_lies_outside_is_not_contained(domain, outside):
    assert not any(domain.contains(value) for value in outside)


def test_neighbours_of_a_real_lie_a_tenth_of_the_range_away():
    assert FloatRange(0.0, 1.0).neighbours(0.5) == pytest.approx([0.4, 0.6])
    assert FloatRange(0.0, 1.0).neighbours(0.0) == pytest.approx([0.1])
    assert FloatRange(1e-5, 1e5, log=True).neighbours(1.0) == pytest.approx([0.1, 10.0])
