"""LiteRT's model file in 8 bits: signed levels throughout, from the stem's input to the last layer's features.

A batch norm and its ReLU are a depthwise 1x1 convolution, as its weights may have a scale for each channel and its
bias has 32 bits: so nothing is rounded between them. The last norm, the mean and the classifier are in float32.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from workers.export import tflite
from workers.export.common import Array
from workers.export.litert import Model, file_of
from workers.export.pixels import PixelInput
from workers.export.tflite import RELU, VALID, Scales, Tensor
from workers.files import write_atomically
from workers.quantization.levels import Levels, bias_levels, weight_levels, weight_scales
from workers.quantization.network import PARTS, QuantizedNetwork, Scheme

SCHEME = Scheme(frozenset(PARTS) - {"classifier"}, features=True, levels="signed")


@dataclass
class _RoundedModel(Model):
    quantized: QuantizedNetwork = field(kw_only=True)

    def read(self, x: Tensor, name: str) -> Tensor:
        output = self.graph.tensor(x.shape, "int8", _scales(self.quantized.levels(name)))
        return self.graph.add_into(output, tflite.QUANTIZE, [x])

    def real(self, x: Tensor) -> Tensor:
        return self.graph.add(tflite.DEQUANTIZE, [x], x.shape)

    def like(self, name: str) -> Tensor:
        return Tensor(-1, (), "int8", _scales(self.quantized.levels(name)))

    def norm_relu(self, x: Tensor, scale: Array, shift: Array, name: str) -> Tensor:
        weights = self._rounded(x, scale.reshape(-1, 1, 1, 1), shift, axis=3)
        options = {"padding": VALID, "stride_w": 1, "stride_h": 1, "multiplier": 1, "activation": RELU}
        return self.graph.add(tflite.DEPTHWISE_CONV, [x, *weights], x.shape, like=self.like(name), **options)

    def weights(self, x: Tensor, weight: Array, bias: Array) -> list[Tensor]:
        return self._rounded(x, weight, bias, axis=0)

    def _rounded(self, x: Tensor, weight: Array, bias: Array, axis: int) -> list[Tensor]:
        """Add weights (outputs, ...), their outputs along `axis`, and biases for an input `x`."""
        assert x.scales is not None
        (input_scale,) = x.scales.scales
        values, added = torch.from_numpy(weight).float(), torch.from_numpy(bias).float()
        scales = weight_scales(values, added, input_scale)
        levels = np.moveaxis(weight_levels(values, scales).numpy(), 0, axis)
        biases = bias_levels(added, input_scale, scales).numpy()
        zeros = (0,) * len(scales)
        of_biases = Scales(tuple((input_scale * scales.double()).tolist()), zeros, 0)
        of_weights = Scales(tuple(scales.tolist()), zeros, axis)
        return [self.graph.constant(levels, of_weights), self.graph.constant(biases, of_biases)]


def _scales(levels: Levels) -> Scales:
    return Scales((levels.scale,), (levels.zero,))


def to_litert_int8(quantized: QuantizedNetwork, pixels: PixelInput | None = None) -> bytes:
    """Return the model file of a network quantized by `SCHEME`; see `workers.export.litert.to_litert`."""
    return file_of(_RoundedModel(quantized=quantized), quantized.network, pixels, {"precision": "int8"})


def save_litert_int8(quantized: QuantizedNetwork, path: Path, pixels: PixelInput | None = None) -> str:
    """Write `quantized` to `path` atomically; return the file's SHA-256."""
    return write_atomically(path, to_litert_int8(quantized, pixels))
