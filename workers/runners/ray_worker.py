"""A worker as an actor of Ray Tune: it runs one job at a time in a thread, and each result carries the job's messages.

Notable choices:
- A result is due every second, with or without messages: it is the worker's sign of life, and before each one the
  worker asks the mailbox for a command of the controller. So a stop reaches the training within a second or so, and the
  training writes its checkpoint before the last result says `stopped`.
- Tune's checkpoints are not used: the trial goes on from those in its folder (or in the exchange).
- The actor is reused for the next job, whichever trial that belongs to.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ray
from ray.tune import Trainable

from space.errors import DataNotFound, TrainingFailed
from workers.file_names import CHECKPOINTS, LOG_FILE
from workers.latency.agent.files import user_cache
from workers.runners.exchange import RESULTS, ExchangeFailed, TrialExchange, scratch_folder
from workers.runners.mailbox import MAILBOX
from workers.runners.messages import ENDS, Message, MessageKind
from workers.runners.process import outcome_of
from workers.training.job import TrialJob, TrialResult
from workers.training.trial import run_trial

TICK_S = 1.0


class TuneWorker(Trainable):  # type: ignore[misc]  # Ray has no type information
    """Runs the job in its config: the JSON of `search.engines.ray.plan.Plan.job_message`."""

    def setup(self, config: dict[str, Any]) -> None:
        """Set the threads and, on the controller's machine, the processors; then take the first job."""
        message = json.loads(config["job"])
        import torch

        torch.set_num_threads(message["threads"])
        with_controller = message["host"] == socket.gethostname() and Path(message["pauses"]).is_dir()
        if with_controller and message["cores"] and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, message["cores"])
        self._paused_s = pauses_of_this_process(Path(message["pauses"])) if with_controller else lambda: 0.0
        self._mailbox: Any = None
        self._attempt = _Attempt(message, self._paused_s)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next job."""
        self._attempt = _Attempt(json.loads(new_config["job"]), self._paused_s)
        return True

    def step(self) -> dict[str, Any]:
        """Return the messages since the last step, waiting up to a second for the first."""
        self._attempt.command = self._ask_for_command() or self._attempt.command
        news = self._attempt.collect(TICK_S)
        return {"news": news, "done": bool(news) and news[-1][0] in ENDS}

    def _ask_for_command(self) -> str | None:
        """Return the controller's command, if any; a mailbox that doesn't answer is asked again at the next step."""
        try:
            if self._mailbox is None:
                self._mailbox = ray.get_actor(MAILBOX)
            command: str | None = ray.get(self._mailbox.command.remote(self._attempt.serial), timeout=TICK_S)
            return command
        except (ray.exceptions.RayError, ValueError):
            self._mailbox = None
            return None


def pauses_of_this_process(folder: Path) -> Callable[[], float]:
    """Return a function that gives the seconds this process was paused, which the controller writes into `folder`."""
    file = folder / str(os.getpid())
    file.write_bytes(struct.pack("d", 0.0))
    with file.open("rb") as opened:
        shared = mmap.mmap(opened.fileno(), 8, access=mmap.ACCESS_READ)
    return lambda: float(struct.unpack("d", shared[:])[0])


class _Attempt:
    """One job and the thread that runs it; a `workers.training.reporting.Reporter`."""

    def __init__(self, message: dict[str, Any], paused_s: Callable[[], float]) -> None:
        self.job, self.serial = TrialJob.from_dict(message["job"]), int(message["serial"])
        self.command: str | None = None  # stop or cancel
        self._exchange_url: str | None = message["exchange"]
        self._exchange: TrialExchange | None = None
        self._folder = Path(self.job.folder)
        self._handled = ""  # the newest checkpoint that was pushed, or that couldn't be
        self._paused_s = paused_s
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def collect(self, timeout_s: float) -> list[Message]:
        """Return the messages since the last call; the first call begins the job."""
        if self._thread is None:
            self._send(MessageKind.STARTED, f"{socket.gethostname()}:{os.getpid()}")
            self._thread = threading.Thread(target=self._run, name="trial", daemon=True)
            self._thread.start()
        messages = []
        with contextlib.suppress(queue.Empty):
            messages.append(self._messages.get(timeout=timeout_s))
            while True:
                messages.append(self._messages.get_nowait())
        return messages

    def earlier(self, rows: Sequence[Any]) -> None:
        """Send the epochs of a checkpoint."""
        self._send(MessageKind.EARLIER, [asdict(row) for row in rows])

    def curve(self, row: Any) -> None:
        """Send one epoch's figures."""
        self._send(MessageKind.CURVE, asdict(row))

    def under_way(self, report: Any) -> None:
        """Send how far the trial is within an epoch."""
        self._send(MessageKind.STEP, asdict(report))

    def check(self) -> None:
        """Obey the controller's command; push a checkpoint that was just written."""
        from workers.training.reporting import TrainingStopped

        if self._exchange is not None:
            newest = max((path.name for path in (self._folder / CHECKPOINTS).glob("*.json")), default="")
            if newest != self._handled:
                self._handled = newest
                with contextlib.suppress(ExchangeFailed):  # a later checkpoint may get through
                    self._exchange.push_checkpoint(self._folder)
                    self._exchange.push(self._folder, (LOG_FILE,))
        if self.command == "stop":
            raise TrainingStopped
        if self.command == "cancel":
            raise TrainingFailed("cancelled by the user")

    def _send(self, kind: MessageKind, payload: Any) -> None:
        self._messages.put((kind, self.job.number, self.job.attempt, payload))

    def _run(self) -> None:
        try:
            if self._exchange_url is None:
                outcome = outcome_of(self.job, lambda: self._train(self.job))
            else:
                outcome = self._run_with_exchange(self._exchange_url)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            outcome = (MessageKind.LOST, self.job.number, self.job.attempt, reason)
        self._messages.put(outcome)

    def _run_with_exchange(self, url: str) -> Message:
        """Run in a folder of this machine: fetch start and checkpoints from the exchange, push what comes of them."""
        with scratch_folder() as folder:
            try:
                exchange = TrialExchange(url, self.job)
                exchange.fetch_checkpoints(folder)
                self._folder, self._exchange = folder, exchange
                start = str(exchange.fetch_start(folder)) if self.job.start else ""
                local_job = replace(self.job, folder=str(folder), start=start)
                outcome = outcome_of(local_job, lambda: self._train(local_job))
                exchange.push_checkpoint(folder)
                exchange.push(folder, (LOG_FILE, *RESULTS) if outcome[0] == MessageKind.DONE else (LOG_FILE,))
            except ExchangeFailed as error:
                return (MessageKind.LOST, self.job.number, self.job.attempt, str(error))
            return outcome

    def _train(self, job: TrialJob) -> TrialResult:
        return run_trial(with_images(job), self, lambda: time.monotonic() - self._paused_s())


def with_images(job: TrialJob) -> TrialJob:
    """Return the job with a cache that holds its images, which are prepared on this machine if necessary.

    Raises:
        CondenseryError: see `workers.images.cache.prepare`.
    """
    from workers.images.cache import open_prepared, prepare

    try:
        open_prepared(job.data, Path(job.cache))
    except DataNotFound:
        above = os.environ.get("XDG_CACHE_HOME")
        cache = (Path(above, "condensery") if above else user_cache()) / "images"
        prepare(job.data, cache)  # under a lock, so that only one worker of a machine does it
        return replace(job, cache=str(cache))
    return job
