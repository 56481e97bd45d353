"""SMAC's facade for hyperparameters (random forest, expected improvement) with ParEGO for several objectives."""

from __future__ import annotations

import math
import tempfile
from importlib.metadata import version as version_of

from ConfigSpace import Categorical, Configuration, ConfigurationSpace, Integer
from smac import HyperparameterOptimizationFacade, Scenario
from smac.multi_objective.parego import ParEGO
from smac.runhistory.dataclasses import TrialInfo, TrialValue
from smac.runhistory.enumerations import StatusType


def version():
    return f"smac {version_of('smac')}"


class Sampler:
    def __init__(self, task):
        self._folder = tempfile.TemporaryDirectory(prefix="smac-")
        self._space = ConfigurationSpace(seed=task["seed"])
        self._space.add([_parameter(**parameter) for parameter in task["parameters"]])
        self._objectives = ["accuracy", *(f"cost_{index}" for index in range(task["costs"]))]
        scenario = Scenario(
            self._space,
            output_directory=self._folder.name,
            objectives=self._objectives,
            deterministic=True,
            n_trials=max(task["trainings"], 1),
            seed=task["seed"],
        )
        self._smac = HyperparameterOptimizationFacade(
            scenario,
            lambda config, seed=0: 0.0,  # never called: this asks and tells
            multi_objective_algorithm=ParEGO(scenario),
            logging_level=False,
            overwrite=True,
        )
        self._worst = [0.0] * len(self._objectives)
        self._open = None

    def ask(self):
        self._open = self._smac.ask()
        return {name: _plain(value) for name, value in dict(self._open.config).items()}

    def tell(self, outcome):
        if outcome["state"] == "done":
            cost = [-outcome["accuracy"], *map(math.log, outcome["costs"])]
            self._worst = [max(pair) for pair in zip(self._worst, cost, strict=True)]
            value = TrialValue(cost=cost)
        else:
            value = TrialValue(cost=self._worst, status=StatusType.CRASHED)
        self._smac.tell(self._open, value, save=False)

    def add(self, params, outcome):
        self._open = TrialInfo(Configuration(self._space, values=params), seed=0)
        self.tell(outcome)


def _parameter(name, choices, ordered):
    return Integer(name, (0, len(choices) - 1)) if ordered else Categorical(name, choices)


def _plain(value):
    return value.item() if hasattr(value, "item") else value
