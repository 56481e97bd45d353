"""The group lasso: the paper's formula, on until nothing is left to condense, and always with a usable gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from space.config import CondenseNetConfig
from space.learned_group_conv import LearnedGroupConv
from space.network import CondenseNet
from tests.space.strategies import SEEDS


def lasso_by_the_formula(conv: LearnedGroupConv) -> float:
    """Sum over groups, over living columns, of the square root of the sum of squares over the group's rows."""
    weight, total = conv.weight.detach()[:, :, 0, 0].tolist(), 0.0
    for group in range(conv.groups):
        for column in range(conv.in_channels):
            if conv.mask[group, column]:
                rows = range(group, conv.out_channels, conv.groups)
                total += math.sqrt(sum(weight[row][column] ** 2 for row in rows))
    return total


@settings(max_examples=40)
@given(st.sampled_from((1, 2, 4)), st.sampled_from((1, 2, 3, 4)), st.integers(0, 3), SEEDS)
def test_the_lasso_of_a_layer_is_the_plain_formula(groups, condense_factor, stage, seed):
    torch.manual_seed(seed)
    conv = LearnedGroupConv(2 * condense_factor, 2 * groups, groups, condense_factor)
    conv.condense_to(stage)
    assert conv.group_lasso().item() == pytest.approx(lasso_by_the_formula(conv), rel=1e-5)


@pytest.mark.parametrize(("groups", "condense_factor"), [(1, 4), (4, 2), (2, 4), (4, 4), (1, 2), (8, 3)])
def test_the_lasso_is_on_until_the_network_is_fully_condensed_and_zero_after(groups, condense_factor):
    growth = math.lcm(groups, condense_factor)
    config = CondenseNetConfig((2,), (growth,), groups, condense_factor, bottleneck=1, input_shape=(1, 4, 4))
    network = CondenseNet(config).train()
    for stage in range(condense_factor - 1):
        network.condense(stage / (2 * (condense_factor - 1)))
        assert network.condensing_stage == stage
        expected = sum(lasso_by_the_formula(conv) for conv in network.learned_convs())
        assert expected > 0.0
        assert network.group_lasso().item() == pytest.approx(expected, rel=1e-5)
    network.condense(0.5)
    assert network.group_lasso().item() == 0.0


def test_a_network_that_never_condenses_has_no_lasso():
    config = CondenseNetConfig((1,), (4,), groups=4, condense_factor=1, input_shape=(1, 4, 4))
    assert CondenseNet(config).group_lasso().item() == 0.0


def test_the_gradient_is_the_unit_vector_of_a_column_and_finite_where_a_column_is_zero():
    conv = LearnedGroupConv(4, 4, 2, 4)
    with torch.no_grad():
        conv.weight.copy_(torch.arange(1.0, 17.0).view(4, 4, 1, 1))
        conv.weight[0::2, 1] = 0.0  # column 1 of group 0
    conv.group_lasso().backward()
    assert conv.weight.grad is not None
    gradient = conv.weight.grad[:, :, 0, 0]
    assert bool(gradient.isfinite().all())
    assert gradient[0::2, 1].tolist() == [0.0, 0.0]
    column = conv.weight.detach()[1::2, 2, 0, 0]  # group 1 holds rows 1 and 3
    assert torch.allclose(gradient[1::2, 2], column / column.norm())


def test_the_gradient_of_an_all_zero_network_is_finite_at_every_stage():
    config = CondenseNetConfig((1,), (4,), groups=2, condense_factor=4, input_shape=(1, 4, 4))
    network = CondenseNet(config)
    with torch.no_grad():
        for conv in network.learned_convs():
            conv.weight.zero_()
    for progress in (0.0, 0.2, 0.4):
        network.condense(progress)
        network.zero_grad()
        lasso = network.group_lasso()
        lasso.backward()
        assert lasso.item() == pytest.approx(0.0, abs=1e-9)
        for conv in network.learned_convs():
            assert conv.weight.grad is not None
            assert bool(conv.weight.grad.isfinite().all())


def test_columns_that_are_gone_get_no_gradient():
    conv = LearnedGroupConv(4, 4, 2, 4)
    conv.condense_to(2)
    conv.group_lasso().backward()
    assert conv.weight.grad is not None
    gone = (conv.mask == 0).repeat(2, 1)
    assert conv.weight.grad[:, :, 0, 0][gone].abs().max() == 0.0
    assert conv.weight.grad[:, :, 0, 0][~gone].abs().min() > 0.0
