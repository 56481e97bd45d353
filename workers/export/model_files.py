"""One deployed network in the file format of each runtime: written, and checked against torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from space.deployed import DeployedCondenseNet
from workers.file_names import known_runtime

Save = Callable[[DeployedCondenseNet, Path], str]
Check = Callable[[Path, DeployedCondenseNet], float]


def save_for(runtime: str, network: DeployedCondenseNet, path: Path) -> str:
    """Write a network in a runtime's format, atomically; return the file's SHA-256."""
    save, _ = _format_of(runtime)
    return save(network, path)


def check_for(runtime: str, path: Path, network: DeployedCondenseNet) -> float:
    """Return the largest difference of a logit from torch's, as a fraction of the largest logit.

    Raises:
        ExportMismatch: it is above 1e-5, or the runtime refuses the file.
    """
    _, check = _format_of(runtime)
    return check(path, network)


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
