"""The networks that are compared: the CondenseNet itself, and variations that lack one part of it.

Notable choices:
- A plain group convolution is a learned one that never learns: from the first step each group has in/G inputs, which
  no other group has. So it is initialised, trained and deployed by the product's own code, at the macs of a learned
  group convolution with C = G.
- Which inputs these are is drawn once for each layer ("permuted"), or they are in order ("in order"). The outputs go to
  the 3x3's groups in turn, as the product's do, which mixes the groups like a channel shuffle.
- Dense connectivity within blocks alone is DenseNet's: between blocks a 1x1 convolution to half the channels, then
  pooling. The 1x1 is a learned group convolution too, as in the authors' release (models/densenet_LGC.py).

Source: CondenseNet (CVPR 2018), sections 2.1, 3.1 and 3.2; DenseNet (CVPR 2017), section 3.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from space.config import CondenseNetConfig, LayerShape
from space.cost import Cost, cost_by_layers, cost_of
from space.deployed import DeployedCondenseNet, DeployedGroupConv, deploy
from space.learned_group_conv import LearnedGroupConv, stages_due
from space.network import CondenseNet

PERMUTATION_SEED = 0  # whatever a training's seed is: the permutation is part of the network


@dataclass(frozen=True)
class Variation:
    """How a config becomes a network, that network its deployed form, and what this costs."""

    build: Callable[[CondenseNetConfig], CondenseNet]
    deploy: Callable[[CondenseNet], DeployedCondenseNet]
    cost: Callable[[CondenseNetConfig], Cost]  # of the deployed form, closed form


# -- a plain group convolution --


def permuted_groups(config: CondenseNetConfig) -> CondenseNet:
    """Build a network of plain group convolutions, each over a random permutation of its inputs that never changes."""
    generator = torch.Generator().manual_seed(PERMUTATION_SEED)
    return _with_fixed_groups(config, lambda channels: torch.randperm(channels, generator=generator))


def ordered_groups(config: CondenseNetConfig) -> CondenseNet:
    """Build a network of plain group convolutions: the first group has the first in/G inputs, and so on."""
    return _with_fixed_groups(config, torch.arange)


def _with_fixed_groups(config: CondenseNetConfig, order_of: Callable[[int], Tensor]) -> CondenseNet:
    if config.groups != config.condense_factor:
        raise ValueError(
            "in a plain group convolution each input belongs to one group, so groups == condense_factor must hold, but "
            f"got groups={config.groups}, condense_factor={config.condense_factor}."
        )
    network = CondenseNet(config)
    for conv in network.learned_convs():
        columns = order_of(conv.in_channels).view(config.groups, -1)  # (G, in/G)
        conv.mask.zero_().scatter_(1, columns, 1.0)
        conv.stage.fill_(conv.last_stage)  # nothing is left to condense
    return network


# -- dense connectivity within blocks --


class WithinBlocksConfig(CondenseNetConfig):
    """A config whose layers read what the transition into their block made, and the layers of their block."""

    def _walk(self) -> Iterator[LayerShape]:
        channels = self.stem_channels
        for shape in super()._walk():
            if shape.stage and not shape.index:
                channels = self.transition_channels(channels)
            yield dataclasses.replace(shape, in_channels=channels)
            channels += shape.growth

    def transition_channels(self, channels: int) -> int:
        """Return half of `channels`, rounded up to what G and C divide."""
        divisor = math.lcm(self.groups, self.condense_factor)
        return math.ceil(channels / 2 / divisor) * divisor

    @property
    def num_features(self) -> int:
        """F, the channels of the last block's output."""
        last = self.layer_shapes[-1]
        return last.in_channels + last.growth

    @property
    def transitions(self) -> tuple[tuple[LayerShape, LayerShape], ...]:
        """The last layer before each transition and the first one after it."""
        pairs = itertools.pairwise(self.layer_shapes)
        return tuple((before, after) for before, after in pairs if before.stage != after.stage)


def within_blocks(config: CondenseNetConfig) -> WithinBlocksConfig:
    """Return the same settings with dense connectivity within blocks alone."""
    return WithinBlocksConfig(**{field.name: getattr(config, field.name) for field in dataclasses.fields(config)})


