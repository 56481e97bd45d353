"""A file system of a few megabytes of a test's own: full at once, filled in the middle, or read-only.

One process alone sees it, in a mount namespace of its own. It is a fork of the tests' fork server, and so are the
commands that it runs there (`tests.command_line`): nothing heavy is imported again. No root is needed.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.command_line import ROOT, be_condensery, fork_server

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000  # linux/sched.h: mounts and users of its own
PATIENCE_S = 300.0  # none waits so long on a machine that is not crowded


@dataclass(frozen=True)
class SmallDisk:
    """The file system, as its process sees it: where it is, and the file of what is printed there."""

    folder: Path
    log: Path
    environment: Mapping[str, str]

    def start(self, *words: str) -> BaseProcess:
        """Start a command in the file system's folder."""
        arguments = (list(words), str(self.folder), self.environment, (str(self.log), str(self.log)))
        process = multiprocessing.get_context("fork").Process(target=be_condensery, args=arguments)
        process.start()
        return process

    def run(self, *words: str) -> int | None:
        """Run a command to its end, and return its exit code."""
        process = self.start(*words)
        process.join(PATIENCE_S)
        return process.exitcode

    def mount(self, options: str) -> None:
        """Change the file system: `size=24m`, `ro`."""
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.folder)], check=True)

    def fill(self, room_kb: int = 0) -> None:
        """Fill the file system, up to so much room."""
        free = os.statvfs(self.folder)
        with (
            contextlib.suppress(OSError),  # whoever else writes here may have been faster
            (self.folder / "filler").open("wb", buffering=0) as filler,
        ):
            filler.write(bytes(max(0, free.f_bavail * free.f_frsize - 1024 * room_kb)))

    def clear(self) -> None:
        """Take away what filled it."""
        (self.folder / "filler").unlink()


def on_a_small_disk(folder: Path, story: Callable[..., None], *more: Any) -> str:
    """Run `story(disk, *more)`, a module's function, with a file system of 3 MB; return all that was printed.

    What it prints itself stands between what its commands print.
    """
    log = folder / "printed"
    log.touch()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    disk = SmallDisk(folder / "disk", log, environment)
    disk.folder.mkdir()
    process = fork_server().Process(target=_tell, args=(disk, story, more))
    process.start()
    process.join(2 * PATIENCE_S)
    assert process.exitcode == 0, (process.exitcode, log.read_text())
    return log.read_text()


def _tell(disk: SmallDisk, story: Callable[..., None], more: tuple[Any, ...]) -> None:
    for number in (1, 2):
        os.dup2(os.open(disk.log, os.O_WRONLY | os.O_APPEND), number)
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "a namespace of its own can't be made")
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        Path("/proc/self", name).write_text(text)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk.folder)], check=True)
    story(disk, *more)
