"""Eight bits instead of a float: the range of a tensor, the levels that stand for it, and the scales of weights.

A level q stands for scale * (q - zero). Weights have one scale for each output channel and zero at 0. Their largest
level is 127, so that no product of two levels is beyond 16 bits where both are signed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from space.errors import QuantizationFailed

# How a tensor's levels are numbered: 0..255 and -128..127 with a zero of their own, or -127..127 with zero at 0.
LevelKind = Literal["unsigned", "signed", "symmetric"]
LIMITS: dict[LevelKind, tuple[int, int]] = {"unsigned": (0, 255), "signed": (-128, 127), "symmetric": (-127, 127)}
MOST_WEIGHT = 127
_MOST_BIAS = 2**29  # levels; far enough below 2**31 for 36,864 products beside it
_SMALLEST_SCALE = 1e-30  # keeps a tensor that is always 0 from having a scale of 0


@dataclass(frozen=True)
class Levels:
    """The 8-bit numbers of one tensor: real = scale * (level - zero), from `lowest` to `highest`."""

    scale: float
    zero: int
    lowest: int
    highest: int

    def rounded(self, x: Tensor) -> Tensor:
        """Return the tensor as its levels can say it, still as float; the gradient passes where nothing is clipped."""
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, self.lowest, self.highest)


@dataclass(frozen=True)
class Range:
    """The real numbers that a tensor's levels reach from and to; 0, with which convolutions pad, is within."""

    low: float
    high: float

    def levels(self, kind: LevelKind) -> Levels:
        """Return the levels of this kind that cover the range; 0 is one of them exactly."""
        lowest, highest = LIMITS[kind]
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        if kind == "symmetric":
            return Levels(max(high, -low, _SMALLEST_SCALE) / highest, 0, lowest, highest)
        scale = max(high - low, _SMALLEST_SCALE) / (highest - lowest)
        return Levels(scale, lowest + round(-low / scale), lowest, highest)


def weight_scales(weight: Tensor, bias: Tensor | None = None, input_scale: float = 1.0) -> Tensor:
    """Return the scale of each output channel's weights, (outputs,), for weights (outputs, ...).

    Biases are whole multiples of input scale times weight scale in 32 bits. So an output whose bias is huge beside its
    weights gets a larger scale.

    Args:
        weight: (outputs, inputs of a group, ...).
        bias: (outputs,), in real numbers; None if there is none.
        input_scale: the scale of the input's levels.
    """
    scales = weight.detach().abs().flatten(1).amax(1) / MOST_WEIGHT
    if bias is not None:
        scales = torch.maximum(scales, bias.detach().abs() / (input_scale * _MOST_BIAS))
    return scales.clamp_min(_SMALLEST_SCALE)


def rounded_weight(weight: Tensor, scales: Tensor) -> Tensor:
    """Return weights as their levels can say them, still as float; the gradient passes."""
    zeros = torch.zeros(len(scales), dtype=torch.int32, device=scales.device)
    return torch.fake_quantize_per_channel_affine(weight, scales.float(), zeros, 0, -MOST_WEIGHT, MOST_WEIGHT)


def weight_levels(weight: Tensor, scales: Tensor) -> Tensor:
    """Return the levels of weights (outputs, ...) as int8, those that `rounded_weight` rounds to."""
    inverse = (1.0 / scales.float()).view(-1, *[1] * (weight.dim() - 1))
    return (weight.detach().float() * inverse).round().clamp(-MOST_WEIGHT, MOST_WEIGHT).to(torch.int8)


def bias_levels(bias: Tensor, input_scale: float, scales: Tensor) -> Tensor:
    """Return the levels of biases (outputs,) as int32: multiples of input scale times weight scale."""
    return (bias.detach().double() / (input_scale * scales.double())).round().to(torch.int32)


def best_range(values: Tensor, kind: LevelKind, what: str) -> Range:
    """Return the range whose levels say `values` with the least squared error: outliers may be clipped.

    Args:
        values: any shape; not empty.
        kind: how the levels are numbered.
        what: what the tensor is called in the error.

    Raises:
        QuantizationFailed: a value is infinite or not a number.
    """
    low, high = float(values.min()), float(values.max())
    if not -3e38 < low <= high < 3e38:
        raise QuantizationFailed(
            f"every value must be a finite number to be put into 8 bits, but {what} overflows on the calibration "
            "images; export the network in fp32, or train it with a lower learning rate."
        )
    sample = values.flatten()[:: max(1, values.numel() // 100_000)].double()
    tried = [Range(low * share, high * share) for share in torch.linspace(1.0, 0.3, 36).tolist()]
    return min(tried, key=lambda one: _squared_error(sample, one.levels(kind)))


def _squared_error(sample: Tensor, levels: Levels) -> float:
    rounded = (sample / levels.scale).round_().add_(levels.zero).clamp_(levels.lowest, levels.highest)
    return float(rounded.sub_(levels.zero).mul_(levels.scale).sub_(sample).square_().mean())
