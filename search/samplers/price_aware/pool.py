"""Candidates to choose from: all of a small space, otherwise random ones and neighbours of good ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search.samplers.price_aware import LISTED, WHOLE
from search.samplers.price_aware.encoding import typed

Params = dict[str, Any]
Key = tuple[Any, ...]

LONGEST = 2**63 - 1  # values of a setting that numpy counts
NEARBY = 0.1  # of a real range: the deviation of a neighbour's value
NEIGHBOURS = 4  # of a real-valued setting, or of a long range of whole numbers


class Pool:
    """The candidates of one search space."""

    def __init__(self, space: Mapping[str, BaseDistribution]) -> None:
        self._space = dict(sorted(space.items()))
        self._listed = self._all() if _size(self._space) <= LISTED else None

    @property
    def listed(self) -> bool:
        """Whether there is a list of all candidates."""
        return self._listed is not None

    def whole(self, most: int = WHOLE) -> Sequence[Params] | None:
        """Return every candidate, if there are no more than `most`, which is at most LISTED."""
        return self._listed if self._listed is not None and len(self._listed) <= most else None

    def key(self, candidate: Mapping[str, Any]) -> Key:
        """Return what equal candidates have in common."""
        return tuple(map(typed, map(candidate.get, self._space)))

    def random(self, count: int, rng: np.random.Generator) -> list[Params]:
        """Return `count` random candidates."""
        columns = {name: _drawn(distribution, count, rng) for name, distribution in self._space.items()}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def neighbours(self, candidates: Iterable[Mapping[str, Any]], rng: np.random.Generator) -> Iterator[Params]:
        """Yield candidates that differ from one of these in one setting; what one doesn't have is drawn at random."""
        for candidate in candidates:
            (whole,) = self.random(1, rng)
            whole |= {name: value for name, value in candidate.items() if name in whole}
            for name, distribution in self._space.items():
                for value in _nearby(distribution, candidate.get(name), rng):
                    yield {**whole, name: value}

    def crossed(self, candidates: Sequence[Mapping[str, Any]], count: int, rng: np.random.Generator) -> list[Params]:
        """Return `count` candidates that take each setting from one of two of these, and now and then a random one."""
        if not candidates:
            return []
        fresh = self.random(count, rng)
        parents = rng.integers(0, len(candidates), (count, 2))
        takes, renews = rng.integers(0, 2, (count, len(self._space))), rng.random((count, len(self._space)))
        children = []
        for place, child in enumerate(fresh):
            for number, name in enumerate(self._space):
                parent = candidates[parents[place, takes[place, number]]]
                if name in parent and renews[place, number] * len(self._space) > 1.0:
                    child[name] = parent[name]
            children.append(child)
        return children

    def _all(self) -> list[Params]:
        values = [list(_values(distribution) or ()) for distribution in self._space.values()]
        return [dict(zip(self._space, chosen, strict=True)) for chosen in itertools.product(*values)]


def _size(space: Mapping[str, BaseDistribution]) -> float:
    sizes = [_count(one) for one in space.values()]
    return math.inf if math.inf in sizes else math.prod(sizes)  # a large whole number times inf is an error


def _values(distribution: BaseDistribution) -> Sequence[Any] | None:
    """Return every value of a setting; None for a real range."""
    if isinstance(distribution, CategoricalDistribution):
        return _different(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        return _Steps(distribution.low, distribution.high, distribution.step)
    return None


def _count(distribution: BaseDistribution) -> float:
    """Return how many values a setting has; infinity for a real range."""
    if isinstance(distribution, IntDistribution):  # a longer range than an index can count has no `len`
        return (distribution.high - distribution.low) // distribution.step + 1
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        return _Steps(distribution.low, distribution.high, distribution.step).size
    values = _values(distribution)
    return math.inf if values is None else len(values)


def _different(choices: Sequence[Any]) -> Sequence[Any]:
    """Return choices without those that equal an earlier one (True after 1): Optuna would record that one."""
    try:
        if len(set(choices)) == len(choices):
            return choices
    except TypeError:  # lists
        pass
    return [choice for place, choice in enumerate(choices) if choices.index(choice) == place]


class _Steps(Sequence[float]):
    """The values of a stepped range, which may be very many; the last one is the range's end to the bit."""

    def __init__(self, low: float, high: float, step: float) -> None:
        self._low, self._high, self._step = low, high, step

    @property
    def size(self) -> int:
        """How many there are, which may be more than `len` can say."""
        return round((self._high - self._low) / self._step) + 1

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, place: Any) -> Any:
        if not 0 <= place < self.size:
            raise IndexError(place)
        return min(self._low + int(place) * self._step, self._high)


def _drawn(distribution: BaseDistribution, count: int, rng: np.random.Generator) -> list[Any]:
    if isinstance(distribution, IntDistribution | FloatDistribution) and distribution.log:
        logs = rng.uniform(math.log(distribution.low), math.log(distribution.high), count)
        drawn = np.clip(np.exp(logs), distribution.low, distribution.high)
        return [round(value) if isinstance(distribution, IntDistribution) else float(value) for value in drawn]
    values = _values(distribution)
    if values is not None:
        size = int(_count(distribution))
        if size > LONGEST:  # numpy's whole numbers end there
            return [values[min(int(share * size), size - 1)] for share in rng.random(count)]
        return [values[place] for place in rng.integers(0, size, count)]
    assert isinstance(distribution, FloatDistribution)
    return [float(value) for value in rng.uniform(distribution.low, distribution.high, count)]


def _nearby(distribution: BaseDistribution, value: Any, rng: np.random.Generator) -> list[Any]:
    """Return other values of one setting: all of a few, else some near the present one."""
    values, count = _values(distribution), _count(distribution)
    if isinstance(distribution, CategoricalDistribution) or count <= NEIGHBOURS + 1:
        return [other for other in values or () if other != value]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    log, low, high = distribution.log, float(distribution.low), float(distribution.high)
    scale = math.log if log else float
    centre = scale((low * high) ** 0.5 if log else (low + high) / 2) if value is None else scale(float(value))
    off = rng.normal(0.0, NEARBY * (scale(high) - scale(low)), NEIGHBOURS)
    moved = np.clip(np.exp(centre + off) if log else centre + off, low, high)
    if values is None:
        return [float(one) for one in moved]
    step = distribution.step or 1
    whole = {values[min(max(round((one - low) / step), 0), int(count) - 1)] for one in moved}
    if isinstance(distribution, IntDistribution) and isinstance(value, int):
        whole |= {other for other in (value - int(step), value + int(step)) if low <= other <= high}
    return sorted(whole - {value})
