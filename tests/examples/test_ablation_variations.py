"""The networks that the ablation compares: each is what it is called, and costs what is said of it."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from examples.ablation.plan import COMPARISONS, FASHION, LINES
from examples.ablation.variations import (
    VARIATIONS,
    WithinBlocks,
    cost_within_blocks,
    deploy_within_blocks,
    ordered_groups,
    permuted_groups,
    within_blocks,
)
from space.config import CondenseNetConfig
from space.cost import cost_by_layers, cost_of
from space.errors import InvalidConfig, NotFullyCondensed
from space.network import CondenseNet
from space.operator_count import fvcore_cost

TRAININGS = {(training.line, training.config.stages[0]): training for training in FASHION.trainings(1)}
SMALL = CondenseNetConfig(stages=(2, 2), growth=(4, 8), groups=2, condense_factor=2, input_shape=(1, 8, 8))


def shake_norms(network: torch.nn.Module) -> None:
    """Give every batch norm statistics and weights of its own, as training would."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                values.copy_(torch.rand(values.shape, generator=generator) + 0.5)


# --- what all of them have in common ----------------------------------------------------------------------------


@pytest.mark.parametrize("place", TRAININGS, ids=lambda place: f"{place[0]}-{place[1]}")
def test_the_closed_form_is_what_fvcore_counts_on_the_deployed_network(place):
    training = TRAININGS[place]
    network = training.variation.build(training.config)
    network.condense(1.0)
    assert fvcore_cost(training.variation.deploy(network.eval()), (1, 14, 14)) == training.cost


@pytest.mark.parametrize("name", VARIATIONS)
def test_forwards_and_backwards_every_parameter_has_its_part(name):
    network = VARIATIONS[name].build(SMALL).train()
    logits = network(torch.randn(3, 1, 8, 8), progress=0.0)
    assert logits.shape == (3, 10)
    F.cross_entropy(logits, torch.tensor([1, 2, 3])).backward()
    for parameter, values in network.named_parameters():
        assert values.grad.shape == values.shape
        assert values.grad.abs().sum() > 0, parameter


@pytest.mark.parametrize("name", VARIATIONS)
def test_the_deployed_network_computes_what_the_trained_one_does(name):
    network = VARIATIONS[name].build(SMALL)
    shake_norms(network)
    network.condense(1.0)
    x = torch.randn(3, 1, 8, 8)
    deployed = VARIATIONS[name].deploy(network.eval())
    assert not any(module.training for module in deployed.modules())
    assert torch.allclose(deployed(x), network(x), atol=1e-5)
    assert torch.allclose(deployed.features(x), network.features(x), atol=1e-5)


@pytest.mark.parametrize("name", VARIATIONS)
def test_the_same_seed_begins_with_the_same_network(name):
    one, other = (VARIATIONS[name].build(SMALL).state_dict() for _ in range(2) if torch.manual_seed(3))
    assert all(torch.equal(one[key], other[key]) for key in one)


