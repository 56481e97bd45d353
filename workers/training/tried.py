"""What can only be known by trying it: a device and a step of training, each in a process of its own, once.

A process of its own, because a device stays claimed by the process that tried it, and memory by the one that used it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

from space.config import CondenseNetConfig
from space.errors import CondenseryError
from workers.processes import peak_memory_mb
from workers.settings import Kernel

LIMIT_S = 120.0  # importing torch and starting a GPU take seconds
Result = TypeVar("Result")


def why_not(device: str) -> str | None:
    """Return why a network can't be trained on a torch device here, after a tiny forward and backward pass; or None."""
    return in_a_process(_pass, device)


def step_memory_mb(config: CondenseNetConfig, batch_size: int, kernel: Kernel, recompute: bool) -> float | str:
    """Return the memory that a CPU worker has for itself alone at a network's training step, in MB, or why it failed.

    What processes share, such as the code of libraries, isn't counted.
    """
    return in_a_process(_step, config, batch_size, kernel, recompute)


def in_a_process(work: Callable[..., Result], *arguments: Any) -> Result | str:
    """Return what `work` returns in a process of its own, or in one line why it failed."""
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    try:
        return pool.submit(work, *arguments).result(LIMIT_S)
    except BrokenProcessPool:
        return "the process that tried it was killed"
    except (RuntimeError, ValueError, OSError, AssertionError, ImportError, MemoryError, CondenseryError) as error:
        return " ".join(str(error).split())[:300] or type(error).__name__
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _pass(device: str) -> None:
    import torch
    from torch.nn import functional as F

    images = torch.zeros((2, 4, 8, 8), device=device)
    weights = torch.ones((4, 2, 3, 3), device=device, requires_grad=True)
    outputs = F.batch_norm(F.conv2d(images, weights, groups=2), None, None, training=True)
    torch.autograd.backward(outputs.sum())
    assert weights.grad is not None
    float(weights.grad.sum())  # waits for the device


def _step(config: CondenseNetConfig, batch_size: int, kernel: Kernel, recompute: bool) -> float:
    import torch
    from torch.nn import functional as F

    from space.network import CondenseNet
    from workers.training.forward import ForwardSettings, forward_of

    torch.set_num_threads(1)
    model = CondenseNet(config).train()
    forward = forward_of(model, ForwardSettings(kernel, recompute, batch_size))
    loss = F.cross_entropy(forward(torch.zeros(batch_size, *config.input_shape)), torch.zeros(batch_size).long())
    torch.autograd.backward(loss)
    return peak_memory_mb() - _shared_mb()


def _shared_mb() -> float:
    """Return how much of this process's memory others may use as well; 0 where the system doesn't say."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("RssFile")).split()[1]) * 1024 / 1e6
    return 0.0
