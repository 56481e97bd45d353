"""The training form: shapes, initial values, pooling and dropout."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.nn import functional as F

from space.config import CondenseNetConfig
from space.network import CondenseNet
from tests.space.strategies import configs, images


@settings(max_examples=20)
@given(configs())
def test_a_batch_of_images_gives_a_row_of_logits_each(config):
    network = CondenseNet(config).eval()
    with torch.no_grad():
        assert network(images(config, 2)).shape == (2, config.num_classes)
        assert network.features(images(config, 2)).shape == (2, config.num_features)


def test_weights_start_normal_with_the_spread_of_all_outputs_whatever_the_groups():
    torch.manual_seed(0)
    network = CondenseNet(CondenseNetConfig((3,), (64,), groups=8, condense_factor=4, input_shape=(3, 8, 8)))
    spread = {
        network.stem.weight: math.sqrt(2 / (9 * 128)),
        network.layers[2].conv_1x1.weight: math.sqrt(2 / 256),
        network.layers[2].conv_3x3.weight: math.sqrt(2 / (9 * 64)),
    }
    for weight, expected in spread.items():
        assert weight.detach().std().item() == pytest.approx(expected, rel=0.05)
        assert abs(weight.detach().mean().item()) < 0.1 * expected


def test_batch_norm_starts_at_one_and_zero_and_the_classifier_without_bias():
    network = CondenseNet(CondenseNetConfig((1, 1), (4, 4), groups=2, condense_factor=2, input_shape=(1, 4, 4)))
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 2 * 2 + 1
    for norm in norms:
        assert bool((norm.weight == 1).all())
        assert bool((norm.bias == 0).all())
    assert bool((network.classifier.bias == 0).all())
    assert not any(conv.bias is not None for conv in network.modules() if isinstance(conv, nn.Conv2d))


def test_the_forward_pass_is_the_papers_written_out_by_hand():
    config = CondenseNetConfig((1, 1), (4, 4), groups=2, condense_factor=2, bottleneck=2, input_shape=(3, 5, 7))
    network = CondenseNet(config).eval()
    x = images(config, 2)
    with torch.no_grad():
        y = F.conv2d(x, network.stem.weight, padding=1)
        for number, layer in enumerate(network.layers):
            if number == 1:
                y = F.avg_pool2d(y, 2)  # 5 x 7 -> 2 x 3
            weight = layer.conv_1x1.weight
            new = F.conv2d(F.relu(layer.conv_1x1.norm(y)), weight)
            new = F.conv2d(F.relu(layer.norm(new)), layer.conv_3x3.weight, padding=1, groups=2)
            y = torch.cat((y, new), 1)
        assert y.shape == (2, 16, 2, 3)
        expected = network.classifier(F.relu(network.norm(y)).mean((2, 3)))
        assert torch.allclose(network(x), expected, rtol=1e-5, atol=1e-6)


def test_dropout_acts_in_training_only():
    config = CondenseNetConfig((2,), (4,), groups=2, condense_factor=1, input_shape=(1, 4, 4), dropout=0.5)
    network, x = CondenseNet(config), images(config, 2)
    torch.manual_seed(0)
    first, second = network.train()(x), network(x)
    assert not torch.equal(first, second)
    network.eval()
    assert torch.equal(network(x), network(x))
