"""One deployed network in the file format of each runtime: written, and checked against torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from space.deployed import DeployedCondenseNet
from workers.bundled.infer import open_model
from workers.export.common import Array, relative_difference, within_tolerance
from workers.export.pixels import PixelInput
from workers.file_names import known_runtime

Save = Callable[[DeployedCondenseNet, Path, PixelInput | None], str]
Check = Callable[[Path, DeployedCondenseNet], float]
CHECKED_IMAGES = 4


def save_for(runtime: str, network: DeployedCondenseNet, path: Path, pixels: PixelInput | None = None) -> str:
    """Write a network in a runtime's format, atomically; return the file's SHA-256.

    With `pixels` the file takes these and scales them itself.
    """
    save, _ = _format_of(runtime)
    return save(network, path, pixels)


def check_for(runtime: str, path: Path, network: DeployedCondenseNet, pixels: PixelInput | None = None) -> float:
    """Return the largest difference of a logit from torch's, as a fraction of the largest logit.

    A file that takes pixels is run as a bundle's infer.py runs it.

    Raises:
        ExportMismatch: it is above 1e-5, or the runtime refuses the file.
    """
    _, check = _format_of(runtime)
    if pixels is None:
        return check(path, network)
    return within_tolerance(path, lambda: _pixel_difference(runtime, path, network, pixels))


def _pixel_difference(runtime: str, path: Path, network: DeployedCondenseNet, pixels: PixelInput) -> float:
    images = pixels.random(CHECKED_IMAGES)
    run = open_file(runtime, path)
    return relative_difference(np.stack([run(image) for image in images]), pixels.logits(network, images))


def open_file(runtime: str, path: Path) -> Callable[[Array], Array]:
    """Return the function from one input (C, H, W) to the logits (classes,), as a bundle's infer.py has it.

    ncnn's Python binding takes the layer that a model brings along only ten times in one process, so for it this is the
    measuring program's, which uses the layer again.
    """
    if runtime != "ncnn":
        return open_model(path)
    from workers.latency.agent.runtimes import Ncnn

    run = Ncnn().open(path.read_bytes(), threads=1)
    return lambda image: run(image.astype(np.float32))


def _format_of(runtime: str) -> tuple[Save, Check]:
    match known_runtime(runtime):  # only the runtime asked for is imported
        case "onnxruntime":
            from workers.export.onnx import check_onnx, save_onnx

            return save_onnx, check_onnx
        case "ncnn":
            from workers.export.ncnn import check_ncnn, save_ncnn

            return save_ncnn, check_ncnn
        case "litert":
            from workers.export.litert import check_litert, save_litert

            return save_litert, check_litert
        case "native":
            from workers.export.native import check_native, save_native

            return save_native, check_native
