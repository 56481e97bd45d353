"""The project's own kernel: one C file that comes with each model and is compiled where it runs."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from workers.latency.agent.elf import why_foreign
from workers.latency.agent.files import user_cache
from workers.latency.agent.runtimes.model_zip import unzip_model
from workers.latency.agent.sensors import ROOT, cpuinfo


class Native:
    """The project's own kernel (condensenet.c), one image, one thread, fp32.

    A model is one uncompressed zip of weights.bin, condensenet.c and model.json. The kernel is compiled once and kept
    in $CONDENSERY_KERNELS or ~/.cache/condensery/kernels, where one that was compiled on another machine may be put as
    well. A source with another hash than the one below is never compiled. Beside what is compiled it is written from
    which source and by which compiler; what is for another processor, was changed since, or was made by another
    compiler than the one that is here, is compiled again and never loaded.
    """

    name = "native"
    SOURCE = "condensenet.c"
    SHA256 = "353727856ea47e258caebedb9cea3f413562806f701041edd2a63c864a22d65a"  # of the source
    VERSION = SHA256[:12]
    FLAGS = ("-O3", "-shared", "-fPIC")

    @classmethod
    def installed(cls) -> str | None:
        """See `Runtime`; it is installed where it is compiled or can be compiled."""
        there = cls.compiler() is not None or (cls.library().exists() and why_foreign(cls.library()) is None)
        return cls.VERSION if there else None

    def __init__(self) -> None:
        if self.installed() is None:
            raise ImportError("the native runtime needs a C compiler; install one: apt install gcc libc6-dev")
        self.version = self.VERSION

    @staticmethod
    def compiler() -> str | None:
        """Return the path of the C compiler that CC names, or else of cc, gcc or clang; None if there is none."""
        named = os.environ.get("CC")
        return next(filter(None, map(shutil.which, (named,) if named else ("cc", "gcc", "clang"))), None)

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
        """Return the compiled kernel's path, after compiling it if what is there isn't of this source and machine."""
        if hashlib.sha256(source).hexdigest() != self.SHA256:
            raise ValueError("the model's kernel must be the one this agent knows; use model and agent of one version")
        library, compiler = self.library(), self.compiler()
        if self._is_usable(library, compiler):
            return library
        if compiler is None:
            raise ValueError(f"{library} can't be used here ({why_foreign(library)}); remove it, or install a compiler")
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:  # a rename stays on one file system
            code, made = Path(folder, self.SOURCE), Path(folder, library.name)
            code.write_bytes(source)
            command = [compiler, *self.FLAGS, *_wide_vectors(), "-o", str(made), str(code)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
            if done.returncode != 0:
                raise ValueError(f"the kernel can't be compiled: {done.stderr.strip()[-300:]}")
            foreign = why_foreign(made)
            if foreign is not None:
                raise ValueError(f"{compiler} compiles for another machine ({foreign}); name one for this one in CC")
            stamp = Path(folder, "stamp")
            stamp.write_text(json.dumps(self._stamp(made, compiler)), encoding="utf-8")
            stamp.replace(_stamp_of(library))
            made.replace(library)
        return library

    @classmethod
    def _is_usable(cls, library: Path, compiler: str | None) -> bool:
        """Whether a compiled kernel is there, for this machine, as it was written, and not another compiler's.

        One without a stamp was put there by hand; it counts where there is no compiler to make a known one.
        """
        if not library.exists() or why_foreign(library) is not None:
            return False
        try:
            stamp = json.loads(_stamp_of(library).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return compiler is None
        written = cls._stamp(library, compiler)
        return all(stamp.get(key) == value for key, value in written.items()) if isinstance(stamp, dict) else False

    @classmethod
    def _stamp(cls, library: Path, compiler: str | None) -> dict[str, str]:
        """Return the hashes of an object, its source and its compiler; without a compiler, of the first two."""
        made = {"object": hashlib.sha256(library.read_bytes()).hexdigest(), "source": cls.SHA256}
        if compiler is None:
            return made
        done = subprocess.run([compiler, "--version"], capture_output=True, check=False, stdin=subprocess.DEVNULL)
        flags = " ".join([*cls.FLAGS, *_wide_vectors()]).encode()
        return {**made, "compiler": hashlib.sha256(done.stdout + flags).hexdigest()}


def _stamp_of(library: Path) -> Path:
    return library.with_suffix(".json")


def _wide_vectors() -> list[str]:
    """Return flags for fused multiply-adds where the processor has them but compilers don't assume them."""
    features = set(cpuinfo(0, ROOT).get("flags", "").split()) if Path(ROOT, "proc/cpuinfo").exists() else set()
    return ["-mavx2", "-mfma"] if {"avx2", "fma"} <= features else []
