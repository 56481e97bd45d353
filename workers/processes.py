"""Processes of this machine: which are alive, whose children they are, and the names under which databases know them.

Standard library alone, because the smallest processes ask as well: see decision 0009 in docs/decisions.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h: send this signal when the parent dies


def lives(pid: int) -> bool:
    """Whether the process runs: it is there and, as far as the system tells (Linux), no zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's, whose state may be hidden too
    with contextlib.suppress(OSError, IndexError):
        return _fields(pid)[0] not in "ZX"
    return True


def process_name(pid: int) -> str:
    """Return host:pid@start/place, a database's name for a process of this machine; host:pid if its start is unknown.

    The start is in clock ticks since boot, which no change of the wall clock moves: a pid that the system uses again
    is another process. The place stands for this boot of the machine and this namespace of pids: containers may all
    have the same host name, and each its own process of the same pid.
    """
    start = _start_of(pid)
    return f"{socket.gethostname()}:{pid}" + (f"@{start}/{_place()}" if start else "")


def _place() -> str:
    """Return eight digits for this boot and this namespace of pids, or "" where the system doesn't tell."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        return hashlib.sha256(f"{boot}{os.readlink('/proc/self/ns/pid')}".encode()).hexdigest()[:8]  # noqa: PTH115
    return ""


def host_and_pid(name: str) -> str:
    """Return host:pid of a process's name, for people."""
    return name.partition("@")[0]


def pid_of(name: str) -> int:
    """Return the process id in a process's name."""
    return int(host_and_pid(name).rpartition(":")[2])


def is_alive(name: str) -> bool | None:
    """Whether the process of this name runs; None when it is another host's or container's, or of another boot."""
    if host_and_pid(name).rpartition(":")[0] != socket.gethostname():
        return None
    start, _, place = name.partition("@")[2].partition("/")
    if place and place != _place():
        return None
    pid = pid_of(name)
    return lives(pid) and (not start or _start_of(pid) in ("", start))


def children_of(parent: int) -> list[int]:
    """Return the processes whose parent this is, zombies included (Linux)."""
    children = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            if int(_fields(int(folder.name))[1]) == parent:
                children.append(int(folder.name))
    return children


def die_with_parent() -> None:
    """Have this process killed when the one that started it dies (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Block Ctrl-C while a child is started: it inherits the mask, and lifts it once it ignores Ctrl-C.

    One that is pressed in between must not end the child.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def reset_peak_memory() -> None:
    """Begin a new peak for `peak_memory_mb`, where the system can (Linux: proc(5), clear_refs)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb() -> float:
    """Return this process's largest resident memory in MB, since `reset_peak_memory` or else since its start."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def memory_mb(root: Path = Path("/")) -> float | None:
    """Return the memory that processes like this one may use in all, in MB; None where the system doesn't say.

    It is the machine's, or less where a control group (version 1 or 2, as of a container) has a limit.
    """
    with contextlib.suppress(ValueError, OSError, AttributeError):
        amounts = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
        for file in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
            with contextlib.suppress(ValueError, OSError):
                amounts.append(int((root / file).read_text()))
        return min(amounts) / 1e6
    return None


def kills_for_memory(statistics: Path = Path("/proc/vmstat")) -> int:
    """Return how many processes the system has killed since its start because memory ran out; 0 if it doesn't say."""
    with contextlib.suppress(OSError, ValueError):
        for line in statistics.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":  # Linux 4.13: of cgroups as well
                return int(count)
    return 0


class KillsForMemory:
    """Whether the system has lately killed a process because memory ran out; an old kill explains no worker's end."""

    LATELY_S = 60.0  # at least; a process of many gigabytes takes seconds to be gone

    def __init__(self, count: Callable[[], int] = kills_for_memory) -> None:
        self._count = count
        self._older = self._newer = count()  # the older is of one to two LATELY_S ago
        self._looked_at = time.monotonic()

    def look(self) -> None:
        """Forget the kills of more than a minute or two ago; to be called at every poll."""
        if time.monotonic() - self._looked_at >= self.LATELY_S:
            self._older, self._newer, self._looked_at = self._newer, self._count(), time.monotonic()

    def any_lately(self) -> bool:
        """Whether there was one that this has not reported before."""
        killed, before = self._count(), self._older
        self._older = self._newer = killed
        return killed > before


def processor_ticks(pid: int) -> int | None:
    """Return the processor time that a process and the children it has waited for used, in ticks; None if unknown."""
    with contextlib.suppress(OSError, IndexError):
        return sum(map(int, _fields(pid)[11:15]))  # proc(5): fields 14 to 17
    return None


def _start_of(pid: int) -> str:
    """Return the process's start in clock ticks since boot, or "" where the system doesn't tell."""
    with contextlib.suppress(OSError, IndexError):
        return _fields(pid)[19]  # proc(5): field 22
    return ""


def _fields(pid: int) -> list[str]:
    """Return the fields after the name in a process's /proc/PID/stat, as in proc(5): state, parent, …"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
