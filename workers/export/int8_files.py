"""One quantized network in the file format of each runtime that has 8 bits: written, and compared with torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from space.config import CondenseNetConfig
from workers.export.common import Array, within_tolerance
from workers.export.model_files import open_file
from workers.export.pixels import PixelInput
from workers.file_names import known_runtime
from workers.latency.agent.runtimes import Native
from workers.quantization.network import QuantizedNetwork, Scheme
from workers.quantization.rounded import RoundedForm

# Of the logits' root mean square. Runtimes round the same numbers in other orders, so that some levels are off by one.
TOLERANCE = 0.05
Save = Callable[[QuantizedNetwork, Path, PixelInput | None], str]


def scheme_for(runtime: str, config: CondenseNetConfig) -> Scheme:
    """Return what a runtime has in 8 bits of a network.

    Raises:
        InvalidSettings: there is no such runtime.
    """
    return _format_of(runtime, config)[0]


def save_int8_for(runtime: str, quantized: QuantizedNetwork, path: Path, pixels: PixelInput | None = None) -> str:
    """Write a network that was calibrated for `scheme_for` this runtime, atomically; return the file's SHA-256."""
    return _format_of(runtime, quantized.network.config)[1](quantized, path, pixels)


@torch.no_grad()
def check_int8_for(
    runtime: str, path: Path, quantized: QuantizedNetwork, images: Tensor, pixels: PixelInput | None = None
) -> float:
    """Return how far a file's logits are from the rounded form's: root mean square, as a share of that of the logits.

    Args:
        runtime: the file's.
        path: the file.
        quantized: the network.
        images: (N, C, H, W), as the file takes them: float32, normalised as in training, or whole pixels.
        pixels: what the file scales itself; None = nothing.

    Raises:
        ExportMismatch: it is above `TOLERANCE`, or the runtime refuses the file.
    """
    given = images.numpy()
    expected = RoundedForm(quantized)(images if pixels is None else torch.from_numpy(pixels.scaled(given))).numpy()

    def compare() -> float:
        run = opened(runtime, path) if pixels is None else open_file(runtime, path)
        return rms_difference(np.stack([run(image) for image in given]), expected)

    rule = f"the file in 8 bits must give what its rounded numbers say to {TOLERANCE:g} of the logits"
    return within_tolerance(path, compare, TOLERANCE, rule)


def opened(runtime: str, path: Path) -> Callable[[Array], Array]:
    """Return the function from one image (C, H, W) float32 to the logits; the kernel is compiled once."""
    return Native().open(path.read_bytes(), threads=1) if runtime == "native" else open_file(runtime, path)


def rms_difference(actual: Array, expected: Array) -> float:
    """Return the root mean square of the logits' difference, as a share of that of the expected logits."""
    if actual.shape != expected.shape:
        raise ValueError(f"the logits must have shape {expected.shape}, but have {actual.shape}")
    return float(np.sqrt(np.square(actual - expected).mean() / max(float(np.square(expected).mean()), 1e-24)))


def _format_of(runtime: str, config: CondenseNetConfig) -> tuple[Scheme, Save]:
    match known_runtime(runtime):  # only the runtime asked for is imported
        case "onnxruntime":
            from workers.export.onnx_int8 import save_onnx_int8, scheme_of

            return scheme_of(config), save_onnx_int8
        case "litert":
            from workers.export import litert_int8

            return litert_int8.SCHEME, litert_int8.save_litert_int8
        case "ncnn":
            from workers.export import ncnn_int8

            return ncnn_int8.SCHEME, ncnn_int8.save_ncnn_int8
        case "native":
            from workers.export import native_int8

            return native_int8.SCHEME, native_int8.save_native_int8