class WithinBlocks(CondenseNet):
    """A CondenseNet with DenseNet's blocks and transitions; see `CondenseNet`."""

    config: WithinBlocksConfig

    def __init__(self, config: CondenseNetConfig) -> None:
        super().__init__(within_blocks(config))
        self.transitions = nn.ModuleList(
            LearnedGroupConv(
                before.in_channels + before.growth, after.in_channels, config.groups, config.condense_factor
            )
            for before, after in self.config.transitions
        )

    def features(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, F), what the classifier reads."""
        return _features(self, x)

    def condense(self, progress: float) -> int:
        """Perform every condensing stage due at `progress`, in layers and transitions; return the stage reached."""
        for conv in self._transition_convs():
            conv.condense_to(stages_due(progress, self.config.condense_factor))
        return super().condense(progress)

    def group_lasso(self) -> Tensor:
        """Return the summed group lasso of layers and transitions, zero once nothing is left to condense."""
        unfinished = [conv.group_lasso() for conv in self._transition_convs() if not conv.fully_condensed]
        return sum(unfinished, start=super().group_lasso())

    def _transition_convs(self) -> Iterator[LearnedGroupConv]:
        return (cast(LearnedGroupConv, conv) for conv in self.transitions)


class DeployedWithinBlocks(DeployedCondenseNet):
    """The deployed form of a `WithinBlocks`; see `DeployedCondenseNet`."""

    config: WithinBlocksConfig

    def __init__(self, config: WithinBlocksConfig) -> None:
        super().__init__(config)
        self.transitions = nn.ModuleList(
            DeployedGroupConv(
                before.in_channels + before.growth, after.in_channels, config.groups, config.condense_factor
            )
            for before, after in config.transitions
        )
        self.eval()

    def features(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, F), equal to the training form's."""
        return _features(self, x)


def _features(network: WithinBlocks | DeployedWithinBlocks, x: Tensor) -> Tensor:
    """Run stem, blocks with transitions and pooling between them, BN, ReLU, global pooling: (N, C, H, W) -> (N, F)."""
    x = network.stem(x)
    stage = 0
    for shape, layer in zip(network.config.layer_shapes, network.layers, strict=True):
        if shape.stage != stage:
            x = F.avg_pool2d(network.transitions[stage](x), 2)
            stage = shape.stage
        x = layer(x)
    return F.adaptive_avg_pool2d(F.relu(network.norm(x)), 1).flatten(1)


@torch.no_grad()
def deploy_within_blocks(model: CondenseNet) -> DeployedCondenseNet:
    """Return the deployed form of a `WithinBlocks` network, in eval mode; see `space.deployed.deploy`."""
    network = cast(WithinBlocks, model)
    deployed = DeployedWithinBlocks(network.config).to(network.classifier.weight)
    deployed.load_state_dict(deploy(network).state_dict(), strict=False)  # all but the transitions
    for target, source in zip(deployed.transitions, network.transitions, strict=True):
        cast(DeployedGroupConv, target).copy_from(cast(LearnedGroupConv, source))
    return deployed.requires_grad_(False)


def cost_within_blocks(config: CondenseNetConfig) -> Cost:
    """Return the exact cost of `DeployedWithinBlocks`: that of the layers, and of the transitions between them."""
    config = within_blocks(config)
    cost = cost_by_layers(config)
    for before, after in config.transitions:
        channels = before.in_channels + before.growth
        weights = channels // config.condense_factor * after.in_channels
        gathered = channels // config.condense_factor * config.groups
        macs, relu = weights * before.positions, gathered * before.positions
        cost = dataclasses.replace(
            cost,
            macs=cost.macs + macs,
            conv_macs=cost.conv_macs + macs,
            relu_elements=cost.relu_elements + relu,
            paper_flops=cost.paper_flops + macs + relu,
            params=cost.params + weights + 2 * gathered,
        )
    return cost


VARIATIONS = {
    "condensenet": Variation(CondenseNet, deploy, cost_of),
    "plain groups, permuted": Variation(permuted_groups, deploy, cost_of),
    "plain groups, in order": Variation(ordered_groups, deploy, cost_of),
    "within blocks": Variation(WithinBlocks, deploy_within_blocks, cost_within_blocks),
}
