"""1,000 workers and 100,000 trials on a simulated clock: where would the controller break?

    python -m benchmarks.cluster_simulation [--workers 1000] [--trials 100000] [--mean-s 20] [--quick]

The controller, its database (SQLite) and all its rows are real. The workers are simulated: a training lasts a time
drawn from a log-normal distribution, and one in a hundred loses its worker and goes on with another. Simulated time is
the processor time that the controller takes, plus the waits that it skips because nothing is due; so a controller that
is too slow leaves simulated workers idle. Pricing takes no time. Trainings of 20 s are far shorter than real ones: a
controller that keeps a cluster busy with these also keeps it busy with longer ones.

Beyond the sizes that are run, a model tells where the controller saturates: N workers that train for T seconds and one
controller that takes c seconds a trial are a closed queue (exact mean-value analysis). A device that measures takes p
seconds a candidate and bounds the rate by 1 / p.
"""

from __future__ import annotations

import argparse
import heapq
import tempfile
import threading
import time
import warnings
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from benchmarks.record import save
from benchmarks.scale.round import controller_of, settings_for, watch, write_nothing
from benchmarks.scale.worker import answers
from search.engines.events import AttemptEnd, EngineEvent, Lost, Started, Stopped, cancelled, event_of
from search.loop.callbacks import SilentCallback
from search.pricing import pricer
from search.study import open_study
from workers.processes import peak_memory_mb, reset_peak_memory
from workers.training.job import TrialJob

SPREAD = 0.5  # of the logarithm of a training's time
LOST = 0.01  # share of attempts whose worker dies half-way


class SimulatedClock:
    """The controller's clock: processor time of this process plus the waits that were skipped."""

    def __init__(self) -> None:
        self._began, self.skipped_s = time.process_time(), 0.0

    def monotonic(self) -> float:
        return time.process_time() - self._began + self.skipped_s

    def now(self) -> float:
        return self.monotonic()

    def sleep(self, seconds: float) -> None:
        self.skip(seconds)

    def skip(self, seconds: float) -> None:
        self.skipped_s += seconds


@dataclass
class SimulatedCluster:
    """An engine of `slots` workers whose trainings end after simulated times; see `search.engines.base.Engine`."""

    slots: int
    mean_s: float
    clock: SimulatedClock
    seed: int = 0
    ended: int = 0  # attempts
    busy_s: float = 0.0  # worker-seconds since all workers were busy for the first time
    full_at: float | None = None
    _due: list[tuple[float, int, str, TrialJob]] = field(default_factory=list)  # a heap: (time, number, kind, job)
    _running: dict[int, TrialJob] = field(default_factory=dict)
    _begun: list[EngineEvent] = field(default_factory=list)
    _stopped: list[EngineEvent] = field(default_factory=list)
    _seen_at: float = 0.0

    def _count(self) -> float:
        """Add the worker-seconds up to now; return the time."""
        now = self.clock.monotonic()
        if self.full_at is not None:
            self.busy_s += len(self._running) * (now - self._seen_at)
        self._seen_at = now
        return now

    def free_slots(self) -> int:
        return self.slots - len(self._running)

    def submit(self, job: TrialJob) -> None:
        assert self.free_slots() > 0, "no slot is free"
        now = self._count()
        rng = np.random.default_rng([self.seed, job.number, job.attempt])
        lasts_s = self.mean_s * float(np.exp(rng.normal(-(SPREAD**2) / 2, SPREAD)))
        lost = rng.random() < LOST
        heapq.heappush(self._due, (now + lasts_s * (0.5 if lost else 1.0), job.number, "lost" if lost else "done", job))
        self._running[job.number] = job
        self._begun.append(Started(job.number, job.attempt, f"simulated:{job.number % self.slots}"))
        if self.full_at is None and self.free_slots() == 0:
            self.full_at = now

    def poll(self, timeout_s: float) -> list[EngineEvent]:
        now = self._count()
        events, self._begun, self._stopped = self._begun + self._stopped, [], []
        if not events and (not self._due or self._due[0][0] > now):
            self.clock.skip(min(timeout_s, max(0.0, self._due[0][0] - now)) if self._due else timeout_s)
            now = self._count()
        while self._due and self._due[0][0] <= now:
            _, number, kind, job = heapq.heappop(self._due)
            if self._running.get(number) is not job:
                continue  # stopped meanwhile
            del self._running[number]
            self.ended += 1
            if kind == "lost":
                events.append(Lost(number, job.attempt, "its simulated worker died"))
            else:
                events += [event_of(message) for message in answers(_plain(job))]
        return events

    def alive(self) -> Collection[int]:
        return set(self._running)

    def cancel(self, number: int) -> None:
        job = self._running.get(number)
        if job is not None:
            self._end(job, cancelled(job))

    def stop(self, number: int | None = None) -> None:
        for job in [job for job in self._running.values() if number in (None, job.number)]:
            self._end(job, Stopped(job.number, job.attempt))

    def _end(self, job: TrialJob, event: AttemptEnd) -> None:
        self._count()
        del self._running[job.number]
        self.ended += 1
        self._stopped.append(event)

    def paused(self, cores: Collection[int]) -> AbstractContextManager[None]:
        return nullcontext()

    def forget(self, study: str, number: int) -> None:
        """There is nothing but tables."""

    def close(self) -> None:
        self._running.clear()

    @property
    def idle_share(self) -> float:
        """Share of the workers' time without a job, since all of them were busy for the first time."""
        now = self._count()
        if self.full_at is None or now <= self.full_at:
            return 1.0
        return 1.0 - self.busy_s / (self.slots * (now - self.full_at))


