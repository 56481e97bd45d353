"""The search space: what it samples it contains, what it counts is there, and parameters name configs both ways."""

from __future__ import annotations

import dataclasses
import json
import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings

from space.config import CondenseNetConfig
from space.cost import cost_of
from space.domains import Choice, IntRange
from space.errors import InvalidConfig
from space.presets import SPACE_PRESETS
from space.search_space import SearchSpace
from tests.space.strategies import SEEDS, space_settings

spaces = space_settings().map(SearchSpace.from_settings)
PLAIN = {  # no growth is ever moved: a group of one divides everything
    "groups": 1,
    "condense_factor": 1,
    "num_stages": 2,
    "layers": {"low": 1, "high": 4},
    "growth": [4, 6, 8],
    "bottleneck": [1, 2],
}


def every_config(space: SearchSpace) -> set[CondenseNetConfig]:
    values = [domain.enumerate() for domain in space.domains.values()]
    return {
        space.from_params(dict(zip(space.domains, combination, strict=True)))
        for combination in product(*(each for each in values if each is not None))
    }


@settings(max_examples=60)
@given(spaces, SEEDS)
def test_samples_are_valid_contained_and_come_back_from_their_parameters(space: SearchSpace, seed: int):
    rng = np.random.default_rng(seed)
    for _ in range(10):
        config = space.sample(rng)
        assert space.contains(config)
        params = space.to_params(config)
        assert space.from_params(params) == config
        assert all(space.domains[name].contains(value) for name, value in params.items())
        assert (config.input_shape, config.num_classes) == (space.input_shape, space.num_classes)


@settings(max_examples=20)
@given(spaces, SEEDS)
def test_any_parameters_of_the_domains_name_a_contained_config(space: SearchSpace, seed: int):
    rng = np.random.default_rng(seed)
    params = {name: domain.sample(rng) for name, domain in space.domains.items()}
    config = space.from_params(params)
    assert space.contains(config)
    used = space.to_params(config)
    for name, value in params.items():
        unlisted = name not in used  # a stage that isn't there
        moved = name.startswith("growth_") or name == "groups_3x3"
        assert unlisted or moved or used[name] == value


@settings(max_examples=25)
@given(spaces)
def test_the_size_is_the_number_of_configs_found_by_trying_all_parameters(space: SearchSpace):
    parameter_sets = math.prod(len(domain.enumerate() or ()) for domain in space.domains.values())
    if parameter_sets <= 20_000:
        every = every_config(space)
        assert space.size == len(every)
        listed = list(space.configs())
        assert len(listed) == len(every)  # each once
        assert set(listed) == every
    else:
        assert space.size is not None
        assert 1 <= space.size <= parameter_sets


def test_the_size_counts_a_config_named_in_two_ways_once():
    space = SearchSpace.from_settings(
        {"groups": [1, 2], "condense_factor": 1, "groups_3x3": ["same", 1, 2], "num_stages": [1, 2], "layers": [1, 2]}
        | {"growth": [2, 3, 4]}
    )
    # G=1, G3=1 takes three growths, the other three (G, G3) two each; one stage or two
    assert space.size == (2 * 3 + 2 * 3 * 2 * 3) + 3 * (2 * 2 + 2 * 2 * 2 * 2) == len(every_config(space))
    assert space.size == len(list(space.configs()))


def test_a_range_of_reals_has_no_size():
    assert SearchSpace.from_settings({**PLAIN, "dropout": {"low": 0.0, "high": 0.2}}).size is None


@settings(max_examples=40)
@given(space_settings())
def test_settings_read_back_equal_through_json(written):
    space = SearchSpace.from_settings(written)
    again = SearchSpace.from_settings(json.loads(json.dumps(space.to_settings())))
    assert again == space
    assert hash(again) == hash(space)
    assert again.to_settings() == space.to_settings()


@settings(max_examples=40)
@given(spaces, SEEDS)
def test_neighbours_are_distinct_contained_and_other_configs(space: SearchSpace, seed: int):
    config = space.sample(np.random.default_rng(seed))
    neighbours = space.neighbours(config)
    assert len(set(neighbours)) == len(neighbours)
    assert config not in neighbours
    assert all(space.contains(other) for other in neighbours)


