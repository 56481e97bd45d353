"""The peer: the plainest correct training of a CondenseNet, as one would write it after reading the paper.

Masked weights are multiplied at every step, every layer has its batch norm, features are concatenated, tensors are in
torch's own layout, and nothing is compiled. Attributes are named as in `space.network`, so that both networks can begin
with the same weights.

Source: CondenseNet (CVPR 2018), sections 3 and 4.1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from space.config import CondenseNetConfig


class PlainConv(nn.Module):
    """Norm, ReLU, and a 1x1 convolution whose weight is multiplied by its mask whenever it is used."""

    def __init__(self, inputs: int, outputs: int, groups: int, factor: int) -> None:
        super().__init__()
        self.inputs, self.groups, self.factor = inputs, groups, factor
        self.norm = nn.BatchNorm2d(inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 1, 1))
        self.register_buffer("mask", torch.ones(groups, inputs))
        self.register_buffer("stage", torch.zeros((), dtype=torch.int64))

    def masked(self) -> Tensor:
        rows = self.weight.shape[0] // self.groups
        return self.weight * self.mask.repeat(rows, 1)[:, :, None, None]

    @torch.no_grad()
    def condense(self, stage: int) -> None:
        while self.stage < min(stage, self.factor - 1):
            sums = self.masked().abs().view(-1, self.groups, self.inputs).sum(0)
            for group in range(self.groups):
                left = sums[group].masked_fill(self.mask[group] == 0, math.inf)
                self.mask[group, left.sort(stable=True).indices[: self.inputs // self.factor]] = 0
            self.stage += 1

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.relu(self.norm(x)), self.masked())


class PlainLayer(nn.Module):
    """One dense layer."""

    def __init__(self, inputs: int, mid: int, growth: int, config: CondenseNetConfig) -> None:
        super().__init__()
        self.conv_1x1 = PlainConv(inputs, mid, config.groups, config.condense_factor)
        self.norm = nn.BatchNorm2d(mid)
        self.conv_3x3 = nn.Conv2d(mid, growth, 3, padding=1, groups=config.conv3x3_groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv_3x3(F.relu(self.norm(self.conv_1x1(x))))], 1)


class PlainNetwork(nn.Module):
    """The whole network: images (N, C, H, W) -> logits (N, classes)."""

    def __init__(self, config: CondenseNetConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Conv2d(
            config.input_shape[0], config.stem_channels, 3, stride=config.stem_stride, padding=1, bias=False
        )
        self.layers = nn.ModuleList(
            PlainLayer(shape.in_channels, shape.bottleneck_channels, shape.growth, config)
            for shape in config.layer_shapes
        )
        self.norm = nn.BatchNorm2d(config.num_features)
        self.classifier = nn.Linear(config.num_features, config.num_classes)

    def condense(self, progress: float) -> None:
        last = self.config.condense_factor - 1
        due = sum(progress >= stage / (2 * last) for stage in range(1, last + 1))
        for layer in self.layers:
            layer.conv_1x1.condense(due)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        stage = 0
        for shape, layer in zip(self.config.layer_shapes, self.layers, strict=True):
            if shape.stage != stage:
                x, stage = F.avg_pool2d(x, 2), shape.stage
            x = layer(x)
        return self.classifier(F.relu(self.norm(x)).mean((2, 3)))
