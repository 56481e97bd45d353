"""Letting a network in training begin with the layers of a trained one: the way back from the deployed form.

Notable choices:
- A layer that is taken over is condensed already: its index says which columns each group keeps, and that stays. Its
  mask and stage are those of a finished layer, so condensing passes it by while new layers are condensed on schedule.
- Columns that no group keeps are zero, and batch norms of channels that no group reads are fresh; neither is ever used.
- So a network of the same architecture and classes computes at its first step what the trained one does.
- A classifier that is new begins as at random, and is cut on schedule.
"""

from __future__ import annotations

from typing import cast

import safetensors
import safetensors.torch
import torch

from space.deployed import DeployedCondenseNet, DeployedGroupConv, DeployedLayer, copy_norm
from space.errors import CheckpointCorrupt
from space.learned_group_conv import LearnedGroupConv
from space.network import CondenseNet, CutClassifier, DenseLayer
from workers.training.start import Fit, StartNetwork, fit_of


def network_of(start: StartNetwork) -> DeployedCondenseNet:
    """Return the trained network of a start.

    Raises:
        CheckpointCorrupt: its tensors are not those of its config.
    """
    network = DeployedCondenseNet(start.config)
    try:
        network.load_state_dict(safetensors.torch.load(start.content))
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise CheckpointCorrupt(
            f"the network to start from isn't a {start.config}: its tensors have other names or shapes."
        ) from error
    return network.requires_grad_(False).eval()


@torch.no_grad()
def begin_with(model: CondenseNet, start: StartNetwork, class_names: tuple[str, ...]) -> Fit:
    """Give a new network the layers of a trained one that fit it, and return how much that is.

    Args:
        model: a network with random weights, on any device.
        start: the trained network.
        class_names: what `model` is to tell apart; with the same names in the same order its classifier fits too.

    Raises:
        CheckpointCorrupt: see `network_of`.
    """
    fit = fit_of(model.config, start.config, class_names == start.class_names)
    if not fit.layers:
        return fit
    with torch.random.fork_rng(devices=[]):  # its throw-away initialisation must not move the training's generator
        source = network_of(start).to(model.classifier.weight.device)
    model.stem.weight.copy_(source.stem.weight)
    for ours, theirs in zip(list(model.layers)[: fit.layers], source.layers, strict=False):
        new, old = cast(DenseLayer, ours), cast(DeployedLayer, theirs)
        _begin_learned(new.conv_1x1, old.conv_1x1)
        copy_norm(new.norm, old.norm)
        new.conv_3x3.weight.copy_(old.conv_3x3.weight)
    if fit.layers == len(model.layers) == len(source.layers):
        copy_norm(model.norm, source.norm)
    if fit.head:
        _begin_classifier(model.classifier, source)
    return fit


def _begin_learned(conv: LearnedGroupConv, source: DeployedGroupConv) -> None:
    """Make a learned group convolution the condensed one that `source` was deployed from."""
    columns = source.index.view(conv.groups, -1)  # (G, in/C)
    conv.mask.zero_().scatter_(1, columns, 1.0)
    conv.stage.fill_(conv.last_stage)
    kept = source.conv.weight.view(conv.groups, -1, columns.shape[1])  # (G, out/G, in/C)
    grouped = torch.zeros_like(conv.weight).view(-1, conv.groups, conv.in_channels).permute(1, 0, 2)  # (G, out/G, in)
    grouped.scatter_(2, columns.unsqueeze(1).expand_as(kept), kept)
    conv.weight.copy_(grouped.permute(1, 0, 2).reshape(conv.weight.shape))
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(conv.norm, name)[source.index] = getattr(source.norm, name)


def _begin_classifier(classifier: torch.nn.Linear, source: DeployedCondenseNet) -> None:
    """Take over a deployed classifier, and the choice of its inputs where it reads as many as this one will."""
    classifier.weight.zero_()
    classifier.weight[:, source.classifier_index] = source.classifier.weight
    classifier.bias.copy_(source.classifier.bias)
    if isinstance(classifier, CutClassifier) and classifier.kept == len(source.classifier_index):
        classifier.mask.zero_()
        classifier.mask[source.classifier_index] = 1.0
