"""onnxruntime: ONNX files on the CPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from workers.latency.agent.runtimes.base import PackageRuntime, random_input

_INPUTS = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(uint16)": np.uint16}


class OnnxRuntime(PackageRuntime):
    """onnxruntime on the CPU with all graph optimisations; fp32 models, batch 1; the input may be whole pixels."""

    name = "onnxruntime"
    MODULE = "onnxruntime"

    def __init__(self) -> None:
        self._ort = import_onnxruntime()  # here, so that --help and the sensors work without it
        self.version = str(self._ort.__version__)

    def load(self, model: bytes, threads: int) -> Callable[[], object]:
        """See `Runtime`; the model is an ONNX file."""
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = threads
        options.execution_mode = self._ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3  # errors only
        session = self._ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        feed = {spec.name: _random_input(spec.name, spec.type, spec.shape) for spec in session.get_inputs()}
        outputs = [spec.name for spec in session.get_outputs()]
        return lambda: session.run(outputs, feed)


def import_onnxruntime() -> Any:
    """Return the module onnxruntime, its telemetry off; whoever set ORT_DISABLE_TELEMETRY has the last word.

    From 1.29 on it keeps an id of this device and a database of events in the user's cache, and sends these. It reads
    the variable once, as it is imported.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def _random_input(name: str, kind: str, shape: Sequence[Any]) -> np.ndarray[Any, Any]:
    if kind not in _INPUTS:
        raise ValueError(f"input {name!r} must be tensor(float), or pixels, but is {kind}; export the model in fp32")
    sizes = [1, *shape[1:]] if shape and not isinstance(shape[0], int) else list(shape)  # a symbolic batch is 1
    if not all(isinstance(size, int) and size > 0 for size in sizes) or sizes[:1] not in ([], [1]):
        raise ValueError(f"input {name!r} must have batch 1 and fixed sizes, but is {list(shape)}; export it so")
    return random_input(sizes, _INPUTS[kind])
