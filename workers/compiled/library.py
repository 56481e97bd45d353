"""`condensenet_training.c`, compiled once for this processor and loaded.

Notable choices:
- The name of a compiled file says from which source, by which compiler and for which processor it was made. So a home
  folder that several machines share never offers one what was compiled for another.
- Code is loaded from a folder that only its owner can write to, and only if it has the hash that was written beside it:
  neither another user's file nor one that a power cut left half-written is ever run.
- It is compiled in a folder of its own and renamed into place, so that processes that start together don't disturb each
  other. They find the same file in the end.
- Whatever goes wrong is a reason to train in torch, and is remembered: no training waits for a compiler that failed.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from space.errors import CondenseryError
from workers.compiled.structures import Network
from workers.files import file_hash, write_atomically
from workers.latency.agent.elf import why_foreign
from workers.latency.agent.files import user_cache

SOURCE = Path(__file__).with_name("condensenet_training.c")
FLAGS = (*"-O3 -march=native -ffp-contract=fast -fno-math-errno -fno-trapping-math -shared -fPIC".split(),)
LIBRARIES = ("-lm",)
COMPILE_LIMIT_S = 120.0  # it takes some seconds
ABANDONED_AFTER_S = 600.0  # a folder that a killed compilation left behind
# What /proc/cpuinfo says of a processor's instructions, on x86 and on ARM.
PROCESSOR_FACTS = ("model name", "flags", "Features", "CPU implementer", "CPU variant", "CPU part")


class NotCompiled(Exception):
    """The training kernel can't be had on this machine; the message says why and what to do."""


def load_library() -> ctypes.CDLL:
    """Return the compiled training kernel.

    Raises:
        NotCompiled: it can't be compiled, kept or loaded; the message says what to do.
    """
    library = _loaded()
    if isinstance(library, str):
        raise NotCompiled(library)
    return library


@functools.cache
def _loaded() -> ctypes.CDLL | str:
    """Return the kernel, or why there is none."""
    try:
        return _with_types(ctypes.CDLL(str(compiled())))
    except NotCompiled as error:
        return str(error)
    except (OSError, AttributeError) as error:
        return f"what was compiled can't be loaded: {error}"


def _with_types(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, number = ctypes.c_void_p, ctypes.c_int
    library.training_open.argtypes = [ctypes.POINTER(Network), number, number, number]
    library.training_open.restype = pointer
    library.training_forward.argtypes = [pointer, number, pointer, pointer, number, number]
    library.training_backward.argtypes = [pointer, number, pointer, pointer]
    library.training_abandon.argtypes = library.training_close.argtypes = [pointer]
    for name in ("forward", "backward", "abandon", "close"):
        getattr(library, f"training_{name}").restype = None
    return library


def compiled() -> Path:
    """Return the path of the compiled kernel, after compiling it if it isn't there or isn't whole.

    Raises:
        NotCompiled: as in `load_library`.
    """
    compiler = _compiler()
    try:
        folder = _safe_folder()
        file = folder / f"training-{_fingerprint(compiler)}.so"
        if not _is_whole(file):
            _compile(compiler, file)
    except subprocess.TimeoutExpired:
        raise NotCompiled(
            f"{compiler[0]} doesn't end within {COMPILE_LIMIT_S:.0f} s; name another compiler in CC"
        ) from None
    except (OSError, CondenseryError) as error:
        raise NotCompiled(f"the compiled kernel can't be made or kept: {error}") from None
    return file


def _compiler() -> list[str]:
    """Return the command of the C compiler: what CC says, else cc, gcc or clang."""
    wanted = os.environ.get("CC", "").strip()
    command = [wanted] if shutil.which(wanted) else shlex.split(wanted)
    if command:
        program = shutil.which(command[0])
        if program is None:
            raise NotCompiled(f"CC names {wanted!r}, which isn't there; correct or unset it")
        return [program, *command[1:]]
    program = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if program is None:
        raise NotCompiled("there is no C compiler; install one: apt install gcc libc6-dev")
    return [program]


def _compile(compiler: list[str], file: Path) -> None:
    for left in file.parent.glob("making-*"):
        if time.time() - left.stat().st_mtime > ABANDONED_AFTER_S:
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix="making-") as folder:
        made = Path(folder, file.name)
        done = _run([*compiler, *FLAGS, "-o", str(made), str(SOURCE), *LIBRARIES])
        if done.returncode != 0:
            raise NotCompiled(f"{compiler[0]} can't compile it: {done.stderr.strip()[-300:]}")
        if (foreign := why_foreign(made)) is not None:
            raise NotCompiled(f"{compiler[0]} compiles for another machine ({foreign}); name one for this one in CC")
        digest = write_atomically(file, made.read_bytes())
    write_atomically(_hash_of(file), digest.encode())


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=COMPILE_LIMIT_S
    )


def _is_whole(file: Path) -> bool:
    """Whether the file is there, this user's, and what was written."""
    try:
        whole = file.stat().st_uid in (0, os.geteuid()) and file_hash(file) == _hash_of(file).read_text()
        return whole and why_foreign(file) is None
    except FileNotFoundError:
        return False


def _hash_of(file: Path) -> Path:
    return file.with_suffix(".sha256")


def _safe_folder() -> Path:
    """Return the folder of compiled kernels, made if need be, that only this user can write to."""
    folder = os.environ.get("CONDENSERY_KERNELS")
    parent = Path(folder) if folder else user_cache() / "kernels"
    kept = parent / "training"
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = kept.stat()
    if status.st_uid != os.geteuid():
        raise NotCompiled(f"{kept} is another user's; name a folder of your own in CONDENSERY_KERNELS")
    if status.st_mode & 0o022:
        kept.chmod(0o700)
    return kept


def _fingerprint(compiler: list[str]) -> str:
    version = _run([*compiler, "--version"]).stdout
    parts = (SOURCE.read_text(), " ".join(FLAGS), version, platform.machine(), _processor())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _processor(facts: Path = Path("/proc/cpuinfo")) -> str:
    """Return what the system says of the processor's instructions (Linux), else of the machine."""
    try:
        lines = facts.read_text().splitlines()
    except OSError:
        return f"{platform.processor()} of {platform.node()}"
    said = sorted({line for line in lines if line.startswith(PROCESSOR_FACTS)})
    return "\n".join(said) or platform.node()
