"""Deploying: the same features from an index and a group convolution, and nothing disturbed on the way."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from hypothesis import given, settings
from torch import nn

from space.config import CondenseNetConfig
from space.deployed import DeployedCondenseNet, DeployedGroupConv, deploy
from space.errors import NotFullyCondensed
from space.network import CondenseNet
from tests.space.strategies import SEEDS, configs, images, used_network

SMALL = CondenseNetConfig((2, 1), (8, 4), groups=2, condense_factor=4, bottleneck=2, input_shape=(3, 6, 6))


@settings(max_examples=40)
@given(configs(), SEEDS)
def test_the_deployed_features_are_the_trained_ones(config, seed):
    network = used_network(config, seed)
    batch = images(config, 3, seed + 99)
    with torch.no_grad():
        trained, deployed = network.features(batch), deploy(network).features(batch)
    assert trained.shape == (3, config.num_features)
    assert float((deployed - trained).abs().max()) <= 1e-5 * float(trained.abs().max())


@settings(max_examples=15)
@given(configs(keep=1.0), SEEDS)
def test_in_double_precision_the_full_classifier_gives_the_same_logits_to_twelve_digits(config, seed):
    network = used_network(config, seed).double()
    batch = images(config, 2, seed).double()
    with torch.no_grad():
        trained, deployed = network(batch), deploy(network)(batch)
    assert deployed.dtype == torch.float64
    assert torch.allclose(deployed, trained, rtol=1e-10, atol=1e-12 * float(trained.abs().max()))


@settings(max_examples=15)
@given(configs(keep=0.5), SEEDS)
def test_a_classifier_that_was_cut_in_time_gives_the_same_logits(config, seed):
    network = used_network(config, seed).double()
    network.condense(1.0)
    assert network.fully_condensed
    batch = images(config, 2, seed).double()
    with torch.no_grad():
        trained, deployed = network(batch), deploy(network)(batch)
    assert torch.allclose(deployed, trained, rtol=1e-10, atol=1e-12 * float(trained.abs().max()))


@pytest.mark.parametrize("condense_factor", [1, 4])
def test_the_classifier_is_cut_at_half_of_the_schedule_once_and_by_the_norms_of_then(condense_factor):
    config = dataclasses.replace(SMALL, condense_factor=condense_factor, classifier_keep=0.5)
    network = CondenseNet(config)
    network.condense(0.49)
    assert not network.classifier.is_cut
    norms = network.classifier.weight.detach().abs().sum(0)
    network.condense(0.5)
    assert network.classifier.is_cut
    assert network.fully_condensed
    kept = network.classifier.mask.nonzero().flatten()
    assert kept.tolist() == norms.argsort(descending=True)[: config.classifier_inputs].sort().values.tolist()
    with torch.no_grad():
        network.classifier.weight[:, network.classifier.mask == 0] = 1e3  # what momentum leaves there means nothing
    network.condense(1.0)
    assert deploy(network).classifier_index.tolist() == kept.tolist()


@settings(max_examples=15)
@given(configs(), SEEDS)
def test_the_classifier_keeps_the_features_with_the_largest_norms(config, seed):
    network = used_network(config, seed)
    deployed = deploy(network)
    norms = network.classifier.weight.detach().abs().sum(0)
    kept = deployed.classifier_index
    assert kept.tolist() == sorted(set(kept.tolist()))
    assert len(kept) == config.classifier_inputs
    gone = torch.tensor([f for f in range(config.num_features) if f not in set(kept.tolist())], dtype=torch.int64)
    if len(gone):
        assert float(norms[kept].min()) >= float(norms[gone].max())
    with torch.no_grad():
        features = deployed.features(images(config, 2))
        expected = features[:, kept] @ network.classifier.weight[:, kept].T + network.classifier.bias
        assert torch.allclose(deployed(images(config, 2)), expected, rtol=1e-4, atol=1e-5)


def test_the_kept_columns_are_copied_group_by_group():
    network = used_network(SMALL, 1)
    for conv, layer in zip(network.learned_convs(), deploy(network).layers, strict=True):
        new = layer.conv_1x1
        kept = conv.in_channels // 4
        assert new.index.view(2, kept).tolist() == conv.kept_columns().tolist()
        for group in range(2):
            for row in range(conv.out_channels // 2):
                source = conv.weight[2 * row + group, conv.kept_columns()[group]]
                assert torch.equal(new.conv.weight[group * (conv.out_channels // 2) + row], source)


def test_the_permutation_describes_what_the_forward_pass_does():
    conv = DeployedGroupConv(4, 6, 2, 2).eval()
    x = torch.rand(1, 4, 3, 3)
    with torch.no_grad():
        straight = conv.conv(torch.relu(conv.norm(x[:, conv.index])))
        assert torch.equal(conv(x), straight[:, conv.permutation])
    assert conv.permutation.tolist() == [0, 3, 1, 4, 2, 5]


def test_every_module_of_the_deployed_network_is_in_eval_mode_and_frozen():
    network = used_network(SMALL, 0).train()
    deployed = deploy(network)
    assert not any(module.training for module in deployed.modules())
    assert not any(parameter.requires_grad for parameter in deployed.parameters())
    assert all(module.training for module in network.modules())  # the source stays as it was


def test_deploying_twice_returns_the_same_network_unchanged():
    config = dataclasses.replace(SMALL, classifier_keep=0.5)
    once = deploy(used_network(config, 0))
    state = copy.deepcopy(once.state_dict())
    twice = deploy(once.train())
    assert twice is once
    assert not any(module.training for module in twice.modules())
    assert twice.classifier.in_features == config.num_features // 2
    assert all(torch.equal(value, state[name]) for name, value in twice.state_dict().items())


@pytest.mark.parametrize(("progress", "performed"), [(0.0, 0), (0.2, 1), (0.49, 2)])
def test_an_under_condensed_network_is_refused_with_the_layer_and_what_to_do(progress, performed):
    network = CondenseNet(SMALL)
    network.condense(progress)
    with pytest.raises(NotFullyCondensed) as caught:
        deploy(network)
    message = str(caught.value)
    assert "stage 1, layer 1" in message
    assert f"{performed} of 3 condensing stages" in message
    assert "condense(1.0)" in message
    assert "\n" not in message


def test_one_layer_left_behind_is_found_and_named():
    network = CondenseNet(SMALL)
    for conv in list(network.learned_convs())[:-1]:
        conv.condense_to(3)
    with pytest.raises(NotFullyCondensed, match=r"stage 2, layer 1 has performed 0 of 3"):
        deploy(network)


def test_neither_deploying_nor_a_random_network_moves_the_global_generator():
    network = used_network(SMALL, 0)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    deploy(network)
    DeployedCondenseNet.random(SMALL, seed=3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_random_network_does_not_seed_the_gpu():
    before = torch.cuda.get_rng_state()
    DeployedCondenseNet.random(SMALL, seed=3)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def test_the_deployed_network_shares_no_memory_with_its_source():
    network = used_network(SMALL, 0)
    deployed = deploy(network)
    addresses = {tensor.untyped_storage().data_ptr() for tensor in tensors(network)}
    assert not addresses & {tensor.untyped_storage().data_ptr() for tensor in tensors(deployed)}
    before = deployed(images(SMALL, 2))
    with torch.no_grad():
        for tensor in tensors(network):
            tensor.zero_()
    assert torch.equal(deployed(images(SMALL, 2)), before)


def test_deploying_leaves_the_source_unchanged():
    network = used_network(SMALL, 0)
    state = copy.deepcopy(network.state_dict())
    deploy(network)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@settings(max_examples=30)
@given(configs(), SEEDS)
def test_a_random_network_has_valid_indices_and_the_right_output(config, seed):
    network = DeployedCondenseNet.random(config, seed)
    for shape, layer in zip(config.layer_shapes, network.layers, strict=True):
        index = layer.conv_1x1.index.view(config.groups, shape.in_channels // config.condense_factor)
        for row in index.tolist():
            assert row == sorted(set(row))
            assert set(row) <= set(range(shape.in_channels))
    kept = network.classifier_index.tolist()
    assert kept == sorted(set(kept))
    assert len(kept) == config.classifier_inputs
    assert set(kept) <= set(range(config.num_features))
    assert network(images(config, 2)).shape == (2, config.num_classes)
    assert not network.training


def test_a_random_network_depends_on_its_seed_and_nothing_else():
    first = DeployedCondenseNet.random(SMALL, seed=5).state_dict()
    torch.rand(17)
    again = DeployedCondenseNet.random(SMALL, seed=5).state_dict()
    other = DeployedCondenseNet.random(SMALL, seed=6).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["layers.0.conv_1x1.index"], other["layers.0.conv_1x1.index"])
    assert not torch.equal(first["stem.weight"], other["stem.weight"])