def test_where_no_growth_is_moved_neighbourhood_is_mutual_and_reaches_every_config():
    space = SearchSpace.from_settings(PLAIN)
    start = space.sample(np.random.default_rng(0))
    reached, frontier = {start}, [start]
    while frontier:
        config = frontier.pop()
        for other in space.neighbours(config):
            assert config in space.neighbours(other)
            if other not in reached:
                reached.add(other)
                frontier.append(other)
    assert len(reached) == space.size == 2 * (4 * 3) ** 2


def test_a_neighbour_changes_one_setting_where_no_growth_is_moved():
    space = SearchSpace.from_settings(PLAIN)
    config = CondenseNetConfig((2, 4), (4, 8), 1, 1, bottleneck=1)
    expected = {
        *(dataclasses.replace(config, stages=stages) for stages in ((1, 4), (3, 4), (2, 3))),
        *(dataclasses.replace(config, growth=growth) for growth in ((6, 8), (8, 8), (4, 4), (4, 6))),
        dataclasses.replace(config, bottleneck=2),
    }
    assert set(space.neighbours(config)) == expected


def test_a_range_of_growths_steps_both_ways_over_those_the_groups_divide():
    space = SearchSpace.from_settings(
        {
            **PLAIN,
            "groups": 8,
            "num_stages": 1,
            "bottleneck": 1,
            "layers": 1,
            "growth": {"low": 4, "high": 64, "step": 4},
        }
    )
    config = CondenseNetConfig((1,), (16,), 8, 1, bottleneck=1)
    assert [other.growth for other in space.neighbours(config)] == [(8,), (24,)]


def test_an_added_stage_repeats_the_last_one_as_nearly_as_its_domains_allow():
    space = SearchSpace.from_settings(
        {**PLAIN, "num_stages": [1, 2], "layers": [[1, 7], [2, 5, 9]], "growth": [[4, 30], [5, 26]], "bottleneck": 1}
    )
    config = CondenseNetConfig((7,), (30,), 1, 1, bottleneck=1)
    longer = [other for other in space.neighbours(config) if len(other.stages) == 2]
    assert [(other.stages, other.growth) for other in longer] == [((7, 5), (30, 26))]


def test_a_config_outside_is_refused_by_the_parameter_that_puts_it_there():
    space = SearchSpace.from_settings(PLAIN)
    inside = CondenseNetConfig((2, 4), (4, 8), 1, 1, bottleneck=1)
    outside = {
        "layers_2=5": {"stages": (2, 5)},
        "growth_1=5": {"growth": (5, 8)},
        "num_stages=1": {"stages": (2,), "growth": (4,)},
        "groups=2": {"groups": 2},
        "condense_factor=2": {"condense_factor": 2},
        "bottleneck=4": {"bottleneck": 4},
        "groups_3x3=2": {"groups_3x3": 2},
        "dropout=0.1": {"dropout": 0.1},
        "classifier_keep=0.5": {"classifier_keep": 0.5},
        "num_classes=11": {"num_classes": 11},
        "input_shape=(1, 32, 32)": {"input_shape": (1, 32, 32)},
    }
    assert space.contains(inside)
    for fragment, changes in outside.items():
        config = dataclasses.replace(inside, **changes)
        assert not space.contains(config)
        with pytest.raises(InvalidConfig) as caught:
            space.to_params(config)
        assert fragment in str(caught.value)


def test_doubling_doubles_the_first_growth_at_every_stage():
    space = SearchSpace.from_settings({**PLAIN, "num_stages": 3, "growth_rule": "doubling"})
    config = space.from_params({"growth_1": 6})
    assert config.growth == (6, 12, 24)
    assert "growth_2" not in space.domains
    assert not space.contains(dataclasses.replace(config, growth=(6, 6, 6)))


def test_a_growth_that_the_groups_do_not_divide_moves_to_the_next_larger_or_the_largest():
    space = SearchSpace.from_settings({**PLAIN, "groups": [1, 4], "growth": [2, 3, 4, 8, 9], "num_stages": 1})
    for drawn, moved in ((2, 4), (3, 4), (4, 4), (8, 8), (9, 8)):
        assert space.from_params({"groups": 4, "growth_1": drawn}).growth == (moved,)
        assert space.from_params({"groups": 1, "growth_1": drawn}).growth == (drawn,)


