"""The training form of a CondenseNet: dense blocks of learned group convolutions.

Notable choices:
- Progress is an argument of `forward`, never a global: two networks in one process don't touch each other, and an
  evaluation never condenses.
- Transitions are 2x2 average pooling only; global average pooling before the classifier serves any image size.
- Initialisation: convolutions N(0, sqrt(2 / (k^2 out))) with groups ignored, batch norm 1 and 0, linear bias 0.

Source: CondenseNet (CVPR 2018), section 3 and the authors' release.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from space.config import CondenseNetConfig, LayerShape
from space.learned_group_conv import LearnedGroupConv, stages_due


class DenseLayer(nn.Module):
    """1x1 learned group convolution -> BN -> ReLU -> 3x3 group convolution; the input is kept beside the output."""

    def __init__(self, config: CondenseNetConfig, shape: LayerShape) -> None:
        super().__init__()
        self.conv_1x1 = LearnedGroupConv(
            shape.in_channels,
            shape.bottleneck_channels,
            config.groups,
            config.condense_factor,
            config.dropout,
        )
        self.norm = nn.BatchNorm2d(shape.bottleneck_channels)
        self.conv_3x3 = nn.Conv2d(
            shape.bottleneck_channels, shape.growth, 3, padding=1, groups=config.conv3x3_groups, bias=False
        )
        nn.init.normal_(self.conv_3x3.weight, std=math.sqrt(2.0 / (9 * shape.growth)))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, in + growth, H, W)."""
        new = self.conv_3x3(F.relu(self.norm(self.conv_1x1(x))))
        return torch.cat((x, new), 1)


class CondenseNet(nn.Module):
    """The network while it is trained and condensed; `space.deploy` turns it into what is deployed.

    Shapes: images (N, *config.input_shape) -> logits (N, config.num_classes).
    """

    def __init__(self, config: CondenseNetConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Conv2d(
            config.input_shape[0], config.stem_channels, 3, stride=config.stem_stride, padding=1, bias=False
        )
        nn.init.normal_(self.stem.weight, std=math.sqrt(2.0 / (9 * config.stem_channels)))
        self.layers = nn.ModuleList(DenseLayer(config, shape) for shape in config.layer_shapes)
        self.norm = nn.BatchNorm2d(config.num_features)
        self.classifier = nn.Linear(config.num_features, config.num_classes)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor, progress: float | None = None) -> Tensor:
        """(N, C, H, W) -> (N, classes); in train mode `progress` (0..1) first performs the condensing that is due."""
        if self.training and progress is not None:
            self.condense(progress)
        return cast(Tensor, self.classifier(self.features(x)))

    def features(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, num_features), what the classifier reads."""
        return features(self, x)

    def learned_convs(self) -> Iterator[LearnedGroupConv]:
        """Iterate over the learned group convolutions in order."""
        for layer in self.layers:
            yield cast(DenseLayer, layer).conv_1x1

    @property
    def condensing_stage(self) -> int:
        """Condensing stages every layer has performed, 0..C-1."""
        return min(int(conv.stage) for conv in self.learned_convs())

    @property
    def fully_condensed(self) -> bool:
        """Whether the deployed form exists."""
        return all(conv.fully_condensed for conv in self.learned_convs())

    def condense(self, progress: float) -> int:
        """Perform every condensing stage due at `progress`, however far it jumped; return the stage reached."""
        due = stages_due(progress, self.config.condense_factor)
        for conv in self.learned_convs():
            conv.condense_to(due)
        return self.condensing_stage

    def group_lasso(self) -> Tensor:
        """Return the summed group lasso of all layers; zero once nothing is left to condense, for any G and C."""
        on = ((conv, conv.stage < conv.last_stage) for conv in self.learned_convs())  # on the device: no waiting
        return torch.stack([conv.group_lasso() * unfinished for conv, unfinished in on]).sum()


def features(network: nn.Module, x: Tensor) -> Tensor:
    """Run stem, dense layers with pooling between stages, BN, ReLU, global pooling: (N, C, H, W) -> (N, F).

    Shared by the training and the deployed form, whose attributes have the same names.
    """
    config = cast(CondenseNetConfig, network.config)
    x = cast(nn.Module, network.stem)(x)
    stage = 0
    for shape, layer in zip(config.layer_shapes, cast(nn.ModuleList, network.layers), strict=True):
        if shape.stage != stage:
            x = F.avg_pool2d(x, 2)
            stage = shape.stage
        x = layer(x)
    x = F.relu(cast(nn.Module, network.norm)(x))
    return F.adaptive_avg_pool2d(x, 1).flatten(1)
