"""The hypervolume of a front of one accuracy and one or two known costs, exact.

Conventions: costs are scaled so that 0 to 1 spans the table's logarithms, accuracies so that 0 to 1 spans the table's.
The reference lies at cost 1.05 and accuracy 0.3: a network beyond it adds nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboards.panels.study.hypervolume import hypervolumes

Array = NDArray[np.float64]
MOST_COST = 1.05
LEAST_ACCURACY = 0.3


def scaled(values: NDArray[Any]) -> Array:
    """Return the values moved and stretched to 0..1, column by column; they must not be constant."""
    low, high = values.min(axis=0), values.max(axis=0)
    return np.asarray((values - low) / (high - low), dtype=float)


def hypervolume(costs: Array, accuracy: Array) -> float:
    """Return the volume that networks with costs (n, 1 or 2) and accuracy (n,), scaled, dominate together."""
    if costs.shape[1] == 1:
        return float(_areas(costs[:, 0], accuracy, LEAST_ACCURACY)[-1]) if len(costs) else 0.0
    order = np.argsort(-accuracy, kind="stable")
    order = order[(accuracy[order] > LEAST_ACCURACY) & (costs[order] < MOST_COST).all(axis=1)]
    if not order.size:
        return 0.0
    # Between two accuracies, the part of the costs' plane that the networks of at least the higher one dominate.
    areas = _areas(costs[order, 0], -costs[order, 1], -MOST_COST)
    thickness = -np.diff(accuracy[order], append=LEAST_ACCURACY)
    return float(areas @ thickness)


def trajectory(costs: Array, accuracy: Array) -> Array:
    """Return the hypervolume (n,) after each of the networks in their order."""
    if costs.shape[1] == 1:
        return _areas(costs[:, 0], accuracy, LEAST_ACCURACY)
    volumes, volume = np.zeros(len(costs)), 0.0
    for index in range(len(costs)):
        earlier = (costs[:index] <= costs[index]).all(axis=1) & (accuracy[:index] >= accuracy[index])
        if not earlier.any():  # else it is dominated, and adds nothing
            volume = hypervolume(costs[: index + 1], accuracy[: index + 1])
        volumes[index] = volume
    return volumes


def _areas(cost: Array, height: Array, least: float) -> Array:
    """Return the area dominated after each point, between the reference cost and the least height."""
    return np.asarray(hypervolumes(cost, height, MOST_COST, least) * (MOST_COST * (1 - least)))
