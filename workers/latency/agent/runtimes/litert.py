"""LiteRT: .tflite files on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from workers.latency.agent.runtimes.base import PackageRuntime, random_input


class LiteRt(PackageRuntime):
    """LiteRT on the CPU with its XNNPACK kernels; fp32 models (.tflite), one image with its channels last."""

    name = "litert"
    MODULE = "ai_edge_litert"

    def __init__(self) -> None:
        from ai_edge_litert import interpreter  # here, so that everything else works without it

        self._interpreter = interpreter.Interpreter
        self.version = self.installed() or "unknown"

    def load(self, model: bytes, threads: int) -> Callable[[], object]:
        """See `Runtime`; the model is a .tflite file."""
        interpreter, (given, _) = self._open(model, threads)
        interpreter.set_tensor(given["index"], random_input(given["shape"], given["dtype"]))
        run: Callable[[], object] = interpreter.invoke
        return run

    def open(self, model: bytes, threads: int) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
        """Return the function from one image (C, H, W) to the output; raises what the runtime raises."""
        interpreter, (given, returned) = self._open(model, threads)

        def infer(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            interpreter.set_tensor(given["index"], np.ascontiguousarray(image.transpose(1, 2, 0)[None]))
            interpreter.invoke()
            return np.array(interpreter.get_tensor(returned["index"])[0])

        return infer

    def _open(self, model: bytes, threads: int) -> tuple[Any, tuple[dict[str, Any], dict[str, Any]]]:
        """Return an interpreter that is ready to run, and its descriptions of the input and of the output."""
        if model[4:8] != b"TFL3":
            raise ValueError("a model for litert must be a .tflite file, but isn't; export it again")
        interpreter = self._interpreter(model_content=model, num_threads=threads)
        interpreter.allocate_tensors()
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        fits = len(inputs) == len(outputs) == 1 and len(inputs[0]["shape"]) == 4
        if not fits or inputs[0]["shape"][0] != 1 or inputs[0]["dtype"] not in (np.float32, np.uint8, np.uint16):
            raise ValueError(
                "a model for litert must take one image of fp32 or pixels, and give one tensor; export it so"
            )
        return interpreter, (inputs[0], outputs[0])
