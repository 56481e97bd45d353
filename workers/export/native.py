"""The deployed network for the project's own kernel, `workers/latency/condensenet.c`: one zip, weights packed.

The zip holds `model.json`, `weights.bin` and the kernel's source, so that a C compiler is all that a device needs.
`weights.bin` is little-endian words of 4 bytes, in the order in which the kernel reads them:

    header       46 int32: magic, version, the config's 12 numbers, then layers and growth of up to 16 stages
    stem         3x3 weights
    each layer   int32: columns of every group, then how many of each group's are limited from below;
                 per group and tile of 16, 8 or 4 outputs: biases, then each column's limit 4 times and its weights;
                 per group of the 3x3: weights
    classifier   int32: the features it reads; scale, shift of the last norm; weights feature by feature; biases

3x3 weights come per tile of 8, 4 or 2 outputs as [input][dy][dx][output]; two outputs fill their 18 weights up to 20.
Columns whose scale is negative come last in their group. Outputs that only fill up a tile have weights of zero.

A file that takes pixels also holds `scaling.bin` (float32: low, high, then scale and shift of each channel) and
`condensenet_pixels.c`, which applies them.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch

from space.config import CondenseNetConfig
from space.deployed import DeployedCondenseNet, DeployedLayer
from space.errors import ExportMismatch
from workers.export.common import Array, affine, checked, doubles, model_facts, stored_zip
from workers.export.pixels import PixelInput
from workers.files import write_atomically
from workers.latency.agent.runtimes import Native

KERNEL_FILE = Path(__file__).parents[1] / "latency" / "condensenet.c"
PIXELS_FILE = Path(__file__).with_name("condensenet_pixels.c")
MAGIC, VERSION, MOST_STAGES, MOST = 0x4E444E43, 1, 16, 4096
_FAR = 1e12  # a limit so far out is never met: the channel is as good as constant


def to_native(network: DeployedCondenseNet, pixels: PixelInput | None = None) -> bytes:
    """Return the model file, equal for equal networks: images (C, H, W) float32 -> logits (classes,), one image a run.

    With `pixels` it holds a second function, which scales pixels of its type and runs the network on them.

    Raises:
        ExportMismatch: the network is larger than the kernel allows (4,096 channels anywhere, 16 stages).
    """
    files = {
        "model.json": model_facts(network.config, [], None if pixels is None else pixels.rules),
        "weights.bin": b"".join(part.tobytes() for part in pack(network)),
        KERNEL_FILE.name: KERNEL_FILE.read_bytes(),
    }
    if pixels is not None:
        files["scaling.bin"] = scaling(pixels)
        files[PIXELS_FILE.name] = PIXELS_FILE.read_bytes()
    return stored_zip(files)


def save_native(network: DeployedCondenseNet, path: Path, pixels: PixelInput | None = None) -> str:
    """Write `network` to `path` atomically; return the file's SHA-256."""
    return write_atomically(path, to_native(network, pixels))


def scaling(pixels: PixelInput) -> bytes:
    """Return scaling.bin: what pixels are clipped to, then scale and shift of each channel."""
    limits = _floats(np.array(pixels.rules["pixel_range"]))
    return limits.tobytes() + _floats(np.stack(pixels.factors, axis=1)).tobytes()


@torch.no_grad()
def pack(network: DeployedCondenseNet) -> list[Array]:
    """Return the words of weights.bin as arrays of little-endian int32 and float32, in order."""
    config = network.config
    parts = [header(config, MAGIC, VERSION), _pack_3x3(doubles(network.stem.weight), 1, config.stem_stride)]
    for layer in network.layers:
        parts += _pack_layer(cast(DeployedLayer, layer), config)
    index = network.classifier_index.cpu().numpy()
    scale, shift = (values[index] for values in affine(network.norm))
    parts += [_integers(index), _floats(scale), _floats(shift)]
    return [*parts, _floats(doubles(network.classifier.weight).T), _floats(doubles(network.classifier.bias))]


