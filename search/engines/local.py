"""The local engine: trials in persistent processes of this machine, each with processors of its own.

Notable choices:
- Workers live from trial to trial. They are forks of a process that has only imported torch
  (`workers.runners.worker_server`), so they share its memory and begin at once.
- Each has its own process group, so a terminal's Ctrl-C reaches the controller alone; each dies with the controller.
- On Linux each is pinned. With more processors than workers need, the measuring one stays free; otherwise the workers
  that share it are paused (SIGSTOP) while a latency is measured there.
- A busy worker that neither speaks nor uses its processor was stopped, or waits for a disk that is gone. It is killed,
  and its job is lost; where even that doesn't end it, another worker takes its place.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from search.engines.events import AttemptEnd, EngineEvent, Lost, Started, event_of, killed_for_memory
from workers.processes import KillsForMemory, interrupts_blocked, processor_ticks
from workers.runners.messages import MessageKind
from workers.runners.process import WorkerPlace, worker_main
from workers.runners.worker_server import started, worker_context
from workers.training.job import TrialJob

HUNG_S = 150.0  # longer than a compiler may take that a worker waits for
HUNG_AT_LEAST_S = 30.0  # where a trial's time limit is shorter
DYING_S = 10.0  # for a kill to take effect
LOOK_S = 1.0


@dataclass
class _Stillness:
    """For how long a worker has neither spoken nor used its processor; a time without looks counts for little."""

    ticks: int | None = None
    seconds: float = 0.0
    looked_at: float = 0.0

    def moved(self) -> None:
        self.seconds = 0.0

    def look(self, pid: int) -> None:
        ticks, now = processor_ticks(pid), time.monotonic()
        if ticks is None or ticks != self.ticks:
            self.seconds = 0.0
        else:  # this process may have been frozen between two looks, and the worker with it
            self.seconds += min(now - self.looked_at, 2 * LOOK_S)
        self.ticks, self.looked_at = ticks, now


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    place: WorkerPlace
    paused_s: Any  # a shared double: seconds it was stopped for measurements
    job: TrialJob | None = None
    still: _Stillness = field(default_factory=_Stillness)
    is_paused: bool = False
    settled: bool = False  # has reported that it will die with this process
    ended_at: float | None = None  # when it was killed for its stillness; it may use its processor while it dies


def plan_places(workers: int, threads: int, usable: list[int], measuring: Collection[int]) -> list[WorkerPlace]:
    """Give each worker `threads` processors: the measuring ones last, and shared ones only when there are too few."""
    order = [core for core in usable if core not in measuring] + [core for core in usable if core in measuring]
    places = []
    for worker in range(workers):
        cores = {order[(worker * threads + i) % len(order)] for i in range(threads)}
        places.append(WorkerPlace(threads, tuple(sorted(cores))))
    return places


class LocalEngine:
    """See `search.engines.base.Engine`."""

    def __init__(
        self, workers: int, threads: int, measuring: Collection[int], main: Callable[..., None] = worker_main
    ) -> None:
        """`main` is what a worker process runs; a benchmark of the controller gives one that trains nothing."""
        self._main = main
        self._context = worker_context()
        if sys.platform == "linux":
            usable = sorted(os.sched_getaffinity(0))
            places = plan_places(workers, threads, usable, measuring)
        else:
            places = [WorkerPlace(threads, None)] * workers
        self._workers = [self._start(place) for place in places]
        self._unreported: list[EngineEvent] = []  # starts that no poll has returned yet
        self._kills = KillsForMemory()
        self._looked_at = 0.0
        self._undying: list[BaseProcess] = []  # killed, and still there

    def _start(self, place: WorkerPlace) -> _Worker:
        ours, theirs = self._context.Pipe()
        paused_s = self._context.RawValue("d", 0.0)  # no lock: a stopped process might hold it
        with interrupts_blocked():
            process = started(self._context, self._main, (theirs, place, paused_s), place.threads)
        theirs.close()
        return _Worker(process, ours, place, paused_s)

    def free_slots(self) -> int:
        """Workers without a job."""
        return sum(worker.job is None for worker in self._workers)

    def submit(self, job: TrialJob) -> None:
        """Hand a job to an idle worker, replacing one that has died idle."""
        index = next(i for i, worker in enumerate(self._workers) if worker.job is None)
        if not self._workers[index].process.is_alive():
            self._workers[index] = self._start(self._workers[index].place)
        worker = self._workers[index]
        worker.job, worker.still = job, _Stillness()
        name = f"{socket.gethostname()}:{worker.process.pid}"
        self._unreported.append(Started(job.number, job.attempt, name))
        # If the worker dies right here, the next poll sees it by its sentinel.
        with contextlib.suppress(BrokenPipeError, ConnectionError):
            worker.pipe.send(job.to_dict())

    def poll(self, timeout_s: float) -> list[EngineEvent]:
        """Collect messages of all workers; replace the dead."""
        sources = [w.pipe for w in self._workers] + [w.process.sentinel for w in self._workers if w.job is not None]
        wait(sources, 0.0 if self._unreported else timeout_s)
        self._kills.look()
        events, self._unreported = self._unreported, []
        for index, worker in enumerate(self._workers):
            alive = worker.process.is_alive() and not self._is_lost(
                worker
            )  # before reading: if it dies meanwhile, the next poll reads the rest
            events += self._drain(worker)
            if not alive:
                if worker.job is not None:
                    events.append(self._end_of(worker, worker.job))
                worker.pipe.close()
                self._workers[index] = self._start(worker.place)
        self._end_the_hung()
        return events

    def _end_the_hung(self) -> None:
        """Kill the workers that have been still for too long."""
        if time.monotonic() - self._looked_at < LOOK_S:
            return
        self._looked_at = time.monotonic()
        for worker in self._workers:
            if worker.job is None or worker.is_paused or worker.process.pid is None or worker.ended_at is not None:
                continue
            worker.still.look(worker.process.pid)
            if worker.still.seconds > _hung_s(worker.job):
                worker.ended_at = time.monotonic()
                _signal(worker.process, signal.SIGKILL)

    def _is_lost(self, worker: _Worker) -> bool:
        """Whether a worker was killed for its stillness and is still there: the system itself waits for something."""
        if worker.job is None or worker.ended_at is None or time.monotonic() - worker.ended_at < DYING_S:
            return False
        self._undying.append(worker.process)
        return True

    def _end_of(self, worker: _Worker, job: TrialJob) -> AttemptEnd:
        """Return how the job of a worker that died has ended."""
        if worker.ended_at is not None:
            reason = f"its worker was stopped or hung: it used no processor for {worker.still.seconds:.0f} s"
            return Lost(job.number, job.attempt, reason)
        if worker.process.exitcode == -signal.SIGKILL and self._kills.any_lately():
            return killed_for_memory(job)
        return Lost(job.number, job.attempt, _how_it_died(worker.process))

    def _drain(self, worker: _Worker) -> list[EngineEvent]:
        events: list[EngineEvent] = []
        try:
            while worker.pipe.poll():
                message = worker.pipe.recv()
                if worker.ended_at is None:
                    worker.still.moved()
                if message[0] == MessageKind.READY:
                    worker.settled = True
                    continue
                event = event_of(message)
                events.append(event)
                if isinstance(event, AttemptEnd):
                    worker.job = None
        except (EOFError, ConnectionError):
            pass
        return events

    def alive(self) -> Collection[int]:
        """Return the trials whose worker processes run (or are paused)."""
        return {w.job.number for w in self._workers if w.job is not None and w.process.is_alive()}

    def cancel(self, number: int) -> None:
        """Tell the worker of this trial to give it up."""
        for worker in self._workers:
            if worker.job is not None and worker.job.number == number:
                self._tell(worker, ("cancel", number))

    def stop(self, number: int | None = None) -> None:
        """Tell every busy worker, or only this trial's, to write its checkpoint and stop."""
        for worker in self._workers:
            if worker.job is not None and number in (None, worker.job.number):
                self._tell(worker, ("stop", worker.job.number))

    def _tell(self, worker: _Worker, command: Any) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionError):
            worker.pipe.send(command)

    @contextlib.contextmanager
    def paused(self, cores: Collection[int]) -> Iterator[None]:
        """Pause the workers that share one of these processors; where workers aren't pinned, all of them."""
        paused = [w for w in self._workers if w.place.cores is None or set(cores) & set(w.place.cores)]
        for worker in paused:
            _settle(worker)
        paused_at = time.monotonic()
        for worker in paused:
            worker.is_paused = True
            _signal(worker.process, signal.SIGSTOP)
        try:
            yield
        finally:
            for worker in paused:
                # Before it runs again, so that it never reads too short a pause.
                worker.paused_s.value += time.monotonic() - paused_at
                _signal(worker.process, signal.SIGCONT)
                worker.still.moved()
                worker.is_paused = False

    def forget(self, study: str, number: int) -> None:
        """Do nothing: this engine keeps nothing outside the trial's folder."""

    def close(self) -> None:
        """Let idle workers end by themselves, kill the others."""
        for worker in self._workers:
            if worker.job is None:
                self._tell(worker, None)
            else:
                worker.process.kill()
        deadline = time.monotonic() + 5.0
        for worker in self._workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join(DYING_S)
            worker.pipe.close()


def _hung_s(job: TrialJob) -> float:
    return HUNG_S if job.time_limit_s is None else min(HUNG_S, max(job.time_limit_s, HUNG_AT_LEAST_S))


def _settle(worker: _Worker) -> None:
    """Wait until a worker is sure to die with this process: a worker paused before that would outlive a kill of it."""
    with contextlib.suppress(EOFError, ConnectionError):
        while not worker.settled and worker.process.is_alive():
            if worker.pipe.poll(0.1):
                worker.pipe.recv()  # its first message is that it is ready
                worker.settled = True


def _signal(process: BaseProcess, number: signal.Signals) -> None:
    if process.pid is not None and process.is_alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def _how_it_died(process: BaseProcess) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        return f"the worker process was killed by {signal.Signals(-code).name}"
    return f"the worker process ended with exit code {code}"
