"""HEBO's optimiser for several objectives: a Gaussian process for each, and an evolved front of optimistic values.

HEBO draws from NumPy's and torch's global generators, which are seeded here.
"""

from __future__ import annotations

import math
from importlib.metadata import version as version_of

import numpy
import pandas
import torch
from hebo.design_space.design_space import DesignSpace
from hebo.optimizers.general import GeneralBO


def version():
    return f"HEBO {version_of('HEBO')}"


class Sampler:
    def __init__(self, task):
        numpy.random.seed(task["seed"])
        torch.manual_seed(task["seed"])
        torch.set_num_threads(1)
        self._space = DesignSpace().parse([_parameter(**parameter) for parameter in task["parameters"]])
        self._optimizer = GeneralBO(self._space, num_obj=1 + task["costs"])
        self._worst = [0.0] * (1 + task["costs"])
        self._open = None

    def ask(self):
        self._open = self._optimizer.suggest(1)
        return {name: _plain(value) for name, value in self._open.iloc[0].items()}

    def tell(self, outcome):
        values = self._worst
        if outcome["state"] == "done":
            values = [-outcome["accuracy"], *map(math.log, outcome["costs"])]
            self._worst = [max(pair) for pair in zip(self._worst, values, strict=True)]
        self._optimizer.observe_new_data(self._open, numpy.array([values]))

    def add(self, params, outcome):
        self._open = pandas.DataFrame([params])
        self.tell(outcome)


def _parameter(name, choices, ordered):
    if ordered:
        return {"name": name, "type": "int", "lb": 0, "ub": len(choices) - 1}
    return {"name": name, "type": "cat", "categories": choices}


def _plain(value):
    return value.item() if hasattr(value, "item") else value
