"""The training form of a CondenseNet: dense blocks of learned group convolutions.

Notable choices:
- Progress is an argument of `forward`, never a global: two networks in one process don't touch each other, and an
  evaluation never condenses.
- Transitions are 2x2 average pooling only; global average pooling before the classifier serves any image size.
- A classifier that reads only a share of the features drops the columns with the smallest L1 norms at half of the
  schedule, as the layers drop theirs, and the rest of the training makes up for it. The authors' release cuts after the
  training. The mask is the truth and a buffer: masked weights still drift by momentum and decay.
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

from space.condensing_schedule import cut_due, stages_due
from space.config import CondenseNetConfig, LayerShape
from space.learned_group_conv import LearnedGroupConv


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


class CutClassifier(nn.Linear):
    """A linear layer of which `kept` input features stay; (N, in_features) -> (N, out_features)."""

    mask: Tensor  # (in_features,) of 0 and 1

    def __init__(self, in_features: int, out_features: int, kept: int) -> None:
        super().__init__(in_features, out_features)
        self.kept = kept
        self.register_buffer("mask", torch.ones(in_features))

    @property
    def is_cut(self) -> bool:
        """Whether only the kept features are read."""
        return int(self.mask.sum()) == self.kept

    @torch.no_grad()
    def cut(self) -> None:
        """Keep the features whose columns have the largest L1 norm; nothing happens if that was done."""
        kept = self.kept_columns()
        self.mask.zero_()
        self.mask[kept] = 1.0

    def kept_columns(self) -> Tensor:
        """Return (kept,) int64: the features that are read, or would be if they were chosen now; ascending."""
        norms = torch.where(self.mask > 0, self.weight.abs().sum(0), -1.0)
        return norms.argsort(descending=True, stable=True)[: self.kept].sort().values

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return F.linear(x, self.weight * self.mask, self.bias)


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
        self.classifier = _classifier(config)
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
        """Whether nothing is left to drop: the network computes what its deployed form does."""
        cut = not isinstance(self.classifier, CutClassifier) or self.classifier.is_cut
        return cut and all(conv.fully_condensed for conv in self.learned_convs())

    def condense(self, progress: float) -> int:
        """Perform every condensing stage due at `progress`, however far it jumped; return the stage reached.

        The classifier is cut when it is due, too.
        """
        due = stages_due(progress, self.config.condense_factor)
        for conv in self.learned_convs():
            conv.condense_to(due)
        if isinstance(self.classifier, CutClassifier) and cut_due(progress):
            self.classifier.cut()
        return self.condensing_stage

    def group_lasso(self) -> Tensor:
        """Return the summed group lasso of all layers; zero once nothing is left to condense, for any G and C."""
        on = ((conv, conv.stage < conv.last_stage) for conv in self.learned_convs())  # on the device: no waiting
        return torch.stack([conv.group_lasso() * unfinished for conv, unfinished in on]).sum()


def _classifier(config: CondenseNetConfig) -> nn.Linear:
    if config.classifier_inputs == config.num_features:
        return nn.Linear(config.num_features, config.num_classes)
    return CutClassifier(config.num_features, config.num_classes, config.classifier_inputs)


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
