"""The parts of a network: each costs what its own modules say, and together they cost what the whole does."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from torch import nn

from space.config import CondenseNetConfig
from space.cost import cost_of, parts_of
from space.deployed import DeployedCondenseNet
from space.presets import PUBLISHED
from tests.space.strategies import configs


def modules_of(config: CondenseNetConfig) -> list[tuple[nn.Module, ...]]:
    """The real network's modules, part by part; a pooling has none."""
    with torch.device("meta"):  # shapes only
        network = DeployedCondenseNet(config)
    layers = iter(network.layers)
    single = {"stem": (network.stem,), "pooling": (), "norm": (network.norm,), "classifier": (network.classifier,)}
    return [(next(layers),) if part.kind == "layer" else single[part.kind] for part in parts_of(config)]


def parameters_of(modules: tuple[nn.Module, ...]) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def macs_of(modules: tuple[nn.Module, ...], positions: int) -> int:
    """Every weight of a convolution is used once at each position, and one of a linear layer once."""
    inner = [inner for module in modules for inner in module.modules()]
    convolved = sum(module.weight.numel() for module in inner if isinstance(module, nn.Conv2d))
    return convolved * positions + sum(module.weight.numel() for module in inner if isinstance(module, nn.Linear))


def assert_costs_are_the_modules(config: CondenseNetConfig) -> None:
    parts, modules = parts_of(config), modules_of(config)
    assert [part.params for part in parts] == list(map(parameters_of, modules))
    assert [part.macs for part in parts] == [
        macs_of(own, part.height * part.width) for own, part in zip(modules, parts, strict=True)
    ]
    assert sum(part.macs for part in parts) == cost_of(config).macs
    assert sum(part.params for part in parts) == cost_of(config).params
    assert sum(part.paper_flops for part in parts) == cost_of(config).paper_flops


@settings(max_examples=40)
@given(configs())
def test_each_part_of_any_config_costs_what_its_modules_say(config):
    assert_costs_are_the_modules(config)


@pytest.mark.parametrize("name", ["condensenet-50", "imagenet-74-g8"])
def test_each_part_of_a_published_network_costs_what_its_modules_say(name):
    assert_costs_are_the_modules(PUBLISHED[name].config)


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
