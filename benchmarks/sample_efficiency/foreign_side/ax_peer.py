"""Ax's default for several objectives: Sobol points, then BoTorch's qLogNEHVI."""

from __future__ import annotations

import logging
import math
from importlib.metadata import version as version_of

from ax.api.client import Client
from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig


def version():
    return f"ax-platform {version_of('ax-platform')}, botorch {version_of('botorch')}"


class Sampler:
    def __init__(self, task):
        logging.getLogger("ax").setLevel(logging.ERROR)
        costs = [f"cost_{index}" for index in range(task["costs"])]
        self._client = Client(random_seed=task["seed"])
        self._client.configure_experiment(parameters=[_parameter(**parameter) for parameter in task["parameters"]])
        self._client.configure_optimization(
            objective=", ".join(["accuracy", *(f"-{cost}" for cost in costs)]),
            # Of an objective, Ax takes this as the threshold of its hypervolume.
            outcome_constraints=[
                f"{cost} <= {limit}" for cost, limit in zip(costs, task["log_limits"], strict=True) if limit is not None
            ],
        )
        self._open = None

    def ask(self):
        ((self._open, params),) = self._client.get_next_trials(max_trials=1).items()
        return dict(params)

    def tell(self, outcome):
        if outcome["state"] == "done":
            costs = {f"cost_{index}": math.log(cost) for index, cost in enumerate(outcome["costs"])}
            self._client.complete_trial(self._open, raw_data={"accuracy": outcome["accuracy"], **costs})
        elif outcome["state"] == "refused":
            self._client.mark_trial_abandoned(self._open)
        else:
            self._client.mark_trial_failed(self._open)

    def add(self, params, outcome):
        self._open = self._client.attach_trial(params)
        self.tell(outcome)


def _parameter(name, choices, ordered):
    if ordered:
        return RangeParameterConfig(name=name, bounds=(0, len(choices) - 1), parameter_type="int")
    return ChoiceParameterConfig(name=name, values=choices, parameter_type="str", is_ordered=False)
