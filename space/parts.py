"""The parts of one deployed network in the order in which images pass them, each with its exact cost.

`space.cost.cost_of` says what a network costs, this where: macs, params and paper_flops of the parts add up to its
figures exactly (its conventions hold here too).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from space.config import CondenseNetConfig, LayerShape
from space.cost import layer_cost

PartKind = Literal["stem", "pooling", "layer", "norm", "classifier"]


@dataclass(frozen=True)
class NetworkPart:
    """One part; channels and (height, width) are those of its output, costs those of one image.

    `stage` and `index` (within the stage) count from 0; stem, norm and classifier are of no stage, a pooling is of the
    stage that it leads to.
    """

    kind: PartKind
    stage: int | None
    index: int | None
    in_channels: int
    out_channels: int
    height: int
    width: int
    macs: int
    params: int
    paper_flops: int

    @property
    def name(self) -> str:
        """What people read: stages and layers count from 1."""
        stage = 0 if self.stage is None else self.stage + 1
        if self.kind == "layer":
            return f"stage {stage}, layer {1 + (self.index or 0)}"
        names = {"stem": "stem", "pooling": f"pooling before stage {stage}", "norm": "norm and global pooling"}
        return names.get(self.kind, "classifier")


def parts_of(config: CondenseNetConfig) -> tuple[NetworkPart, ...]:
    """Return the network's parts: the stem, every dense layer, the poolings between stages, norm and classifier."""
    return tuple(_walk(config))


def _walk(config: CondenseNetConfig) -> Iterator[NetworkPart]:
    yield _stem(config)
    stage = 0
    for shape in config.layer_shapes:
        if shape.stage != stage:
            stage = shape.stage
            yield _pooling(shape)
        yield _layer(config, shape)
    yield _norm(config)
    features, classes = config.num_features, config.num_classes
    linear = config.classifier_inputs * classes
    yield NetworkPart(
        "classifier",
        None,
        None,
        features,
        classes,
        1,
        1,
        macs=linear,
        params=linear + classes,
        paper_flops=linear + classes,
    )


def _stem(config: CondenseNetConfig) -> NetworkPart:
    height, width = config.stem_size
    weights = 9 * config.input_shape[0] * config.stem_channels
    macs = weights * height * width
    return NetworkPart(
        "stem", None, None, config.input_shape[0], config.stem_channels, height, width, macs, weights, macs
    )


def _pooling(next_layer: LayerShape) -> NetworkPart:
    channels, height, width = next_layer.in_channels, next_layer.height, next_layer.width
    return NetworkPart(
        "pooling", next_layer.stage, None, channels, channels, height, width, 0, 0, 4 * channels * height * width
    )


def _layer(config: CondenseNetConfig, shape: LayerShape) -> NetworkPart:
    cost = layer_cost(config, shape)
    return NetworkPart(
        kind="layer",
        stage=shape.stage,
        index=shape.index,
        in_channels=shape.in_channels,
        out_channels=shape.in_channels + shape.growth,
        height=shape.height,
        width=shape.width,
        macs=cost.macs,
        params=cost.params,
        paper_flops=cost.macs + cost.relu_elements,
    )


def _norm(config: CondenseNetConfig) -> NetworkPart:
    """The last batch norm and ReLU, then global average pooling: one output of each channel."""
    height, width = config.last_size
    features = config.num_features
    elements = features * height * width
    return NetworkPart("norm", None, None, features, features, 1, 1, 0, 2 * features, 2 * elements)
