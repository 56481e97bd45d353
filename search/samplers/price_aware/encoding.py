"""Settings as numbers for a model: one row of features for each candidate, every feature between 0 and 1.

- Numbers, and categories that are all numbers, keep their order; what is searched on a log scale, and numeric
  categories that double, are placed by their logarithm.
- Other categories have a column each, of one group: two different ones are always 1 apart.
- Categories that share their values, as the operations of a cell's edges do, have one more group together: how many of
  them have each value. What a network has much of matters more than where.
- A setting that a candidate doesn't have (it belongs to a stage, or a layer, that isn't there), or whose value is no
  number where all others are, is in the middle, and a further column of its group says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

Array = NDArray[np.float64]
Params = Mapping[str, Any]

ALIKE = 3  # categories that share their values, from which on these are counted
EVEN = 1.5  # categories whose largest step is more than this times their smallest are placed by their logarithm


class Encoding:
    """Turns candidates of one search space into features."""

    def __init__(self, space: Mapping[str, BaseDistribution]) -> None:
        columns = [_column(name, distribution) for name, distribution in sorted(space.items())]
        self._columns = [*columns, *_counts([column for column in columns if isinstance(column, _Category)])]

    @property
    def groups(self) -> NDArray[np.intp]:
        """The group of each feature: one for each setting, and one for all categories that share their values."""
        return np.repeat(np.arange(len(self._columns)), [column.width for column in self._columns])

    def features(self, candidates: Sequence[Params]) -> Array:
        """Return the features of candidates, (n, f)."""
        if not self._columns:
            return np.zeros((len(candidates), 0))
        return np.concatenate([column.features(candidates) for column in self._columns], axis=1)


class _Number:
    """A number between two ends."""

    width = 2  # the number, and whether it is missing

    def __init__(self, name: str, low: float, high: float, log: bool) -> None:
        self._name, self._log = name, log
        self._low, self._span = self._scaled(low), (self._scaled(high) - self._scaled(low)) or 1.0

    def features(self, candidates: Sequence[Params]) -> Array:
        values = [_number(candidate.get(self._name)) for candidate in candidates]
        missing = np.array([value is None for value in values], dtype=float)
        places = [0.5 if value is None else (self._scaled(value) - self._low) / self._span for value in values]
        return np.stack([np.array(places), missing], axis=1)

    def _scaled(self, value: float) -> float:
        return math.log(value) if self._log and value > 0 else value


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


class _Category:
    """One of some values without an order; one that was never seen is none of them."""

    def __init__(self, name: str, choices: Sequence[Any]) -> None:
        self._name, self._choices = name, {typed(choice): place for place, choice in enumerate(choices)}
        self.width = len(choices) + 1  # the last one: missing, or none of the others

    def features(self, candidates: Sequence[Params]) -> Array:
        return np.eye(self.width)[self.places(candidates, self._choices)] / math.sqrt(2.0)

    @property
    def choices(self) -> frozenset[tuple[str, Any]]:
        """Its values, typed."""
        return frozenset(self._choices)

    def places(self, candidates: Sequence[Params], choices: Mapping[tuple[str, Any], int]) -> list[int]:
        """Return where each candidate's value stands among some; after the last one if it is none of them."""
        return [choices.get(typed(candidate.get(self._name)), len(choices)) for candidate in candidates]


class _Count:
    """How many of the categories that share their values have each of these, as a share of all."""

    def __init__(self, categories: Sequence[_Category]) -> None:
        self._categories = categories
        self._choices = {choice: place for place, choice in enumerate(sorted(categories[0].choices, key=repr))}
        self.width = len(self._choices) + 1

    def features(self, candidates: Sequence[Params]) -> Array:
        one_of = np.eye(self.width)
        shares = [one_of[category.places(candidates, self._choices)] for category in self._categories]
        return np.asarray(np.mean(shares, axis=0))


def _counts(categories: Sequence[_Category]) -> list[_Count]:
    alike: dict[frozenset[tuple[str, Any]], list[_Category]] = {}
    for category in categories:
        alike.setdefault(category.choices, []).append(category)
    return [_Count(group) for group in alike.values() if len(group) >= ALIKE]


def typed(value: Any) -> tuple[str, Any]:
    """Tell True from 1 and "1", which Python holds to be equal, or nearly."""
    try:
        hash(value)
    except TypeError:  # a list: told apart by how it is written
        value = repr(value)
    return (type(value).__name__, value)


def _column(name: str, distribution: BaseDistribution) -> _Number | _Category:
    if isinstance(distribution, IntDistribution | FloatDistribution):
        return _Number(name, distribution.low, distribution.high, distribution.log)
    assert isinstance(distribution, CategoricalDistribution)
    choices = distribution.choices
    if len(choices) > 1 and all(isinstance(value, int | float) and not isinstance(value, bool) for value in choices):
        values = sorted(float(value) for value in choices if isinstance(value, int | float))
        if math.isfinite(values[0]) and math.isfinite(values[-1]):
            steps = np.diff(values)
            return _Number(name, values[0], values[-1], values[0] > 0 and steps.max() > EVEN * steps.min())
    return _Category(name, choices)
