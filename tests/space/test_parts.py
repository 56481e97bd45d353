"""The parts of a network: whatever the configuration, they add up to what the whole costs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from space.config import CondenseNetConfig
from space.cost import cost_of
from space.parts import parts_of
from space.presets import PUBLISHED
from space.search_space import SearchSpace
from tests.space.strategies import SEEDS, configs, space_settings


def assert_adds_up(config: CondenseNetConfig) -> None:
    parts, cost = parts_of(config), cost_of(config)
    assert sum(part.macs for part in parts) == cost.macs
    assert sum(part.params for part in parts) == cost.params
    assert sum(part.paper_flops for part in parts) == cost.paper_flops


@given(configs())
def test_the_parts_of_any_config_add_up_to_its_exact_cost(config):
    assert_adds_up(config)


@given(space_settings(), SEEDS)
def test_the_parts_of_any_network_of_any_space_add_up_to_its_exact_cost(settings, seed):
    assert_adds_up(SearchSpace.from_settings(settings).sample(np.random.default_rng(seed)))


@given(st.sampled_from(("digits", "cifar", "imagenet-mobile")), SEEDS)
def test_the_parts_of_the_presets_networks_add_up_to_their_exact_cost(preset, seed):
    assert_adds_up(SearchSpace.preset(preset).sample(np.random.default_rng(seed)))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_parts_of_the_published_networks_add_up_to_their_exact_cost(name):
    assert_adds_up(PUBLISHED[name].config)


@given(configs())
def test_each_part_reads_what_the_part_before_it_hands_on(config):
    parts = parts_of(config)
    assert parts[0].in_channels == config.input_shape[0]
    assert all(before.out_channels == after.in_channels for before, after in pairwise(parts))
    assert parts[-1].out_channels == config.num_classes


def test_the_parts_come_in_order_and_are_named_from_one():
    config = CondenseNetConfig(stages=(1, 2), growth=(8, 16))
    assert [part.name for part in parts_of(config)] == [
        "stem",
        "stage 1, layer 1",
        "pooling before stage 2",
        "stage 2, layer 1",
        "stage 2, layer 2",
        "norm and global pooling",
        "classifier",
    ]
