"""`condensenet_training.c`, compiled once for this processor and loaded.

Notable choices:
- The name of a compiled file says from which source, by which compiler and for which processor it was made. So a home
  folder that several machines share never offers one what was compiled for another.
- It is compiled in a folder of its own and renamed into place, so that processes that start together don't disturb each
  other. They find the same file in the end.
- Without a compiler there is no error: trainings run in torch then, and say so.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from workers.compiled.structures import Network

SOURCE = Path(__file__).with_name("condensenet_training.c")
FLAGS = (*"-O3 -march=native -ffp-contract=fast -fno-math-errno -fno-trapping-math -shared -fPIC".split(),)
LIBRARIES = ("-lm",)


class NotCompiled(Exception):
    """The training kernel can't be had on this machine; the message says why and what to do."""


@functools.cache
def load_library() -> ctypes.CDLL:
    """Return the compiled training kernel.

    Raises:
        NotCompiled: there is no C compiler, or it fails; the message says what to do.
    """
    library = ctypes.CDLL(str(compiled()))
    pointer, number = ctypes.c_void_p, ctypes.c_int
    library.training_open.argtypes = [ctypes.POINTER(Network), number, number, number]
    library.training_open.restype = pointer
    library.training_forward.argtypes = [pointer, number, pointer, pointer, number, number]
    library.training_backward.argtypes = [pointer, number, pointer, pointer]
    library.training_close.argtypes = [pointer]
    for function in (library.training_forward, library.training_backward, library.training_close):
        function.restype = None
    return library


def compiled() -> Path:
    """Return the path of the compiled kernel, after compiling it if it isn't there.

    Raises:
        NotCompiled: as in `load_library`.
    """
    compiler = shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise NotCompiled("there is no C compiler; install one: apt install gcc libc6-dev")
    file = _folder() / f"training-{_fingerprint(compiler)}.so"
    if file.exists():
        return file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            made = Path(folder, file.name)
            command = [compiler, *FLAGS, "-o", str(made), str(SOURCE), *LIBRARIES]
            done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
            if done.returncode != 0:
                raise NotCompiled(f"{compiler} can't compile it: {done.stderr.strip()[-300:]}")
            made.replace(file)
    except OSError as error:
        raise NotCompiled(f"it can't be kept in {file.parent}: {error.strerror}") from None
    return file


def _folder() -> Path:
    folder = os.environ.get("CONDENSERY_KERNELS")
    return Path(folder) if folder else Path.home() / ".cache" / "condensery" / "kernels"


def _fingerprint(compiler: str) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    parts = (SOURCE.read_text(), " ".join(FLAGS), version, platform.machine(), _processor())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """Return what the system says of the processor's instructions (Linux); "" elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return "\n".join(next((line for line in lines if line.startswith(key)), "") for key in ("model name", "flags"))
