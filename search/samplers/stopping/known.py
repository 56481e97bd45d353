"""What is known of a trial before it is trained, as numbers that an accuracy may depend on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from search.samplers.stopping.final_accuracy import Floats
from search.store.rows import TrialRow


def facts(row: TrialRow) -> dict[str, float]:
    """Return a trial's costs, config and training settings by name; what works by its ratio, as its logarithm."""
    config = row.config
    counts = {
        "macs": row.macs,
        "params": row.params,
        "groups": config.groups,
        "condense_factor": config.condense_factor,
        "bottleneck": config.bottleneck,
        "groups_3x3": config.groups_3x3 or config.groups,
    }
    found = {name: math.log(max(count, 1)) for name, count in counts.items()}
    found |= {"dropout": config.dropout, "classifier_keep": config.classifier_keep}
    for stage, (layers, growth) in enumerate(zip(config.stages, config.growth, strict=True)):
        found |= {f"layers_{stage}": float(layers), f"growth_{stage}": math.log(growth)}
    return found | _numbers(row.training)


def _numbers(training: Mapping[str, object]) -> dict[str, float]:
    """Return the settings of a training that are numbers; positive ones as logarithms."""
    numbers = {f"training.{name}": value for name, value in training.items() if isinstance(value, int | float)}
    return {
        name: math.log(value) if value > 0 and value is not True else float(value) for name, value in numbers.items()
    }


def as_array(known: Sequence[Mapping[str, float]], names: Sequence[str]) -> Floats:
    """Return the facts of these names as an array (n, d); one that a trial lacks, as a third stage's layers, is 0."""
    return np.array([[one.get(name, 0.0) for name in names] for one in known], dtype=np.float64)
