"""What one proposal costs after a thousand and after ten thousand finished trials: seconds, and memory of the process.

    python -m benchmarks.ask_time [--asks N] [--trials N …] [--patience SECONDS]

The CIFAR space with the accuracy and latency that `benchmarks.history` makes up, three objectives, the same random
trials for everyone. The product's proposer (price-aware, its prices included) stands beside Optuna's TPE and GPSampler
as a user would take them, with the whole past in Optuna's memory. Each sampler at each size runs in a process of its
own, on one thread; an ask that takes longer than the patience ends it. Goals: at most 1 s an ask at 1,000 trials and
3 s at 10,000, and less than 1 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import optuna

from benchmarks.history import made_up
from benchmarks.record import save
from search.samplers.optuna_samplers import distributions
from search.samplers.proposer import Proposer
from search.settings import StudySettings
from search.store.rows import NewTrial, TrialRow
from search.store.vocabulary import TrialOrigin, TrialState
from search.study_file import settings_from
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.presets import SPACE_PRESETS
from workers.latency.record import LatencyKind, LatencyRecord

SAMPLERS = ("price-aware", "tpe", "gp")
OURS = "price-aware"
GOALS = {1_000: 1.0, 10_000: 3.0}  # seconds an ask, by the number of finished trials
GOAL_MB = 1_000

Ask = Callable[[], CondenseNetConfig]
Tell = Callable[[CondenseNetConfig], None]


def study_settings() -> StudySettings:
    document = {
        "format": 1,
        "study": {"name": "asks", "trainings": 100_000, "seed": 1},
        "space": SPACE_PRESETS["cifar"],
        "training": {"epochs": 1},
    }
    return settings_from(document, "the benchmark")


def finished(new: NewTrial) -> TrialRow:
    """Return a trial as it is recorded once it is trained."""
    error, latency_ms, _ = made_up(new.config)
    record = LatencyRecord(
        kind=LatencyKind.MEASURED,
        policy="quick",
        device="host",
        runtime="onnxruntime",
        runtime_version="1",
        threads=1,
        median_ms=latency_ms,
        p90_ms=latency_ms,
        interval_low_ms=0.98 * latency_ms,
        interval_high_ms=1.02 * latency_ms,
        steady=True,
    )
    row = TrialRow.of_new(replace(new, proposal=None), new.number, float(new.number))
    return replace(row, state=TrialState.DONE, latency=record, top1=1.0 - error, finished_at=float(new.number) + 0.5)


def of_product(settings: StudySettings, configs: Sequence[CondenseNetConfig]) -> tuple[Ask, Tell]:
    """Return how the product's proposer is asked and told after these trials."""
    training = settings.training_space().from_params({}).model_dump(mode="json")

    def trial(number: int, config: CondenseNetConfig) -> NewTrial:
        return NewTrial(number, TrialOrigin.SAMPLED, config, training, 0, f"{number}", cost_of(config))

    proposer = Proposer(settings)
    proposer.replay([finished(trial(number, config)) for number, config in enumerate(configs)])
    newest: list[NewTrial] = []

    def ask() -> CondenseNetConfig:
        newest.append(proposer.ask(None))
        return newest[-1].config

    def tell(_: CondenseNetConfig) -> None:
        row = finished(newest[-1])
        proposer.constrain(row)
        proposer.tell(row)

    return ask, tell


def of_optuna(name: str, settings: StudySettings, configs: Sequence[CondenseNetConfig]) -> tuple[Ask, Tell]:
    """Return how a sampler of Optuna's is asked and told after these trials."""
    space = settings.search_space()
    named = distributions(space.domains)
    sampler = optuna.samplers.TPESampler(seed=1) if name == "tpe" else optuna.samplers.GPSampler(seed=1)
    study = optuna.create_study(directions=["minimize"] * 3, sampler=sampler)
    for config in configs:
        params = {key: value for key, value in space.to_params(config).items() if key in named}
        taken = {key: named[key] for key in params}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=taken, values=list(made_up(config))))
    newest: list[optuna.Trial] = []

    def ask() -> CondenseNetConfig:
        newest.append(study.ask(named))
        return space.from_params(newest[-1].params)

    def tell(config: CondenseNetConfig) -> None:
        study.tell(newest[-1], list(made_up(config)))

    return ask, tell


def measure(name: str, trials: int, asks: int) -> dict[str, Any]:
    """Return the seconds of some asks after so many trials, and the memory of this process."""
    settings = study_settings()
    space, rng = settings.search_space(), np.random.default_rng(0)
    configs = [space.sample(rng) for _ in range(trials)]
    begun = time.perf_counter()
    ask, tell = of_product(settings, configs) if name == OURS else of_optuna(name, settings, configs)
    replayed_s = time.perf_counter() - begun
    before_mb = _peak_mb()
    wall_s, processor_s = [], []
    for _ in range(asks):
        wall, processor = time.perf_counter(), time.process_time()
        config = ask()
        wall_s.append(time.perf_counter() - wall)
        processor_s.append(time.process_time() - processor)
        tell(config)
    return {
        "sampler": name,
        "trials": trials,
        "asks": asks,
        "replayed_s": replayed_s,
        "ask_s": {"median": float(np.median(wall_s)), "worst": max(wall_s)},
        "ask_processor_s": {"median": float(np.median(processor_s)), "worst": max(processor_s)},
        "peak_mb": _peak_mb(),
        "peak_before_asking_mb": before_mb,
    }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_a_process(name: str, trials: int, asks: int, patience_s: float) -> dict[str, Any]:
    """Return what `measure` finds in a process of its own; why there is nothing if it takes too long."""
    command = [sys.executable, "-m", "benchmarks.ask_time", "--one", name, "--trials", str(trials), "--asks", str(asks)]
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    try:
        done = subprocess.run(
            command, env={**os.environ, **one_thread}, capture_output=True, text=True, timeout=patience_s, check=False
        )
    except subprocess.TimeoutExpired:
        return {"sampler": name, "trials": trials, "reason": f"not done within {patience_s:.0f} s"}
    if done.returncode:
        return {"sampler": name, "trials": trials, "reason": done.stderr.strip().splitlines()[-1][:200]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def line(found: dict[str, Any]) -> str:
    begin = f"{found['sampler']:>12}, {found['trials']:>6,} trials: "
    if "reason" in found:
        return begin + found["reason"]
    ask_s, processor_s = found["ask_s"], found["ask_processor_s"]
    return begin + (
        f"{ask_s['median']:.2f} s an ask, worst {ask_s['worst']:.2f} (processor {processor_s['median']:.2f}, "
        f"{processor_s['worst']:.2f}), {found['peak_mb']:.0f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--asks", type=int, default=10)
    parser.add_argument("--trials", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--patience", type=float, default=600.0, help="seconds for all asks of one sampler and size")
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=SAMPLERS)
    parser.add_argument("--one", choices=SAMPLERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if options.one is not None:
        print(json.dumps(measure(options.one, options.trials[0], options.asks)))
        return
    results = []
    for trials in options.trials:
        for name in options.samplers:
            asks = options.asks if name == OURS else min(3, options.asks)
            results.append(in_a_process(name, trials, asks, options.patience))
            print(line(results[-1]), flush=True)
    save("ask_time", {"goals_s": GOALS, "goal_mb": GOAL_MB, "runs": results})


if __name__ == "__main__":
    main()
