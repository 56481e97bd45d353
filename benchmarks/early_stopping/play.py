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
from search.loop.candidates import LEAST_CHANCE
from search.loop.weighing import point
from search.replay.columns import RecordedTraining
from search.results.pareto import non_dominated
from search.samplers.stopping import HOPELESS, StoppingRule, expected_score, make_rule
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
    taken_up: int = 0  # of those that were stopped: how often one went on later


def by_oracle(full: Play, *, ahead: bool) -> Play:
    """Return what is left of a search that stops nothing if one who knows final accuracies ends trainings.

    Each is ended after its first epoch: if it doesn't get onto the front of those before it, or, with `ahead`, onto the
    front of all. No rule can do better, but for a front of which a part is 99 % of the hypervolume.
    """
    wanted = non_dominated(np.column_stack([full.costs, -full.top1]))
    for place in () if ahead else range(len(wanted)):
        earlier = np.flatnonzero(wanted[:place])  # whatever those dominate, the front before it does
        cheaper = (full.costs[earlier] <= full.costs[place]).all(axis=1)
        wanted[place] = not (cheaper & (full.top1[earlier] >= full.top1[place])).any()
    return replace(full, epochs=np.where(wanted, full.epochs, 1.0), stopped=~wanted)


def costs_of(training: RecordedTraining) -> list[float]:
    """Return macs, and the median latency where the table has one."""
    latency = training.latencies.get(RUNTIME)
    return [float(cost_of(training.config).macs), *([] if latency is None else [latency.median_ms])]


def in_random_order(trainings: Sequence[RecordedTraining], stopping: str, seed: int) -> Play:
    """Train every network of a table once, in random order, one at a time."""
    devices = [DEVICE] if RUNTIME in trainings[0].latencies else []
    order = [trainings[place] for place in np.random.default_rng(seed).permutation(len(trainings))]
    search = _InOrder(make_rule(_settings(stopping, devices)))
    for training in order:
        search.train(training)
        search.take_up()
    search.take_up_rest()
    return _played(search.entries)


class _InOrder:
    """Trains the networks of a table one at a time, and takes up those that its rule would let go on."""

    def __init__(self, rule: StoppingRule) -> None:
        self.entries: list[_Entry] = []
        self._rule = rule
        self._ended: dict[int, tuple[RecordedTraining, int]] = {}  # by number: what was ended, after so many epochs
        self._finished = self._weighed = 0

    def train(self, training: RecordedTraining, continues: int | None = None) -> None:
        """Train a network to its end or until the rule ends it, from where it was ended before."""
        row, rule, last = _row(training, len(self.entries), continues), self._rule, len(training.curve)
        before = 0 if continues is None else self._ended.pop(continues)[1]
        curve = [
            {"progress": epoch / last, "val_top1": at.top1, "val_loss": at.val_loss, "train_loss": at.train_loss}
            for epoch, at in enumerate(training.curve, start=1)
        ]
        rule.observe(row, curve[:before])
        for epoch in range(before + 1, last + 1):
            rule.observe(row, [curve[epoch - 1]])
            if epoch < last and rule.verdict(row) is not None:
                break
        self.entries.append(_Entry(training, epoch - before, stopped=epoch < last))
        if epoch < last:
            self._ended[row.number] = training, epoch
            expected = expected_score(rule, row, curve[epoch - 1]["val_top1"])
            rule.finish(replace(row, state=TrialState.PRUNED, expected_score=expected))
        else:
            rule.finish(replace(row, state=TrialState.DONE, top1=training.top1))
            self._finished += 1

    def take_up(self) -> None:
        """Go on with those that were ended early, as the controller does: see `search.loop.candidates.take_up`."""
        while self._rule.takes_up and point(self._finished) > self._weighed:
            self._weighed = point(self._finished)
            self._take_up_best(LEAST_CHANCE)

    def take_up_rest(self) -> None:
        """Go on with all that aren't hopeless."""
        while self._take_up_best(HOPELESS):
            pass

    def _take_up_best(self, least_chance: float) -> bool:
        chances = {number: self._rule.prospect(number) for number in self._ended}
        best = max(chances, key=lambda number: (chances[number], -number), default=None)
        if best is None or chances[best] < least_chance:
            return False
        self.train(self._ended[best][0], continues=best)
        return True


@dataclass(frozen=True)
class _Entry:
    """A part of one network's training."""

    training: RecordedTraining
    epochs: int
    stopped: bool  # before the end


def _played(entries: Sequence[_Entry]) -> Play:
    """Return the trainings of a search; the epochs of one that was taken up later count where they were trained."""
    last = {entry.training.config: place for place, entry in enumerate(entries)}
    kept, epochs, before = [], [], 0
    for place, entry in enumerate(entries):
        before += entry.epochs
        if last[entry.training.config] == place:
            kept.append(entry)
            epochs.append(before)
            before = 0
    return Play(
        costs=np.array([costs_of(entry.training) for entry in kept]),
        top1=np.array([entry.training.top1 for entry in kept]),
        epochs=np.array(epochs, dtype=float),
        stopped=np.array([entry.stopped for entry in kept]),
        taken_up=len(entries) - len(kept),
    )


def _settings(stopping: str, devices: Sequence[str]) -> StudySettings:
    settings = load_replay("condensebench", None, [f"search.stopping={stopping}"])
    latency = settings.latency.model_copy(update={"devices": tuple(devices), "objectives": tuple(devices)})
    return settings.model_copy(update={"latency": latency})


def _row(training: RecordedTraining, number: int, continues: int | None) -> TrialRow:
    cost = cost_of(training.config)
    new = NewTrial(number, TrialOrigin.SAMPLED, training.config, {}, 0, str(number), cost, continues=continues)
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
            epochs = {row.number: len(reader.read_curve(engine, row.id)) for row in rows}
        finally:
            engine.dispose()
    before = {row.number: 0 if row.continues is None else epochs[row.continues] for row in rows}
    return _played(
        [
            _Entry(known[row.config, 0], epochs[row.number] - before[row.number], row.state == TrialState.PRUNED)
            for row in rows
        ]
    )
