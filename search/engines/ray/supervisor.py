"""The supervisor of a Ray driver: a small process above it that ends it and all that it started, whatever happens.

Notable choices:
- Ray's own agents outlive a killed Ray for minutes or for ever. On Linux the supervisor adopts all orphans below it
  (a "child subreaper"), so killing its children until it has none leaves nothing behind.
- It ends when the controller's end of the pipe closes or the driver ends. There is no other way to close a Ray of ours.
- Nothing heavy is imported: it is forked before Ray is.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

from search.engines.ray.plan import Plan
from search.engines.ray.run_folder import OUTPUT, PAUSES
from workers.processes import children_of, die_with_parent

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
LOOK_EVERY_S = 0.2


def supervisor_main(pipe: Connection, plan: Plan) -> None:
    """Run `search.engines.ray.driver.drive(pipe, plan)` in a child; leave no process and no `plan.folder` behind."""
    with contextlib.suppress(PermissionError):
        os.setpgid(0, 0)  # a terminal's Ctrl-C reaches the controller alone, which decides
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked by the process that started this one
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    driver = os.fork()
    if driver == 0:
        _drive(pipe, plan)
    try:
        _wait_for_an_end(pipe, driver)
    finally:
        wake_paused(Path(plan.folder))
        _end_all(driver)
        shutil.rmtree(plan.folder, ignore_errors=True)


def _drive(pipe: Connection, plan: Plan) -> None:
    die_with_parent()
    output = os.open(Path(plan.folder) / OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(output, stream)  # nothing of Ray's reaches the terminal
    try:
        from search.engines.ray.driver import drive

        drive(pipe, plan)
    except BaseException as error:
        import traceback

        traceback.print_exc()
        with contextlib.suppress(OSError):
            pipe.send(("ended", f"{type(error).__name__}: {error}".strip().splitlines()[0]))
    finally:
        os._exit(1)


def _wait_for_an_end(pipe: Connection, driver: int) -> None:
    """Return when the controller's end of the pipe is closed or the driver has ended."""
    watch = select.poll()
    watch.register(pipe.fileno(), 0)  # poll always reports a hang-up; the driver alone reads messages
    while not watch.poll(int(LOOK_EVERY_S * 1000)):
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(driver, os.WNOHANG)[0]:
                return


def wake_paused(folder: Path) -> None:
    """Resume every worker on this machine that was paused for a measurement."""
    for file in (folder / PAUSES).glob("*"):
        with contextlib.suppress(ValueError, ProcessLookupError, PermissionError):
            os.kill(int(file.name), signal.SIGCONT)


def _end_all(driver: int, patience_s: float = 20.0) -> None:
    if sys.platform != "linux":
        _kill(driver)  # Ray has a reaper of its own there
        return
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        children = children_of(os.getpid())
        if not children:
            return
        for child in children:
            _kill(child)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
