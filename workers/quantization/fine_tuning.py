"""A short fine-tune of a network that lost too much in 8 bits: it learns with its numbers rounded as a file has them.

Source: Jacob et al., "Quantization and Training of Neural Networks", 2018, section 3; gradients pass the rounding.
Batch norms keep their statistics, and ranges stay as they were calibrated.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from workers.quantization.network import QuantizedNetwork
from workers.quantization.rounded import RoundedForm

STEPS, LEARNING_RATE, MOMENTUM = 300, 2e-3, 0.9
LOST_MOST = 0.005  # of top-1; where more is lost, a fine-tune is tried


def fine_tuned(
    quantized: QuantizedNetwork,
    batch: Callable[[int], tuple[Tensor, Tensor]],
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
) -> QuantizedNetwork:
    """Return the network after a short training; the given one is left as it is.

    Args:
        quantized: what a calibration returned.
        batch: from a step's number to training images (N, C, H, W) and their classes, (N,) or (N, classes).
        steps: how many.
        learning_rate: of the first step; it falls to 0 by a cosine.
    """
    network = copy.deepcopy(quantized.network).requires_grad_(True).eval()
    tuned = QuantizedNetwork(network, quantized.ranges, quantized.scheme)
    form = RoundedForm(tuned)
    optimizer = torch.optim.SGD(network.parameters(), lr=learning_rate, momentum=MOMENTUM)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        images, labels = batch(step)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(F.cross_entropy(form(images), labels))
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    network.requires_grad_(False)
    return tuned
