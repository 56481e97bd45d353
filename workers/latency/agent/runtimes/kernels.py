"""Compiling the project's own kernels where they run, and keeping what was compiled."""

from __future__ import annotations

import hashlib
import json
import os
import pkgutil
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from workers.latency.agent.elf import why_foreign
from workers.latency.agent.files import user_cache
from workers.latency.agent.sensors import ROOT, cpuinfo

FLAGS = ("-O3", "-shared", "-fPIC")
THREADS = "condensenet_threads.c"  # comes with the agent


def compiler() -> str | None:
    """Return the path of the C compiler that CC names, or else of cc, gcc or clang; None if there is none."""
    named = os.environ.get("CC")
    return next(filter(None, map(shutil.which, (named,) if named else ("cc", "gcc", "clang"))), None)


def how_to_get_compiler() -> str:
    """Return what to install where `compiler` finds none."""
    named = os.environ.get("CC", "")
    if not named:
        return "install one: apt install gcc libc6-dev"
    cross = Path(named).name
    package = f"gcc-{cross[: -len('-gcc')]}" if cross.endswith("-gcc") else cross  # as Debian calls cross compilers
    return f"CC names {named}, which isn't installed; install it: apt install {package}"


@dataclass(frozen=True)
class Kernel:
    """One kernel: its source, which comes with each model, and what of the agent's own is compiled with it."""

    source: str
    sha256: str
    parts: str | None = None  # the agent's source that includes it, for one that can't be run in parts by itself
    has_dot_products: bool = False  # whether the source uses instructions for them, where the processor has them
    threaded: bool = False

    def with_threads(self) -> Kernel:
        """Return the kernel that several threads can run."""
        return replace(self, threaded=True)

    @property
    def version(self) -> str:
        """The beginning of the hash of all that is compiled."""
        if not self.threaded:
            return self.sha256[:12]
        return hashlib.sha256(b"".join([self.sha256.encode(), *self._own_sources().values()])).hexdigest()[:12]

    @property
    def flags(self) -> list[str]:
        """The compiler's flags, those for what this processor can do among them."""
        return [*FLAGS, *(["-pthread"] if self.threaded else []), *processor_flags(self.has_dot_products)]

    def file_name(self, machine: str | None = None) -> str:
        """Return the compiled kernel's file name; it says from which source and for which processor it was compiled."""
        extra = [flag.rpartition("+")[2].strip("-") for flag in processor_flags(self.has_dot_products)]
        return f"{self.version}-{machine or '-'.join([platform.machine(), *extra])}.so"

    def library(self) -> Path:
        """Return the compiled kernel's path, whether it is compiled yet or not."""
        folder = os.environ.get("CONDENSERY_KERNELS")
        return (Path(folder) if folder else user_cache() / "kernels") / self.file_name()

    def is_there(self) -> bool:
        """Return whether it is compiled for this machine."""
        return self.library().exists() and why_foreign(self.library()) is None

    def compiled(self, source: bytes) -> Path:
        """Return the compiled kernel's path, after compiling it if what is there isn't of this source and machine.

        Raises:
            ValueError: the source is another one, or can't be compiled here.
        """
        if hashlib.sha256(source).hexdigest() != self.sha256:
            raise ValueError("the model's kernel must be the one this agent knows; use model and agent of one version")
        library, command = self.library(), compiler()
        if self._is_usable(library, command):
            return library
        if command is None:
            why = why_foreign(library) if library.exists() else "there is no such file"
            raise ValueError(f"{library} can't be used here ({why}), nor compiled; {how_to_get_compiler()}")
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:  # a rename stays on one file system
            made = Path(folder, library.name)
            self._compile(command, {self.source: source, **self._own_sources()}, made)
            stamp = Path(folder, "stamp")
            stamp.write_text(json.dumps(self._stamp(made, command)), encoding="utf-8")
            stamp.replace(_stamp_of(library))
            made.replace(library)
        return library

    def _compile(self, command: str, sources: Mapping[str, bytes], made: Path) -> None:
        for name, content in sources.items():
            (made.parent / name).write_bytes(content)
        units = [name for name in sources if self.parts not in sources or name != self.source]
        arguments = [command, *self.flags, "-o", str(made), *(str(made.parent / name) for name in units)]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise ValueError(f"the kernel can't be compiled: {done.stderr.strip()[-300:]}")
        foreign = why_foreign(made)
        if foreign is not None:
            raise ValueError(f"{command} compiles for another machine ({foreign}); name one for this one in CC")

    def _own_sources(self) -> dict[str, bytes]:
        """Return the sources that come with the agent, by name."""
        if not self.threaded:
            return {}
        names = [THREADS] if self.parts is None else [self.parts, THREADS]
        return {name: pkgutil.get_data(__package__, name) or b"" for name in names}

    def _is_usable(self, library: Path, command: str | None) -> bool:
        """Whether a compiled kernel is there, for this machine, as it was written, and not another compiler's.

        One without a stamp was put there by hand; it counts where there is no compiler to make a known one.
        """
        if not self.is_there():
            return False
        try:
            stamp = json.loads(_stamp_of(library).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return command is None
        written = self._stamp(library, command)
        return all(stamp.get(key) == value for key, value in written.items()) if isinstance(stamp, dict) else False

    def _stamp(self, library: Path, command: str | None) -> dict[str, str]:
        """Return the hashes of an object, its source and its compiler; without a compiler, of the first two."""
        made = {"object": hashlib.sha256(library.read_bytes()).hexdigest(), "source": self.sha256}
        if command is None:
            return made
        done = subprocess.run([command, "--version"], capture_output=True, check=False, stdin=subprocess.DEVNULL)
        return {**made, "compiler": hashlib.sha256(done.stdout + " ".join(self.flags).encode()).hexdigest()}


def _stamp_of(library: Path) -> Path:
    return library.with_suffix(".json")


def processor_flags(has_dot_products: bool = False) -> list[str]:
    """Return flags for instructions that the processor has but compilers don't assume.

    They are x86's fused multiply-adds, and ARM's dot products of 8-bit numbers for a source that has such.
    """
    facts = cpuinfo(0, ROOT) if Path(ROOT, "proc/cpuinfo").exists() else {}
    if {"avx2", "fma"} <= set(facts.get("flags", "").split()):
        return ["-mavx2", "-mfma"]
    if has_dot_products and platform.machine() == "aarch64" and "asimddp" in facts.get("Features", "").split():
        return ["-march=armv8.2-a+dotprod"]
    return []
