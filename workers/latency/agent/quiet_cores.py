"""Having the measuring cores to oneself: other measurements wait, and threads of one's own run elsewhere.

- The lock is one on the core's own folder in /sys, which every process of the machine may open: it needs no root and
  leaves no file behind, and the kernel ends it with the processes that hold it, however they die. A system without
  such a folder has a file in the folder for temporary files; where that can't be locked either, nothing is.
- Programs of others are not kept off by it. Whether they disturb, `disturbance` tells.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from workers.latency.agent.sensors import ROOT
from workers.latency.agent.subprocesses import never, pause

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None  # type: ignore[assignment]

LOOK_S = 0.1
WAIT_MOST_S = 900.0  # for the measurement of another process; then something must hold the lock by mistake


class CoresTaken(Exception):
    """Another process has measured on the cores for longer than any measurement takes."""


@contextlib.contextmanager
def claimed(
    cores: Iterable[int], stop: Callable[[], bool] = never, wait_s: float = WAIT_MOST_S, root: Path = ROOT
) -> Iterator[tuple[int, ...]]:
    """Hold the lock of every core; yield its file descriptors, for the processes that are to hold it as well.

    Raises:
        Stopped: `stop`, asked several times a second, said so. CoresTaken: the lock was not to be had in `wait_s`.
    """
    wanted, until = sorted(set(cores)), time.monotonic() + wait_s
    held: list[int] = []
    try:
        while (taken := _take(wanted, held, root)) is not None:
            if time.monotonic() > until:
                rule = f"core {taken} must be free to measure on, but another process has measured there"
                raise CoresTaken(f"{rule} for {wait_s:g} s; end that process, or choose another core")
            pause(LOOK_S, stop)
        yield tuple(held)
    finally:
        _release(held)


def _take(cores: Iterable[int], held: list[int], root: Path) -> int | None:
    """Lock every core and fill `held`, or lock none and return one that is taken."""
    for core in cores:
        descriptor = _lockable(core, root)
        if descriptor is None:
            continue
        held.append(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _release(held)
            return core
        except OSError:  # a file system without locks
            os.close(held.pop())
    return None


def _release(held: list[int]) -> None:
    while held:
        os.close(held.pop())


def _lockable(core: int, root: Path) -> int | None:
    """Return an open file that stands for a core on this machine, for whoever opens it; None if there is none."""
    if fcntl is None:
        return None
    with contextlib.suppress(OSError):
        return os.open(root / f"sys/devices/system/cpu/cpu{core}", os.O_RDONLY | os.O_CLOEXEC)
    path = Path(tempfile.gettempdir(), f"condensery-core-{core}.lock")
    with contextlib.suppress(OSError):
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # one that another user made may be opened, but not created
    with contextlib.suppress(OSError):
        return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0), 0o644)
    return None


@contextlib.contextmanager
def own_threads_off(cores: Iterable[int]) -> Iterator[None]:
    """Keep the threads of this process off some cores, those that begin meanwhile too; do nothing without others."""
    moved: dict[int, tuple[set[int], set[int]]] = {}  # by thread: the cores it had, and those it has now
    for thread in _own_threads():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            allowed = os.sched_getaffinity(thread)
            others = allowed - set(cores)
            if others and others != allowed:
                os.sched_setaffinity(thread, others)
                moved[thread] = allowed, others
    try:
        yield
    finally:
        began_meanwhile = {frozenset(others): allowed for allowed, others in moved.values()}
        for thread in _own_threads():
            with contextlib.suppress(OSError):
                now = frozenset(os.sched_getaffinity(thread))
                if now in began_meanwhile:  # otherwise someone has placed it since
                    os.sched_setaffinity(thread, moved.get(thread, (began_meanwhile[now],))[0])


def _own_threads() -> list[int]:
    if not hasattr(os, "sched_setaffinity"):
        return []
    try:
        return [int(name) for name in os.listdir("/proc/self/task")]  # noqa: PTH208
    except OSError:
        return []