def _plain(job: TrialJob) -> dict[str, Any]:
    return {"config": job.config.to_dict(), "number": job.number, "attempt": job.attempt}


class Gauge(SilentCallback):
    """Looks at the queue at every turn of the controller, and stops it after so many trainings."""

    def __init__(self, trials: int, stop: threading.Event, engine: SimulatedCluster) -> None:
        self.trials, self.stop, self.engine = trials, stop, engine
        self.queue: list[int] = []
        self.controller: Any = None
        self.idle_share, self.done = 1.0, 0

    def progress(self, done: int, wanted: int) -> None:
        self.done = done
        if self.engine.full_at is not None:
            self.queue.append(len(self.controller.state.queue))
        if done >= self.trials and not self.stop.is_set():
            self.idle_share = self.engine.idle_share
            self.stop.set()


def simulate(workers: int, trials: int, mean_s: float, sampler: str, folder: Path) -> dict[str, Any]:
    """Let the real controller run so many trainings on simulated workers; return how it went."""
    clock, stop = SimulatedClock(), threading.Event()
    engine = SimulatedCluster(workers, mean_s, clock)
    study = open_study(settings_for(sampler, workers), f"sqlite:///{folder / sampler}.db", resume=False)
    study.store.claim()
    gauge = Gauge(trials, stop, engine)
    real_write, pricer.write_models = pricer.write_models, write_nothing
    try:
        driven = gauge.controller = controller_of(study, engine, gauge, stop, folder, clock)
        steps = watch(driven, time.thread_time)
        reset_peak_memory()
        began, cpu = time.perf_counter(), time.process_time()
        driven.run()
        cpu_s, wall_s, simulated_s = time.process_time() - cpu, time.perf_counter() - began, clock.monotonic()
    finally:
        pricer.write_models = real_write
    study.store.release()
    study.engine.dispose()
    return {
        "workers": workers,
        "trials": gauge.done,
        "attempts": engine.ended,
        "mean_s": mean_s,
        "sampler": sampler,
        "simulated_s": simulated_s,
        "wall_s": wall_s,
        "controller_ms": 1e3 * cpu_s / gauge.done,
        "utilisation": cpu_s / simulated_s,
        "idle_share": gauge.idle_share,
        "queue_mean": float(np.mean(gauge.queue)) if gauge.queue else 0.0,
        "queue_max": max(gauge.queue, default=0),
        "memory_mb": peak_memory_mb(),
        "database_mb": sum(path.stat().st_size for path in folder.glob(f"{sampler}.db*")) / 1e6,
        "steps_ms": {step: 1e3 * seconds / gauge.done for step, seconds in steps.seconds.items()},
    }