def header(config: CondenseNetConfig, magic: int, version: int) -> Array:
    """Return the numbers that weights.bin begins with; ExportMismatch if the network is too large for the kernel."""
    widest = max(config.num_features, *(shape.bottleneck_channels for shape in config.layer_shapes))
    if widest > MOST or max(config.input_shape) > MOST or len(config.stages) > MOST_STAGES:
        raise ExportMismatch(
            f"the kernel takes at most {MOST} channels, pixels a side and {MOST_STAGES} stages, but the network has "
            f"{widest} channels, input {config.input_shape} and {len(config.stages)} stages; export it to ONNX."
        )
    stages = [number for stage in zip(config.stages, config.growth, strict=True) for number in stage]
    groups = (config.groups, config.condense_factor, config.bottleneck, config.conv3x3_groups)
    ends = (config.num_classes, config.classifier_inputs, len(config.stages))
    numbers = [magic, version, *config.input_shape, config.stem_stride, config.stem_channels, *groups, *ends, *stages]
    return _integers(np.array(numbers + [0] * (2 * MOST_STAGES - len(stages))))


def _pack_layer(layer: DeployedLayer, config: CondenseNetConfig) -> list[Array]:
    """Fold both norms into the 1x1 (see condensenet.c), sort each group's columns by sign, cut into tiles."""
    conv, groups = layer.conv_1x1, config.groups
    index = conv.index.cpu().numpy().reshape(groups, -1)  # (G, kept)
    weight = doubles(conv.conv.weight).reshape(groups, -1, index.shape[1])  # (G, out/G, kept)
    scale, shift = (values.reshape(index.shape) for values in affine(conv.norm))
    with np.errstate(divide="ignore", invalid="ignore"):
        limit = -shift / scale
    constant = ~(np.abs(limit) < _FAR)
    bias = weight @ np.where(constant, np.maximum(shift, 0.0), shift)[:, :, None]  # (G, out/G, 1)
    weight = weight * np.where(constant, 0.0, scale)[:, None, :]
    limit = np.where(constant, 0.0, limit)
    outer_scale, outer_shift = (values.reshape(-1, groups).T[:, :, None] for values in affine(layer.norm))
    weight, bias = weight * outer_scale, bias * outer_scale + outer_shift
    order = np.argsort(scale < 0, axis=1, kind="stable")
    columns = np.take_along_axis(index, order, 1)
    parts = [_integers(columns), _integers((scale >= 0).sum(1))]
    for group in range(groups):
        picked = order[group]
        parts += _tiles_1x1(weight[group][:, picked], bias[group, :, 0], limit[group, picked])
    return [*parts, _pack_3x3(doubles(layer.conv_3x3.weight), config.conv3x3_groups, stride=1)]


def _tiles_1x1(weight: Array, bias: Array, limit: Array) -> list[Array]:
    """Cut (outputs, kept) weights into tiles: biases, then the columns with their limits."""
    parts, start = [], 0
    while (left := len(weight) - start) > 0:
        rows = 16 if left >= 16 else 8 if left > 4 else 4
        used = slice(start, start + rows)
        biases, columns = np.zeros(rows), np.zeros((len(limit), 4 + rows))
        columns[:, :4] = limit[:, None]
        biases[: min(rows, left)] = bias[used]
        columns[:, 4 : 4 + min(rows, left)] = weight[used].T
        parts += [_floats(biases), _floats(columns)]
        start += rows
    return parts


def _pack_3x3(weight: Array, groups: int, stride: int) -> Array:
    """Cut (outputs, inputs, 3, 3) weights of a group convolution into tiles."""
    parts = []
    for of_group in np.split(weight, groups):
        start = 0
        while (left := len(of_group) - start) > 0:
            rows = 8 if left > 4 else 4 if left > 2 or stride == 2 else 2
            tile = np.zeros((rows, *of_group.shape[1:]))
            tile[: min(rows, left)] = of_group[start : start + rows]
            inner = tile.transpose(1, 2, 3, 0).reshape(len(tile[0]), -1)  # (inputs, 9 * rows)
            parts.append(np.pad(inner, ((0, 0), (0, 2 if rows == 2 else 0))).ravel())
            start += rows
    return _floats(np.concatenate(parts))


def _integers(values: Array) -> Array:
    return np.ascontiguousarray(values, dtype="<i4").ravel()


def _floats(values: Array) -> Array:
    return np.ascontiguousarray(values, dtype="<f4").ravel()


def check_native(path: Path, network: DeployedCondenseNet, images: int = 4) -> float:
    """Run the file in the kernel, compiled for this machine, beside torch.

    Returns:
        The largest difference of a logit, as a fraction of the largest logit.

    Raises:
        ExportMismatch: the kernel can't be compiled or can't run the file, or the difference is above `TOLERANCE`.
    """
    return checked(path, lambda model: Native().open(model, threads=1), network, images)
