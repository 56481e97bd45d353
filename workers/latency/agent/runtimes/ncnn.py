"""ncnn: its two model files travel as one zip."""

from __future__ import annotations

import functools
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from workers.latency.agent.runtimes.base import PackageRuntime
from workers.latency.agent.runtimes.model_zip import unzip_model

_FP16 = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic")  # done where the processor has it
PRECISIONS: dict[str, tuple[str, ...]] = {  # what is left on for a model
    "fp32": (),
    "fp16": _FP16,
    "int8": ("use_int8_inference",),
}


class Ncnn(PackageRuntime):
    """ncnn on the CPU, storage and arithmetic in the precision that the model says, one image.

    Its Winograd convolutions stay on, as they are in a deployment; they round to within 1e-5 of the largest output.

    A model is one uncompressed zip of model.param, model.bin and model.json, which names the input and output blobs,
    the input's shape (channels, height, width) and the layers that ncnn itself doesn't have. Only `ChannelGather` may
    be one of these: it runs in numpy, unless it was built into the installed ncnn.
    """

    name = "ncnn"
    MODULE = "ncnn"
    GATHER = "ChannelGather"  # picks channels: parameter 0 says how many, its weights are their indices as int32

    def __init__(self) -> None:
        import ncnn  # here, so that everything else works without it

        self._ncnn = ncnn
        self.version = self.installed() or "unknown"

    def load(self, model: bytes, threads: int) -> Callable[[], object]:
        """See `Runtime`; the model is the zip's bytes."""
        facts, _ = unzip_model(model)
        image = np.random.default_rng(0).standard_normal(facts["shape"]).astype(np.float32)
        pixels, infer = self._ncnn.Mat(image).clone(), self._open(model, threads)  # its own memory
        return lambda: infer(pixels)

    def open(self, model: bytes, threads: int) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
        """Return the function from one image (C, H, W) float32 to the output; raises what the runtime raises."""
        run = self._open(model, threads)

        def infer(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            pixels = np.ascontiguousarray(image)  # named, because a Mat of an array doesn't keep the array
            return np.array(run(self._ncnn.Mat(pixels).clone()))  # a first layer that works in place needs its own

        return infer

    def _open(self, model: bytes, threads: int) -> Callable[[Any], Any]:
        facts, files = unzip_model(model)
        unknown = sorted(set(facts["layers"]) - {self.GATHER})
        if unknown:
            rule = f"a model's layers must be ncnn's own or {self.GATHER}"
            raise ValueError(f"{rule}, but it needs {unknown}; export it again")
        needs_gather = any(self._ncnn.layer_to_index(name) < 0 for name in facts["layers"])  # it isn't built in
        network = self._net(needs_gather)

        def infer(pixels: Any) -> Any:
            extractor = network.create_extractor()
            extractor.input(facts["input"], pixels)
            code, output = extractor.extract(facts["output"])
            if code != 0:
                raise RuntimeError(f"ncnn must reach {facts['output']!r}, but ended with code {code}")
            return output

        if needs_gather:
            weakref.finalize(infer, _free_nets().append, network)  # the next such model uses this net again
        self._stay_in(str(facts.get("precision", "fp32")), network.opt, threads)
        with tempfile.TemporaryDirectory() as folder:  # ncnn takes no weights from memory
            for name, content in files.items():
                Path(folder, name).write_bytes(content)
            for load, name in ((network.load_param, "model.param"), (network.load_model, "model.bin")):
                if load(str(Path(folder, name))) != 0:
                    raise ValueError(f"{name} must be one that ncnn {self.version} reads, but isn't; export it again")
        return infer

    def _net(self, gathers: bool) -> Any:
        """Return an empty net; with `gathers`, one that has the layer `ChannelGather`."""
        if gathers and _free_nets():
            network = _free_nets().pop()
            network.clear()
            return network
        network = self._ncnn.Net()
        if gathers:
            layer = _channel_gather(self._ncnn)
            alive: list[Any] = []  # ncnn holds no reference to a layer written in Python

            def make() -> Any:
                alive.append(layer())
                return alive[-1]

            network.register_custom_layer(self.GATHER, make, alive.remove)
        return network

    def _stay_in(self, precision: str, options: Any, threads: int) -> None:
        """Turn off what has fewer bits than the model, because the precision is part of a result's key.

        Raises:
            ValueError: the precision is none that this program knows.
        """
        if precision not in PRECISIONS:
            raise ValueError(f"ncnn computes in {sorted(PRECISIONS)} here, not {precision!r}; update the agent")
        options.num_threads = threads
        options.use_vulkan_compute = False
        for name in dir(options):
            if name.startswith(("use_fp16", "use_bf16", "use_int8")):
                setattr(options, name, name in PRECISIONS[precision])


@functools.cache
def _free_nets() -> list[Any]:
    """Return the nets with `ChannelGather` that no model uses.

    They are used again because ncnn's binding registers a layer only ten times in one process.
    """
    return []


def _channel_gather(ncnn: Any) -> Any:
    """Return the class of the layer that picks channels (see `Ncnn.GATHER`)."""

    class ChannelGather(ncnn.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.one_blob_only = True
            self.index = np.zeros(0, np.intp)

        def load_param(self, parameters: Any) -> int:
            self.count = parameters.get(0, 0)
            return 0 if self.count > 0 else -1

        def load_model(self, weights: Any) -> int:
            words = weights.load(self.count, 1)
            if words.w != self.count:
                return -100
            self.index = np.array(words).view(np.int32).astype(np.intp)
            return 0

        def forward(self, bottom: Any, top: Any, options: Any) -> int:
            top.create((bottom.w, bottom.h, self.count))
            # An index out of range is clipped: nothing outside the image is read, and the exporter's check finds it.
            np.asarray(bottom).take(self.index, 0, np.asarray(top), "clip")
            return 0

    return ChannelGather
