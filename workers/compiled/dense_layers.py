"""A training network's dense layers in the compiled kernel: `CompiledLayers(...)(stem_output)` gives its features.

Notable choices:
- Parameters, running statistics and masks stay the torch module's own tensors, whose memory the kernel uses. So
  optimizer, checkpoints, condensing and deployment know nothing of the kernel.
- To autograd the layers are one function. What lies between them is never a tensor.
- Every thread calls the kernel with its own number, for its share of the batch; ctypes lets go of the interpreter's
  lock for the time.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, cast

import torch
from torch import Tensor, nn

from space.network import CondenseNet, DenseLayer
from workers.compiled.library import load_library
from workers.compiled.structures import Layer, Network, Norm


class CompiledLayers:
    """The dense layers of one network in training, for batches of at most `capacity` images.

    The network's tensors must stay where they are, on the CPU, in float32 and plain layout. After a condensing stage,
    or after a checkpoint was loaded, call `masks_changed`.
    """

    def __init__(self, network: CondenseNet, capacity: int, threads: int = 1, recompute: bool = False) -> None:
        """Take the network's tensors and the memory for a batch.

        Args:
            network: what is trained.
            capacity: the largest batch.
            threads: how many of them work on a batch.
            recompute: compute each layer's 1x1 once more on the way back instead of keeping its output: less memory.

        Raises:
            NotCompiled: there is no kernel on this machine.
            MemoryError: there is no memory for the batch.
        """
        self.network, self.capacity = network, capacity
        self._threads = max(1, min(threads, capacity))
        self._library = load_library()
        self._parameters: list[Tensor] = []
        self._offsets: list[int] = []
        self._floats = 0
        self._columns: list[Tensor] = []  # what the kernel points at
        self._layers = (Layer * len(network.layers))()
        for described, shape, module in zip(self._layers, network.config.layer_shapes, network.layers, strict=True):
            described.stage, described.inputs = shape.stage, shape.in_channels
            described.mid, described.growth = shape.bottleneck_channels, shape.growth
            self._describe(described, cast(DenseLayer, module), network.config.groups)
        described_network = self._network()
        self.masks_changed()
        self._training = self._library.training_open(
            ctypes.byref(described_network), capacity, self._threads, int(recompute)
        )
        if not self._training:
            raise MemoryError(f"can't allocate memory for a batch of {capacity} images")
        weakref.finalize(self, self._library.training_close, self._training)
        self._pool = ThreadPoolExecutor(self._threads - 1) if self._threads > 1 else None
        self._abandoned = False
        self.batches = 0  # that went forward
        self.can_go_back = False  # whether the newest of them can

    def __call__(self, x: Tensor) -> Tensor:
        """Stem output (N, stem, H, W) -> features (N, features), N at most `capacity`, with gradients.

        In train mode by batch statistics, which the running ones follow. Only the newest batch can go backwards, and
        only one of train mode: the kernel keeps no other.

        Raises:
            ValueError: too many images, or not float32 of the stem's shape on the CPU.
        """
        if len(x) > self.capacity:
            raise ValueError(f"a batch must have at most {self.capacity} images, but has {len(x)}")
        config = self.network.config
        wanted = (config.stem_channels, *config.stem_size)
        if tuple(x.shape[1:]) != wanted:  # the kernel would read and write beyond its memory
            raise ValueError(f"the stem's output must be of shape {wanted}, but is {tuple(x.shape[1:])}")
        if x.dtype != torch.float32 or x.device.type != "cpu":
            raise ValueError(f"the stem's output must be float32 on the CPU, but is {x.dtype} on {x.device}")
        return cast(Tensor, _Features.apply(self, x, *self._parameters))

    def masks_changed(self) -> None:
        """Take over which columns each group keeps now."""
        self._columns.clear()
        for described, conv in zip(self._layers, self.network.learned_convs(), strict=True):
            kept = int(conv.mask[0].sum())
            columns = conv.mask.nonzero()[:, 1].to(torch.int32).contiguous()  # (groups * kept,)
            described.kept, described.columns = kept, columns.data_ptr()
            self._columns.append(columns)

    def forward(self, x: Tensor) -> Tensor:
        """Run the layers of a batch; no autograd."""
        x = x.detach().contiguous()
        features = torch.empty(len(x), self.network.config.num_features)
        learning = int(self.network.training)
        self.batches += 1
        self.can_go_back = bool(learning)
        self._on_all_threads(self._library.training_forward, x.data_ptr(), features.data_ptr(), len(x), learning)
        if learning:
            with torch.no_grad():
                torch._foreach_add_(self._batches_seen, 1)
        return features

    def backward(self, d_features: Tensor, d_x: Tensor) -> list[Tensor]:
        """Fill the gradient of the stem's output; return those of the parameters."""
        self._on_all_threads(self._library.training_backward, d_features.data_ptr(), d_x.data_ptr())
        return self._gradients

    def _on_all_threads(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call `function` on every thread. If this one can't, the others wait for it in vain: they are let go."""
        if self._abandoned:
            raise RuntimeError("an earlier batch was interrupted; open the network's layers again")
        waiting = []
        try:
            for number in range(1, self._threads):
                waiting.append(
                    cast(ThreadPoolExecutor, self._pool).submit(function, self._training, number, *arguments)
                )
            function(self._training, 0, *arguments)
            for other in waiting:
                other.result()
        except BaseException:
            self._abandoned = True
            self._library.training_abandon(self._training)
            wait(waiting)
            raise

    # -- describing --

    def _describe(self, described: Layer, module: DenseLayer, groups: int) -> None:
        described.groups, described.groups_3x3 = groups, module.conv_3x3.groups
        described.weight_1x1, described.d_weight_1x1 = self._parameter(module.conv_1x1.weight)
        described.weight_3x3, described.d_weight_3x3 = self._parameter(module.conv_3x3.weight)
        described.before, described.between = self._norm(module.conv_1x1.norm), self._norm(module.norm)

    def _norm(self, norm: nn.BatchNorm2d) -> Norm:
        weight, bias = self._parameter(norm.weight), self._parameter(norm.bias)
        mean, variance = (_address(cast(Tensor, values)) for values in (norm.running_mean, norm.running_var))
        return Norm(norm.num_features, 0, weight[0], bias[0], mean, variance, weight[1], bias[1])

    def _parameter(self, values: Tensor) -> tuple[int, int]:
        """Return a parameter's address and where its gradient begins."""
        begin = self._floats
        self._parameters.append(values)
        self._offsets.append(begin)
        self._floats += values.numel()
        return _address(values), begin

    def _network(self) -> Network:
        network, config = self.network, self.network.config
        norms = [module for part in (network.layers, network.norm) for module in part.modules()]
        self._batches_seen = [
            cast(Tensor, norm.num_batches_tracked) for norm in norms if isinstance(norm, nn.BatchNorm2d)
        ]
        last = self._norm(network.norm)
        gradients = torch.zeros(self._threads * self._floats)
        self._gradients = [
            gradients[begin : begin + values.numel()].view(values.shape)
            for begin, values in zip(self._offsets, self._parameters, strict=True)
        ]
        return Network(
            *(len(network.layers), len(config.stages), config.stem_channels, config.num_features, *config.stem_size),
            *(cast(float, network.norm.momentum), network.norm.eps, self._layers, last),
            *(gradients.data_ptr(), self._floats),
        )


class _Features(torch.autograd.Function):
    """The compiled layers as one step of autograd."""

    @staticmethod
    def forward(ctx: Any, layers: CompiledLayers, x: Tensor, *parameters: Tensor) -> Tensor:
        features = layers.forward(x)
        ctx.layers, ctx.shape, ctx.batch = layers, x.shape, layers.batches
        return features

    @staticmethod
    def backward(ctx: Any, d_features: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.batch != ctx.layers.batches or not ctx.layers.can_go_back:
            raise RuntimeError("only the newest batch can go backwards, and only one that went forward in train mode")
        d_x = torch.empty(ctx.shape)
        return (None, d_x, *ctx.layers.backward(d_features.contiguous(), d_x))


def _address(values: Tensor) -> int:
    if values.device.type != "cpu" or values.dtype != torch.float32 or not values.is_contiguous():
        raise ValueError(
            f"the kernel takes float32 tensors in plain layout on the CPU, but got {values.dtype}, strides "
            f"{values.stride()}, on {values.device}"
        )
    return values.data_ptr()
