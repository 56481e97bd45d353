"""Starting a network from a trained neighbour's weights, where the layers fit.

Notable choices:
- Layers are matched by stage and place within it; channels by the layer that made them. So a network with one more
  layer still takes everything of the layers that both have, and only the new layer's channels begin at random.
- What the neighbour has dropped is taken as zero; the network that starts has dropped nothing yet.
- Nothing is scaled or averaged: a convolution of another width or group count doesn't fit and begins at random.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from space.config import CondenseNetConfig
from space.network import CondenseNet, DenseLayer

Pairs = tuple[list[int], list[int]]  # places of the same channels in this network and in its neighbour


def channel_origins(config: CondenseNetConfig) -> list[tuple[int, int, int]]:
    """Return (stage, layer, channel) of every feature in their order; stage -1 is the stem."""
    origins = [(-1, 0, channel) for channel in range(config.stem_channels)]
    for shape in config.layer_shapes:
        origins += [(shape.stage, shape.index, channel) for channel in range(shape.growth)]
    return origins


@torch.no_grad()
def start_from(network: CondenseNet, donor: CondenseNet) -> float:
    """Copy what fits of `donor` into `network`; return which share of the network's parameters that is."""
    theirs = {origin: place for place, origin in enumerate(channel_origins(donor.config))}
    common = [(place, theirs[at]) for place, at in enumerate(channel_origins(network.config)) if at in theirs]
    copied = _whole(network.stem.weight, donor.stem.weight)
    layers = {(shape.stage, shape.index): layer for shape, layer in _layers(donor)}
    for shape, layer in _layers(network):
        other = layers.get((shape.stage, shape.index))
        if other is not None:
            width = other.conv_1x1.in_channels
            copied += _layer(layer, other, _pairs((a, b) for a, b in common if a < shape.in_channels and b < width))
    everything = _pairs(common)
    copied += _norm(network.norm, donor.norm, everything)
    if network.classifier.out_features == donor.classifier.out_features:
        copied += _columns(network.classifier.weight, donor.classifier.weight, everything)
        copied += _whole(network.classifier.bias, donor.classifier.bias)
    return copied / sum(parameter.numel() for parameter in network.parameters())


def _layers(network: CondenseNet):
    return [
        (shape, cast(DenseLayer, layer))
        for shape, layer in zip(network.config.layer_shapes, network.layers, strict=True)
    ]


def _pairs(common) -> Pairs:
    pairs = list(common)
    return [mine for mine, _ in pairs], [theirs for _, theirs in pairs]


def _layer(mine: DenseLayer, theirs: DenseLayer, channels: Pairs) -> int:
    copied = _norm(mine.conv_1x1.norm, theirs.conv_1x1.norm, channels)
    if mine.conv_1x1.out_channels == theirs.conv_1x1.out_channels:
        alive = theirs.conv_1x1.grouped_weight().view_as(theirs.conv_1x1.weight)
        copied += _columns(mine.conv_1x1.weight, alive, channels)
        every = list(range(theirs.norm.num_features))
        copied += _norm(mine.norm, theirs.norm, (every, every))
    return copied + _whole(mine.conv_3x3.weight, theirs.conv_3x3.weight)


def _norm(mine: nn.BatchNorm2d, theirs: nn.BatchNorm2d, channels: Pairs) -> int:
    places, sources = channels
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(mine, name)[places] = getattr(theirs, name)[sources]
    return 2 * len(places)


def _columns(mine: Tensor, theirs: Tensor, channels: Pairs) -> int:
    places, sources = channels
    mine[:, places] = theirs[:, sources]
    return len(mine) * len(places)


def _whole(mine: Tensor, theirs: Tensor) -> int:
    if mine.shape != theirs.shape:
        return 0
    mine.copy_(theirs)
    return mine.numel()
