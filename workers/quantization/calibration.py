"""Post-training quantization: ranges, scaled channels and corrected shifts, from training images.

Three passes over the images, all in memory:
1. The largest value of each channel. Then channels are scaled so that those that one range must cover are alike
   (cross-layer equalisation: Nagel et al., "Data-Free Quantization", 2019, section 4.1). ReLU allows this between a
   batch norm and the convolution behind it. Features may be scaled freely, as each layer normalises what it reads.
2. The range of each tensor: of those tried the one with the least squared error.
3. The rounded form beside the float one, layer by layer: what rounding shifts an output by on average is subtracted
   (bias correction: the same, section 4.2, here from images). A 3x3 has no bias, so the batch norms that read its
   outputs take it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from space.deployed import DeployedCondenseNet, DeployedLayer
from space.errors import QuantizationFailed
from workers.quantization.levels import Range, best_range
from workers.quantization.network import (
    CLASSIFIER_RANGE,
    INPUT_RANGE,
    QuantizedNetwork,
    Scheme,
    range_1x1,
    range_3x3,
    range_features,
)
from workers.quantization.rounded import RoundedForm, float_form, folded

_DEAD = 1e-3  # of the largest channel; a channel below is scaled as if it reached so far


@torch.no_grad()
def calibrate(
    network: DeployedCondenseNet, images: Tensor, labels: Tensor, scheme: Scheme, equalise: bool = True
) -> QuantizedNetwork:
    """Return `network` ready to be written in 8 bits; the given one is left as it is.

    Args:
        network: the trained network.
        images: training images (N, C, H, W), normalised as in training.
        labels: their classes, (N,).
        scheme: what is to be in 8 bits.
        equalise: scale channels so that those under one range are alike.

    Raises:
        QuantizationFailed: the images are all of one class, or a value overflows on them.
    """
    check_classes(labels)
    network = copy.deepcopy(network).cpu().eval()
    if equalise:
        equalise_channels(network, images)
    ranges = _ranges(network, images, scheme)
    quantized = QuantizedNetwork(copy.deepcopy(network), ranges, scheme)
    _correct_shifts(float_form(network), RoundedForm(quantized), images)
    return quantized


def check_classes(labels: Tensor) -> None:
    """Raise QuantizationFailed if calibration images are of fewer than two classes."""
    if len(labels) == 0 or int(labels.min()) == int(labels.max()):
        raise QuantizationFailed(
            f"calibration images must be of at least 2 classes, but all {len(labels)} are of one: the ranges of the "
            "others would be guessed; use more of the training images."
        )


def _tensors(form: RoundedForm, x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield what each part of a network reads, by the name of its range, and the features of each stage."""
    network, stage = form.network, 0
    yield INPUT_RANGE, x
    x = form.stem(x)
    for number, shape in enumerate(network.config.layer_shapes):
        if shape.stage != stage:
            yield range_features(stage), x
            x, stage = form.pooled(x, shape.stage), shape.stage
        conv = cast(DeployedLayer, network.layers[number]).conv_1x1
        yield range_1x1(number), F.relu(conv.norm(x.index_select(1, conv.index)))
        bottleneck = form.bottleneck(number, x)
        yield range_3x3(number), F.relu(bottleneck)
        x = torch.cat((x, form.new_features(number, bottleneck, stage)), 1)
    yield range_features(stage), x
    x = F.adaptive_avg_pool2d(F.relu(network.norm(x)), 1).flatten(1)
    yield CLASSIFIER_RANGE, x.index_select(1, network.classifier_index)


def _ranges(network: DeployedCondenseNet, images: Tensor, scheme: Scheme) -> dict[str, Range]:
    """Return all ranges. Features have one range in all stages, as pooling can't change levels in most runtimes."""
    ranges = {name: best_range(x, scheme.levels, name) for name, x in _tensors(float_form(network), images)}
    stages = [range_features(stage) for stage in range(len(network.config.stages))]
    widest = Range(min(ranges[name].low for name in stages), max(ranges[name].high for name in stages))
    return {**ranges, **dict.fromkeys(stages, widest)}


# ---- scaled channels -------------------------------------------------------------------------------------


def equalise_channels(network: DeployedCondenseNet, images: Tensor) -> None:
    """Scale the channels of a network in place; what it computes stays the same but for the rounding of floats."""
    largest = {name: _largest_by_channel(x) for name, x in _tensors(float_form(network), images)}
    _scale_features(network, _feature_factors(largest, len(network.config.stages)))
    for number, module in enumerate(network.layers):
        layer = cast(DeployedLayer, module)
        conv, after = layer.conv_1x1, layer.conv_3x3
        columns = _columns(folded(layer)[0], conv.groups)
        factors = _balance(largest[range_1x1(number)], columns)
        _divide_output(conv.norm, factors)
        _multiply_columns(conv.conv.weight, conv.groups, factors)
        factors = _balance(largest[range_3x3(number)], _columns(after.weight, after.groups))
        _divide_output(layer.norm, factors)
        _multiply_columns(after.weight, after.groups, factors)


