"""The tools of this machine that make the ARM device in software and run it: QEMU, a compiler, apt and pip."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from space.errors import EmulatorMissing

QEMU_VARIABLE = "CONDENSERY_QEMU"


def qemu_command() -> str | None:
    """Return the aarch64 emulator: the one named by $CONDENSERY_QEMU, else `qemu-aarch64` from the path, or None."""
    path = shutil.which(os.environ.get(QEMU_VARIABLE) or "qemu-aarch64")
    return None if path is None else str(Path(path).absolute())


def qemu_version(qemu: str) -> str:
    """Return the emulator's version, such as `7.2.22`."""
    text = output_of([qemu, "--version"], "the emulator doesn't start")
    version = re.search(r"version (\S+)", text)
    return version[1] if version else text.strip()[:40]


def missing_tools() -> list[str]:
    """Return the Debian packages that must be installed before a folder can be made; empty when all are there."""
    missing = []
    if qemu_command() is None:
        missing.append("qemu-user")
    if shutil.which("gcc") is None:
        missing += ["gcc", "libc6-dev"]
    elif subprocess.run(["gcc", "-E", "-include", "stdio.h", "-"], input=b"", capture_output=True).returncode:
        missing.append("libc6-dev")
    missing += [package for package, tool in (("dpkg", "dpkg-deb"), ("apt", "apt-get")) if shutil.which(tool) is None]
    return missing


def check_tools() -> str:
    """Return the emulator's command; EmulatorMissing when something to make a folder with is missing."""
    if missing := missing_tools():
        raise EmulatorMissing(
            f"the ARM device in software needs tools that aren't installed; install them: apt install "
            f"{' '.join(missing)}"
        )
    if importlib.util.find_spec("pip") is None:
        raise EmulatorMissing("the ARM device in software needs pip in this Python; add it: python -m ensurepip")
    qemu = qemu_command()
    assert qemu is not None
    if "-plugin" not in output_of([qemu, "-h"], "the emulator doesn't start"):
        raise EmulatorMissing(
            f"the emulator must take plugins, but {qemu} {qemu_version(qemu)} doesn't (static builds, such as Debian "
            f"13's, leave them out); install one that does and name it in ${QEMU_VARIABLE}."
        )
    return qemu


def output_of(command: Sequence[str], trouble: str) -> str:
    """Run a command and return what it printed; raise EmulatorMissing with its last line when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    except OSError as error:
        raise EmulatorMissing(f"{trouble}: {command[0]}: {error.strerror}.") from None
    if done.returncode:
        raise EmulatorMissing(f"{trouble}: {_last_words(done)}")
    return done.stdout


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    """Return the line that says what went wrong: the last error, else the last line of any kind."""
    lines = [" ".join(line.split()) for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(E|ERROR|error|.*Error)\b", line)]
    return (errors or lines or [f"exit code {done.returncode}"])[-1][:300]
