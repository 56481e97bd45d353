"""The process that the workers of this machine are forks of: it has imported torch once, for all of them.

- A worker imported torch for seconds of processor time, and held its pages alone. A fork has both at once; so a worker
  that takes the place of a dead one begins at once, too.
- The server (Python's `multiprocessing.forkserver`) imports and does no more: no thread, no GPU and no parallel
  arithmetic begins there, because they don't survive a fork.
- It dies with the process that started it, and its workers with it (`workers.runners.dying_with_parent`).
- macOS' own libraries don't survive a fork: there, and wherever the system isn't Linux, workers are spawned.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
PRELOADED = ["workers.runners.dying_with_parent", "__main__", "workers.training.job", "workers.training.trial"]

WorkerContext = ForkServerContext | SpawnContext


def worker_context() -> WorkerContext:
    """Return what starts workers: its processes take arguments, pipes and shared values as spawned ones do.

    Python starts its tracker of resources at the latest with the server, and then lets Ctrl-C through that the caller
    has blocked; so it is started here, before anyone blocks anything, and the server begins deaf to a terminal.
    """
    resource_tracker.ensure_running()
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def started(context: WorkerContext, main: Callable[..., None], arguments: tuple[Any, ...], threads: int) -> BaseProcess:
    """Start a worker process that runs `main(*arguments)`, in this process's environment as it is now.

    Args:
        context: from `worker_context`.
        main: a function of a module.
        arguments: can be pickled, or are pipes and shared values of `context`.
        threads: of a worker; what is imported in the server reads it once.
    """
    process = context.Process(target=_in_environment, args=(dict(os.environ), main, arguments), daemon=True)
    with _threads_in_environment(threads):
        process.start()
    return process


def _in_environment(environment: Mapping[str, str], main: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Run a worker's main function with the environment of the process that started it, not with the server's."""
    os.environ.clear()
    os.environ.update(environment)
    main(*arguments)


@contextmanager
def _threads_in_environment(threads: int) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
