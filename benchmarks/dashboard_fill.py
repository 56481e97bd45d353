"""A study of many trials, made up but of a real search's shape, written in bulk: what the dashboards are measured on.

Networks and their costs are real (drawn from the cifar space); latencies, accuracies and curves follow simple laws with
noise. There are two devices: this host (measured) and a virtual Raspberry Pi 5 (estimated), each with a limit that
nearly half of the candidates exceed; some of those were refused unmeasured and carry a predicted latency. Optuna's
tables of the same file hold the trials too, so that its own dashboard opens them. The same seed writes the same study.

    python -m benchmarks.dashboard_fill sqlite:///big.db 10000
"""

from __future__ import annotations

import sys
import time

import numpy as np
import sqlalchemy as sa

from benchmarks.dashboard_rows import BEGAN_AT, HOST, LIMITS_MS, PI, Maker
from search.settings import StudySettings
from search.store import reader, tables
from search.store.vocabulary import TrialState
from search.study import open_study
from search.study_file import settings_from
from space.presets import SPACE_PRESETS

STUDY = "cifar-many"
OPEN = (*3 * (TrialState.RUNNING,), *2 * (TrialState.QUEUED,), TrialState.ASKED)  # the last trials of a study under way
AT_ONCE = 1000  # trials of one transaction


def settings_for(trials: int, epochs: int = 30, name: str = STUDY) -> StudySettings:
    """Return the settings of the study that `fill` writes."""
    document = {
        "format": 1,
        "study": {"name": name, "trainings": max(1, trials // 2)},
        "data": {"dataset": "cifar10"},
        "space": SPACE_PRESETS["cifar"],
        "training": {"epochs": epochs, "learning_rate": {"low": 0.01, "high": 0.5, "log": True}},
        "budget": {"max_latency_ms": LIMITS_MS},
        "latency": {"devices": [HOST, PI]},
    }
    return settings_from(document, "the made-up study")


def fill(url: str, trials: int, seed: int = 0, *, epochs: int = 30, open_trials: bool = True) -> str:
    """Create a study of so many trials in a database; return its name.

    Args:
        url: SQLAlchemy URL of the database; it must not have the study yet.
        trials: how many.
        seed: of everything drawn.
        epochs: rows of a finished trial's curve.
        open_trials: whether the last few are running, queued and asked (a study under way).
    """
    settings = settings_for(trials, epochs)
    study = open_study(settings, url, resume=False)
    images = {
        "dataset": "CIFAR-10 (made up)",
        "train_images": 45_000,
        "validation_images": 5_000,
        "test_images": 10_000,
    }
    study.store.set_data_info(images)
    with study.engine.begin() as connection:
        began = sa.update(tables.study).values(created_at=BEGAN_AT)
        connection.execute(began.where(tables.study.c.id == study.store.study_id))
    maker = Maker(study, trials, np.random.default_rng(seed), OPEN if open_trials and trials > len(OPEN) else ())
    for first in range(0, trials, AT_ONCE):
        with study.engine.begin() as connection:
            maker.insert(connection, range(first, min(first + AT_ONCE, trials)))
    study.engine.dispose()
    return settings.study.name


def grow(url: str, more: int, seed: int = 1, *, name: str = STUDY) -> list[int]:
    """Add so many finished trials to a study that `fill` wrote, one transaction each; return their numbers."""
    with sa.create_engine(url).connect() as connection:
        settings = reader.find_study(connection.engine, name).settings
        first = connection.scalar(sa.select(sa.func.max(tables.trial.c.number))) + 1
    study = open_study(settings_from(settings, "the stored settings"), url, resume=True)
    maker = Maker(study, first + more, np.random.default_rng(seed), ())
    for number in range(first, first + more):
        with study.engine.begin() as connection:
            maker.insert(connection, range(number, number + 1))
    study.engine.dispose()
    return list(range(first, first + more))


def main(url: str, trials: int) -> None:
    """Fill a database and say how long it took."""
    begin = time.perf_counter()
    name = fill(url, trials)
    print(f"{trials} trials of study {name} in {time.perf_counter() - begin:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
