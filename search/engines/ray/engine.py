"""Trials on Ray Tune: on this machine, or on a cluster.

Notable choices:
- Ray and Tune live in a process of their own (`search.engines.ray.supervisor` above `driver`) that may be killed at
  any time: its jobs are lost, another is started, and they go on from their checkpoints.
- A worker on this machine keeps off the measuring processors when there are enough others, or else is paused (SIGSTOP)
  while a latency is measured. What runs on other machines disturbs nothing.
- Ray is imported in that process only.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from search.engines.events import AttemptEnd, Done, EngineEvent, Lost, Started, Stopped, event_of, killed_for_memory
from search.engines.ray.checks import about_dashboard, check_settings, processors_apart
from search.engines.ray.driver_process import DriverProcess, start_driver
from search.engines.ray.plan import DIED, NO_MEMORY
from search.engines.ray.run_folder import PAUSES, TOKEN
from search.settings import EngineSettings
from space.errors import EngineUnavailable, InvalidSettings
from workers.file_names import SETTINGS_FILE
from workers.files import user_path, write_atomically
from workers.processes import KillsForMemory, lives
from workers.runners.exchange import RESULTS, ExchangeFailed, TrialExchange, clear
from workers.training.job import TrialJob

START_S = 120.0  # at most, to start or join Ray
STARTS = 3  # in a row, before giving up
ALIVE_S = 60.0  # since the last sign of life


@dataclass
class _Trial:
    """A running trial, as its worker last reported it."""

    job: TrialJob
    serial: int  # of the submission
    seen_at: float  # last sign of life, or the submission
    pid: int | None = None  # of its worker, when that is on this machine


class RayTuneEngine:
    """See `search.engines.base.Engine`."""

    def __init__(
        self, settings: EngineSettings, measuring: Collection[int], note: Callable[[str], None] = lambda text: None
    ) -> None:
        """Start or join Ray and wait for it; `note` is called with the dashboard's address.

        Raises:
            InvalidSettings: Ray isn't installed, or a setting can't be kept.
            EngineUnavailable: Ray can't be started or reached.
        """
        self._settings, self._exchange = check_settings(settings)
        self._measuring, self._note = measuring, note
        self._cores = processors_apart(settings, measuring)
        self._trials: dict[int, _Trial] = {}
        self._submitted = 0
        self._kills = KillsForMemory()
        self._events: list[EngineEvent] = []
        self._measuring_now = False
        self._paused: dict[int, float] = {}  # process id: since when
        self._paused_s: dict[int, float] = {}
        self._starts, self._was_ready = 1, False
        self.dashboard_url = ""
        self._driver = self._start()
        while not self._driver.ready:
            self._wait(1.0)

    # -- the driver --

    def _start(self) -> DriverProcess:
        return start_driver(self._settings, self._exchange, self._cores)

    def _wait(self, timeout_s: float) -> None:
        """Read the driver's messages; replace a driver that has died or doesn't start."""
        driver = self._driver
        wait([driver.pipe, driver.process.sentinel], timeout_s)
        alive = driver.process.is_alive()  # before reading: if it dies meanwhile, the next poll reads the rest
        with contextlib.suppress(EOFError, ConnectionError):
            while driver.pipe.poll():
                self._hear(driver.pipe.recv())
        late = not driver.ready and time.monotonic() - driver.started_at > START_S
        if driver.reason or late or not alive:
            self._replace(driver.reason or ("it didn't start in time" if late else "its process was killed"))

    def _hear(self, message: tuple[Any, ...]) -> None:
        kind, *content = message
        if kind == "ready":
            self._driver.ready, self._was_ready, self._starts = True, True, 0
            self._welcome(*content)
        elif kind == "ended":
            self._driver.reason = content[0]
        elif kind == "tick":
            number, attempt = content
            trial = self._trials.get(number)
            if trial is not None and trial.job.attempt == attempt:
                trial.seen_at = time.monotonic()
        else:
            for event in content[0]:
                self._receive(event_of(event))

    def _welcome(self, dashboard_url: str, resources: dict[str, float]) -> None:
        settings = self._settings
        self.dashboard_url = (
            f"http://{dashboard_url}" if dashboard_url and "://" not in dashboard_url else dashboard_url
        )
        token = self._driver.folder.path / TOKEN if settings.address is None else None
        self._note(f"Ray dashboard: {about_dashboard(self.dashboard_url, token)}")
        slots = resources.get("CPU", 0.0) // settings.threads
        if settings.gpus:
            slots = min(slots, resources.get("GPU", 0.0) // settings.gpus)
            if settings.address is None and not slots:
                self.close()
                raise InvalidSettings(
                    f"engine.gpus = {settings.gpus:g} for each trial, but Ray sees {resources.get('GPU', 0.0):g} GPUs "
                    "on this machine; lower it, or name a cluster in engine.address."
                )
        if slots < settings.workers:
            self._note(f"Ray has room for {slots:g} of {settings.workers} workers now; the others wait for nodes")

    def _replace(self, reason: str) -> None:
        """End every running trial as lost, and start another driver."""
        self._end_driver()
        for trial in list(self._trials.values()):
            self._receive(Lost(trial.job.number, trial.job.attempt, f"Ray ended: {reason}"))
        if self._starts >= STARTS or (self._settings.address is not None and not self._was_ready):
            where = f"at {self._settings.address}" if self._settings.address else "on this machine"
            raise EngineUnavailable(f"Ray can't be used {where}: {reason}; start it, or correct engine.address.")
        self._starts += 1
        self._driver = self._start()

    def _end_driver(self) -> None:
        self._driver.end()
        self._paused.clear()
        self._paused_s.clear()

    def _send(self, *message: Any) -> None:
        with contextlib.suppress(OSError):  # if the driver dies right here, the next poll sees it
            self._driver.pipe.send(message)

    # -- jobs --

    def free_slots(self) -> int:
        """Slots without a job; none while Ray is being started again."""
        return self._settings.workers - len(self._trials) if self._driver.ready else 0

    def submit(self, job: TrialJob) -> None:
        """Hand a job to Tune; it waits there until a worker is up."""
        assert self.free_slots() > 0, "no slot is free"
        self._submitted += 1
        self._trials[job.number] = _Trial(job, self._submitted, time.monotonic())
        if self._exchange is not None:
            with contextlib.suppress(ExchangeFailed):  # the worker will meet the same and report it
                exchange = TrialExchange(self._exchange, job)
                exchange.seed(Path(job.folder))
                if job.start:
                    exchange.push_start(Path(job.start))
        # Another machine looks for the images at the same absolute path.
        images = job.data.model_copy(update={"folder": str(user_path(job.data.folder).absolute())})
        self._send("job", self._submitted, replace(job, data=images).to_dict())

    def poll(self, timeout_s: float) -> list[EngineEvent]:
        """Collect what has come; start Ray again when it has died.

        Raises:
            EngineUnavailable: it can't be started again.
        """
        self._wait(0.0 if self._events else timeout_s)
        self._kills.look()
        events, self._events = self._events, []
        return events

    def _receive(self, event: EngineEvent) -> None:
        """Keep an event for the next poll, unless its attempt was given up."""
        trial = self._trials.get(event.number)
        if trial is None or trial.job.attempt != event.attempt:
            return
        if isinstance(event, Started):
            host, _, pid = event.worker.rpartition(":")
            if host == socket.gethostname() and (self._driver.folder.path / PAUSES / pid).exists():
                trial.pid = int(pid)
                if self._measuring_now:
                    self._pause(trial.pid)
        elif isinstance(event, AttemptEnd):
            if isinstance(event, Lost) and self._was_killed_for_memory(trial, event.reason):
                event = killed_for_memory(trial.job)
            if self._exchange is not None:
                event = self._fetch(trial.job, event)
            del self._trials[event.number]
        self._events.append(event)

    def _was_killed_for_memory(self, trial: _Trial, reason: str) -> bool:
        """Whether the system, or Ray itself, killed a worker because memory ran out."""
        if NO_MEMORY in reason:
            return True
        died_here = trial.pid is not None and reason.startswith(DIED) and not lives(trial.pid)
        return died_here and self._kills.any_lately()

    def _fetch(self, job: TrialJob, event: AttemptEnd) -> AttemptEnd:
        """Fetch the files that the worker left in the exchange into the trial's folder."""
        assert self._exchange is not None
        folder = Path(job.folder)
        try:
            exchange = TrialExchange(self._exchange, job)
            hashes = {}
            if isinstance(event, Done):
                hashes = dict(zip(RESULTS, (event.result.network_sha256, event.result.onnx_sha256), strict=True))
            exchange.fetch_results(folder, hashes)
            write_atomically(folder / SETTINGS_FILE, json.dumps(job.to_dict(), indent=1).encode())
            if isinstance(event, Stopped):
                exchange.fetch_checkpoints(folder)  # any engine may go on from them
        except ExchangeFailed as error:
            return Lost(job.number, job.attempt, str(error)) if isinstance(event, Done) else event
        return event

    def alive(self) -> Collection[int]:
        """Return the trials that gave a sign of life within a minute, or are paused.

        The driver gives signs of life for trials that wait for a node, or for their worker to start.
        """
        now = time.monotonic()
        alive = set()
        for number, trial in self._trials.items():
            if trial.pid in self._paused or now - trial.seen_at < ALIVE_S:
                alive.add(number)
        return alive

    def cancel(self, number: int) -> None:
        """Leave a command for the worker of this trial."""
        if number in self._trials:
            self._send("command", self._trials[number].serial, "cancel")

    def stop(self, number: int | None = None) -> None:
        """Leave a command for every worker, or only for this trial's."""
        for trial in self._trials.values():
            if number in (None, trial.job.number):
                self._send("command", trial.serial, "stop")

    # -- measurements --

    @contextlib.contextmanager
    def paused(self, cores: Collection[int]) -> Iterator[None]:
        """Pause the workers on this machine, unless they keep to other processors."""
        if self._cores is not None and not set(cores) & set(self._cores):
            yield
            return
        self._measuring_now = True
        for trial in self._trials.values():
            if trial.pid is not None:
                self._pause(trial.pid)
        try:
            yield
        finally:
            self._measuring_now = False
            for pid, since in self._paused.items():
                self._resume(pid, since)
            self._paused.clear()

    def _pause(self, pid: int) -> None:
        self._paused[pid] = time.monotonic()
        _signal(pid, signal.SIGSTOP)

    def _resume(self, pid: int, since: float) -> None:
        now = time.monotonic()
        self._paused_s[pid] = self._paused_s.get(pid, 0.0) + now - since
        file = self._driver.folder.path / PAUSES / str(pid)
        with contextlib.suppress(OSError), file.open("r+b") as opened:
            # Before it runs again, so that it never reads too short a pause.
            opened.write(struct.pack("d", self._paused_s[pid]))
        _signal(pid, signal.SIGCONT)
        for trial in self._trials.values():
            if trial.pid == pid:
                trial.seen_at = now

    def forget(self, study: str, number: int) -> None:
        """Remove the trial from the exchange."""
        if self._exchange is not None:
            with contextlib.suppress(ExchangeFailed):  # the files stay there, and no search reads them
                clear(self._exchange, study, number)

    def close(self) -> None:
        """End Ray, or leave the cluster; running jobs are lost."""
        self._trials.clear()
        self._end_driver()


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
