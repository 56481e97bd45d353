"""One round of `benchmarks.scale` in a process of its own: the real controller for some seconds; JSON on stdout.

Started as `python -c "from benchmarks.scale.round import main; main(...)"`, because the workers it spawns would
otherwise import the main module, and torch and optuna with it, 64 times.
"""

from __future__ import annotations

import functools
import json
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scale.worker import instant_main
from search.engines.base import Engine
from search.engines.local import LocalEngine
from search.loop.callbacks import SilentCallback
from search.loop.controller import Controller
from search.loop.trainings import Images
from search.pricing import pricer
from search.pricing.pricer import Target
from search.settings import StudySettings
from search.study import OpenStudy, open_study
from search.study_file import settings_from
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.presets import SPACE_PRESETS
from workers.clock import Clock
from workers.file_names import Precision
from workers.latency.measurement import FailedMeasurement, FakeProbe, Measurement, never
from workers.latency.record import LatencyKind
from workers.processes import peak_memory_mb, reset_peak_memory

STUDY = "scale"


@dataclass(frozen=True)
class Round:
    """What one process is to measure."""

    url: str
    workers: int
    sampler: str
    seconds: float  # of measuring, after the warm-up
    warm_up_s: float = 2.0  # from the first trial that is done
    export: bool = False  # whether candidates are really exported for pricing
    resume: bool = False  # go on with a study that was filled before


def settings_for(sampler: str, workers: int) -> StudySettings:
    document = {
        "format": 1,
        "study": {"name": STUDY, "trainings": 1_000_000},
        "data": {"dataset": "cifar10"},
        "space": SPACE_PRESETS["cifar"],
        # A range of reals, so that no proposal repeats another: TPE would, nine times of ten, in the space alone.
        "training": {"epochs": 1, "learning_rate": {"low": 0.01, "high": 0.5, "log": True}},
        "search": {"sampler": sampler},
        "engine": {"workers": workers},
    }
    return settings_from(document, "the benchmark")


class InstantProbe(FakeProbe):
    """Knows a latency without measuring: from the macs, with a spread that depends on the config alone."""

    def __init__(self) -> None:
        super().__init__(lambda path: 1.0)

    def measure(
        self, models: Sequence[Path], stop: Callable[[], bool] = never
    ) -> list[Measurement | FailedMeasurement]:
        return [made_up_price(path.name) for path in models]


def made_up_price(text: str) -> Measurement:
    """Return a made-up measurement with 3 x 40 samples, which are stored as a device's would be."""
    rng = np.random.default_rng(list(text.encode()))
    median_ms = float(rng.uniform(1.0, 20.0))
    samples = tuple(map(tuple, (median_ms * (1 + 0.01 * rng.uniform(-1, 1, (3, 40)))).tolist()))
    return Measurement(
        kind=LatencyKind.MEASURED,
        model_hash="0" * 64,
        device="fake",
        cpu_model="none",
        runtime="onnxruntime",
        runtime_version="0",
        threads=1,
        policy="quick",
        median_ms=median_ms,
        p90_ms=median_ms * 1.01,
        interval_low_ms=median_ms * 0.99,
        interval_high_ms=median_ms * 1.01,
        samples_ms=samples,
        stride=1,
        conditions={},
        anchor_drift=0.0,
        steady=True,
    )


def write_nothing(
    configs: Sequence[CondenseNetConfig], runtime: str, folder: Path, precision: Precision = "fp32"
) -> list[Path]:
    """Stand in for `search.pricing.pricer.write_models`: names, no files."""
    return [folder / f"{cost_of(config).macs}-{config.digest[:16]}" for config in configs]


class TimeLimit(SilentCallback):
    """Watches the number of trainings done, and stops the controller when the time is over."""

    def __init__(self, seconds: float, warm_up_s: float, stop: threading.Event) -> None:
        self.seconds, self.warm_up_s, self.stop = seconds, warm_up_s, stop
        self.began_at: float | None = None
        self.first: tuple[float, int] | None = None
        self.last = (0.0, 0)
        self.done_before: int | None = None
        self.on_first: Callable[[], None] = lambda: None

    def progress(self, done: int, wanted: int) -> None:
        now = time.perf_counter()
        if self.done_before is None:
            self.done_before = done
        if self.began_at is None and done > self.done_before:  # the workers have started
            self.began_at = now
        if self.began_at is not None and self.first is None and now - self.began_at > self.warm_up_s:
            self.first = (now, done)
            self.on_first()
        if self.first is not None and not self.stop.is_set():
            self.last = (now, done)
            if now - self.first[0] > self.seconds:
                self.stop.set()

    @property
    def trials(self) -> int:
        return 0 if self.first is None else self.last[1] - self.first[1]

    @property
    def rate(self) -> float:
        """Trials a second over the measured stretch."""
        return 0.0 if self.first is None else self.trials / (self.last[0] - self.first[0])


