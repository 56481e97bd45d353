"""The project's own kernel: one C file that comes with each model and is compiled where it runs."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from workers.latency.agent.runtimes.kernels import Kernel, compiler, how_to_get_compiler
from workers.latency.agent.runtimes.model_zip import unzip_model

# A source with another hash is never compiled.
FP32 = Kernel(
    "condensenet.c", "353727856ea47e258caebedb9cea3f413562806f701041edd2a63c864a22d65a", parts="condensenet_parts.c"
)
INT8 = Kernel(
    "condensenet_int8.c", "8cb6b1fe38b4dc90912af56e51a6c4bfe6c9c744b30299a5f642d8f2c0bd2d3a", has_dot_products=True
)
MOST_THREADS = 64
KERNELS = {"fp32": FP32, "int8": INT8}  # by the precision in a model's facts


class Native:
    """The project's own kernels, one image a run: fp32 (condensenet.c) and int8 (condensenet_int8.c).

    A model is one uncompressed zip of weights.bin, its kernel's source and model.json. A kernel is compiled once and
    kept in $CONDENSERY_KERNELS or ~/.cache/condensery/kernels, where one that was compiled on another machine may be
    put as well. Beside what is compiled it is written from which source and by which compiler; what is for another
    processor, was changed since, or was made by another compiler than the one that is here, is compiled again and never
    loaded. With several threads each run is shared among them; they end with the function that runs the model.
    """

    name = "native"
    VERSION = FP32.version

    @classmethod
    def installed(cls) -> str | None:
        """See `Runtime`; it is installed where it is compiled or can be compiled."""
        return cls.VERSION if compiler() is not None or FP32.is_there() else None

    def __init__(self) -> None:
        if self.installed() is None:
            raise ImportError(f"the native runtime needs a C compiler; {how_to_get_compiler()}")
        self.version = self.VERSION

    def load(self, model: bytes, threads: int) -> Callable[[], object]:
        """See `Runtime`; the model is the zip's bytes."""
        facts, _ = unzip_model(model, self.name, ("weights.bin",))
        image = np.random.default_rng(0).standard_normal(facts["shape"]).astype(np.float32)
        infer = self._open(model, threads)
        return lambda: infer(image)

    def open(self, model: bytes, threads: int) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
        """Return the function from one image (C, H, W) float32 to the logits; raises ValueError on an invalid model."""
        infer = self._open(model, threads)
        return lambda image: infer(np.ascontiguousarray(image, np.float32)).copy()

    def _open(self, model: bytes, threads: int) -> Callable[[Any], Any]:
        if not 1 <= threads <= MOST_THREADS:
            raise ValueError(f"the native runtime takes 1 to {MOST_THREADS} threads, but got {threads}; use fewer")
        facts, files = unzip_model(model, self.name, ("weights.bin",))
        precision = facts.get("precision", "fp32")
        if precision not in KERNELS:
            raise ValueError(f"the native runtime computes in {sorted(KERNELS)}, not {precision!r}; update the agent")
        kernel = KERNELS[precision] if threads == 1 else KERNELS[precision].with_threads()
        _, files = unzip_model(model, self.name, ("weights.bin", kernel.source))
        library = ctypes.CDLL(str(kernel.compiled(files[kernel.source])))
        words = np.frombuffer(files["weights.bin"][: len(files["weights.bin"]) // 4 * 4], "<i4").copy()
        floats = _workspace(library, words, threads)
        header = words[2:14].tolist()
        if floats == 0 or facts["shape"] != header[:3]:
            raise ValueError("weights.bin must be those of one deployed CondenseNet, but aren't; export it again")
        workspace, logits = np.empty(floats, np.float32), np.empty(header[9], np.float32)
        run = _function(library, threads)
        fixed = [array.ctypes.data for array in (words, logits, workspace)]

        def infer(image: Any) -> Any:
            if image.shape != tuple(header[:3]):
                raise ValueError(f"an image must be of shape {header[:3]}, but is {image.shape}; resize it")
            run(fixed[0], image.ctypes.data, *fixed[1:])
            return logits

        infer.keeps = (words, workspace)  # type: ignore[attr-defined]  # as long as the pointers are used
        return infer


def _workspace(library: ctypes.CDLL, words: np.ndarray[Any, Any], threads: int) -> int:
    """Return how many floats of workspace a run needs; 0 if the words aren't a valid model."""
    model = ctypes.c_void_p(words.ctypes.data), ctypes.c_size_t(words.size)
    if threads == 1:
        library.condensenet_workspace.restype = ctypes.c_size_t
        return int(library.condensenet_workspace(*model))
    library.condensenet_parts_workspace.restype = ctypes.c_size_t
    return int(library.condensenet_parts_workspace(*model, ctypes.c_int(threads)))


def _function(library: ctypes.CDLL, threads: int) -> Callable[[int, int, int, int], object]:
    """Return the function of (model, image, logits, workspace), all addresses; its threads end with it."""
    if threads == 1:
        library.condensenet_run.restype = None
        library.condensenet_run.argtypes = [ctypes.c_void_p] * 4
        return library.condensenet_run
    library.condensenet_team.restype = ctypes.c_void_p
    library.condensenet_team_end.argtypes = [ctypes.c_void_p]
    library.condensenet_team_end.restype = None
    library.condensenet_team_run.argtypes = [ctypes.c_void_p] * 5
    library.condensenet_team_run.restype = None
    team = library.condensenet_team(ctypes.c_int(threads))
    if not team:
        raise ValueError(f"the system must have {threads} threads for the native runtime, but hasn't; use fewer")

    def run(*addresses: int) -> None:
        library.condensenet_team_run(team, *addresses)

    weakref.finalize(run, library.condensenet_team_end, team)
    return run