def _largest_by_channel(x: Tensor) -> Tensor:
    return x.abs().transpose(0, 1).flatten(1).amax(1)


def _feature_factors(largest: dict[str, Tensor], stages: int) -> Tensor:
    """Return each feature's largest value in the stage that made it, (features,)."""
    factors = largest[range_features(stages - 1)].clone()
    for stage in reversed(range(stages)):
        of_stage = largest[range_features(stage)]
        factors[: len(of_stage)] = of_stage
    return factors.clamp_min(_DEAD * float(factors.max()) or 1.0)


def _scale_features(network: DeployedCondenseNet, factors: Tensor) -> None:
    """Divide each feature by its factor where it is made, and multiply it again where it is read."""
    start = network.stem.out_channels
    network.stem.weight.div_(factors[:start].view(-1, 1, 1, 1))
    for module in network.layers:
        layer = cast(DeployedLayer, module)
        end = start + layer.conv_3x3.out_channels
        layer.conv_3x3.weight.div_(factors[start:end].view(-1, 1, 1, 1))
        _read_divided(layer.conv_1x1.norm, factors[layer.conv_1x1.index])
        start = end
    _read_divided(network.norm, factors)


def _read_divided(norm: torch.nn.BatchNorm2d, factors: Tensor) -> None:
    """Make a batch norm give the same for inputs that were divided by `factors`."""
    cast(Tensor, norm.running_mean).div_(factors)
    norm.weight.mul_(factors)


def _columns(weight: Tensor, groups: int) -> Tensor:
    """Return how large the weights of each input channel are, (inputs,), each output's largest weight being 1."""
    outputs = weight.abs().flatten(2).amax(2)  # (outputs, inputs of a group)
    share = outputs / outputs.amax(1, keepdim=True).clamp_min(1e-30)
    return share.view(groups, -1, share.shape[1]).amax(1).flatten()


def _balance(largest: Tensor, columns: Tensor) -> Tensor:
    """Return what to divide each channel by, and multiply its weights by, so that both are equally large."""
    values, weights = (one.clamp_min(_DEAD * float(one.max()) or 1.0) for one in (largest, columns))
    return torch.sqrt(values / weights)


def _divide_output(norm: torch.nn.BatchNorm2d, factors: Tensor) -> None:
    norm.weight.div_(factors)
    norm.bias.div_(factors)


def _multiply_columns(weight: Tensor, groups: int, factors: Tensor) -> None:
    """Multiply each input channel's weights of a group convolution, (outputs, inputs of a group, h, w), in place."""
    of_groups = weight.view(groups, -1, *weight.shape[1:])  # (G, outputs of a group, inputs of a group, h, w)
    of_groups.mul_(factors.view(groups, 1, -1, 1, 1))


# ---- corrected shifts ------------------------------------------------------------------------------------


def _correct_shifts(exact: RoundedForm, rounded: RoundedForm, images: Tensor) -> None:
    """Subtract from the rounded form, in place, what rounding shifts each output by on average."""
    network, stage = rounded.network, 0
    x, y = exact.stem(images), rounded.stem(images)
    shift = _shift(x, y)  # of each feature; it isn't taken from y itself, but by who reads it
    for number, shape in enumerate(network.config.layer_shapes):
        if shape.stage != stage:
            x, y, stage = exact.pooled(x, shape.stage), rounded.pooled(y, shape.stage), shape.stage
        layer = cast(DeployedLayer, network.layers[number])
        cast(Tensor, layer.conv_1x1.norm.running_mean).add_(shift[layer.conv_1x1.index])
        before = exact.bottleneck(number, x)
        layer.norm.bias.sub_(_shift(before, rounded.bottleneck(number, y)))
        new = exact.new_features(number, before, stage)
        of_rounded = rounded.new_features(number, rounded.bottleneck(number, y), stage)
        shift = torch.cat((shift, _shift(new, of_rounded)))
        x, y = torch.cat((x, new), 1), torch.cat((y, of_rounded), 1)
    cast(Tensor, network.norm.running_mean).add_(shift)
    network.classifier.bias.sub_(_shift(exact.logits(x), rounded.logits(y)))


def _shift(exact: Tensor, rounded: Tensor) -> Tensor:
    """Return how much larger each channel is on average, (channels,)."""
    return (rounded - exact).transpose(0, 1).flatten(1).mean(1)
