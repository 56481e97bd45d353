"""The peers: Optuna's multivariate TPE with the same objectives, and the plainest correct training loop.

Notable choices, each in the peers' favour where there was a choice:
- They search the same parameters, learn the limit as Optuna's constraint and costs by their logarithms, and get their
  latencies from the same probe, priced together as launch prices them.
- With the gate a network over the limit is neither priced nor trained. Without it such a network is trained, as any.
- A network that was trained before isn't trained again: its figures are told once more.
- Their loop looks at validation images at the end alone; launch does after each epoch.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import TrialState

from benchmarks.condensebench.journal import Journal, Row, open_journal
from benchmarks.headline.form import GATED, TITLES, images_of, prepared_settings
from benchmarks.headline.processor import own_seconds
from benchmarks.training.steps import Schedule, one_step, prepared
from search.budget import Budget, refusal
from search.pricing.pricer import price
from search.pricing.targets import targets_of
from search.samplers.optuna_samplers import distributions
from search.settings import StudySettings
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.deployed import deploy
from space.network import CondenseNet
from workers.images.batches import ImageData, TrainingBatches, load
from workers.latency.measurement import Measurement
from workers.settings import TrainingSettings
from workers.training.loop import evaluate

TRAINED, REFUSED, FAILED = "trained", "refused", "failed"
MOST_ASKS = 300  # for one batch


def plain_training(config: CondenseNetConfig, settings: StudySettings, images: ImageData, seed: int) -> float | None:
    """Train by the plain loop; return the deployed network's top-1 on validation, None if the loss diverged."""
    recipe = TrainingSettings.model_validate(settings.training)
    schedule = Schedule("", "plain", steps=0, batch=recipe.batch_size, seed=seed, rate=recipe.learning_rate)
    network, forward, condense, optimizer = prepared(schedule, config)
    batches = TrainingBatches(images.train, images.info, settings.data, schedule.batch, seed)
    steps = recipe.epochs * batches.steps_per_epoch
    for step in range(steps):
        condense(step / steps)
        if not math.isfinite(one_step(schedule, forward, optimizer, batches.batch(step), step / steps)):
            return None
    trained = CondenseNet(config)
    trained.load_state_dict(network.state_dict())
    trained.condense(1.0)
    return evaluate(deploy(trained.eval()), images.validation, images.info, torch.device("cpu")).top1


def search(work: Path, seed: int, name: str, trainings: int) -> None:
    """Search until so many trainings are in the journal, in a process of its own.

    Raises:
        CondenseryError: of the images, the device or the disk; what was finished is recorded.
    """
    torch.set_num_threads(1)
    with open_journal(journal_of(work, seed, name)) as journal:
        _Search(work, seed, name, journal).run(trainings)


def journal_of(work: Path, seed: int, name: str) -> Path:
    """Return the journal of one search."""
    return work / f"{name}-{seed}.jsonl"


@dataclass(frozen=True)
class _Candidate:
    trial: optuna.Trial
    config: CondenseNetConfig


