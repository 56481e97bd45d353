"""What the system says of its processes; standard library alone, so that any process may ask."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path


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


def process_start(pid: int) -> str:
    """Return "@" and the process's start in clock ticks since boot, so that a pid used again is another; else ""."""
    with contextlib.suppress(OSError, IndexError):
        return "@" + _fields(pid)[19]  # proc(5): field 22
    return ""


def children_of(parent: int) -> list[int]:
    """Return the processes whose parent this is, zombies included (Linux)."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            if int(_fields(int(place.name))[1]) == parent:
                found.append(int(place.name))
    return found


def kills_for_memory(statistics: Path = Path("/proc/vmstat")) -> int:
    """Return how many processes the system has killed for want of memory since it started; 0 where it doesn't say."""
    with contextlib.suppress(OSError, ValueError):
        for line in statistics.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":  # Linux 4.13: of cgroups as well
                return int(count)
    return 0


class KillsForMemory:
    """Tells whether the system has killed for want of memory lately; what it killed long ago is no worker's reason."""

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
        """Whether there was one that was not told before."""
        killed, before = self._count(), self._older
        self._older = self._newer = killed
        return killed > before


def _fields(pid: int) -> list[str]:
    """What proc(5) says of a process after its name: state, parent, …"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
