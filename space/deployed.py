"""The deployed form: each learned group convolution becomes a channel gather and a plain group convolution.

Notable choices:
- A network that still has columns to condense is refused; the original release silently keeps the first in/C channels.
- `deploy` copies, returns eval mode, and given a deployed network returns it unchanged.
- The 1x1's output channels come group-major; `shuffle` puts them back into the training form's order, so the following
  batch norm and 3x3 group convolution carry over as they are.

Source: CondenseNet (CVPR 2018), section 3.1, "index layer" and figure 4.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from space.config import CondenseNetConfig, LayerShape
from space.errors import NotFullyCondensed
from space.learned_group_conv import LearnedGroupConv
from space.network import CondenseNet, CutClassifier, DenseLayer, features


class DeployedGroupConv(nn.Module):
    """Gather -> BN -> ReLU -> 1x1 convolution in G groups -> channels back in training order.

    Shapes: (N, in_channels, H, W) -> (N, out_channels, H, W).
    """

    index: Tensor  # (G * in/C,) int64: gathered channels, group by group, ascending inside a group

    def __init__(self, in_channels: int, out_channels: int, groups: int, condense_factor: int) -> None:
        super().__init__()
        kept = in_channels // condense_factor
        self.groups = groups
        self.register_buffer("index", torch.arange(kept).repeat(groups))
        self.norm = nn.BatchNorm2d(groups * kept)
        self.conv = nn.Conv2d(groups * kept, out_channels, 1, groups=groups, bias=False)

    @property
    def permutation(self) -> Tensor:
        """(out,) int64: output channel o of the training form is channel permutation[o] of the group convolution."""
        out = self.conv.out_channels
        return torch.arange(out).view(self.groups, out // self.groups).t().reshape(-1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, H, W)."""
        x = self.conv(F.relu(self.norm(x.index_select(1, self.index))))
        n, channels, height, width = x.shape
        x = x.view(n, self.groups, channels // self.groups, height, width).transpose(1, 2)
        return x.reshape(n, channels, height, width)

    @torch.no_grad()
    def copy_from(self, source: LearnedGroupConv) -> None:
        """Take indices, batch norm and weights from a fully condensed layer."""
        columns = source.kept_columns().to(source.weight.device)  # (G, kept)
        self.index.copy_(columns.reshape(-1))
        copy_norm(self.norm, source.norm, self.index)
        grouped = source.grouped_weight().permute(1, 0, 2)  # (G, out/G, in)
        picked = grouped.gather(2, columns.unsqueeze(1).expand(-1, grouped.shape[1], -1))
        self.conv.weight.copy_(picked.reshape(self.conv.weight.shape))


class DeployedLayer(nn.Module):
    """One dense layer as deployed; (N, in, H, W) -> (N, in + growth, H, W)."""

    def __init__(self, config: CondenseNetConfig, shape: LayerShape) -> None:
        super().__init__()
        self.in_channels = shape.in_channels
        self.conv_1x1 = DeployedGroupConv(
            shape.in_channels, shape.bottleneck_channels, config.groups, config.condense_factor
        )
        self.norm = nn.BatchNorm2d(shape.bottleneck_channels)
        self.conv_3x3 = nn.Conv2d(
            shape.bottleneck_channels, shape.growth, 3, padding=1, groups=config.conv3x3_groups, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Append the layer's new features to its input."""
        new = self.conv_3x3(F.relu(self.norm(self.conv_1x1(x))))
        return torch.cat((x, new), 1)


class DeployedCondenseNet(nn.Module):
    """The network that runs on the device; build it with `deploy` or `DeployedCondenseNet.random`.

    Shapes: images (N, *config.input_shape) -> logits (N, config.num_classes).
    """

    classifier_index: Tensor  # (classifier_inputs,) int64, ascending: the features the classifier reads

    def __init__(self, config: CondenseNetConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Conv2d(
            config.input_shape[0], config.stem_channels, 3, stride=config.stem_stride, padding=1, bias=False
        )
        self.layers = nn.ModuleList(DeployedLayer(config, shape) for shape in config.layer_shapes)
        self.norm = nn.BatchNorm2d(config.num_features)
        self.register_buffer("classifier_index", torch.arange(config.classifier_inputs))
        self.classifier = nn.Linear(config.classifier_inputs, config.num_classes)
        self.eval()

    @classmethod
    def random(cls, config: CondenseNetConfig, seed: int = 0) -> DeployedCondenseNet:
        """Build an untrained network with valid random indices: same operators, same speed, for pricing.

        Neither torch's global generator nor the caller's state is touched.
        """
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU as well
            network = cls(config)
        for shape, layer in zip(config.layer_shapes, network.layers, strict=True):
            kept = shape.in_channels // config.condense_factor
            rows = [
                torch.randperm(shape.in_channels, generator=generator)[:kept].sort().values
                for _ in range(config.groups)
            ]
            cast(DeployedLayer, layer).conv_1x1.index.copy_(torch.cat(rows))
        chosen = torch.randperm(config.num_features, generator=generator)[: config.classifier_inputs]
        network.classifier_index.copy_(chosen.sort().values)
        return network.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, classes)."""
        return cast(Tensor, self.classifier(self.features(x).index_select(1, self.classifier_index)))

    def features(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, num_features), equal to the training form's."""
        return features(self, x)


@torch.no_grad()
def copy_norm(target: nn.BatchNorm2d, source: nn.BatchNorm2d, index: Tensor | None = None) -> None:
    """Copy weight, bias and running statistics, gathered by `index` where given."""
    for name in ("weight", "bias", "running_mean", "running_var"):
        values = cast(Tensor, getattr(source, name))
        cast(Tensor, getattr(target, name)).copy_(values if index is None else values[index])


@torch.no_grad()
def deploy(model: CondenseNet | DeployedCondenseNet) -> DeployedCondenseNet:
    """Return the deployed form of a fully condensed network, in eval mode; a deployed network returns itself.

    A classifier that is to be cut (`classifier_keep` below 1) and wasn't yet, because it was hardly trained, is cut
    here, and its logits change; measure accuracy on what this returns.

    Raises:
        NotFullyCondensed: a layer has condensing stages to go; the message names it.
    """
    if isinstance(model, DeployedCondenseNet):
        return model.eval()
    for shape, conv in zip(model.config.layer_shapes, model.learned_convs(), strict=True):
        if not conv.fully_condensed:
            raise NotFullyCondensed(
                f"only a fully condensed network can be deployed, but stage {shape.stage + 1}, layer "
                f"{shape.index + 1} has performed {int(conv.stage)} of {conv.last_stage} condensing stages; train past "
                "half of the schedule, or call condense(1.0)."
            )
    with torch.random.fork_rng(devices=[]):  # the throw-away initialisation must not move the caller's generator
        deployed = DeployedCondenseNet(model.config).to(model.classifier.weight)  # device and precision
    deployed.stem.weight.copy_(model.stem.weight)
    for target, source in zip(deployed.layers, model.layers, strict=True):
        new, old = cast(DeployedLayer, target), cast(DenseLayer, source)
        new.conv_1x1.copy_from(old.conv_1x1)
        copy_norm(new.norm, old.norm)
        new.conv_3x3.weight.copy_(old.conv_3x3.weight)
    copy_norm(deployed.norm, model.norm)
    classifier = model.classifier
    everything = torch.arange(classifier.in_features)
    kept = classifier.kept_columns() if isinstance(classifier, CutClassifier) else everything
    deployed.classifier_index.copy_(kept)
    deployed.classifier.weight.copy_(classifier.weight[:, kept])
    deployed.classifier.bias.copy_(classifier.bias)
    return deployed.requires_grad_(False).eval()
