"""A quantized network for the project's own kernel in int8, `workers/latency/condensenet_int8.c`: one zip.

The zip holds `model.json`, `weights.bin` and the kernel's source. `weights.bin` is little-endian words of 4 bytes:

    header       46 int32: magic, version, the config's 12 numbers, then layers and growth of up to 16 stages
    input        of each channel: 1 / scale (float32), zero (int32)
    stem         3x3
    each layer   of each group of the 1x1: how many quads have limits from below alone; of each quad (4 columns) their
                 features; of each quad 4 limits from below and 4 from above (int8); then tiles of 4 outputs: biases,
                 fractions, and for each quad weights (int8) as [output][column];
                 of each group of the 3x3: 3x3
    classifier   of each input: its feature, limits from below and above; biases (int32) and scales (float32), filled up
                 to a multiple of 8 classes; of each 8 classes weights (int16) as [input][class]

A 3x3 is tiles of 8, 4 or 2 outputs: biases and fractions (at least 4 of each), then for each quad (4 inputs) weights as
[dx][dy][output][input]; two outputs fill their 18 words up to 20. What only fills up has weights of zero.

A real number is scale * (level - zero). A layer's limit is the level where its norm's output is 0, so that
relu(norm(x)) = slope * (max(level, limit) - limit), or with min where the slope is negative. Slopes and scales go into
the weights before these are rounded, with one scale for each output; what an output is, is
level = bias + sum of weights * levels, times fraction / 2^31.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch

from space.config import CondenseNetConfig
from space.deployed import DeployedCondenseNet, DeployedLayer
from space.errors import ExportMismatch
from workers.export.common import Array, affine, doubles, model_facts, stored_zip
from workers.export.native import PIXELS_FILE, header, scaling
from workers.export.pixels import PixelInput
from workers.files import write_atomically
from workers.quantization.levels import MOST_WEIGHT
from workers.quantization.network import INPUT_RANGE, PARTS, QuantizedNetwork, Scheme, range_3x3
from workers.quantization.reading import HIGHEST, Reading, reading_of

KERNEL_FILE = Path(__file__).parents[1] / "latency" / "condensenet_int8.c"
# The classifier has 16 bits, which are as good as floats.
SCHEME = Scheme(frozenset(PARTS) - {"classifier"}, features=True, reads_features=True, levels="signed")
MAGIC, VERSION = 0x38444E43, 1
ZERO = -128  # the level of 0 after a ReLU
AVERAGE = 16  # parts of a level in the classifier's inputs
_MOST_BIAS = 2**30  # beside it the products of 36,864 levels still fit into 32 bits
_MOST_SUM = 2**31 - 1


def to_native_int8(quantized: QuantizedNetwork, pixels: PixelInput | None = None) -> bytes:
    """Return the model file, equal for equal networks: images (C, H, W) float32 -> logits (classes,), one image a run.

    With `pixels` it holds a second function, which scales pixels of its type and runs the network on them.

    Raises:
        ExportMismatch: the network is larger than the kernel allows (4,096 channels anywhere, 16 stages), or it was
            calibrated for another scheme than `SCHEME`.
    """
    config = quantized.network.config
    files = {
        "model.json": model_facts(config, [], None if pixels is None else pixels.rules, precision="int8"),
        "weights.bin": b"".join(part.tobytes() for part in pack(quantized)),
        KERNEL_FILE.name: KERNEL_FILE.read_bytes(),
    }
    if pixels is not None:
        files["scaling.bin"] = scaling(pixels)
        files[PIXELS_FILE.name] = PIXELS_FILE.read_bytes()
    return stored_zip(files)


def save_native_int8(quantized: QuantizedNetwork, path: Path, pixels: PixelInput | None = None) -> str:
    """Write `quantized` to `path` atomically; return the file's SHA-256."""
    return write_atomically(path, to_native_int8(quantized, pixels))


# ---- the network in levels -------------------------------------------------------------------------------


@dataclass
class _Levels:
    """Scale and zero of each channel of an activation."""

    scale: Array  # (channels,) float64
    zero: Array  # (channels,) float64, whole numbers

    def of(self, channels: Array | slice) -> _Levels:
        return _Levels(self.scale[channels], self.zero[channels])


@dataclass
class _Rounded:
    """A convolution in whole numbers: level = (bias + sum of weights * levels) * fraction / 2^31."""

    weight: Array  # (outputs, inputs, ...) int
    bias: Array  # (outputs,) int
    fraction: Array  # (outputs,) int


