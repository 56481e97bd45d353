"""One search on recorded curves: which trainings a stopping rule ends, and after how many epochs.

`in_random_order` gives every network of a table to the product's rule, one after the other. `by_launch` is the whole
product: `launch --replay`, its sampler and its controller.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.launch import launch
from search.loop.callbacks import SilentCallback
from search.replay.columns import RecordedTraining
from search.samplers.stopping import make_rule
from search.settings import StudySettings
from search.store import reader
from search.store.connection.database import open_for_reading
from search.store.rows import NewTrial, TrialRow
from search.store.vocabulary import TrialOrigin, TrialState
from search.study_file import load_replay
from space.cost import cost_of
from workers.latency.record import REPLAYED, LatencyRecord

Array = NDArray[np.float64]
RUNTIME = "native"
DEVICE = "table"


@dataclass(frozen=True)
class Play:
    """The trainings of one search in their order, (n,) each."""

    costs: Array  # (n, 1 or 2): macs, and the median latency in ms where it is an objective
    top1: Array  # final, as if none had been stopped
    epochs: Array  # that were trained
    stopped: NDArray[np.bool_]


def costs_of(training: RecordedTraining) -> list[float]:
    """Return macs, and the median latency where the table has one."""
    latency = training.latencies.get(RUNTIME)
    return [float(cost_of(training.config).macs), *([] if latency is None else [latency.median_ms])]


def in_random_order(trainings: Sequence[RecordedTraining], stopping: str, seed: int) -> Play:
    """Train every network of a table once, in random order, one at a time."""
    devices = [DEVICE] if RUNTIME in trainings[0].latencies else []
    rule = make_rule(_settings(stopping, devices))
    order = np.random.default_rng(seed).permutation(len(trainings))
    epochs, stopped = [], []
    for number, place in enumerate(order):
        training = trainings[place]
        row = _row(training, number)
        last = len(training.curve)
        for epoch, reached in enumerate(training.curve, start=1):
            measures = {"val_top1": reached.top1, "val_loss": reached.val_loss, "train_loss": reached.train_loss}
            rule.observe(row, [{"progress": epoch / last, **measures}])
            if epoch < last and rule.verdict(row) is not None:
                break
        epochs.append(epoch)
        stopped.append(epoch < last)
        if epoch == last:
            rule.finish(replace(row, state=TrialState.DONE, top1=training.top1))
    chosen = [trainings[place] for place in order]
    return _played(chosen, epochs, stopped)


def _played(trainings: Sequence[RecordedTraining], epochs: Sequence[int], stopped: Sequence[bool]) -> Play:
    costs, top1 = [costs_of(training) for training in trainings], [training.top1 for training in trainings]
    return Play(np.array(costs), np.array(top1), np.array(epochs, dtype=float), np.array(stopped, dtype=bool))


def _settings(stopping: str, devices: Sequence[str]) -> StudySettings:
    settings = load_replay("condensebench", None, [f"search.stopping={stopping}"])
    latency = settings.latency.model_copy(update={"devices": tuple(devices), "objectives": tuple(devices)})
    return settings.model_copy(update={"latency": latency})


def _row(training: RecordedTraining, number: int) -> TrialRow:
    new = NewTrial(number, TrialOrigin.SAMPLED, training.config, {}, 0, str(number), cost_of(training.config))
    row, latency = TrialRow.of_new(new, number, 0.0), training.latencies.get(RUNTIME)
    if latency is None:
        return row
    record = LatencyRecord(
        kind="estimated",
        policy=REPLAYED,
        device=DEVICE,
        runtime=RUNTIME,
        runtime_version="",
        threads=1,
        median_ms=latency.median_ms,
        p90_ms=None,
        interval_low_ms=latency.low_ms,
        interval_high_ms=latency.high_ms,
        steady=True,
        target=DEVICE,
    )
    return replace(row, latency=record)


def by_launch(known: dict[Any, RecordedTraining], stopping: str, seed: int, trainings: int) -> Play:
    """Search CondenseBench by `launch` as it comes, with one worker; `known` has its trainings by config and seed."""
    changes = [f"search.stopping={stopping}", f"study.seed={seed}", f"study.trainings={trainings}"]
    fixed = ["replay.time=none", "engine.workers=1", "budget.max_latency_ms=1000", f"latency.runtime={RUNTIME}"]
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'study.db'}"
        settings = load_replay("condensebench", None, [f"study.files={folder}/files", *changes, *fixed])
        launch(settings, url, False, SilentCallback())
        engine = open_for_reading(url)
        try:
            study = reader.find_study(engine, settings.study.name)
            rows = [row for row in reader.read_trials(engine, study.id) if row.state in ("done", "pruned")]
            epochs = [len(reader.read_curve(engine, row.id)) for row in rows]
        finally:
            engine.dispose()
    return _played([known[row.config, 0] for row in rows], epochs, [row.state == "pruned" for row in rows])
