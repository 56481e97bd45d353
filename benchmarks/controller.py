"""What the controller costs a trial: ask, price, gate, dispatch, record, tell, with trainings of zero length.

    python -m benchmarks.controller [--trials N]

Real SQLite, real export of every candidate; the engine and the probe are the shipped fakes, so no training and no
measuring is in the figures. Goal: under 0.3 s a trial, the sampler's ask apart. Beside it, in the same run, plain
Optuna asks and tells the same number of trials over the same space in a database of its own.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import optuna

from benchmarks.record import save
from benchmarks.scale.round import Steps
from search.engines.fake import FakeEngine
from search.loop.callbacks import SilentCallback
from search.loop.controller import Controller
from search.loop.trainings import Images
from search.pricing.pricer import Target
from search.samplers.optuna_samplers import distributions, make_sampler
from search.settings import SearchSettings, StudySettings
from search.store.connection.database import tune_sqlite
from search.study import open_study
from search.study_file import settings_from
from space.presets import SPACE_PRESETS
from space.search_space import SearchSpace
from workers.latency.measurement import FakeProbe


def settings_for(trials: int, sampler: str) -> StudySettings:
    document = {
        "format": 1,
        "study": {"name": "overhead", "trainings": trials},
        "space": SPACE_PRESETS["cifar"],
        "training": {"epochs": 1},
        "search": {"sampler": sampler},
        "engine": {"workers": 2},
    }
    return settings_from(document, "the benchmark")


def run_ours(trials: int, sampler: str, folder: Path) -> tuple[float, float]:
    """Return (seconds in all, seconds inside the sampler's ask)."""
    study = open_study(settings_for(trials, sampler), f"sqlite:///{folder / 'ours.db'}", resume=False)
    probe = FakeProbe(lambda path: path.stat().st_size / 1e6)
    study.store.claim()
    controller = Controller(
        study,
        FakeEngine(),
        (Target("host", probe),),
        files=folder,
        images=Images(folder),
        callback=SilentCallback(),
        stop=threading.Event(),
    )
    steps = Steps()
    steps.wrap(controller.proposer, "ask", "ask")
    begin = time.perf_counter()
    controller.run()
    return time.perf_counter() - begin, steps.seconds["ask"]


def run_optuna(trials: int, sampler: str, folder: Path) -> float:
    """Ask and tell as many trials with Optuna alone, its database tuned the same way; return the seconds."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'plain.db'}")
    tune_sqlite(storage.engine)
    storage.engine.dispose()
    study = optuna.create_study(storage=storage, directions=["maximize", "minimize", "minimize"])
    space = distributions(SearchSpace.preset("cifar").domains)
    begin = time.perf_counter()
    for number in range(trials):
        study.sampler = make_sampler(SearchSettings(sampler=sampler), 0, number, at_random=False)
        trial = study.ask(space)
        study.tell(trial, [number / trials, 1.0, 1.0])
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    result: dict[str, Any] = {"trials": options.trials}
    print(f"{options.trials} trials of zero length on SQLite, {options.rounds} rounds in turn, medians")
    for sampler in ("random", "tpe"):
        ours, asks, plain = [], [], []
        for _ in range(options.rounds):
            with tempfile.TemporaryDirectory() as name:
                total, asking = run_ours(options.trials, sampler, Path(name))
                ours.append((total - asking) / options.trials)
                asks.append(asking / options.trials)
                plain.append(run_optuna(options.trials, sampler, Path(name)) / options.trials)
        row = {
            key: statistics.median(v) for key, v in (("overhead_s", ours), ("ask_s", asks), ("plain_optuna_s", plain))
        }
        result[sampler] = row | {"rounds_overhead_s": ours}
        print(
            f"  {sampler:7} controller {row['overhead_s'] * 1e3:6.1f} ms a trial (goal 300), "
            f"ask {row['ask_s'] * 1e3:6.1f} ms; plain Optuna's ask and tell {row['plain_optuna_s'] * 1e3:6.1f} ms"
        )
    save("controller", result)


if __name__ == "__main__":
    main()