@torch.no_grad()
def pack(quantized: QuantizedNetwork) -> list[Array]:
    """Return the words of weights.bin as little-endian arrays, each a whole number of words, in order."""
    if quantized.scheme != SCHEME:
        raise ExportMismatch("the kernel reads features in signed 8 bits; calibrate with native_int8.SCHEME.")
    network, config = quantized.network, quantized.network.config
    image, features = _image_levels(quantized), _Levels(*(one.numpy() for one in quantized.feature_levels()))
    stem = config.stem_channels
    parts = [header(config, MAGIC, VERSION), _pairs(1 / image.scale, image.zero)]
    rounded = _round_3x3(doubles(network.stem.weight), 1, image, features, slice(0, stem))
    parts.append(_pack_3x3(rounded, 1, config.stem_stride))
    start = stem
    for number, module in enumerate(network.layers):
        layer = cast(DeployedLayer, module)
        new = slice(start, start + layer.conv_3x3.out_channels)
        between = _after_relu(quantized, number)
        parts += _pack_1x1(layer, config, features, between)
        rounded = _round_3x3(doubles(layer.conv_3x3.weight), config.conv3x3_groups, between, features, new)
        parts.append(_pack_3x3(rounded, config.conv3x3_groups, stride=1))
        start = new.stop
    return [*parts, *_pack_classifier(network, features)]


def _image_levels(quantized: QuantizedNetwork) -> _Levels:
    levels = quantized.levels(INPUT_RANGE)
    channels = quantized.network.config.input_shape[0]
    scale = 1.0 / float(np.float32(1.0 / levels.scale))  # exactly what the kernel divides by
    return _Levels(np.full(channels, scale), np.full(channels, float(levels.zero)))


def _after_relu(quantized: QuantizedNetwork, number: int) -> _Levels:
    channels = quantized.network.config.layer_shapes[number].bottleneck_channels
    scale = quantized.levels(range_3x3(number)).scale
    return _Levels(np.full(channels, scale), np.full(channels, float(ZERO)))


def _round(weight: Array, offset: Array, bias: Array, into: _Levels) -> _Rounded:
    """Round a convolution whose outputs are sum of weight * (level - offset) + bias, in real numbers.

    `into` are the outputs' levels. Their scale is raised where one step of the sum would be more than half a level:
    such an output is nearly constant.

    Args:
        weight: (outputs, inputs, ...).
        offset: broadcasts to `weight`; levels, not always whole.
        bias: (outputs,).
        into: (outputs,) each; the scale is changed in place.
    """
    rest = tuple(range(1, weight.ndim))
    scale = np.maximum(np.abs(weight).max(axis=rest), 1e-30) / MOST_WEIGHT
    scale = np.maximum(scale, np.maximum(np.abs(bias), 128 * into.scale) / (_MOST_BIAS / 8))
    while True:
        into.scale[:] = np.maximum(into.scale, 2 * scale)
        whole = np.rint(weight / scale.reshape(-1, *[1] * len(rest)))
        sums = (bias + into.zero * into.scale) / scale - (whole * offset).sum(axis=rest)
        beyond = np.abs(sums) > _MOST_BIAS
        if not beyond.any():
            break
        scale = np.where(beyond, 2 * scale, scale)
    return _Rounded(whole, np.rint(sums), np.rint(scale / into.scale * 2**31))


def _round_3x3(weight: Array, groups: int, inputs: _Levels, features: _Levels, new: slice) -> _Rounded:
    """Round (outputs, inputs of a group, 3, 3) weights; the scales of the `new` features may be raised."""
    outs = len(weight) // groups
    scale, zero = (
        np.repeat(one.reshape(groups, -1), outs, axis=0)[:, :, None, None] for one in (inputs.scale, inputs.zero)
    )
    into = features.of(new)  # views
    return _round(weight * scale, np.broadcast_to(zero, weight.shape), np.zeros(len(weight)), into)


def _reading(scale: Array, shift: Array, levels: _Levels) -> Reading:
    """Return how columns with these norms read features of these levels."""
    return reading_of(*map(torch.from_numpy, (scale, shift, levels.scale, levels.zero)))


# ---- its words -------------------------------------------------------------------------------------------


def _pack_1x1(layer: DeployedLayer, config: CondenseNetConfig, features: _Levels, between: _Levels) -> list[Array]:
    conv, groups = layer.conv_1x1, config.groups
    index = conv.index.cpu().numpy().reshape(groups, -1)  # (G, kept)
    weight = doubles(conv.conv.weight).reshape(groups, -1, index.shape[1])  # (G, out/G, kept)
    scale, shift = (values.reshape(index.shape) for values in affine(conv.norm))
    outer_scale, outer_shift = (values.reshape(-1, groups).T for values in affine(layer.norm))
    parts = []
    for group, columns in enumerate(index):
        reading = _reading(scale[group], shift[group], features.of(columns))
        of_group = weight[group] * outer_scale[group][:, None]
        made = between.of(np.arange(len(of_group)) * groups + group)
        bias = of_group @ reading.rest.numpy() + outer_shift[group]
        rounded = _round(of_group * reading.slope.numpy(), reading.offset.numpy(), bias, made)
        between.scale[np.arange(len(of_group)) * groups + group] = made.scale
        parts += _pack_group(columns, reading, rounded)
    return parts


