"""A measuring process that stays: it answers one request after the other, so that it loads its runtime only once."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workers.latency.agent.reports import ANSWER
from workers.latency.agent.subprocesses import POLL_S, Log, ProcessEnd, Stopped, kill, never

END_S = 5.0  # for a process that has closed its output to end by itself


class StayingProcess:
    """A process that reads requests and prints answers, each one line of JSON, and says which model it is at.

    It ends with the process that started it, however that one ends, because its standard input closes.

    Args:
        command: returns the process's command, given a folder of its own that lasts as long as it.

    Raises:
        OSError: it can't be started.
    """

    def __init__(self, command: Callable[[Path], Sequence[str]]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="condensery-")
        try:
            self._child = subprocess.Popen(
                command(Path(self._folder.name)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,  # so that what it says stays in order
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C in the terminal reaches only this process, which then ends the child
            )
        except BaseException:
            self._folder.cleanup()
            raise
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._requests, self._said = self._child.stdin, self._child.stdout
        self.ended, self.answers = False, 0

    def ask(self, request: Mapping[str, Any], timeout_s: float, stop: Callable[[], bool] = never) -> ProcessEnd:
        """Return the process's answer; if there is none, the process has ended, and why is returned.

        It is killed when one model takes longer than `timeout_s`, when `stop` returns true (then Stopped is raised) and
        when any other exception ends this call.
        """
        log, answer = Log(), None
        try:
            answer = self._answer(request, log, timeout_s, stop)
        finally:
            if answer is None:
                self.end()
        if answer is not None:
            self.answers += 1
            return ProcessEnd(answer)
        return log.end(self._child.returncode, timeout_s)

    def _answer(
        self, request: Mapping[str, Any], log: Log, timeout_s: float, stop: Callable[[], bool]
    ) -> dict[str, Any] | None:
        """Send the request and follow what is said until the answer is there; None if there is going to be none."""
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()
        except BrokenPipeError:  # it has ended since its last answer: its exit code says how
            self._child.wait()
            return None
        deadline = time.monotonic() + timeout_s
        for line in self._lines(stop):
            if line.startswith(ANSWER):
                answer: dict[str, Any] = json.loads(line[len(ANSWER) :])
                return answer
            if log.add(line):
                deadline = time.monotonic() + timeout_s
            log.timed_out = time.monotonic() > deadline
            if log.timed_out:
                return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(END_S)  # it closed its output, which it does by ending
        return None

    def _lines(self, stop: Callable[[], bool]) -> Iterator[str]:
        """Yield each line that the process says until it ends, and an empty one whenever it is silent for a while."""
        rest = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._said, selectors.EVENT_READ)
            while True:
                if stop():
                    raise Stopped
                if not selector.select(POLL_S):
                    yield ""
                    continue
                chunk = os.read(self._said.fileno(), 65536)
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line.decode(errors="replace") for line in lines)
                if not chunk:
                    yield rest.decode(errors="replace")
                    return

    def end(self) -> None:
        """End the process and whatever it started; ending it again does nothing."""
        if self.ended:
            return
        self.ended = True
        kill(self._child)
        self._said.close()
        with contextlib.suppress(BrokenPipeError):  # a request that it didn't take
            self._requests.close()
        self._folder.cleanup()