class Steps:
    """Wraps methods and adds up the seconds spent in each, without those of wrapped ones that it calls."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now
        self.seconds: dict[str, float] = defaultdict(float)
        self._stacks: dict[int, list[float]] = defaultdict(list)  # by thread: seconds of calls inside the open ones

    def wrap(self, owner: Any, method: str, step: str) -> None:
        plain = getattr(owner, method)

        @functools.wraps(plain)
        def timed(*arguments: Any, **named: Any) -> Any:
            stack = self._stacks[threading.get_ident()]
            stack.append(0.0)
            begin = self.now()
            try:
                return plain(*arguments, **named)
            finally:
                spent = self.now() - begin
                self.seconds[step] += spent - stack.pop()
                if stack:
                    stack[-1] += spent

        setattr(owner, method, timed)


def watch(controller: Controller, now: Callable[[], float] = time.perf_counter) -> Steps:
    steps = Steps(now)
    for owner, method, step in (
        (controller.proposer, "ask", "ask"),
        (controller.recorder, "record_asked", "record"),
        (controller.candidates, "gate_priced", "gate"),
        (controller.candidates.pricer, "collect", "waiting for prices"),
        (controller.candidates.pricer, "_prices", "price (in its thread)"),
        (controller.trainings, "dispatch", "dispatch"),
        (controller.engine, "submit", "send to worker"),
        (controller.engine, "poll", "poll workers"),
        (controller.trainings, "observe", "report"),
        (controller.proposer, "constrain", "tell"),
        (controller.proposer, "tell", "tell"),
        (controller.recorder.files, "clean", "remove checkpoints"),
        (controller.mirror, "write", "mirror"),
        (controller, "_look", "lease"),
        (controller.trainings, "renew_attempts", "lease"),
        (controller, "_reconcile", "resume"),
    ):
        steps.wrap(owner, method, step)
    return steps


def controller_of(
    study: OpenStudy,
    engine: Engine,
    view: SilentCallback,
    stop: threading.Event,
    files: Path,
    clock: Clock | None = None,
) -> Controller:
    targets = (Target("host", InstantProbe()),)
    return Controller(study, engine, targets, files=files, images=Images(files), callback=view, stop=stop, clock=clock)


def run(setup: Round) -> dict[str, Any]:
    """Run the controller for a while; return rate, cost of steps (ms a trial), seconds to resume and memory (MB)."""
    stop = threading.Event()
    if not setup.export:
        pricer.write_models = write_nothing
    settings = settings_for(setup.sampler, setup.workers)
    engine = LocalEngine(setup.workers, 1, (), instant_main)
    with tempfile.TemporaryDirectory() as folder:
        try:
            study = open_study(settings, setup.url, setup.resume)
            study.store.claim()
            limit = TimeLimit(setup.seconds, setup.warm_up_s, stop)
            reset_peak_memory()
            controller = controller_of(study, engine, limit, stop, Path(folder))
            steps = watch(controller)
            resume_s = 0.0

            def begin_measuring() -> None:
                nonlocal resume_s
                resume_s = steps.seconds["resume"] + steps.seconds["tell"]
                steps.seconds.clear()

            limit.on_first = begin_measuring
            controller.run()
            study.store.release()
            study.engine.dispose()
        finally:
            engine.close()
    each = {step: 1e3 * seconds / max(1, limit.trials) for step, seconds in steps.seconds.items()}
    return {
        **asdict(setup),
        "rate": limit.rate,
        "trials": limit.trials,
        "first_trial": limit.first[1] if limit.first else 0,
        "steps_ms": each,
        "resume_s": resume_s,
        "memory_mb": peak_memory_mb(),
    }


def main() -> None:
    import logging
    import warnings

    import optuna

    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    print(json.dumps(run(Round(**json.loads(sys.stdin.read())))))