def test_each_stage_may_have_settings_of_its_own():
    space = SearchSpace.from_settings(
        {**PLAIN, "layers": [[1], {"low": 2, "high": 6, "step": 2}], "growth": [[4], [8, 16]], "num_stages": [1, 2]}
    )
    assert space.layers == (Choice((1,)), IntRange(2, 6, 2))
    assert space.domains["growth_2"] == Choice((8, 16))
    assert space.size == 2 * (1 + 3 * 2)
    assert space.from_params({"num_stages": 2, "layers_2": 6, "growth_2": 16}).stages == (1, 6)


def test_one_setting_serves_all_stages():
    space = SearchSpace.from_settings({**PLAIN, "num_stages": [1, 3]})
    assert space.layers == (IntRange(1, 4),) * 3
    assert space.growth == (Choice((4, 6, 8)),) * 3


def test_whole_numbers_that_bound_a_real_setting_bound_reals():
    space = SearchSpace.from_settings(
        {**PLAIN, "dropout": {"low": 0, "high": 0}, "classifier_keep": {"low": 1, "high": 1}}
    )
    config = space.sample(np.random.default_rng(0))
    assert space.contains(config)
    assert space.neighbours(config)


def test_reals_are_searched_as_reals():
    space = SearchSpace.from_settings({**PLAIN, "dropout": {"low": 0.0, "high": 0.3}})
    rng = np.random.default_rng(0)
    configs = [space.sample(rng) for _ in range(20)]
    assert len({config.dropout for config in configs}) == 20
    assert all(space.contains(other) for config in configs for other in (config, *space.neighbours(config)))


@settings(max_examples=40)
@given(spaces, SEEDS)
def test_features_have_one_length_and_are_finite(space: SearchSpace, seed: int):
    rng = np.random.default_rng(seed)
    rows = np.stack([space.features(space.sample(rng)) for _ in range(5)])
    assert rows.shape == (5, len(space.feature_names))
    assert rows.dtype == np.float64
    assert bool(np.isfinite(rows).all())


def test_features_are_the_settings_and_the_logarithms_of_the_costs():
    space = SearchSpace.from_settings(
        {
            **PLAIN,
            "groups": [1, 4],
            "condense_factor": [1, 2],
            "num_stages": [1, 2],
            "groups_3x3": [2],
            "growth": [4, 8],
        }
    )
    config = space.from_params({"groups": 4, "condense_factor": 2, "num_stages": 1, "layers_1": 3, "growth_1": 8})
    described = dict(zip(space.feature_names, space.features(config).tolist(), strict=True))
    cost = cost_of(config)
    assert described == {
        "log2_groups": 2.0,
        "log2_condense_factor": 1.0,
        "log2_bottleneck": 0.0,
        "log2_groups_3x3": 1.0,
        "num_stages": 1.0,
        "layers_1": 3.0,
        "layers_2": 0.0,
        "growth_1": 8.0,
        "growth_2": 0.0,
        "dropout": 0.0,
        "classifier_keep": 1.0,
        "log_macs": math.log(cost.macs),
        "log_params": math.log(cost.params),
    }


@pytest.mark.parametrize("name", SPACE_PRESETS)
def test_a_preset_samples_configs_it_contains(name):
    space = SearchSpace.preset(name)
    rng = np.random.default_rng(0)
    configs = [space.sample(rng) for _ in range(50)]
    assert all(space.contains(config) for config in configs)
    assert len(set(configs)) > 40
    assert space.size is not None
    assert space.size > 1000
    assert SearchSpace.from_settings(space.to_settings()) == space


def test_the_presets_are_for_the_images_they_are_named_after():
    shapes = {
        name: (SearchSpace.preset(name).input_shape, SearchSpace.preset(name).num_classes) for name in SPACE_PRESETS
    }
    assert shapes == {
        "digits": ((1, 8, 8), 10),
        "cifar": ((3, 32, 32), 10),
        "imagenet-mobile": ((3, 224, 224), 1000),
    }


def test_the_published_cifar_networks_lie_in_the_cifar_space():
    space = SearchSpace.preset("cifar")
    for layers in (8, 12, 14, 16, 18, 20):
        assert space.contains(CondenseNetConfig((layers,) * 3, (8, 16, 32)))


def test_the_same_space_serves_other_data():
    space = SearchSpace.preset("cifar").for_data((1, 28, 28), 26)
    config = space.sample(np.random.default_rng(0))
    assert (config.input_shape, config.num_classes) == ((1, 28, 28), 26)
    assert space.contains(config)
