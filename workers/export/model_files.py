"""One deployed network in the file format of each runtime: written, and checked against torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from space.deployed import DeployedCondenseNet
from space.errors import PrecisionMissing
from workers.bundled.infer import open_model
from workers.export.common import HALF_TOLERANCE, Array, difference, relative_difference, within_tolerance
from workers.export.pixels import PixelInput
from workers.file_names import Precision, Runtime, known_runtime

Save = Callable[[DeployedCondenseNet, Path, PixelInput | None], str]
Check = Callable[[Path, DeployedCondenseNet], float]
CHECKED_IMAGES = 4
HALF_RUNTIMES: tuple[Runtime, ...] = ("ncnn", "litert")  # that have model files in fp16
HALF_RULE = f"the network in fp16 must equal the trained one to {HALF_TOLERANCE:g} of its largest output"


def save_for(runtime: str, network: DeployedCondenseNet, path: Path, pixels: PixelInput | None = None) -> str:
    """Write a network in a runtime's format, atomically; return the file's SHA-256.

    With `pixels` the file takes these and scales them itself.
    """
    save, _ = _format_of(runtime)
    return save(network, path, pixels)


def save_half_for(runtime: str, network: DeployedCondenseNet, path: Path, pixels: PixelInput | None = None) -> str:
    """Write a network in fp16 in a runtime's format, atomically; return the file's SHA-256.

    Raises:
        PrecisionMissing: the runtime has no fp16.
        ExportMismatch: a weight is too large for 16 bits.
    """
    check_has(runtime, "fp16")
    if runtime == "ncnn":
        from workers.export.ncnn import save_ncnn

        return save_ncnn(network, path, pixels, half=True)
    from workers.export.litert import save_litert

    return save_litert(network, path, pixels, half=True)


def check_has(runtime: str, precision: Precision) -> None:
    """Raise PrecisionMissing where a runtime has no files in a precision."""
    if precision == "fp16" and known_runtime(runtime) not in HALF_RUNTIMES:
        raise PrecisionMissing(
            f"{runtime} has no model files in fp16; the runtimes that have them are {' and '.join(HALF_RUNTIMES)}: "
            "export for one of those, or make it latency.runtime of a study."
        )


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


def check_half_for(runtime: str, path: Path, network: DeployedCondenseNet, pixels: PixelInput | None = None) -> float:
    """Return the largest difference of a logit of a file in fp16 from torch's in fp32, see `check_for`.

    Raises:
        ExportMismatch: it is above 0.01, or the runtime refuses the file.
    """

    def compare() -> float:
        if pixels is not None:
            return _pixel_difference(runtime, path, network, pixels)
        return difference(network, open_file(runtime, path), CHECKED_IMAGES)

    return within_tolerance(path, compare, HALF_TOLERANCE, HALF_RULE)


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
