"""The project's own kernel: one C file that comes with each model and is compiled where it runs."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from workers.latency.agent.files import user_cache
from workers.latency.agent.runtimes.model_zip import unzip_model
from workers.latency.agent.sensors import ROOT, cpuinfo


class Native:
    """The project's own kernel (condensenet.c), one image, one thread, fp32.

    A model is one uncompressed zip of weights.bin, condensenet.c and model.json. The kernel is compiled once and kept
    in $CONDENSERY_KERNELS or ~/.cache/condensery/kernels, where one that was compiled on another machine may be put as
    well. A source with another hash than the one below is never compiled.
    """

    name = "native"
    SOURCE = "condensenet.c"
    SHA256 = "353727856ea47e258caebedb9cea3f413562806f701041edd2a63c864a22d65a"  # of the source
    VERSION = SHA256[:12]
    FLAGS = ("-O3", "-shared", "-fPIC")

    @classmethod
    def installed(cls) -> str | None:
        """See `Runtime`; it is installed where it is compiled or can be compiled."""
        return cls.VERSION if cls.library().exists() or cls.compiler() is not None else None

    def __init__(self) -> None:
        if self.installed() is None:
            raise ImportError("the native runtime needs a C compiler; install one: apt install gcc libc6-dev")
        self.version = self.VERSION

    @staticmethod
    def compiler() -> str | None:
        """Return the C compiler's path, if there is one."""
        return shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc") or shutil.which("clang")

    @classmethod
    def library(cls) -> Path:
        """Return the compiled kernel's path, whether it is compiled yet or not."""
        folder = os.environ.get("CONDENSERY_KERNELS")
        return (Path(folder) if folder else user_cache() / "kernels") / cls.file_name()

    @classmethod
    def file_name(cls, machine: str | None = None) -> str:
        """Return a compiled kernel's file name; it says from which source and for which processor it was compiled."""
        kind = machine or "-".join([platform.machine(), *(flag.strip("-") for flag in _wide_vectors())])
        return f"{cls.VERSION}-{kind}.so"

    def load(self, model: bytes, threads: int) -> Callable[[], object]:
        """See `Runtime`; the model is the zip's bytes."""
        facts, _ = unzip_model(model, self.name, ("weights.bin", self.SOURCE))
        image = np.random.default_rng(0).standard_normal(facts["shape"]).astype(np.float32)
        infer = self._open(model, threads)
        return lambda: infer(image)

    def open(self, model: bytes, threads: int) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
        """Return the function from one image (C, H, W) float32 to the logits; raises ValueError on an invalid model."""
        infer = self._open(model, threads)
        return lambda image: infer(np.ascontiguousarray(image, np.float32)).copy()

    def _open(self, model: bytes, threads: int) -> Callable[[Any], Any]:
        if threads != 1:
            raise ValueError(f"the native runtime has one thread, but got threads={threads}; ask for 1")
        facts, files = unzip_model(model, self.name, ("weights.bin", self.SOURCE))
        kernel = ctypes.CDLL(str(self._compiled(files[self.SOURCE])))
        words = np.frombuffer(files["weights.bin"][: len(files["weights.bin"]) // 4 * 4], "<i4").copy()
        kernel.condensenet_workspace.restype = ctypes.c_size_t
        kernel.condensenet_workspace.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        floats = kernel.condensenet_workspace(words.ctypes.data, words.size)
        header = words[2:14].tolist()
        if floats == 0 or facts["shape"] != header[:3]:
            raise ValueError("weights.bin must be those of one deployed CondenseNet, but aren't; export it again")
        workspace, logits = np.empty(floats, np.float32), np.empty(header[9], np.float32)
        kernel.condensenet_run.restype = None
        kernel.condensenet_run.argtypes = [ctypes.c_void_p] * 4
        fixed = [array.ctypes.data for array in (words, logits, workspace)]

        def infer(image: Any) -> Any:
            if image.shape != tuple(header[:3]):
                raise ValueError(f"an image must be of shape {header[:3]}, but is {image.shape}; resize it")
            kernel.condensenet_run(fixed[0], image.ctypes.data, *fixed[1:])
            return logits

        infer.keeps = (words, workspace)  # type: ignore[attr-defined]  # as long as the pointers are used
        return infer

    def _compiled(self, source: bytes) -> Path:
        """Return the compiled kernel's path, after compiling it if it isn't there."""
        if hashlib.sha256(source).hexdigest() != self.SHA256:
            raise ValueError("the model's kernel must be the one this agent knows; use model and agent of one version")
        library = self.library()
        if not library.exists():
            library.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=library.parent) as folder:  # a rename stays on one file system
                code, made = Path(folder, self.SOURCE), Path(folder, library.name)
                code.write_bytes(source)
                command = [self.compiler() or "cc", *self.FLAGS, *_wide_vectors(), "-o", str(made), str(code)]
                done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
                if done.returncode != 0:
                    raise ValueError(f"the kernel can't be compiled: {done.stderr.strip()[-300:]}")
                made.replace(library)
        return library


def _wide_vectors() -> list[str]:
    """Return flags for fused multiply-adds where the processor has them but compilers don't assume them."""
    features = set(cpuinfo(0, ROOT).get("flags", "").split()) if Path(ROOT, "proc/cpuinfo").exists() else set()
    return ["-mavx2", "-mfma"] if {"avx2", "fma"} <= features else []
