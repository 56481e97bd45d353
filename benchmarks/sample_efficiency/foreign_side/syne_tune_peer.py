"""Syne Tune's searcher for several objectives: expected hypervolume improvement on BoTorch's Gaussian processes.

It keeps its observations in the order of its own numbers and expects one for every finished trial, so that a training
that failed is told as the worst values seen so far.
"""

from __future__ import annotations

import logging
import math
from importlib.metadata import version as version_of

import torch
from syne_tune.config_space import choice, randint
from syne_tune.optimizer.schedulers.multiobjective.expected_hyper_volume_improvement import (
    ExpectedHyperVolumeImprovement,
)


def version():
    return f"syne-tune {version_of('syne-tune')}, botorch {version_of('botorch')}"


class Sampler:
    def __init__(self, task):
        logging.getLogger().setLevel(logging.CRITICAL)
        # Its model is in double precision, its features are in torch's default: newer BoTorch refuses the mixture.
        torch.set_default_dtype(torch.float64)
        space = {parameter["name"]: _domain(**parameter) for parameter in task["parameters"]}
        self._searcher = ExpectedHyperVolumeImprovement(space, random_seed=task["seed"])
        self._worst = [0.0] * (1 + task["costs"])

    def ask(self):
        return {name: _plain(value) for name, value in self._searcher.suggest().items()}

    def tell(self, outcome):
        values = self._worst
        if outcome["state"] == "done":
            values = [-outcome["accuracy"], *map(math.log, outcome["costs"])]
            self._worst = [max(pair) for pair in zip(self._worst, values, strict=True)]
        newest = self._searcher.num_suggestions() - 1
        self._searcher.on_trial_complete(newest, self._searcher.trial_configs[newest], values)

    def add(self, params, outcome):
        self._searcher.trial_configs[self._searcher.num_suggestions()] = params
        self.tell(outcome)


def _domain(name, choices, ordered):
    return randint(0, len(choices) - 1) if ordered else choice(choices)


def _plain(value):
    return value.item() if hasattr(value, "item") else value
