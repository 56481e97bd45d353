"""The samplers that are compared, each as one that is asked and told.

Notable choices:
- Peers are told the logarithms of the costs: the hypervolume counts those, so models of the costs should see them too.
  The price-aware sampler is told the costs as they are, as its users would.
- Every trial of a study carries every constraint: some samplers raise where trials differ in them.
- Samplers that no Optuna study can use run in a process of their own, in this Python or in another.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import TrialState
from scipy.stats import qmc

from benchmarks.sample_efficiency.foreign import ForeignPeer
from benchmarks.sample_efficiency.hypervolume import Array, scaled
from benchmarks.sample_efficiency.replay import Outcome, Peer, PeerEnded, State, within
from benchmarks.sample_efficiency.table import Parameter, Params, Table, Value

OURS = "price-aware"
SPREAD = "cost-spread"  # the control: what knowing the costs is worth without a model
FOREIGN = ("ax", "smac", "hebo", "syne-tune")
OPTUNA = ("random", "nsga2", "tpe", "tpe-multivariate", "gp")
PRICED = (SPREAD, OURS)  # they know the costs of what they propose
NAMES = (*OPTUNA, *FOREIGN, SPREAD, OURS)
TITLES = {
    "random": "random",
    "nsga2": "Optuna NSGA-II",
    "tpe": "Optuna TPE",
    "tpe-multivariate": "Optuna TPE, multivariate",
    "gp": "Optuna GPSampler",
    "ax": "Ax (qLogNEHVI)",
    "smac": "SMAC (ParEGO)",
    "hebo": "HEBO",
    "syne-tune": "Syne Tune",
    SPREAD: "cost-spread (control)",
    OURS: "price-aware (ours)",
}
SLOW_RETRIES = {"gp": 1, "ax": 1}  # their asks take seconds

Limits = tuple[float | None, ...]


@dataclass(frozen=True)
class Task:
    """What a peer is given to search."""

    table: Table
    limits: Limits
    trainings: int


def make_peer(name: str, task: Task, seed: int, pythons: Mapping[str, Path]) -> Peer:
    """Return a peer that has seen nothing yet.

    Raises:
        PeerEnded: it can't be run here.
    """
    if name == SPREAD:
        return SpreadPeer(task, seed)
    if name in FOREIGN:
        return ForeignPeer(name, pythons.get(name), _foreign_task(task, seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return OptunaPeer(_sampler(name, task, seed), task.table, in_logs=name != OURS)


def _foreign_task(task: Task, seed: int) -> dict[str, object]:
    return {
        "parameters": [
            {"name": parameter.name, "choices": parameter.choices, "ordered": parameter.ordered}
            for parameter in task.table.parameters
        ],
        "costs": task.table.costs.shape[1],
        "log_limits": [None if limit is None else math.log(limit) for limit in task.limits],
        "trainings": task.trainings,
        "seed": seed,
    }


def _sampler(name: str, task: Task, seed: int) -> optuna.samplers.BaseSampler:
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed)
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    if name == "tpe-multivariate":
        return optuna.samplers.TPESampler(seed=seed, multivariate=True)
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed)
    return _price_aware(task, seed)


def _price_aware(task: Task, seed: int) -> optuna.samplers.BaseSampler:
    from search.samplers.price_aware.sampler import PriceAwareSampler

    table = task.table

    def looked_up(values: Array) -> Callable[[Sequence[Mapping[str, Value]]], Array]:
        beyond = np.vstack([values, np.full((1, values.shape[1]), np.nan)])  # of networks that the table doesn't hold

        def of(configs: Sequence[Mapping[str, Value]]) -> Array:
            rows = (table.row(config) for config in configs)
            return beyond[[-1 if row is None else row for row in rows]]

        return of

    return PriceAwareSampler(
        looked_up(table.costs),
        search_space=distributions(table.parameters),
        limits=task.limits if any(limit is not None for limit in task.limits) else None,
        key=table.row if table.aliases else None,
        features=looked_up(table.features) if table.features.shape[1] else None,
        seed=seed,
    )


def distributions(parameters: Sequence[Parameter]) -> dict[str, BaseDistribution]:
    """Return Optuna's form of the parameters."""
    return {
        parameter.name: IntDistribution(0, len(parameter.values) - 1)
        if parameter.ordered
        else CategoricalDistribution(parameter.values)
        for parameter in parameters
    }


class SpreadPeer:
    """Spreads trainings evenly over the logarithms of the known costs inside the limits, and learns nothing."""

    def __init__(self, task: Task, seed: int) -> None:
        self._table, self._left = task.table, within(task.table, task.limits)
        self._costs = scaled(np.log(task.table.costs))
        self._rng, self._sobol = np.random.default_rng(seed), qmc.Sobol(self._costs.shape[1], rng=seed)
        self._low, self._high = self._costs[self._left].min(axis=0), self._costs[self._left].max(axis=0)

    def ask(self) -> Params:
        if not self._left.any():
            raise PeerEnded("it proposed all")
        wanted = self._low + self._sobol.random(1)[0] * (self._high - self._low)
        distance = np.where(self._left, np.linalg.norm(self._costs - wanted, axis=1), np.inf)
        nearest = np.argsort(distance)[: min(10, int(self._left.sum()))]
        row = int(self._rng.choice(nearest))
        self._left[row] = False
        return self._table.params(row)

    def tell(self, outcome: Outcome) -> None:
        """Learn nothing."""

    def add(self, params: Params, outcome: Outcome) -> None:
        """Learn nothing."""

    def close(self) -> None:
        """Hold nothing."""


class OptunaPeer:
    """An Optuna sampler in a study in memory."""

    def __init__(self, sampler: optuna.samplers.BaseSampler, table: Table, in_logs: bool = True) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._in_logs = in_logs
        self._distributions = distributions(table.parameters)
        directions = ["maximize", *["minimize"] * table.costs.shape[1]]
        self._study = optuna.create_study(directions=directions, sampler=sampler)
        self._trial: optuna.Trial | None = None

    def ask(self) -> Params:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._trial = self._study.ask(self._distributions)
        return self._trial.params

    def tell(self, outcome: Outcome) -> None:
        assert self._trial is not None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for index, value in enumerate(outcome.excess):
                self._trial.set_constraint(f"budget {index}", value)
            if outcome.state == State.DONE:
                costs = [math.log(cost) if self._in_logs else cost for cost in outcome.costs]
                self._study.tell(self._trial, [outcome.accuracy, *costs])
            else:
                refused = outcome.state == State.REFUSED
                self._study.tell(self._trial, state=TrialState.PRUNED if refused else TrialState.FAIL)
        self._trial = None

    def add(self, params: Params, outcome: Outcome) -> None:
        self._study.enqueue_trial(dict(params))  # so that NSGA-II counts it in a generation
        self.ask()
        self.tell(outcome)

    def close(self) -> None:
        """Hold nothing."""
