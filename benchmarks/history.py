"""What TPE finds when it sees the best and the newest trials instead of all: `search.samplers.bounded_history`.

    python -m benchmarks.history [--trials 1000] [--seeds 3]

The CIFAR space with a made-up accuracy and latency, smooth in what a network costs and different by group count. Each
seed is searched twice, with the whole past and with the bounded one; they propose the same until the bound is reached.
Prints the share of the volume between the origin and the worst values that the front dominates, and the time of an ask.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from typing import Any

import numpy as np
import optuna
from optuna._hypervolume import compute_hypervolume
from optuna.search_space import IntersectionSearchSpace
from optuna.storages import BaseStorage, InMemoryStorage

from benchmarks.record import save
from search.results.pareto import non_dominated
from search.samplers.bounded_history import SHOWN, SLACK, BoundedHistory
from search.samplers.optuna_samplers import distributions, make_sampler
from search.settings import SearchSettings
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.search_space import SearchSpace

WORST = np.array([1.0, 40.0, 3e8])  # error, ms, macs: what lies beyond counts nothing
PAST = {"whole": InMemoryStorage, "bounded": BoundedHistory}


def made_up(config: CondenseNetConfig) -> tuple[float, float, float]:
    """Return an error, a latency in ms and the macs of a network."""
    macs, layers = cost_of(config).macs, sum(config.stages)
    grouped = math.log2(config.groups) + 0.5 * math.log2(config.condense_factor)
    error = 0.04 + 0.5 * (macs / 1e6 + 1.0) ** -0.45 * (1.0 + 0.08 * abs(grouped - 2.5)) + 0.0004 * abs(layers - 40)
    return error, 0.12 * layers + macs / 2e7 * (1.0 + 0.1 * grouped), float(macs)


def hypervolume(values: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """Return the share of the box up to `WORST` that these rows dominate."""
    inside = values[(values < WORST).all(axis=1)] / WORST
    front = inside[non_dominated(inside)]
    return float(compute_hypervolume(front, np.ones(3))) if len(front) else 0.0


def search(storage: BaseStorage, trials: int, seed: int) -> dict[str, Any]:
    """Let TPE propose so many networks, one at a time; return volumes on the way and ms an ask at the end."""
    space, part = SearchSpace.preset("cifar"), SearchSettings()
    named, common = distributions(space.domains), IntersectionSearchSpace(include_pruned=True)
    study = optuna.create_study(storage=storage, directions=["minimize"] * 3)
    values, asks_s, volumes = [], [], {}
    for number in range(trials):
        study.sampler = make_sampler(part, seed, number, at_random=False, common=common)
        begin = time.process_time()
        trial = study.ask(named)
        asks_s.append(time.process_time() - begin)
        values.append(made_up(space.from_params(trial.params)))
        study.tell(trial, list(values[-1]))
        if number + 1 in (SHOWN + SLACK, trials):
            volumes[number + 1] = hypervolume(np.array(values))
    return {"volumes": volumes, "ask_ms": 1e3 * float(np.median(asks_s[-100:]))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    result: dict[str, Any] = {"trials": options.trials}
    for seed in range(options.seeds):
        for name, storage in PAST.items():
            outcome = search(storage(), options.trials, seed)
            result[f"{name}, seed {seed}"] = outcome
            shares = ", ".join(f"{100 * share:.3f} % at {at}" for at, share in outcome["volumes"].items())
            print(f"seed {seed}, {name} past: {shares}; an ask takes {outcome['ask_ms']:.1f} ms", flush=True)
    save("history", result)


if __name__ == "__main__":
    main()
