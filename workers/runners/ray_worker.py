"""A worker as an actor of Ray Tune: one job at a time in a thread, the news of it in each result.

Notable choices:
- A result is due every second, with or without news: it is the worker's sign of life, and the moment at which it asks
  the mailbox for a command of the controller. So a stop reaches the training within a second or so, and the training
  writes its checkpoint before the last result says `stopped`.
- Tune's checkpoints are not used: those in the trial's folder (or in the exchange) are the truth.
- The actor is used again for the next job of any trial.
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
from workers.runners.exchange import RESULTS, ExchangeFailed, TrialExchange, scratch_folder
from workers.runners.mailbox import MAILBOX
from workers.runners.process import ENDS, Message, outcome_of
from workers.training.job import TrialJob, TrialResult
from workers.training.trial import run_trial

TICK_S = 1.0


class TuneWorker(Trainable):  # type: ignore[misc]  # Ray has no type information
    """Runs the order in its config: JSON of `search.engines.ray.plan.Plan.job_message`."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take the place: threads, and on the controller's machine its processors; then the first order."""
        order = json.loads(config["order"])
        import torch

        torch.set_num_threads(order["threads"])
        here = order["host"] == socket.gethostname() and Path(order["pauses"]).is_dir()
        if here and order["cores"] and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, order["cores"])
        self._paused_s = pauses_of_this_process(Path(order["pauses"])) if here else lambda: 0.0
        self._mailbox: Any = None
        self._attempt = _Attempt(order, self._paused_s)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next order."""
        self._attempt = _Attempt(json.loads(new_config["order"]), self._paused_s)
        return True

    def step(self) -> dict[str, Any]:
        """Return the news since the last step, waiting up to a second for some."""
        self._attempt.word = self._ask() or self._attempt.word
        news = self._attempt.take(TICK_S)
        return {"news": news, "done": bool(news) and news[-1][0] in ENDS}

    def _ask(self) -> str | None:
        """Ask for a command; a mailbox that doesn't answer is asked again at the next step."""
        try:
            if self._mailbox is None:
                self._mailbox = ray.get_actor(MAILBOX)
            command: str | None = ray.get(self._mailbox.command.remote(self._attempt.serial), timeout=TICK_S)
            return command
        except (ray.exceptions.RayError, ValueError):
            self._mailbox = None
            return None


def pauses_of_this_process(folder: Path) -> Callable[[], float]:
    """Return a function that gives the seconds this process was paused; the controller writes them to a file here."""
    file = folder / str(os.getpid())
    file.write_bytes(struct.pack("d", 0.0))
    with file.open("rb") as opened:
        shared = mmap.mmap(opened.fileno(), 8, access=mmap.ACCESS_READ)
    return lambda: float(struct.unpack("d", shared[:])[0])


class _Attempt:
    """One job and the thread that runs it; a `workers.training.reporting.Reporter`."""

    def __init__(self, order: dict[str, Any], paused_s: Callable[[], float]) -> None:
        self.job, self.serial = TrialJob.from_dict(order["job"]), int(order["serial"])
        self.word: str | None = None
        self._exchange_url: str | None = order["exchange"]
        self._exchange: TrialExchange | None = None
        self._folder = Path(self.job.folder)
        self._tried = ""  # the newest checkpoint that was pushed or couldn't be
        self._paused_s = paused_s
        self._news: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def take(self, timeout_s: float) -> list[Message]:
        """Return what has happened, beginning the job at the first call."""
        if self._thread is None:
            who = f"{socket.gethostname()}:{os.getpid()}"
            self._tell("started", who)
            self._thread = threading.Thread(target=self._run, name="trial", daemon=True)
            self._thread.start()
        news = []
        with contextlib.suppress(queue.Empty):
            news.append(self._news.get(timeout=timeout_s))
            while True:
                news.append(self._news.get_nowait())
        return news

    def earlier(self, rows: Sequence[Any]) -> None:
        """Tell the epochs of a checkpoint."""
        self._tell("earlier", [asdict(row) for row in rows])

    def curve(self, row: Any) -> None:
        """Tell one epoch's figures."""
        self._tell("curve", asdict(row))

    def check(self) -> None:
        """Obey the controller's word; push a checkpoint that was just written."""
        from workers.training.reporting import TrainingStopped

        if self._exchange is not None:
            newest = max((path.name for path in (self._folder / CHECKPOINTS).glob("*.json")), default="")
            if newest != self._tried:
                self._tried = newest
                with contextlib.suppress(ExchangeFailed):  # the next one, or the last, may get through
                    self._exchange.push_checkpoint(self._folder)
                    self._exchange.push(self._folder, (LOG_FILE,))
        if self.word == "stop":
            raise TrainingStopped
        if self.word == "cancel":
            raise TrainingFailed("cancelled by the user")

    def _tell(self, kind: str, payload: Any) -> None:
        self._news.put((kind, self.job.number, self.job.attempt, payload))

    def _run(self) -> None:
        try:
            if self._exchange_url is None:
                ended = outcome_of(self.job, lambda: self._train(self.job))
            else:
                ended = self._run_apart(self._exchange_url)
        except Exception as error:
            ended = ("lost", self.job.number, self.job.attempt, f"{type(error).__name__}: {error}".splitlines()[0])
        self._news.put(ended)

    def _run_apart(self, url: str) -> Message:
        """Run in a folder of this machine, with the exchange before, meanwhile and after."""
        with scratch_folder() as folder:
            try:
                exchange = TrialExchange(url, self.job)
                exchange.fetch_checkpoints(folder)
                self._folder, self._exchange = folder, exchange
                here = replace(self.job, folder=str(folder))
                ended = outcome_of(here, lambda: self._train(here))
                exchange.push_checkpoint(folder)
                exchange.push(folder, (LOG_FILE, *RESULTS) if ended[0] == "done" else (LOG_FILE,))
            except ExchangeFailed as error:
                return ("lost", self.job.number, self.job.attempt, str(error))
            return ended

    def _train(self, job: TrialJob) -> TrialResult:
        return run_trial(with_images(job), self, lambda: time.monotonic() - self._paused_s())


def with_images(job: TrialJob) -> TrialJob:
    """Return the job with a cache that holds its images: they are prepared on this machine where it has none.

    Raises:
        CondenseryError: see `workers.images.cache.prepare`.
    """
    from workers.images.cache import open_prepared, prepare

    try:
        open_prepared(job.data, Path(job.cache))
    except DataNotFound:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "condensery" / "images"
        prepare(job.data, cache)  # under a lock: workers of one machine do it once
        return replace(job, cache=str(cache))
    return job
