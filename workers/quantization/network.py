"""A deployed network together with what it takes to write it in 8 bits: every writer and the kernel start from this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from space.deployed import DeployedCondenseNet
from workers.quantization.levels import LevelKind, Levels, Range

Part = Literal["stem", "conv_1x1", "conv_3x3", "classifier"]
PARTS: tuple[Part, ...] = ("stem", "conv_1x1", "conv_3x3", "classifier")

INPUT_RANGE, CLASSIFIER_RANGE = "input", "classifier"


def range_1x1(layer: int) -> str:
    """Return the name of the range of what a layer's 1x1 reads: gathered, normalised, after ReLU."""
    return f"layers.{layer}.conv_1x1"


def range_3x3(layer: int) -> str:
    """Return the name of the range of what a layer's 3x3 reads: normalised, after ReLU."""
    return f"layers.{layer}.conv_3x3"


def range_features(stage: int) -> str:
    """Return the name of the range of all features of a stage, as layers read them before they normalise."""
    return f"features.{stage}"


@dataclass(frozen=True)
class Scheme:
    """Which parts are computed in 8 bits, and how levels are numbered.

    The weights of parts in `stored` are in 8 bits only in the file: the runtime makes floats of them when it loads it.
    """

    parts: frozenset[Part] = frozenset(PARTS)
    stored: frozenset[Part] = frozenset()
    features: bool = False  # whether features are kept in 8 bits between the layers, one range for each stage
    # Whether norms and 1x1 convolutions read these levels without another rounding; then a feature keeps the levels of
    # the stage that makes it. See `reading`.
    reads_features: bool = False
    levels: LevelKind = "signed"
    float_biases: bool = False  # whether biases are added as floats, not as multiples of the scales


@dataclass(frozen=True)
class QuantizedNetwork:
    """A network whose numbers are ready to be rounded, and the ranges of what its 8-bit parts read.

    `network` computes, in float, what the trained one does: its channels were scaled, which the layer that reads them
    takes back. What rounding shifts on average is subtracted in its batch norms and the classifier's bias. Weights are
    symmetric with one scale for each output channel, `levels.weight_scales` of the weights with batch norms folded in.

    `ranges` has a range under each of the names that this module's functions give; `rounded.RoundedForm` computes what
    a file of it should give.
    """

    network: DeployedCondenseNet
    ranges: Mapping[str, Range]
    scheme: Scheme = field(default_factory=Scheme)

    def levels(self, name: str) -> Levels:
        """Return the levels of a tensor by the name of its range."""
        return self.ranges[name].levels(self.scheme.levels)

    def feature_levels(self) -> tuple[Tensor, Tensor]:
        """Return scale and zero of each feature in the stage that makes it, (features,) float64 each."""
        config = self.network.config
        stages = [0] * config.stem_channels
        for shape in config.layer_shapes:
            stages += [shape.stage] * shape.growth
        levels = [self.levels(range_features(stage)) for stage in range(len(config.stages))]
        scales = torch.tensor([one.scale for one in levels], dtype=torch.float64)
        zeros = torch.tensor([one.zero for one in levels], dtype=torch.float64)
        return scales[stages], zeros[stages]