class _Search:
    """One peer's search."""

    def __init__(self, work: Path, seed: int, name: str, journal: Journal) -> None:
        self._seed, self._name, self._journal = seed, name, journal
        self._settings = prepared_settings(work, seed)
        self._images = load(self._settings.data, images_of(work, self._settings))
        self._space, self._budget = self._settings.search_space(), self._settings.search_budget()
        self._batch = self._settings.search.batch or 1
        self._files = work / f"{name}-{seed}-files"
        self._files.mkdir(exist_ok=True)
        self._probe = targets_of(self._settings, None, self._files, print)[0].probe
        self._known: dict[str, Row] = {}  # by the config's digest
        self._distributions = distributions(self._space.domains)
        rows = journal.rows()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # A study that goes on draws other numbers than one that was never interrupted; a study is one or the other.
        sampler = optuna.samplers.TPESampler(seed=seed + 1000 * len(rows), multivariate=True)
        self._study = optuna.create_study(directions=["maximize", "minimize", "minimize"], sampler=sampler)
        for row in rows:
            self._study.enqueue_trial(row["params"])
            self._tell(self._study.ask(self._distributions), row)
            self._know(row)
        # Spent by earlier processes of this search; that it had to start again isn't counted.
        self._before = rows[-1]["seconds"] - own_seconds() if rows else 0.0

    def run(self, trainings: int) -> None:
        """Search until so many trainings are finished, failed ones included."""
        done = sum(row["state"] != REFUSED for row in self._journal.rows())
        while done < trainings:
            candidates = self._propose(min(self._batch, trainings - done))
            prices = price([one.config for one in candidates], self._probe, self._files)
            for candidate, priced in zip(candidates, prices, strict=True):
                row = self._row(candidate)
                if isinstance(priced, Measurement):
                    row |= {"latency_ms": priced.median_ms}
                    row |= self._trained(candidate.config)
                row["seconds"] = self._before + own_seconds()
                self._journal.append(row)
                self._tell(candidate.trial, row)
                self._know(row)
                done += 1
                print(
                    f"seed {self._seed}, {TITLES[self._name]}: {done}/{trainings}  {_line(candidate.config, row)}",
                    flush=True,
                )

    def _trained(self, config: CondenseNetConfig) -> Row:
        begin = own_seconds()
        top1 = plain_training(config, self._settings, self._images, self._seed)
        figures = {"state": FAILED} if top1 is None else {"state": TRAINED, "top1": top1}
        return {**figures, "training_s": own_seconds() - begin}

    def _propose(self, count: int) -> list[_Candidate]:
        """Return candidates that are to be trained; whatever else is proposed meanwhile is told to Optuna at once."""
        candidates: list[_Candidate] = []
        for _ in range(MOST_ASKS):
            if len(candidates) == count:
                break
            trial = self._study.ask(self._distributions)
            candidate = _Candidate(trial, self._space.from_params(trial.params))
            row = self._row(candidate)
            if candidate.config.digest in self._known:
                self._tell(trial, {**self._known[candidate.config.digest], "params": trial.params})
            elif any(candidate.config == other.config for other in candidates):
                self._study.tell(trial, state=TrialState.FAIL)
            elif self._name == GATED and not row["inside"]:
                row |= {"state": REFUSED, "seconds": self._before + own_seconds()}
                self._journal.append(row)
                self._tell(trial, row)
            else:
                candidates.append(candidate)
        return candidates

    def _row(self, candidate: _Candidate) -> Row:
        cost = cost_of(candidate.config)
        inside = refusal(Budget(max_macs=self._budget.max_macs), cost.macs, cost.params, None) is None
        return {
            "state": FAILED,
            "params": candidate.trial.params,
            "config": candidate.config.to_dict(),
            "network": candidate.config.digest,
            "macs": cost.macs,
            "inside": inside,
        }

    def _know(self, row: Row) -> None:
        if row["state"] == TRAINED:
            self._known[row["network"]] = row

    def _tell(self, trial: optuna.Trial, row: Mapping[str, Any]) -> None:
        trial.set_constraint("macs", row["macs"] / (self._budget.max_macs or row["macs"]) - 1.0)
        if row["state"] == TRAINED:
            self._study.tell(trial, [row["top1"], math.log(row["latency_ms"]), math.log(row["macs"])])
        else:
            refused = row["state"] == REFUSED
            self._study.tell(trial, state=TrialState.PRUNED if refused else TrialState.FAIL)


def _line(config: CondenseNetConfig, row: Row) -> str:
    over = "" if row["inside"] else ", over the limit"
    result = f"top-1 {row['top1']:.4f}" if "top1" in row else "failed"
    return f"{config}, {row['macs'] / 1e6:.3f} M macs{over}: {result}, {row['seconds']:.0f} processor seconds so far"
