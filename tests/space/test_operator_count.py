"""fvcore's count of the real module: the closed form's equal, and nothing it can't count passes unnoticed."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from torch import nn

from space.config import CondenseNetConfig
from space.cost import Cost, cost_of
from space.deployed import DeployedCondenseNet, deploy
from space.errors import UncountableOperator
from space.network import CondenseNet
from space.operator_count import fvcore_cost
from tests.space.strategies import SEEDS, configs, used_network


@settings(max_examples=40)
@given(configs(), SEEDS)
def test_the_closed_form_and_the_counted_module_agree_in_every_field(config, seed):
    assert fvcore_cost(DeployedCondenseNet.random(config, seed), config.input_shape) == cost_of(config)


def test_a_deployed_trained_network_costs_what_the_random_one_costs():
    config = CondenseNetConfig((2, 1), (4, 8), groups=2, condense_factor=4, input_shape=(3, 9, 7), classifier_keep=0.5)
    assert fvcore_cost(deploy(used_network(config, 3)), config.input_shape) == cost_of(config)


def test_the_training_form_is_counted_dense():
    config = CondenseNetConfig((2,), (4,), groups=2, condense_factor=4, input_shape=(3, 6, 6))
    dense = dataclasses.replace(config, groups=1, groups_3x3=2, condense_factor=1)
    assert fvcore_cost(CondenseNet(config), config.input_shape) == cost_of(dense)


def everything_about(module: nn.Module) -> tuple[object, ...]:
    """Modes, attribute names, hooks and methods patched onto instances, of every submodule."""
    return tuple(
        (name, child.training, type(child), sorted(vars(child)), len(child._forward_hooks), "forward" in vars(child))
        for name, child in module.named_modules()
    )


@pytest.mark.parametrize("training", [True, False])
def test_counting_leaves_modes_statistics_and_methods_as_they_were(training):
    config = CondenseNetConfig((2, 1), (4, 4), groups=2, condense_factor=2, input_shape=(3, 8, 8), dropout=0.1)
    network = CondenseNet(config).train(training)
    network.norm.train(not training)  # a mixed state must come back as mixed
    before, state = everything_about(network), {k: v.clone() for k, v in network.state_dict().items()}
    generator_state = torch.get_rng_state()
    fvcore_cost(network, config.input_shape)
    assert everything_about(network) == before
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator_state)


class Squashed(nn.Module):
    def __init__(self, squash: nn.Module) -> None:
        super().__init__()
        self.conv, self.squash = nn.Conv2d(3, 4, 1), squash

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.squash(self.conv(x))


@pytest.mark.parametrize(
    ("squash", "operator"),
    [
        (nn.Sigmoid(), "aten::sigmoid"),
        (nn.MaxPool2d(2), "aten::max_pool2d"),
        (nn.Hardswish(), "aten::hardswish"),
        (nn.GroupNorm(2, 4), "group_norm"),  # fvcore counts it, but as neither convolution nor linear layer
        (nn.UpsamplingNearest2d(scale_factor=2), "upsample_nearest2d"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_an_operator_without_a_known_cost_is_refused_by_name(squash, operator):
    module = Squashed(squash).train()
    with pytest.raises(UncountableOperator, match=operator):
        fvcore_cost(module, (3, 8, 8))
    assert module.training
    assert module.squash.training


def test_small_modules_cost_what_they_cost_by_hand():
    module = nn.Sequential(nn.Conv2d(2, 6, 3, groups=2, bias=False), nn.ReLU(), nn.AvgPool2d(3, stride=2))
    # 6 x 6 -> 4 x 4 positions, each 6 outputs of 9 weights (groups read one channel); pooled to 1 x 1
    assert fvcore_cost(module, (2, 6, 6)) == Cost(
        macs=864, params=54, paper_flops=864 + 96 + 54, conv_macs=864, relu_elements=96, avgpool_ops=54
    )


def test_a_module_in_double_precision_and_one_without_parameters_are_counted():
    assert fvcore_cost(nn.Conv2d(1, 2, 1, bias=False).double(), (1, 2, 2)).macs == 8
    assert fvcore_cost(nn.ReLU(), (1, 2, 2)).relu_elements == 4
