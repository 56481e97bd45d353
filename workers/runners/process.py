"""A persistent worker process: it takes jobs from a pipe, runs them one after another and sends back how they go.

Where it isn't a fork of a process that has imported torch already (`workers.runners.worker_server`), nothing heavy is
imported before the threads and the processors are set, because torch reads them once. Messages are those of
`workers.runners.messages`. A worker whose controller is gone ends by itself.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from space.errors import CondenseryError, TrainingFailed
from workers.processes import die_with_parent
from workers.runners.messages import Message, MessageKind
from workers.runners.worker_server import THREAD_VARIABLES

if TYPE_CHECKING:
    from workers.training.job import TrialJob, TrialResult


@dataclass(frozen=True)
class WorkerPlace:
    """The place of a worker: its number of threads and, on Linux, its processors."""

    threads: int
    cores: tuple[int, ...] | None


def worker_main(pipe: Connection, place: WorkerPlace, paused_s: Any = None) -> None:
    """Run jobs until the controller sends None or is gone; `paused_s` is a shared double, the seconds it was paused."""
    _settle(place)
    try:
        pipe.send((MessageKind.READY, -1, 0, os.getpid()))  # before the imports, which take seconds
    except (BrokenPipeError, OSError):
        return
    import torch

    torch.set_num_threads(place.threads)
    from workers.training.job import TrialJob
    from workers.training.trial import run_trial

    def clock() -> float:
        return time.monotonic() - (0.0 if paused_s is None else paused_s.value)

    while True:
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            return
        if message is None:
            return
        if not isinstance(message, dict):
            continue  # a command for a trial that has ended meanwhile
        job = TrialJob.from_dict(message)
        try:
            reporter = PipeReporter(pipe, job.number, job.attempt)
            pipe.send(outcome_of(job, partial(run_trial, job, reporter, clock)))
        except (BrokenPipeError, OSError):
            return


def outcome_of(job: TrialJob, run: Callable[[], TrialResult]) -> Message:
    """Run a job and return the message that says how it ended."""
    from workers.training.reporting import TrainingStopped

    try:
        result = run()
    except TrainingStopped:
        return (MessageKind.STOPPED, job.number, job.attempt, None)
    except CondenseryError as error:
        return (MessageKind.FAILED, job.number, job.attempt, (str(error), error.exit_code))
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno})"  # noqa: PTH119
        return (MessageKind.FAILED, job.number, job.attempt, (reason.splitlines()[0], 1))
    return (MessageKind.DONE, job.number, job.attempt, result.to_dict())


class PipeReporter:
    """A `workers.training.reporting.Reporter` over the worker's pipe."""

    def __init__(self, pipe: Connection, number: int, attempt: int) -> None:
        self._pipe, self._number, self._attempt = pipe, number, attempt

    def earlier(self, rows: Sequence[Any]) -> None:
        """Send the epochs of a checkpoint."""
        self._pipe.send((MessageKind.EARLIER, self._number, self._attempt, [asdict(row) for row in rows]))

    def curve(self, row: Any) -> None:
        """Send one epoch's figures."""
        self._pipe.send((MessageKind.CURVE, self._number, self._attempt, asdict(row)))

    def under_way(self, report: Any) -> None:
        """Send how far the trial is within an epoch."""
        self._pipe.send((MessageKind.STEP, self._number, self._attempt, asdict(report)))

    def check(self) -> None:
        """Obey a command from the controller; end the process when the controller is gone."""
        from workers.training.reporting import TrainingStopped

        try:
            command = self._pipe.recv() if self._pipe.poll() else None
        except (EOFError, OSError):
            os._exit(1)  # no controller can receive reports any more; the checkpoint holds the progress
        if command == ("stop", self._number):
            raise TrainingStopped
        if command == ("cancel", self._number):
            raise TrainingFailed("cancelled by the user")


def _settle(place: WorkerPlace) -> None:
    """Set this process's signals, threads and processors."""
    os.setpgid(0, 0)  # a terminal's Ctrl-C must reach the controller alone, which decides what to do
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # the parent had blocked it while starting this process
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(place.threads)))
    die_with_parent()
    if sys.platform == "linux" and place.cores:
        os.sched_setaffinity(0, place.cores)
