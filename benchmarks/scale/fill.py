"""A study with many finished trials, written in bulk: where `benchmarks.scale` starts from for its rates at 10,000."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import sqlalchemy as sa
from optuna.trial import TrialState as OptunaState

from benchmarks.scale.round import made_up_price, settings_for
from benchmarks.scale.worker import answers, made_up_top1
from search.samplers.optuna_samplers import distributions
from search.store.optuna_mirror import MirroredTrial, write_trials
from search.store.store import latency_values
from search.store.tables import artifact, attempt, curve, latency, latency_samples, trial
from search.store.vocabulary import AttemptOutcome, TrialOrigin, TrialState
from search.study import OpenStudy, open_study
from space.config import CondenseNetConfig
from space.cost import cost_of
from workers.file_names import NETWORK_FILE, ONNX_FILE
from workers.settings import TrainingSettings
from workers.training.job import trial_identity

AT_ONCE = 1000  # trials of one transaction


def fill(url: str, trials: int) -> None:
    """Create the benchmark's study with so many trials that are done, each row as the controller writes it."""
    study = open_study(settings_for("random", 8), url, resume=False)
    rng = np.random.default_rng(0)
    for first in range(0, trials, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, trials))
        with study.engine.begin() as connection:
            _fill(connection, study, numbers, rng)
    with study.engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("ANALYZE"))
    study.engine.dispose()


def _fill(connection: sa.Connection, study: OpenStudy, numbers: range, rng: np.random.Generator) -> None:
    settings, space = study.settings, study.settings.search_space()
    trained = settings.training_space()
    named = distributions({**space.domains, **trained.domains})
    trials, prices, samples, children, mirrored = [], [], [], [], []
    for number in numbers:
        config, key, now = space.sample(rng), number + 1, time.time()
        training = trained.from_params({"learning_rate": float(np.exp(rng.uniform(np.log(0.01), np.log(0.5))))})
        price = made_up_price(config.digest[:16])
        row = _trial_row(study, number, config, training) | dict.fromkeys(
            ("asked_at", "started_at", "finished_at"), now
        )
        trials.append(row)
        prices.append({"id": key, "trial_id": key, **latency_values(price)})
        samples += [
            {"latency_id": key, "process": i, "stride": 1, "samples_ms": json.dumps([round(ms, 6) for ms in part])}
            for i, part in enumerate(price.samples_ms)
        ]
        children.append(_children(key, config.to_dict(), now))
        params = {**space.to_params(config), **trained.to_params(training)}
        params = {name: value for name, value in params.items() if name in named}
        values = [row["top1"], price.median_ms, float(row["macs"])]
        mirrored.append(MirroredTrial(number, OptunaState.COMPLETE, values, params, {}, now, now))
    for table, rows in ((trial, trials), (latency, prices), (latency_samples, samples)):
        connection.execute(sa.insert(table), rows)
    for table, parts in ((attempt, 0), (curve, 1), (artifact, 2)):
        connection.execute(sa.insert(table), [row for child in children for row in child[parts]])
    write_trials(connection, study.optuna_study_id, mirrored, named)
    if connection.dialect.name == "postgresql":  # rows came with their keys: the next ones follow
        for table in ("condensery_trial", "condensery_latency"):
            connection.execute(sa.text(f"SELECT setval('{table}_id_seq', (SELECT max(id) FROM {table}))"))


def _trial_row(study: OpenStudy, number: int, config: CondenseNetConfig, training: TrainingSettings) -> dict[str, Any]:
    """Return a finished trial, without the times at which it was asked, started and finished."""
    cost = cost_of(config)
    return {
        "id": number + 1,
        "study_id": study.store.study_id,
        "number": number,
        "optuna_trial_id": number + 1,
        "state": TrialState.DONE,
        "origin": TrialOrigin.SAMPLED,
        "config": config.to_json(),
        "config_hash": config.digest,
        "training": json.dumps(training.model_dump(mode="json")),
        "seed": 0,
        "identity": trial_identity(config, training, study.settings.data, 0),
        **{name: getattr(cost, name) for name in ("macs", "params", "paper_flops")},
        "latency_id": number + 1,
        "attempt": 1,
        "cancel_requested": False,
        "top1": made_up_top1(config.to_dict()),
        "val_loss": 0.1,
        "train_seconds": 0.0,
        "peak_memory_mb": 0.0,
        "mirrored": True,
    }


def _children(key: int, config: dict[str, Any], now: float) -> tuple[list[dict[str, Any]], ...]:
    lease = {"trial_id": key, "attempt": 1, "owner": "filled", "worker": "filled:0", "started_at": now}
    ended = {"heartbeat_at": now, "epochs": 1, "outcome": AttemptOutcome.DONE, "ended_at": now}
    row = answers({"config": config, "number": key, "attempt": 1})[0][3]
    files = [
        {"trial_id": key, "name": name, "path": f"/none/{key}/{name}", "sha256": "0" * 64, "removed": False}
        for name in (NETWORK_FILE, ONNX_FILE)
    ]
    return [lease | ended], [{"trial_id": key, **row}], files
