"""A config that is named in part is completed as near to another as is valid."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.enqueueing.completing import completed_config, middle_config
from space.config import CondenseNetConfig
from space.domains import Choice, FloatRange, IntRange
from space.errors import InvalidConfig
from space.search_space import SearchSpace

SPACE = SearchSpace.from_settings(
    {
        "groups": [1, 2, 4],
        "condense_factor": [1, 2, 4],
        "bottleneck": [2, 4],
        "num_stages": [2, 3],
        "layers": {"low": 2, "high": 6},
        "growth": [4, 8, 12, 16],
        "input_shape": [3, 32, 32],
    }
)
BASE = CondenseNetConfig(stages=(3, 4), growth=(8, 12), groups=4, condense_factor=4, bottleneck=4)


@pytest.mark.parametrize(
    ("domain", "middle"),
    [
        (Choice((4, 1, 2)), 2),
        (Choice((1, 2, 4, 8)), 2),
        (Choice(("same", 1, 2)), 1),
        (IntRange(2, 8, 2), 4),
        (IntRange(1, 100, log=True), 10),
        (FloatRange(0.01, 1.0, log=True), pytest.approx(0.1)),
        (FloatRange(0.0, 1.0), 0.5),
    ],
)
def test_the_middle_of_a_domain_lies_in_it(domain: Any, middle: Any):
    assert domain.middle() == middle
    assert domain.contains(domain.middle())


def test_the_middle_of_a_space_lies_in_it():
    config = middle_config(SPACE)
    assert SPACE.contains(config)
    assert (config.groups, config.stages) == (2, (4, 4))


@pytest.mark.parametrize(
    ("values", "completed"),
    [
        ({}, {}),
        ({"bottleneck": 2}, {"bottleneck": 2}),
        ({"stages": [2, 2, 2]}, {"stages": (2, 2, 2), "growth": (8, 12, 12)}),
        ({"growth": [16]}, {"stages": (3,), "growth": (16,)}),
        ({"growth": [6, 6]}, {"growth": (6, 6), "groups": 2, "condense_factor": 2}),
        ({"groups": 8}, {"groups": 8, "growth": (8, 16)}),
        ({"groups": 32}, {"groups": 32, "growth": (32, 32)}),
    ],
)
def test_what_is_left_out_stays_as_near_to_the_base_as_is_valid(values: dict[str, Any], completed: dict[str, Any]):
    assert completed_config(values, BASE, SPACE) == CondenseNetConfig(**{**BASE.to_dict(), **completed})


def test_growths_that_double_go_on_doubling():
    space = SearchSpace.from_settings({"growth": [4, 8], "growth_rule": "doubling", "layers": [2, 3]})
    base = middle_config(space)
    config = completed_config({"stages": [2, 2], "groups": 8}, base, space)
    assert config.growth == (8, 16)


@pytest.mark.parametrize(
    "values", [{"layers": 3}, {"stages": "many"}, {"stages": []}, {"growth": [7.5]}, {"groups": None}, {"stages": 3}]
)
def test_what_is_no_config_is_refused(values: dict[str, Any]):
    with pytest.raises(InvalidConfig):
        completed_config(values, BASE, SPACE)


@given(st.fixed_dictionaries({}, optional={"groups": st.sampled_from([1, 2, 4]), "stages": st.just([2, 5, 6])}))
def test_values_of_the_space_are_completed_within_the_space(values: dict[str, Any]):
    config = completed_config(values, BASE, SPACE)
    assert SPACE.contains(config)
    assert all(tuple(value) == getattr(config, key) if key == "stages" else value == getattr(config, key)
               for key, value in values.items())  # fmt: skip
