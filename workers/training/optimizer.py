"""What changes a network's weights: the optimizer of the settings, and the moving average of what it does.

The average covers weights and the running statistics of batch norm, which belong to them; masks are never averaged.
Early in a training it is shorter, since the first weights are worth nothing: its decay is at most (1 + step) / (10 +
step).

Nothing here compiles, and importing torch's compiler takes every worker as long as importing torch. Its optimizers
import it all the same, so three things are done without what torch wraps around them.

Source of the average: Polyak & Juditsky 1992; of its decay at the beginning: TensorFlow's ExponentialMovingAverage.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from workers.images.source import Labels
from workers.settings import TrainingSettings


def optimizer_of(parameters: Sequence[nn.Parameter], training: TrainingSettings) -> torch.optim.Optimizer:
    """Return the optimizer of the settings; the loop sets its learning rate at each step."""
    rate, decay = training.learning_rate, training.weight_decay
    fused = parameters[0].device.type in ("cpu", "cuda")  # one pass over all parameters
    with _compiler_unloaded():
        if training.optimizer == "adamw":
            betas = (training.momentum, 0.999)
            return torch.optim.AdamW(parameters, lr=rate, betas=betas, weight_decay=decay, fused=fused)
        momentum = training.momentum
        return torch.optim.SGD(
            parameters, lr=rate, momentum=momentum, weight_decay=decay, nesterov=momentum > 0, fused=fused
        )


@torch.no_grad()
def take_step(optimizer: torch.optim.Optimizer) -> None:
    """Change the weights by their gradients.

    This is `optimizer.step()` without what torch wraps around it, which would import the compiler.
    """
    inspect.unwrap(type(optimizer).step)(optimizer)


def clear_gradients(network: nn.Module) -> None:
    """Set all gradients to 0, in the memory that they have: a worker must not grow.

    As `Optimizer.zero_grad(set_to_none=False)`, which would import torch's compiler; see `_compiler_unloaded`.
    """
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    if gradients:
        torch._foreach_zero_(gradients)


@contextmanager
def _compiler_unloaded() -> Iterator[None]:
    """Keep torch from importing its compiler when an optimizer is made.

    It would only tell it to leave a method alone (`torch._compile`): here that is told before.
    """
    method = getattr(torch.optim.Optimizer.add_param_group, "__wrapped__", None)
    if method is None or "torch._dynamo" in sys.modules or hasattr(method, _LEFT_ALONE):
        yield
        return
    setattr(method, _LEFT_ALONE, method)
    try:
        yield
    finally:
        delattr(method, _LEFT_ALONE)


def class_weights(labels: Labels, classes: int, device: torch.device) -> Tensor:
    """Return what each class's loss is multiplied by, (classes,): inverse to its images, 1 on average over images.

    Source: `sklearn.utils.class_weight.compute_class_weight("balanced")`; a class without images counts as having one.
    """
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)
    return torch.tensor(len(labels) / (classes * counts), dtype=torch.float32, device=device)


class WeightAverage:
    """The exponential moving average of a network's weights."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        buffers = {name: value for name, value in network.named_buffers() if name.rpartition(".")[2] in _STATISTICS}
        self._live: dict[str, Tensor] = {**dict(network.named_parameters()), **buffers}
        self.tensors = {name: value.detach().clone() for name, value in self._live.items()}  # by their names

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step (0 is the first)."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.tensors.values()), list(self._live.values()), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the network have the averaged weights, where its own are."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, mine in self.tensors.items():
            theirs = self._live[name]
            kept = theirs.clone()
            theirs.copy_(mine)
            mine.copy_(kept)


_LEFT_ALONE = "__dynamo_disable"
_STATISTICS = ("running_mean", "running_var")
