"""The quantized network in torch's floats: every 8-bit tensor is rounded as a runtime would.

It says what a file in 8 bits must give, and it is what a fine-tune trains: gradients pass through the rounding
(straight-through, Bengio et al. 2013). Batch norms stay as they are in evaluation: only their scale and shift move.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from space.deployed import DeployedCondenseNet, DeployedLayer
from workers.quantization.levels import rounded_weight, weight_scales
from workers.quantization.network import (
    CLASSIFIER_RANGE,
    INPUT_RANGE,
    Part,
    QuantizedNetwork,
    Scheme,
    range_1x1,
    range_3x3,
    range_features,
)
from workers.quantization.reading import Reading, reading_of


def folded(layer: DeployedLayer) -> tuple[Tensor, Tensor]:
    """Return the 1x1's weight and bias with the batch norm after it folded in; outputs come group by group."""
    scale = layer.norm.weight / torch.sqrt(cast(Tensor, layer.norm.running_var) + layer.norm.eps)
    shift = layer.norm.bias - cast(Tensor, layer.norm.running_mean) * scale
    back = torch.argsort(layer.conv_1x1.permutation).to(scale.device)  # channel of the convolution -> of the norm
    return layer.conv_1x1.conv.weight * scale[back].view(-1, 1, 1, 1), shift[back]


class RoundedForm(nn.Module):
    """The network of a `QuantizedNetwork` as its files compute it; images (N, C, H, W) -> logits (N, classes)."""

    def __init__(self, quantized: QuantizedNetwork) -> None:
        super().__init__()
        self.quantized = quantized
        self.network = quantized.network

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, classes)."""
        x, stage = self.stem(x), 0
        for number, shape in enumerate(self.network.config.layer_shapes):
            if shape.stage != stage:
                x, stage = self.pooled(x, shape.stage), shape.stage
            x = torch.cat((x, self.new_features(number, self.bottleneck(number, x), stage)), 1)
        return self.logits(x)

    def stem(self, x: Tensor) -> Tensor:
        """Return the features of the first convolution."""
        stem = self.network.stem
        return self._features(self._conv("stem", INPUT_RANGE, x, stem, stem.weight, None), 0)

    def pooled(self, x: Tensor, stage: int) -> Tensor:
        """Return the features that a stage begins with."""
        x = F.avg_pool2d(x, 2)
        if not self.quantized.scheme.reads_features:
            return self._features(x, stage)
        scale = self.quantized.feature_levels()[0][: x.shape[1]].to(x).view(-1, 1, 1)
        return x + (torch.floor(x / scale + 0.5) * scale - x).detach()

    def bottleneck(self, number: int, x: Tensor) -> Tensor:
        """Return what a layer's 1x1 makes of the features, normalised, before ReLU, in training order."""
        layer = self._layer(number)
        conv = layer.conv_1x1
        if self.quantized.scheme.reads_features:
            made = self._from_levels(layer, x)
        else:
            x = F.relu(conv.norm(x.index_select(1, conv.index)))
            made = self._conv("conv_1x1", range_1x1(number), x, conv.conv, *folded(layer))
        return made.index_select(1, conv.permutation.to(made.device))

    def new_features(self, number: int, bottleneck: Tensor, stage: int) -> Tensor:
        """Return what a layer adds to the features of its stage."""
        conv = self._layer(number).conv_3x3
        made = self._conv("conv_3x3", range_3x3(number), F.relu(bottleneck), conv, conv.weight, None)
        return self._features(made, stage)

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of the last stage's features."""
        network, index = self.network, self.network.classifier_index
        if self.quantized.scheme.reads_features:
            levels, reading = self._read(network.norm, index, x)
            x = F.adaptive_avg_pool2d(levels, 1).flatten(1) * reading.slope + reading.rest
        else:
            x = F.adaptive_avg_pool2d(F.relu(network.norm(x)), 1).flatten(1).index_select(1, index)
        weight, bias = network.classifier.weight, network.classifier.bias
        return F.linear(*self._rounded("classifier", CLASSIFIER_RANGE, x, weight, bias), bias)

    def _from_levels(self, layer: DeployedLayer, x: Tensor) -> Tensor:
        """Return what a 1x1 makes of the levels of features, group by group."""
        conv, groups = layer.conv_1x1, layer.conv_1x1.groups
        levels, reading = self._read(conv.norm, conv.index, x)
        weight, bias = folded(layer)
        of_groups = weight.view(groups, -1, weight.shape[1])  # (G, outputs of a group, columns)
        slope, rest = (one.view(groups, 1, -1) for one in (reading.slope, reading.rest))
        bias = bias + (of_groups * rest).sum(2).flatten()
        weight = (of_groups * slope).reshape(weight.shape)
        return F.conv2d(levels, rounded_weight(weight, weight_scales(weight, bias)), bias, groups=groups)

    def _read(self, norm: nn.Module, index: Tensor, x: Tensor) -> tuple[Tensor, Reading]:
        """Return the levels of picked features, within their limits and beside their offsets, and how they are read."""
        norm = cast(nn.BatchNorm2d, norm)
        scale = norm.weight / torch.sqrt(cast(Tensor, norm.running_var) + norm.eps)
        shift = norm.bias - cast(Tensor, norm.running_mean) * scale
        if len(scale) != len(index):  # the last norm is that of all features
            scale, shift = scale[index], shift[index]
        level_scale, zero = (one.to(x)[index] for one in self.quantized.feature_levels())
        reading = reading_of(scale, shift, level_scale, zero)
        low, high, offset = (one.view(-1, 1, 1) for one in (reading.low, reading.high, reading.offset))
        levels = x.index_select(1, index) / level_scale.view(-1, 1, 1) + zero.view(-1, 1, 1)
        return torch.minimum(torch.maximum(levels, low), high) - offset, reading

    def _layer(self, number: int) -> DeployedLayer:
        return cast(DeployedLayer, self.network.layers[number])

    def _features(self, x: Tensor, stage: int) -> Tensor:
        return self.quantized.levels(range_features(stage)).rounded(x) if self.quantized.scheme.features else x

    def _conv(self, part: Part, name: str, x: Tensor, conv: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> Tensor:
        x, weight = self._rounded(part, name, x, weight, bias)
        return F.conv2d(x, weight, bias, conv.stride, cast(tuple[int, int], conv.padding), 1, conv.groups)

    def _rounded(self, part: Part, name: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return what a part reads and its weights, each rounded where the scheme says so."""
        scheme = self.quantized.scheme
        if part in scheme.parts:
            levels = self.quantized.levels(name)
            scales = weight_scales(weight, None if scheme.float_biases else bias, levels.scale)
            return levels.rounded(x), rounded_weight(weight, scales)
        return x, rounded_weight(weight, weight_scales(weight)) if part in scheme.stored else weight


def float_form(network: DeployedCondenseNet) -> RoundedForm:
    """Return the same walk through a network with nothing rounded."""
    return RoundedForm(QuantizedNetwork(network, {}, Scheme(frozenset())))
