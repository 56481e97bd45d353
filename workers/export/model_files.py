"""One deployed network in each runtime's own file: written, checked against torch, told apart by the name's end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from space.deployed import DeployedCondenseNet
from workers.file_names import known_runtime

Save = Callable[[DeployedCondenseNet, Path], str]
Check = Callable[[Path, DeployedCondenseNet], float]


def save_for(runtime: str, network: DeployedCondenseNet, path: Path) -> str:
    """Write a network in a runtime's format, atomically; return the file's SHA-256."""
    return _both(runtime)[0](network, path)


def check_for(runtime: str, path: Path, network: DeployedCondenseNet) -> float:
    """Return the largest difference of a logit from torch's, as a fraction of the largest logit.

    Raises:
        ExportMismatch: it is above 1e-5, or the runtime refuses the file.
    """
    return _both(runtime)[1](path, network)


def _both(runtime: str) -> tuple[Save, Check]:
    if known_runtime(runtime) == "ncnn":
        from workers.export.ncnn import check_ncnn, save_ncnn

        return save_ncnn, check_ncnn
    if runtime == "litert":
        from workers.export.litert import check_litert, save_litert

        return save_litert, check_litert
    if runtime == "native":
        from workers.export.native import check_native, save_native

        return save_native, check_native
    from workers.export.onnx import check_onnx, save_onnx

    return save_onnx, check_onnx
