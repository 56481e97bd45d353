"""Running one fresh process that measures: starting it, following what it says, and ending it in any case."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from workers.latency.agent.reports import PROGRESS

POLL_S = 0.2  # how often `stop` is asked
STARTS_MOST = 3  # of one process, if it is killed from outside each time
# Signals that someone else sends: `kill`, a closed terminal, the system when memory runs out. A model's own faults
# (SIGSEGV, SIGABRT, …) are others.
_FROM_OUTSIDE = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM")


class Stopped(Exception):
    """The work is no longer wanted; the processes that were started for it are gone."""


@dataclass(frozen=True)
class ProcessEnd:
    """How one process ended: with its report, or with the position it was at (None: unknown) and why."""

    report: dict[str, Any] | None
    position: int | None = None
    reason: str = ""
    killed: bool = False  # by someone else, which says nothing about what it ran


def never() -> bool:
    """Return False: the `stop` of work that no one stops."""
    return False


def run_process(
    command: Sequence[str], timeout_s: float, stop: Callable[[], bool] = never, keep: Sequence[int] = ()
) -> ProcessEnd:
    """Run a process that prints one JSON document and says on standard error which model it is at.

    It is killed when one model takes longer than `timeout_s`, when `stop` returns true (then Stopped is raised) and
    when any other exception ends this call. One that someone else kills is started again, `STARTS_MOST` times in all.
    `keep` are file descriptors that it holds open, too.
    """
    try:
        for start in range(1, STARTS_MOST + 1):
            end = _run_process(command, timeout_s, stop, keep)
            if not end.killed:
                break
            if start < STARTS_MOST:
                pause(POLL_S, stop)
    except OSError as error:  # no process, no temporary file: nothing can be measured now
        return ProcessEnd(None, None, f"the measuring process could not be started: {error}")
    return replace(end, reason=f"{end.reason}; {STARTS_MOST} times in a row") if end.killed else end


def _run_process(command: Sequence[str], timeout_s: float, stop: Callable[[], bool], keep: Sequence[int]) -> ProcessEnd:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as output:
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # stays open: when this process dies, the child notices and ends
            stdout=output,
            stderr=subprocess.PIPE,
            env=environment,
            pass_fds=tuple(keep),
            start_new_session=True,  # Ctrl-C in the terminal reaches only this process, which then ends the child
        ) as child:
            try:
                log = _follow(child, timeout_s, stop)
            finally:
                kill(child)
        output.seek(0)
        try:
            report = json.loads(output.read())
        except ValueError:
            report = None
        if not isinstance(report, dict):
            return log.end(child.returncode, timeout_s)
        return ProcessEnd(report)  # complete: a crash after that does no harm


def _from_outside() -> set[int]:
    return {int(getattr(signal, name)) for name in _FROM_OUTSIDE if hasattr(signal, name)}


@dataclass
class Log:
    """What a process said on standard error."""

    position: int | None = None
    last_words: str = ""
    timed_out: bool = False

    def add(self, line: str) -> bool:
        """Add one line; return whether it says that the next model begins."""
        position = line[len(PROGRESS) :]
        if line.startswith(PROGRESS) and position.isdigit():
            self.position = int(position)
            self.last_words = ""
            return True
        self.last_words = line.strip()[:300] or self.last_words
        return False

    def end(self, code: int, timeout_s: float) -> ProcessEnd:
        """Return how the process ended that gave no report."""
        killed = not self.timed_out and -code in _from_outside()
        return ProcessEnd(None, self.position, self.reason(code, timeout_s), killed)

    def reason(self, code: int, timeout_s: float) -> str:
        """Say in one line why the process gave no report."""
        if self.timed_out:
            return f"the measuring process must finish a model within {timeout_s:g} s, but didn't; raise timeout_s"
        how = f"signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exit code {code}"
        words = f": {self.last_words}" if self.last_words else ""
        return f"the measuring process ended with {how} and no report{words}"


def _follow(child: subprocess.Popen[bytes], timeout_s: float, stop: Callable[[], bool]) -> Log:
    """Read the process's standard error until it ends, or until one model takes too long."""
    assert child.stderr is not None
    log, rest, is_open = Log(), b"", True
    deadline = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        selector.register(child.stderr, selectors.EVENT_READ)
        while is_open or child.poll() is None:
            if stop():
                raise Stopped
            left = deadline - time.monotonic()
            if left <= 0:
                log.timed_out = True
                break
            if not is_open:  # it closed standard error and may still be at work
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(min(POLL_S, left))
            elif selector.select(min(POLL_S, left)):
                chunk = os.read(child.stderr.fileno(), 65536)
                is_open = bool(chunk)
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines if chunk else [*lines, rest]:
                    if log.add(line.decode(errors="replace")):
                        deadline = time.monotonic() + timeout_s
    return log


def kill(child: subprocess.Popen[bytes]) -> None:
    """End a process that still runs, with whatever it started (it leads its own group)."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def pause(seconds: float, stop: Callable[[], bool]) -> None:
    """Sleep, asking `stop` several times a second; raise Stopped when it returns true."""
    until = time.monotonic() + seconds
    while True:
        if stop():
            raise Stopped
        left = until - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(POLL_S, left))