def _pack_group(columns: Array, reading: Reading, rounded: _Rounded) -> list[Array]:
    """Sort columns so that those limited from above come last, fill up to quads and tiles."""
    low, high = reading.low.numpy(), reading.high.numpy()
    from_above = high < HIGHEST
    order = np.argsort(from_above, kind="stable")
    quads = -(-len(columns) // 4)
    one_limit = quads if not from_above.any() else int((~from_above).sum()) // 4
    index = np.pad(columns[order], (0, 4 * quads - len(columns)), mode="edge")
    limits = np.stack([low[order], high[order]])
    limits = np.pad(limits, ((0, 0), (0, 4 * quads - len(columns))), mode="edge").reshape(2, quads, 4)
    limits = limits.transpose(1, 0, 2).astype(np.int8)
    parts = [_integers(np.array([one_limit])), _integers(index), _as_words(limits)]
    outs = len(rounded.weight)
    weight = np.zeros((-(-outs // 4) * 4, 4 * quads))
    weight[:outs, : len(columns)] = rounded.weight[:, order]
    for start in range(0, outs, 4):
        tile = weight[start : start + 4].reshape(4, quads, 4).transpose(1, 0, 2)  # quad, output, column
        parts += [*_ends(rounded, slice(start, min(start + 4, outs)), 4), _as_words(tile.astype(np.int8))]
    return parts


def _pack_3x3(rounded: _Rounded, groups: int, stride: int) -> Array:
    """Cut a group convolution into tiles."""
    parts: list[Array] = []
    outs, ins = len(rounded.weight) // groups, rounded.weight.shape[1]
    quads = -(-ins // 4)
    for start in range(0, len(rounded.weight), outs):
        at = start
        while (left := start + outs - at) > 0:
            rows = 8 if left > 4 else 4 if left > 2 or stride == 2 else 2
            used = slice(at, at + min(rows, left))
            tile = np.zeros((rows, 4 * quads, 3, 3))
            tile[: min(rows, left), :ins] = rounded.weight[used]
            tile = tile.reshape(rows, quads, 4, 3, 3).transpose(1, 4, 3, 0, 2)  # quad, dx, dy, output, input
            words = _as_words(tile.astype(np.int8)).reshape(quads, -1)
            words = np.pad(words, ((0, 0), (0, 2 if rows == 2 else 0)))
            parts += [*_ends(rounded, used, max(rows, 4)), words.ravel()]
            at += rows
    return np.concatenate(parts)


def _ends(rounded: _Rounded, used: slice, size: int) -> tuple[Array, Array]:
    """Return biases and fractions of a tile."""
    fill = size - (used.stop - used.start)
    return _integers(np.pad(rounded.bias[used], (0, fill))), _integers(np.pad(rounded.fraction[used], (0, fill)))


def _pack_classifier(network: DeployedCondenseNet, features: _Levels) -> list[Array]:
    index = network.classifier_index.cpu().numpy()
    scale, shift = (values[index] for values in affine(network.norm))
    reading = _reading(scale, shift, features.of(index))
    weight = doubles(network.classifier.weight)  # (classes, inputs)
    bias = doubles(network.classifier.bias) + weight @ reading.rest.numpy()
    slope, offset = reading.slope.numpy() / AVERAGE, reading.offset.numpy() * AVERAGE
    whole, biases, scales = _round_classifier(weight * slope, offset, bias)
    classes, filled = len(weight), -(-len(weight) // 8) * 8
    blocks = np.pad(whole, ((0, filled - classes), (0, 0))).reshape(-1, 8, len(index)).transpose(0, 2, 1)
    triples = np.stack([index, reading.low.numpy(), reading.high.numpy()], axis=1)
    return [
        _integers(triples),
        _integers(np.pad(biases, (0, filled - classes))),
        np.pad(scales, (0, filled - classes)).astype("<f4"),
        np.ascontiguousarray(blocks, "<i2").view("<i4").ravel(),
    ]


def _round_classifier(weight: Array, offset: Array, bias: Array) -> tuple[Array, Array, Array]:
    """Return weights in 16 bits, biases and scales; no sum of 128 * AVERAGE times a weight passes 31 bits."""
    most = 128 * AVERAGE
    scale = np.maximum(np.abs(weight).max(axis=1) / 32767, np.abs(weight).sum(axis=1) * most / 2**30)
    scale = np.maximum(np.maximum(scale, np.abs(bias) / 2**29), 1e-30)
    while True:
        scale = scale.astype(np.float32).astype(np.float64)
        whole = np.rint(weight / scale[:, None])
        sums = np.rint(bias / scale - whole @ offset)
        beyond = np.abs(whole).sum(axis=1) * most + np.abs(sums) > _MOST_SUM
        if not beyond.any():
            return whole, sums, scale
        scale = np.where(beyond, 2 * scale, scale)


def _integers(values: Array) -> Array:
    return np.ascontiguousarray(values, dtype="<i4").ravel()


def _as_words(levels: Array) -> Array:
    return np.ascontiguousarray(levels, np.int8).ravel().view("<i4")


def _pairs(inverse: Array, zero: Array) -> Array:
    return np.stack([inverse.astype("<f4").view("<i4"), zero.astype("<i4")], axis=1).ravel()
