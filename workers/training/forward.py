"""How a network in training is run: in the compiled kernel where there is one, else in torch; the results agree.

Both train the same `CondenseNet`, whose tensors stay where they are, and differ by rounding alone.
"""

from __future__ import annotations

import gc
import statistics
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from space.config import CondenseNetConfig
from space.cost import parts_of
from space.errors import InvalidSettings
from space.network import CondenseNet
from workers.compiled.dense_layers import CompiledLayers
from workers.compiled.library import NotCompiled
from workers.settings import Kernel

EVALUATION_BATCH = 256  # images, where nothing else limits it
LEAST_SHARED_MACS = 16e6  # of a batch in a layer: with less, threads wait for each other longer than they compute
CPU_EVALUATION_BATCH = 64  # what lies between the layers of more images leaves the cache


Note = Callable[[str], None]


@dataclass(frozen=True)
class ForwardSettings:
    """How a network is to be run."""

    kernel: Kernel = "auto"  # auto: compiled where that is possible
    recompute: bool = False  # of the compiled kernel: less memory, a fifth more time
    capacity: int = EVALUATION_BATCH  # the largest batch
    note: Note = lambda text: None  # told what turns out later


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


class _Replayable(nn.Module):
    """A network as a module of its own, so that recording changes this module's `forward` and not the network's."""

    def __init__(self, network: CondenseNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Run the network."""
        return cast(Tensor, self.network(images))


class GraphedForward(TorchForward):
    """The network in torch on a CUDA device, its way forward and back recorded once and replayed as CUDA graphs.

    A CondenseNet is many small operators, and launching each takes longer than running it. Masks are tensors that
    condensing changes where they are, so a recording stays valid. Batches of another size, and evaluations, run as they
    are. Source: torch.cuda.make_graphed_callables.
    """

    def __init__(self, network: CondenseNet, note: Note) -> None:
        super().__init__(network, "torch with CUDA graphs")
        self._note = note
        self._replayable = _Replayable(network)
        self._shape: torch.Size | None = None  # of the recorded batch
        weakref.finalize(self, _forget_recording, self._replayable)

    def __call__(self, images: Tensor) -> Tensor:
        """See `Forward`; the first batch in train mode is recorded."""
        images = images.to(memory_format=torch.channels_last)
        if self._network.training and self._shape is None:
            self._record(images)
        if self._network.training and images.shape == self._shape:
            return cast(Tensor, self._replayable(images))
        return cast(Tensor, self._network(images))

    def _record(self, images: Tensor) -> None:
        """Record the network's two ways; the runs that this takes leave no trace in its running statistics."""
        self._shape = images.shape
        kept = {name: values.clone() for name, values in self._network.state_dict().items()}
        self._replayable.train()
        try:
            torch.cuda.make_graphed_callables(self._replayable, (images.clone(),))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # whatever a driver can't record runs as it is
            self._note(f"CUDA graphs can't be used, so every step is launched anew: {str(error).splitlines()[0]}")
        self._network.load_state_dict(kept)
        # A replay writes gradients where it wrote the last ones. Without gradients of their own the parameters would
        # take this memory over, and every step would add to what it has just written.
        for parameter in self._network.parameters():
            parameter.grad = torch.zeros_like(parameter)


def _forget_recording(replayable: nn.Module) -> None:
    """Free a recording's memory at once: it refers to itself, and Python doesn't see how much a GPU holds for it."""
    replayable.__dict__.pop("forward", None)
    gc.collect()


class CompiledForward:
    """Stem and classifier in torch, the dense layers in the compiled kernel."""

    name = "compiled kernel"

    def __init__(self, network: CondenseNet, settings: ForwardSettings) -> None:
        self._network, self.largest_batch = network, settings.capacity
        large = _macs_of_a_layer(network.config) * settings.capacity >= LEAST_SHARED_MACS
        threads = torch.get_num_threads() if large else 1
        self._layers = CompiledLayers(network, settings.capacity, threads, settings.recompute)

    def __call__(self, images: Tensor) -> Tensor:
        """See `Forward`."""
        return cast(Tensor, self._network.classifier(self._layers(self._network.stem(images))))

    def masks_changed(self) -> None:
        """Hand the masks on to the kernel."""
        self._layers.masks_changed()


def _macs_of_a_layer(config: CondenseNetConfig) -> float:
    """Return the multiply-adds of one image in a dense layer before anything is dropped, on average."""
    dense = replace(config, condense_factor=1)
    return statistics.fmean(part.macs for part in parts_of(dense) if part.kind == "layer")


def forward_of(network: CondenseNet, settings: ForwardSettings) -> Forward:
    """Return how `network` is run where it is now: its device decides with the settings.

    Raises:
        InvalidSettings: the compiled kernel was asked for and can't run it.
    """
    reasons: list[str] = []
    no_recompute = "; engine.recompute has no effect" if settings.recompute else ""
    if settings.kernel == "torch":
        return TorchForward(network, f"torch{no_recompute}")
    if network.classifier.weight.device.type == "cuda" and settings.kernel == "auto" and not network.config.dropout:
        return GraphedForward(network, settings.note)
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
    return TorchForward(network, f"torch (the compiled kernel can't be used: {reasons[0]}{no_recompute})")
