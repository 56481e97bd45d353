"""What a configuration costs once deployed, in closed form: exact, and in microseconds.

Conventions:
- 1 multiply-add counts 1. `macs` are those of convolutions and the linear layer, nothing else.
- `paper_flops` is the convention behind the published tables: macs + every ReLU input element + out * k * k for each
  average pooling + the linear layer's bias.
- `params` are the weights of the unfolded deployed network: convolutions, batch norms (weight and bias, counted as
  often as their channel is gathered), linear weight and bias. Indices are not parameters.

`space.operator_count` counts the same figures on the real module; tests hold the two together over the whole space.
"""

from __future__ import annotations

from dataclasses import dataclass

from space.config import CondenseNetConfig, LayerShape


@dataclass(frozen=True)
class Cost:
    """Cost of one deployed network for one image; see the module's conventions."""

    macs: int
    params: int
    paper_flops: int
    conv_macs: int
    relu_elements: int
    avgpool_ops: int


@dataclass(frozen=True)
class LayerCost:
    """Cost of one dense layer in its deployed form."""

    macs_1x1: int
    macs_3x3: int
    params: int
    relu_elements: int

    @property
    def macs(self) -> int:
        """Multiply-adds of both convolutions."""
        return self.macs_1x1 + self.macs_3x3


def layer_cost(config: CondenseNetConfig, layer: LayerShape) -> LayerCost:
    """Cost of one dense layer: gather, BN, ReLU, 1x1 in G groups, BN, ReLU, 3x3 in groups_3x3 groups."""
    kept = layer.in_channels // config.condense_factor  # inputs of each group
    gathered = kept * config.groups
    weights_1x1 = kept * layer.bottleneck_channels
    weights_3x3 = 9 * (layer.bottleneck_channels // config.conv3x3_groups) * layer.growth
    return LayerCost(
        macs_1x1=weights_1x1 * layer.positions,
        macs_3x3=weights_3x3 * layer.positions,
        params=weights_1x1 + weights_3x3 + 2 * gathered + 2 * layer.bottleneck_channels,
        relu_elements=(gathered + layer.bottleneck_channels) * layer.positions,
    )


def cost_of(config: CondenseNetConfig) -> Cost:
    """Return the exact cost of `config`'s deployed network (CONDENSENET, tables 1-3: `paper_flops`)."""
    in_channels = config.input_shape[0]
    height, width = config.stem_size
    stem_weights = 9 * in_channels * config.stem_channels
    conv_macs = stem_weights * height * width
    params, relu_elements, avgpool_ops = stem_weights, 0, 0
    previous: LayerShape | None = None
    for layer in config.layer_shapes:
        if previous is not None and layer.stage != previous.stage:
            avgpool_ops += 4 * layer.in_channels * layer.positions  # 2 x 2 pooling: out * k * k
        cost = layer_cost(config, layer)
        conv_macs += cost.macs
        params += cost.params
        relu_elements += cost.relu_elements
        previous = layer
    last_height, last_width = config.last_size
    features, classes = config.num_features, config.num_classes
    linear_macs = config.classifier_inputs * classes
    relu_elements += features * last_height * last_width
    avgpool_ops += features * last_height * last_width  # global: one output, k * k = H * W
    params += 2 * features + linear_macs + classes
    macs = conv_macs + linear_macs
    return Cost(
        macs=macs,
        params=params,
        paper_flops=macs + relu_elements + avgpool_ops + classes,
        conv_macs=conv_macs,
        relu_elements=relu_elements,
        avgpool_ops=avgpool_ops,
    )
