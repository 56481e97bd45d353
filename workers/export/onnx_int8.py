"""ONNX in 8 bits: what is rounded goes through a pair of QuantizeLinear and DequantizeLinear (QDQ).

onnxruntime makes one operator of a convolution, its ReLU and the pairs around them (QLinearConv), and lets gathers,
concatenations and pools move whole levels. A batch norm with many readers stays in float, between two pairs.

Weights that it computes with are unsigned, like the features: on x86 processors without VNNI it adds two products of an
unsigned and a signed level in 16 bits, where they saturate (a fifth of the logits' size, seen on AVX2).

Group convolutions it computes slower in 8 bits than in float (docs/experiments.md). So of a network that has any, only
the weights are in 8 bits: the file is a third as large, and runs about as fast as the one in fp32.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor

from space.config import CondenseNetConfig
from workers.export.onnx import Graph, model_in
from workers.export.pixels import PixelInput
from workers.files import write_atomically
from workers.quantization.levels import Levels, bias_levels, weight_levels, weight_scales
from workers.quantization.network import PARTS, Part, QuantizedNetwork, Scheme, range_features

_MIDDLE = 128  # the level of a weight that is 0


def scheme_of(config: CondenseNetConfig) -> Scheme:
    """Return what of a network onnxruntime computes, or else only stores, in 8 bits."""
    if config.groups == config.conv3x3_groups == 1:
        return Scheme(frozenset(PARTS), features=True, levels="unsigned")
    return Scheme(frozenset(), frozenset(PARTS))


@dataclass
class _RoundingGraph(Graph):
    quantized: QuantizedNetwork = field(kw_only=True)

    def read(self, part: Part, x: str, name: str) -> str:
        return self._rounded(x, self.quantized.levels(name)) if part in self.quantized.scheme.parts else x

    def features(self, x: str, stage: int) -> str:
        scheme = self.quantized.scheme
        return self._rounded(x, self.quantized.levels(range_features(stage))) if scheme.features else x

    def weights(self, part: Part, name: str, weight: Tensor, bias: Tensor | None) -> list[str]:
        scheme = self.quantized.scheme
        if part in scheme.stored:
            scales = weight_scales(weight)
            return [self._dequantized(weight_levels(weight, scales), scales), *map(self.constant, _present(bias))]
        if part not in scheme.parts:
            return super().weights(part, name, weight, bias)
        input_scale = self.quantized.levels(name).scale
        scales = weight_scales(weight, bias, input_scale)
        parts = [self._dequantized(_unsigned(weight_levels(weight, scales)), scales, zero=_MIDDLE)]
        if bias is not None:
            parts.append(self._dequantized(bias_levels(bias, input_scale, scales), input_scale * scales.double()))
        return parts

    def _rounded(self, x: str, levels: Levels) -> str:
        kind = np.uint8 if levels.lowest == 0 else np.int8
        numbers = [self.constant(np.array(levels.scale, np.float32)), self.constant(np.array(levels.zero, kind))]
        return self.add("DequantizeLinear", self.add("QuantizeLinear", x, *numbers), *numbers)

    def _dequantized(self, levels: Tensor, scales: Tensor, zero: int = 0) -> str:
        zeros = np.full(len(scales), zero, levels.numpy().dtype)
        constants = [self.constant(levels), self.constant(scales.float()), self.constant(zeros)]
        return self.add("DequantizeLinear", *constants, axis=0)


def _unsigned(levels: Tensor) -> Tensor:
    """Return the levels of weights as uint8 around `_MIDDLE`."""
    return (levels.to(torch.int16) + _MIDDLE).to(torch.uint8)


def _present(bias: Tensor | None) -> list[Tensor]:
    return [] if bias is None else [bias]


def to_onnx_int8(quantized: QuantizedNetwork, pixels: PixelInput | None = None) -> onnx.ModelProto:
    """Return the ONNX model of a quantized network: images and logits as of `workers.export.onnx.to_onnx`."""
    model = model_in(_RoundingGraph(quantized=quantized), quantized.network, pixels)
    model.metadata_props.add(key="precision", value="int8")
    return model


def save_onnx_int8(quantized: QuantizedNetwork, path: Path, pixels: PixelInput | None = None) -> str:
    """Write `quantized` to `path` atomically; return the file's SHA-256."""
    return write_atomically(path, to_onnx_int8(quantized, pixels).SerializeToString())
