"""How a network in training is run: in the compiled kernel where there is one, else in torch; the results agree.

Both train the same `CondenseNet`, whose tensors stay where they are, and differ by rounding alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, cast

import torch
from torch import Tensor

from space.errors import InvalidSettings
from space.network import CondenseNet
from workers.compiled.dense_layers import CompiledLayers
from workers.compiled.library import NotCompiled

EVALUATION_BATCH = 256  # images, where nothing else limits it
Kernel = Literal["auto", "compiled", "torch"]


@dataclass(frozen=True)
class ForwardSettings:
    """How a network is to be run."""

    kernel: Kernel = "auto"  # auto: compiled where that is possible
    recompute: bool = False  # of the compiled kernel: less memory, a fifth more time
    capacity: int = EVALUATION_BATCH  # the largest batch


class Forward(Protocol):
    """Runs a network: images (N, C, H, W) -> logits (N, classes), in the network's mode, with gradients."""

    name: str  # for logs
    largest_batch: int  # images

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits."""

    def masks_changed(self) -> None:
        """Take note that the network was condensed, or that a checkpoint was loaded into it."""


class TorchForward:
    """The network in torch, channels-last: convolutions and batch norms of few channels take half the time so."""

    def __init__(self, network: CondenseNet, name: str = "torch") -> None:
        self.name = name
        self.largest_batch = EVALUATION_BATCH
        self._network = network.to(memory_format=torch.channels_last)

    def __call__(self, images: Tensor) -> Tensor:
        """See `Forward`."""
        return cast(Tensor, self._network(images.to(memory_format=torch.channels_last)))

    def masks_changed(self) -> None:
        """Do nothing: the masks are read at every step."""


class CompiledForward:
    """Stem and classifier in torch, the dense layers in the compiled kernel."""

    name = "compiled kernel"

    def __init__(self, network: CondenseNet, settings: ForwardSettings) -> None:
        self._network, self.largest_batch = network, settings.capacity
        threads = torch.get_num_threads()
        self._layers = CompiledLayers(network, settings.capacity, threads, settings.recompute)

    def __call__(self, images: Tensor) -> Tensor:
        """See `Forward`."""
        return cast(Tensor, self._network.classifier(self._layers(self._network.stem(images))))

    def masks_changed(self) -> None:
        """Hand the masks on to the kernel."""
        self._layers.masks_changed()


def forward_of(network: CondenseNet, settings: ForwardSettings) -> Forward:
    """Return how `network` is run where it is now: its device decides with the settings.

    Raises:
        InvalidSettings: the compiled kernel was asked for and can't run it.
    """
    reasons: list[str] = []
    if settings.kernel == "torch":
        return TorchForward(network)
    if network.classifier.weight.device.type != "cpu":
        reasons.append(f"it runs on the CPU, not on {network.classifier.weight.device}")
    if type(network) is not CondenseNet:
        reasons.append(f"it knows no {type(network).__name__}")
    if network.config.dropout:
        reasons.append("it knows no dropout")
    if not reasons:
        try:
            return CompiledForward(network, settings)
        except NotCompiled as error:
            reasons.append(str(error))
    if settings.kernel == "compiled":
        raise InvalidSettings(
            f"the compiled training kernel can't be used: {reasons[0]}; or set engine.kernel = 'auto'."
        )
    return TorchForward(network, f"torch (the compiled kernel can't be used: {reasons[0]})")