# --- plain group convolutions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("build", "ordered"), [(permuted_groups, False), (ordered_groups, True)])
def test_a_plain_group_convolution_is_the_one_computed_by_hand(build, ordered):
    network = build(SMALL).eval()
    shake_norms(network)
    conv = list(network.learned_convs())[2]
    channels, groups = conv.in_channels, 2
    x = torch.randn(2, channels, 3, 3)
    norm = conv.norm
    scaled = (x - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + norm.eps).sqrt()
    seen = F.relu(scaled * norm.weight[:, None, None] + norm.bias[:, None, None])
    columns = [[c for c in range(channels) if conv.mask[group, c]] for group in range(groups)]
    assert sorted(columns[0] + columns[1]) == list(range(channels))
    assert (columns[0] == list(range(channels // 2))) == ordered
    expected = torch.zeros(2, conv.out_channels, 3, 3)
    for o in range(conv.out_channels):
        for c in columns[o % groups]:
            expected[:, o] += conv.weight[o, c, 0, 0] * seen[:, c]
    assert torch.allclose(conv(x), expected, atol=1e-5)


def test_a_plain_group_convolution_never_learns_which_inputs_it_has_and_costs_what_a_learned_one_does():
    network = permuted_groups(SMALL).train()
    before = [conv.mask.clone() for conv in network.learned_convs()]
    network(torch.randn(2, 1, 8, 8), progress=1.0)
    assert all(torch.equal(conv.mask, mask) for conv, mask in zip(network.learned_convs(), before, strict=True))
    assert network.fully_condensed
    assert network.group_lasso() == 0
    for depth in LINES["permuted"].depths:
        costs = {TRAININGS[line, depth].cost.macs for line in ("permuted", "ordered", "condensenet")}
        assert len(costs) == 1


def test_the_permutation_is_the_same_for_every_seed_of_training_and_differs_between_layers():
    masks = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        masks.append([conv.mask for conv in permuted_groups(SMALL).learned_convs()])
    assert all(torch.equal(one, other) for one, other in zip(*masks, strict=True))
    wide = CondenseNetConfig(stages=(1, 1), growth=(16, 16), groups=2, condense_factor=2, input_shape=(1, 8, 8))
    first, second = (conv.mask for conv in permuted_groups(wide).learned_convs())
    assert not torch.equal(first, second[:, : first.shape[1]])


def test_groups_that_share_inputs_are_not_plain():
    with pytest.raises(ValueError, match="groups=2, condense_factor=4"):
        permuted_groups(CondenseNetConfig(stages=(1,), growth=(4,), groups=2, condense_factor=4))


def test_a_condense_factor_of_1_is_a_dense_convolution_whatever_g_is():
    dense = TRAININGS["dense", 1].config
    grouped = dataclasses.replace(dense, groups=4)
    x, networks = torch.randn(2, 1, 14, 14), []
    for config in (dense, grouped):
        torch.manual_seed(5)
        networks.append(CondenseNet(config).eval())
    assert torch.equal(*(network(x) for network in networks))
    assert cost_of(dense).macs == cost_of(grouped).macs


# --- dense connectivity within blocks ---------------------------------------------------------------------------


def test_the_channels_within_blocks_are_those_counted_by_hand():
    config = within_blocks(dataclasses.replace(SMALL, stages=(2, 2, 1), growth=(4, 8, 8)))
    # stem 8; 8 + 4 + 4 = 16, halved: 8; 8 + 8 + 8 = 24, halved: 12; 12 + 8 = 20
    assert [shape.in_channels for shape in config.layer_shapes] == [8, 12, 8, 16, 12]
    assert config.num_features == 20
    transitions = WithinBlocks(config).transitions
    assert [(conv.in_channels, conv.out_channels) for conv in transitions] == [(16, 8), (24, 12)]


def test_what_a_transition_costs_is_what_is_counted_by_hand():
    config = dataclasses.replace(SMALL, stages=(2, 1))
    whole, layers = cost_within_blocks(config), cost_by_layers(within_blocks(config))
    assert whole.macs - layers.macs == (16 // 2) * 8 * 64  # half of 16 channels for each of 8 outputs, at 8 x 8
    assert whole.params - layers.params == (16 // 2) * 8 + 2 * 16
    assert whole.relu_elements - layers.relu_elements == 16 * 64


def test_a_later_block_sees_an_earlier_one_through_the_transition_alone():
    images = torch.randn(2, 1, 8, 8)
    within, across = WithinBlocks(SMALL).eval(), CondenseNet(SMALL).eval()
    assert not torch.allclose(*within(images), atol=1e-4)
    torch.nn.init.zeros_(within.transitions[0].weight)
    assert torch.allclose(*within(images), atol=1e-6)
    torch.nn.init.zeros_(across.layers[1].conv_3x3.weight)  # the last layer before the pooling
    assert not torch.allclose(*across(images), atol=1e-4)


def test_transitions_are_condensed_with_the_layers_and_counted_in_the_lasso():
    network = WithinBlocks(SMALL)
    (transition,) = network.transitions
    assert network.group_lasso() > CondenseNet.group_lasso(network)
    assert network.condense(0.0) == 0
    assert network.condense(0.5) == 1
    assert transition.fully_condensed
    assert network.group_lasso() == 0


def test_only_a_condensed_network_within_blocks_can_be_deployed():
    with pytest.raises(NotFullyCondensed):
        deploy_within_blocks(WithinBlocks(SMALL))


def test_channels_that_g_does_not_divide_are_refused_within_blocks_as_across():
    with pytest.raises(InvalidConfig, match="in_channels"):
        within_blocks(dataclasses.replace(SMALL, groups=4, condense_factor=1, groups_3x3=2, growth=(4, 6)))


# --- the plan ---------------------------------------------------------------------------------------------------


def test_every_line_has_a_curve_and_lines_that_are_compared_lie_beside_each_other():
    for line in LINES:
        assert len(FASHION.configs(line)) >= 3
    for comparison in COMPARISONS.values():
        spans = []
        for line in comparison.lines:
            macs = [training.cost.macs for (name, _), training in TRAININGS.items() if name == line]
            assert macs == sorted(macs)
            spans.append((macs[0], macs[-1]))
        assert min(high for _, high in spans) > 2.5 * max(low for low, _ in spans)


def test_every_training_of_the_plan_is_another_and_seeds_come_one_after_the_other():
    trainings = FASHION.trainings(3)
    assert len({FASHION.identity(training) for training in trainings}) == len(trainings) == 84
    assert [training.seed for training in trainings] == [0] * 28 + [1] * 28 + [2] * 28
