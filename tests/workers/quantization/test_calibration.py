"""Calibration on training images: the same network, ranges that cover what it computes, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from space.config import CondenseNetConfig
from space.deployed import DeployedCondenseNet
from space.errors import QuantizationFailed
from tests.workers.tiny import NET, digits
from workers.images.batches import ImageData
from workers.quantization.calibration import calibrate, equalise_channels
from workers.quantization.calibration_images import calibration_images
from workers.quantization.fine_tuning import fine_tuned
from workers.quantization.levels import MOST_WEIGHT, Range, rounded_weight, weight_scales
from workers.quantization.network import PARTS, QuantizedNetwork, Scheme, range_1x1, range_3x3, range_features
from workers.quantization.rounded import RoundedForm, float_form

GROUPED = CondenseNetConfig(
    stages=(2, 1), growth=(4, 8), groups=2, condense_factor=2, bottleneck=2, groups_3x3=4, input_shape=(1, 8, 8)
)
EVERYTHING = Scheme(frozenset(PARTS), features=True)


def lively(config: CondenseNetConfig) -> DeployedCondenseNet:
    """A network whose batch norms differ from channel to channel, some of them negative."""
    network, generator = DeployedCondenseNet.random(config, 3), torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values, spread in ((module.weight, 1.0), (module.bias, 0.5), (module.running_mean, 0.3)):
                assert isinstance(values, Tensor)
                values.copy_(torch.randn(values.shape, generator=generator) * spread)
    return network


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> ImageData:
    return digits(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def chosen(images) -> tuple[Tensor, Tensor]:
    pixels, labels = calibration_images(images, NET)
    return pixels[:48], labels[:48]


def off(logits: Tensor, exact: Tensor) -> float:
    return float((logits - exact).abs().max() / exact.abs().max())


def test_calibration_images_are_training_images_of_every_class_normalised(images) -> None:
    pixels, labels = calibration_images(images, NET)
    assert pixels.shape == (256, 1, 8, 8)
    assert labels.bincount(minlength=10).min() >= 20
    assert abs(float(pixels.mean())) < 0.05
    assert torch.equal(pixels, calibration_images(images, NET)[0])


def test_equalised_channels_leave_the_network_as_it_is(chosen) -> None:
    for config in (NET, GROUPED):
        network = lively(config)
        exact = network(chosen[0])
        equalise_channels(network, chosen[0])
        assert off(network(chosen[0]), exact) < 1e-5
        assert off(float_form(network)(chosen[0]), exact) < 1e-5


def test_equalised_features_reach_equally_far(chosen) -> None:
    network = lively(GROUPED)
    equalise_channels(network, chosen[0])
    stem = float_form(network).stem(chosen[0]).abs().amax((0, 2, 3))
    torch.testing.assert_close(stem, torch.ones_like(stem))


@pytest.mark.parametrize("kind", ["signed", "unsigned", "symmetric"])
def test_the_rounded_form_is_near_the_network_and_not_shifted(chosen, kind) -> None:
    network = lively(GROUPED)
    exact = network(chosen[0])
    quantized = calibrate(network, *chosen, Scheme(frozenset(PARTS), True, kind))
    logits = RoundedForm(quantized)(chosen[0])
    assert 0 < off(logits, exact) < 0.1
    assert off(logits.mean(0), exact.mean(0)) < 1e-4
    names = {range_1x1(2), range_3x3(0), range_features(1), "input", "classifier"}
    assert names <= quantized.ranges.keys()


def test_the_given_network_is_left_as_it_is(chosen) -> None:
    network = lively(NET)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    calibrate(network, *chosen, EVERYTHING)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_what_is_not_in_the_scheme_is_not_rounded(chosen) -> None:
    network = lively(NET)
    quantized = calibrate(network, *chosen, Scheme(frozenset()))
    assert off(RoundedForm(quantized)(chosen[0]), network(chosen[0])) < 1e-5


def test_zero_is_a_level_and_ranges_are_covered() -> None:
    for low, high in ((0.0, 3.0), (-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0), (0.0, 0.0)):
        for kind in ("signed", "unsigned", "symmetric"):
            levels = Range(low, high).levels(kind)
            ends = torch.tensor([0.0, low, high])
            assert levels.lowest <= levels.zero <= levels.highest
            torch.testing.assert_close(levels.rounded(ends), ends, atol=levels.scale / 2 + 1e-12, rtol=1e-6)
            assert levels.rounded(ends)[0] == 0


def test_a_large_bias_beside_small_weights_still_fits_32_bits() -> None:
    weight, bias = torch.full((2, 3, 1, 1), 1e-9), torch.tensor([5.0, 1e-9])
    scales = weight_scales(weight, bias, input_scale=0.01)
    assert float((bias / (0.01 * scales)).abs().max()) < 2**30
    assert rounded_weight(weight, scales)[1].allclose(weight[1])
    assert float(weight.max() / scales[1]) == pytest.approx(MOST_WEIGHT)


def test_images_of_one_class_are_refused(chosen) -> None:
    images, labels = chosen
    with pytest.raises(QuantizationFailed, match="at least 2 classes, but all 48 are of one") as refused:
        calibrate(DeployedCondenseNet.random(NET), images, torch.zeros_like(labels), EVERYTHING)
    assert refused.value.exit_code == 80


def test_an_overflow_is_said_with_its_place(chosen) -> None:
    network = DeployedCondenseNet.random(NET)
    network.stem.weight.mul_(1e38)
    with pytest.raises(QuantizationFailed, match=r"finite number .* but \S+ overflows on the calibration images"):
        calibrate(network, *chosen, EVERYTHING)


def test_gradients_pass_through_the_rounding(chosen) -> None:
    quantized: QuantizedNetwork = calibrate(lively(NET), *chosen, EVERYTHING)
    quantized.network.requires_grad_(True)
    RoundedForm(quantized)(chosen[0][:8]).square().sum().backward()
    gradients = [weight.grad for weight in quantized.network.parameters()]
    assert all(gradient is not None and float(gradient.abs().sum()) > 0 for gradient in gradients)


def test_a_fine_tune_lowers_the_loss_of_the_rounded_form_and_leaves_the_given_network(chosen) -> None:
    images, labels = chosen
    quantized = calibrate(lively(NET), images, labels, EVERYTHING)
    before = quantized.network.stem.weight.clone()
    tuned = fine_tuned(quantized, lambda step: (images, labels), steps=12, learning_rate=0.05)
    losses = [float(cross_entropy(RoundedForm(one)(images), labels)) for one in (quantized, tuned)]
    assert losses[1] < losses[0] - 0.05
    assert torch.equal(quantized.network.stem.weight, before)


def test_weights_that_are_only_stored_in_8_bits_are_rounded_alone(chosen) -> None:
    network = lively(NET)
    quantized = calibrate(network, *chosen, Scheme(frozenset(), frozenset(PARTS)))
    assert 1e-5 < off(RoundedForm(quantized)(chosen[0]), network(chosen[0])) < 0.05
