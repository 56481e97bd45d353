"""Features read as the levels they are: a batch norm and ReLU behind them become limits, and part of the weights.

For a positive scale, relu(scale * x + shift) = slope * (max(level, limit) - limit), where the norm's output is 0 at
`limit`; for a negative one it is the same with min. So nothing is rounded between a feature and the convolution that
reads it, and 16 features are read by one instruction.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LOWEST, HIGHEST = -128, 127
_FAR = 1e6  # levels; a limit so far out is never met
# A limit is rounded to a level, so what is beyond it is read as half a level off at most. Offsets lie between limit and
# level by the share of numbers beyond it, which is about this.
_BEYOND = 0.6


@dataclass(frozen=True)
class Reading:
    """relu(norm(x)) of some columns is slope * (clip(level, low, high) - offset) + rest; (columns,) each."""

    slope: Tensor
    low: Tensor
    high: Tensor
    offset: Tensor  # a level, not always whole
    rest: Tensor


def reading_of(scale: Tensor, shift: Tensor, level_scale: Tensor, zero: Tensor) -> Reading:
    """Return how columns are read whose norm is scale * x + shift, where x = level_scale * (level - zero).

    Args:
        scale, shift, level_scale, zero: (columns,).
    """
    slope = scale * level_scale
    limit = zero - shift / slope
    constant = ~(limit.abs() < _FAR)  # the scale is nearly 0
    limit = torch.where(constant, torch.zeros_like(limit), limit)
    positive = slope >= 0
    dead = ~constant & torch.where(positive, limit >= HIGHEST, limit <= LOWEST)
    whole = ~constant & torch.where(positive, limit <= LOWEST, limit >= HIGHEST)
    level = limit.round().clamp(LOWEST, HIGHEST).detach()
    cut = ~constant & ~whole
    partly = cut & ~dead
    nothing = torch.zeros_like(slope)
    return Reading(
        slope=torch.where(constant | dead, nothing, slope),
        low=torch.where(cut & positive, level, torch.full_like(level, LOWEST)),
        high=torch.where(cut & ~positive, level, torch.full_like(level, HIGHEST)),
        offset=torch.where(partly, _BEYOND * level + (1 - _BEYOND) * limit, torch.where(whole, zero, level)),
        rest=torch.where(constant, shift.clamp_min(0.0), torch.where(whole, shift, nothing)),
    )
