"""CUDA graphs: with a stand-in for torch's recording that shares memory as torch's does, and real ones on a GPU.

The stand-in replays by running the module again, into the same tensors: it returns gradients that the next replay
overwrites, which is what a caller must not be disturbed by.
"""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from space.config import CondenseNetConfig
from space.network import CondenseNet
from workers.training.forward import GraphedForward

NET = CondenseNetConfig(stages=(1, 1), growth=(8, 8), groups=2, condense_factor=2, input_shape=(1, 8, 8))


def record(module: nn.Module, samples: tuple[Tensor, ...]) -> nn.Module:
    """Do what torch.cuda.make_graphed_callables does to a module, without a GPU."""
    plain, parameters = module.forward, tuple(module.parameters())
    for _ in range(3):  # torch warms up
        torch.autograd.grad(plain(*samples).sum(), parameters)
    kept: list[Tensor] = []

    class Replay(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, images: Tensor, *values: Tensor) -> Tensor:
            with torch.enable_grad():
                ctx.logits = plain(images)
            return ctx.logits.detach()

        @staticmethod
        def backward(ctx: Any, d_logits: Tensor) -> tuple[Tensor | None, ...]:
            gradients = torch.autograd.grad(ctx.logits, parameters, d_logits)
            if not kept:
                kept.extend(gradient.clone() for gradient in gradients)
            for memory, gradient in zip(kept, gradients, strict=True):
                memory.copy_(gradient)
            return (None, *(memory.detach() for memory in kept))

    def forward(images: Tensor) -> Tensor:
        return Replay.apply(images, *parameters) if module.training else plain(images)

    module.forward = forward  # type: ignore[method-assign]
    return module


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", record)


def steps(network: CondenseNet, run: Any, count: int = 4) -> list[Tensor]:
    """Train some steps, condensing on the way and evaluating in between; return the gradients of the last one."""
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(network.parameters(), 0.05, 0.9)
    network.train()
    for step in range(count):
        network.condense(step / count)
        x, y = torch.randn(16, *NET.input_shape), torch.randint(0, 10, (16,))
        optimizer.zero_grad(set_to_none=False)
        F.cross_entropy(run(x), y).backward()
        optimizer.step()
        network.eval()
        with torch.no_grad():
            run(x[:5])
        network.train()
    return [values.grad.clone() for values in network.parameters() if values.grad is not None]


def test_steps_are_those_of_the_network_itself(recorded: None):
    torch.manual_seed(0)
    network = CondenseNet(NET)
    plain = copy.deepcopy(network).to(memory_format=torch.channels_last)
    mine = steps(network, GraphedForward(network, pytest.fail))
    theirs = steps(plain, lambda x: plain(x.to(memory_format=torch.channels_last)))
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(network.buffers(), plain.buffers(), strict=True))


def test_what_cannot_be_recorded_runs_as_it_is_and_is_told(monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", refuse)
    network, notes = CondenseNet(NET), []
    plain = copy.deepcopy(network).to(memory_format=torch.channels_last)
    mine = steps(network, GraphedForward(network, notes.append))
    theirs = steps(plain, lambda x: plain(x.to(memory_format=torch.channels_last)))
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert notes == [
        "CUDA graphs can't be used, so every step is launched anew: operation not permitted when stream is capturing"
    ]


def test_too_little_memory_is_not_mistaken_for_a_driver_that_cannot_record(monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", refuse)
    network = CondenseNet(NET)
    with pytest.raises(torch.OutOfMemoryError):
        steps(network, GraphedForward(network, pytest.fail))


def test_a_recorded_network_is_free_at_once(recorded: None):
    network = CondenseNet(NET)
    forward = GraphedForward(network, pytest.fail)
    steps(network, forward)
    gone = weakref.ref(network)
    gc.disable()
    try:
        del forward, network
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_recorded_steps_are_those_of_the_network_itself():
    torch.manual_seed(0)
    network = CondenseNet(NET).cuda()
    plain = copy.deepcopy(network).to(memory_format=torch.channels_last)
    recording = GraphedForward(network, pytest.fail)
    mine = steps(network, lambda x: recording(x.cuda()).cpu())
    theirs = steps(plain, lambda x: plain(x.cuda().to(memory_format=torch.channels_last)).cpu())
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(mine, theirs, strict=True))
