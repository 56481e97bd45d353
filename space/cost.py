"""What a configuration costs once deployed, as a whole and part by part, in closed form: exact, and in microseconds.

Conventions:
- 1 multiply-add counts 1. `macs` are those of convolutions and the linear layer, nothing else.
- `paper_flops` is the convention behind the published tables: macs + every ReLU input element + out * k * k for each
  average pooling + the linear layer's bias.
- `params` are the weights of the unfolded deployed network: convolutions, batch norms (weight and bias, counted as
  often as their channel is gathered), linear weight and bias. Indices are not parameters.

`space.operator_count` counts the same figures on the real module; tests hold the two together over the whole space.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from space.config import CondenseNetConfig, LayerShape
from space.errors import InvalidConfig

MOST = 2**53  # beyond it databases, JSON and tables would no longer hold the exact number
PartKind = Literal["stem", "pooling", "layer", "norm", "classifier"]


@dataclass(frozen=True)
class Cost:
    """Cost of one deployed network for one image; see the module's conventions."""

    macs: int
    params: int
    paper_flops: int
    conv_macs: int
    relu_elements: int
    avgpool_ops: int


class PartCost(NamedTuple):
    """Cost of one part of a deployed network for one image; see the module's conventions."""

    macs: int = 0
    params: int = 0
    relu_elements: int = 0
    avgpool_ops: int = 0
    bias_adds: int = 0

    @property
    def paper_flops(self) -> int:
        """The cost in the convention of the published tables."""
        return self.macs + self.relu_elements + self.avgpool_ops + self.bias_adds


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
        """The name that people read: stages and layers count from 1."""
        stage = 0 if self.stage is None else self.stage + 1
        if self.kind == "layer":
            return f"stage {stage}, layer {1 + (self.index or 0)}"
        names = {"stem": "stem", "pooling": f"pooling before stage {stage}", "norm": "norm and global pooling"}
        return names.get(self.kind, "classifier")


def cost_of(config: CondenseNetConfig) -> Cost:
    """Return the exact cost of `config`'s deployed network (CONDENSENET, tables 1-3: `paper_flops`).

    Raises:
        InvalidConfig: it is so large that its cost can't be recorded.
    """
    return _summed([_stem_cost(config), *_stage_costs(config), _norm_cost(config), _classifier_cost(config)])


def cost_by_layers(config: CondenseNetConfig) -> Cost:
    """Return the cost of layers as `config.layer_shapes` has them, which a variation of CondenseNet may change.

    It is `cost_of`'s for every CondenseNet, and takes longer.
    """
    return _summed([cost for _, _, cost in _walk(config)])


def _summed(costs: Sequence[PartCost]) -> Cost:
    """Return the cost of a network from its parts', the classifier's last."""
    total = PartCost(*map(sum, zip(*costs, strict=True)))
    if max(total.paper_flops, total.params) > MOST:
        raise InvalidConfig(
            f"a network may have at most 2^53 multiply-adds and parameters, but this one has {total.macs:.2e} and "
            f"{total.params:.2e}; make it smaller."
        )
    return Cost(
        macs=total.macs,
        params=total.params,
        paper_flops=total.paper_flops,
        conv_macs=total.macs - costs[-1].macs,
        relu_elements=total.relu_elements,
        avgpool_ops=total.avgpool_ops,
    )


def parts_of(config: CondenseNetConfig) -> tuple[NetworkPart, ...]:
    """Return the network's parts in the order in which images pass them; their costs add up to `cost_of`'s.

    They are the stem, every dense layer with the poolings between stages, norm and classifier.
    """
    return tuple(
        NetworkPart(
            kind,
            None if shape is None else shape.stage,
            shape.index if shape is not None and kind == "layer" else None,
            *_output_shape(config, kind, shape),
            macs=cost.macs,
            params=cost.params,
            paper_flops=cost.paper_flops,
        )
        for kind, shape, cost in _walk(config)
    )


def _walk(config: CondenseNetConfig) -> Iterator[tuple[PartKind, LayerShape | None, PartCost]]:
    """Yield each part's kind, its dense layer (a pooling's is the one after it), and its cost."""
    yield "stem", None, _stem_cost(config)
    stage = 0
    for shape in config.layer_shapes:
        if shape.stage != stage:
            stage = shape.stage
            yield "pooling", shape, PartCost(avgpool_ops=4 * shape.in_channels * shape.positions)  # out * 2 * 2
        yield "layer", shape, _layer_cost(config, shape)
    yield "norm", None, _norm_cost(config)
    yield "classifier", None, _classifier_cost(config)


def _stem_cost(config: CondenseNetConfig) -> PartCost:
    height, width = config.stem_size
    weights = 9 * config.input_shape[0] * config.stem_channels
    return PartCost(macs=weights * height * width, params=weights)


def _stage_costs(config: CondenseNetConfig) -> Iterator[PartCost]:
    """Yield each stage's cost with the pooling before it: the sum over its layers, in closed form."""
    (height, width), channels = config.stem_size, config.stem_channels
    for stage, (layers, growth) in enumerate(zip(config.stages, config.growth, strict=True)):
        pooling = 0
        if stage:
            height, width = height // 2, width // 2
            pooling = 4 * channels * height * width
        inputs = layers * channels + growth * layers * (layers - 1) // 2  # of all layers; each is a multiple of C
        kept, middle = inputs // config.condense_factor, config.bottleneck * growth
        weights = kept * middle + layers * 9 * (middle // config.conv3x3_groups) * growth
        gathered = kept * config.groups + layers * middle
        yield PartCost(
            macs=weights * height * width,
            params=weights + 2 * gathered,
            relu_elements=gathered * height * width,
            avgpool_ops=pooling,
        )
        channels += layers * growth


def _layer_cost(config: CondenseNetConfig, layer: LayerShape) -> PartCost:
    """Return the cost of gather, BN, ReLU, 1x1 in G groups, BN, ReLU, 3x3 in groups_3x3 groups."""
    kept = layer.in_channels // config.condense_factor  # inputs of each group
    gathered = kept * config.groups
    weights_1x1 = kept * layer.bottleneck_channels
    weights_3x3 = 9 * (layer.bottleneck_channels // config.conv3x3_groups) * layer.growth
    return PartCost(
        macs=(weights_1x1 + weights_3x3) * layer.positions,
        params=weights_1x1 + weights_3x3 + 2 * gathered + 2 * layer.bottleneck_channels,
        relu_elements=(gathered + layer.bottleneck_channels) * layer.positions,
    )


def _norm_cost(config: CondenseNetConfig) -> PartCost:
    """Return the cost of the last batch norm and ReLU, then global average pooling: one output, k * k = H * W."""
    height, width = config.last_size
    elements = config.num_features * height * width
    return PartCost(params=2 * config.num_features, relu_elements=elements, avgpool_ops=elements)


def _classifier_cost(config: CondenseNetConfig) -> PartCost:
    weights, classes = config.classifier_inputs * config.num_classes, config.num_classes
    return PartCost(macs=weights, params=weights + classes, bias_adds=classes)


def _output_shape(config: CondenseNetConfig, kind: PartKind, layer: LayerShape | None) -> tuple[int, int, int, int]:
    """Return a part's input channels, then the channels, height and width of its output."""
    if layer is not None:
        grown = layer.growth if kind == "layer" else 0
        return layer.in_channels, layer.in_channels + grown, layer.height, layer.width
    if kind == "stem":
        return config.input_shape[0], config.stem_channels, *config.stem_size
    return config.num_features, config.num_features if kind == "norm" else config.num_classes, 1, 1
