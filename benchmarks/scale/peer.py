"""The peer of `benchmarks.scale`: processes that ask and tell one study through Optuna's RDB storage, nothing else.

Prints JSON: trials a second over the measured stretch, and how often a process met a locked database.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import optuna

from benchmarks.scale.round import STUDY, made_up_price, settings_for
from benchmarks.scale.worker import made_up_top1
from search.samplers.optuna_samplers import distributions, make_sampler
from search.settings import StudySettings
from search.store.connection.database import tune_sqlite
from space.cost import cost_of

START_S = 120.0
AIMS = ("maximize", "minimize", "minimize")


@dataclass(frozen=True)
class Peer:
    url: str
    workers: int
    sampler: str
    seconds: float
    tuned: bool = False  # SQLite with Condensery's settings instead of Optuna's


def storage_of(peer: Peer) -> optuna.storages.RDBStorage:
    storage = optuna.storages.RDBStorage(peer.url)
    if peer.tuned:
        tune_sqlite(storage.engine)
        storage.engine.dispose()
    return storage


class Shared(NamedTuple):
    """What the workers share: where they wait for each other, and their counts by worker."""

    barrier: Any
    count: Any  # of trials told
    locked: Any  # of times the database was locked


def ask_and_tell(peer: Peer, settings: StudySettings, seed: int, shared: Shared) -> None:
    """Ask and tell as one worker until the time is over. Its trials end at once, with the values that ours get."""
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    study = optuna.load_study(study_name=STUDY, storage=storage_of(peer), sampler=sampler_of(peer, settings, seed))
    space = settings.search_space()
    named = distributions({**space.domains, **settings.training_space().domains})
    shared.barrier.wait(START_S)
    until = time.monotonic() + peer.seconds
    while time.monotonic() < until:
        try:
            trial = study.ask(named)
            config = space.from_params({name: value for name, value in trial.params.items() if name in space.domains})
            price = made_up_price(config.digest[:16]).median_ms
            study.tell(trial, [made_up_top1(config.to_dict()), price, float(cost_of(config).macs)])
            shared.count[seed] += time.monotonic() < until
        except (optuna.exceptions.StorageInternalError, optuna.exceptions.UpdateFinishedTrialError):
            shared.locked[seed] += 1


def sampler_of(peer: Peer, settings: StudySettings, seed: int) -> optuna.samplers.BaseSampler:
    """Return the sampler that our controller has, kept over the trials as Optuna's users do."""
    return make_sampler(settings.search, seed, 0, at_random=False)


def run(peer: Peer) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    settings = settings_for(peer.sampler, 1)
    storage = storage_of(peer)
    optuna.create_study(storage=storage, study_name=STUDY, directions=AIMS)
    storage.engine.dispose()
    forked = multiprocessing.get_context("fork")  # spawned, 64 of them would import Optuna for half a minute
    counts = (forked.RawArray("i", peer.workers) for _ in range(2))
    shared = Shared(forked.Barrier(peer.workers + 1), *counts)
    workers = [forked.Process(target=ask_and_tell, args=(peer, settings, seed, shared)) for seed in range(peer.workers)]
    for worker in workers:
        worker.start()
    shared.barrier.wait(START_S)  # or a worker that can't start would keep the others waiting for ever
    time.sleep(peer.seconds)
    for worker in workers:
        worker.kill()  # 64 on SQLite would wait for one another's locks for minutes to end their last trial
        worker.join()
    return {"rate": sum(shared.count) / peer.seconds, "trials": sum(shared.count), "locked": sum(shared.locked)}


def main() -> None:
    print(json.dumps(run(Peer(**json.loads(sys.stdin.read())))))
