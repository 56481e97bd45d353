"""ncnn in 8 bits: weights as levels of -127 to 127 with their scales, and the scale of each input, which ncnn rounds.

ncnn rounds what a convolution reads, adds whole numbers, and makes floats of its output: features, batch norms and
gathers stay in float. Its group convolution in int8 has one weight scale for a whole group, and on x86 gives rubbish
where channels are packed by eight (docs/experiments.md). So each group is a convolution of its own, between a Slice and
a Concat, and every output channel has its own scale.

Format: as `workers.export.ncnn`; weights follow the flag of 8 bits, then come biases, the weights' scales and the
input's, as factors from numbers to levels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from workers.export.common import Array
from workers.export.ncnn import Model, file_of
from workers.export.pixels import PixelInput
from workers.files import write_atomically
from workers.quantization.levels import weight_levels, weight_scales
from workers.quantization.network import PARTS, Part, QuantizedNetwork, Scheme

SCHEME = Scheme(frozenset(PARTS), levels="symmetric", float_biases=True)
_INT8 = (0x000D4B38).to_bytes(4, "little")  # the flag before weights
_EVENLY = -233  # a slice that is as large as the others
_TERM = 8  # the parameter that says where scales are


@dataclass
class _RoundedModel(Model):
    quantized: QuantizedNetwork = field(kw_only=True)

    def conv(self, part: Part, name: str, x: str, conv: nn.Conv2d, weight: Array, bias: Array | None = None) -> str:
        """Append a convolution; a group convolution in 8 bits as one convolution for each group."""
        if conv.groups == 1 or part not in self.quantized.scheme.parts:
            return super().conv(part, name, x, conv, weight, bias)
        inputs = [f"blob{self.blobs + place}" for place in range(conv.groups)]
        self.add("Slice", [x], inputs, {-23300: ",".join(map(str, [conv.groups, *[_EVENLY] * conv.groups]))})
        of_groups = zip(
            np.split(weight, conv.groups),
            [None] * conv.groups if bias is None else np.split(bias, conv.groups),
            strict=True,
        )
        outputs = [
            self.convolution(part, name, one, conv, values, 1) for one, values in zip(inputs, of_groups, strict=True)
        ]
        output = f"blob{self.blobs}"
        self.add("Concat", outputs, [output], {})
        return output

    def add_weights(self, part: Part, name: str, weight: Array, bias: Array | None) -> dict[int, int | str]:
        if part not in self.quantized.scheme.parts:
            return super().add_weights(part, name, weight, bias)
        values = torch.from_numpy(weight).float()
        scales = weight_scales(values)
        levels = weight_levels(values, scales).numpy().tobytes()
        self.weights += [_INT8, levels, bytes(-len(levels) % 4)]
        self.data(*([] if bias is None else [bias]))
        self.data((1 / scales.double()).numpy(), np.array([1 / self.quantized.levels(name).scale]))
        return {_TERM: 1}


def to_ncnn_int8(quantized: QuantizedNetwork, pixels: PixelInput | None = None) -> bytes:
    """Return the model file of a network quantized by `SCHEME`; see `workers.export.ncnn.to_ncnn`."""
    return file_of(_RoundedModel(quantized=quantized), quantized.network, pixels, "int8")


def save_ncnn_int8(quantized: QuantizedNetwork, path: Path, pixels: PixelInput | None = None) -> str:
    """Write `quantized` to `path` atomically; return the file's SHA-256."""
    return write_atomically(path, to_ncnn_int8(quantized, pixels))