def closed_queue(workers: int, train_s: float, controller_s: float) -> tuple[float, float]:
    """Return (controller utilisation, workers' idle share) of `workers` that train and queue for one controller.

    Exact mean-value analysis of a closed queue with one station (Reiser and Lavenberg 1980).
    """
    waiting, rate, respond_s = 0.0, 0.0, 0.0
    for customers in range(1, workers + 1):
        respond_s = controller_s * (1 + waiting)
        rate = customers / (train_s + respond_s)
        waiting = rate * respond_s
    return rate * controller_s, respond_s / (train_s + respond_s)


def most_workers(train_s: float, controller_s: float, idle: float = 0.05, top: int = 100_000) -> int:
    """Return how many workers the controller keeps busy but for a share `idle` of their time."""
    low, high = 1, top
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if closed_queue(middle, train_s, controller_s)[1] <= idle else (low, middle - 1)
    return low


def show(run: dict[str, Any]) -> None:
    print(
        f"{run['sampler']}: {run['trials']} trials by {run['workers']} workers, trainings of {run['mean_s']:g} s, in "
        f"{run['simulated_s']:.0f} simulated seconds ({run['wall_s']:.0f} real ones)\n"
        f"  controller {run['controller_ms']:.2f} ms a trial, busy {run['utilisation']:.0%}; workers idle "
        f"{run['idle_share']:.1%}; queue {run['queue_mean']:.0f} on average, {run['queue_max']} at most\n"
        f"  memory {run['memory_mb']:.0f} MB, database {run['database_mb']:.0f} MB"
    )
    largest = sorted(run["steps_ms"].items(), key=lambda item: -item[1])
    print("  ms a trial: " + ", ".join(f"{step} {ms:.2f}" for step, ms in largest if ms >= 0.005))


def limits(controller_ms: dict[str, float], train_s: Sequence[float], price_s: Sequence[float]) -> dict[str, Any]:
    """Return and print how many workers are kept busy for 95 % of their time, by training time."""
    most: dict[str, Any] = {"busy_95": {}, "priced": {}}
    print("\nworkers that are kept busy for 95 % of their time (model)")
    for name, ms in controller_ms.items():
        most["busy_95"][name] = {seconds: most_workers(seconds, ms / 1e3) for seconds in train_s}
        counts = ", ".join(f"{seconds:g} s: {count:,}" for seconds, count in most["busy_95"][name].items())
        print(f"  controller, {name} ({ms:.1f} ms a trial): {counts}")
    for each in price_s:
        most["priced"][each] = {seconds: int(seconds / each) for seconds in train_s}
        counts = ", ".join(f"{seconds:g} s: {count:,}" for seconds, count in most["priced"][each].items())
        print(f"  one device, {each:g} s a candidate: {counts}")
    return most


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--tpe-trials", type=int, default=5_000, help="of a second run, with TPE")
    parser.add_argument("--mean-s", type=float, default=20.0, help="of a training")
    parser.add_argument("--quick", action="store_true", help="50 workers, 200 trials; saves nothing")
    options = parser.parse_args(arguments)
    if options.quick:
        options.workers, options.trials, options.tpe_trials = 50, 200, 60
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ran = []
    for sampler, trials in (("random", options.trials), ("tpe", options.tpe_trials)):
        with tempfile.TemporaryDirectory() as folder:
            ran.append(simulate(options.workers, trials, options.mean_s, sampler, Path(folder)))
        show(ran[-1])
    costs = {run["sampler"]: run["controller_ms"] for run in ran}
    result = {"runs": ran, "limits": limits(costs, (10.0, 60.0, 600.0, 3600.0), (0.05, 1.0, 10.0))}
    if not options.quick:
        save("cluster_simulation", result)
    return result


if __name__ == "__main__":
    main()
