"""The arithmetic: how far a search was after each training, when it had enough, and how many times less that is.

Conventions: hypervolume as in `benchmarks.sample_efficiency.hypervolume`: logarithms of the costs and accuracy, each
scaled to 0..1 over all networks within the limit that any search of any seed trained. A network over the limit adds
nothing. The reference of a seed is the front of all networks that its searches trained: they share their training seed,
so what is luck for one of them would have been luck for all. A network that several of them trained counts with its
mean accuracy.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from benchmarks.sample_efficiency.hypervolume import Array, hypervolume, trajectory

ADDS_NOTHING = -1.0  # an accuracy below the reference point


class Trained(NamedTuple):
    """One finished training of a search."""

    seconds: float  # of the processor, spent by the search until then
    network: str
    costs: tuple[float, ...]
    top1: float
    inside: bool  # the limit; False also of a training that failed


class Reach(NamedTuple):
    """What a search had spent when it had enough; or, where it never had, in all."""

    seconds: float
    trainings: int
    reached: bool


class Times(NamedTuple):
    """How many times as much a peer needed; at least so many where it never had enough."""

    times: float
    at_least: bool

    def __str__(self) -> str:
        return f"more than {self.times:.1f}" if self.at_least else f"{self.times:.1f}"


@dataclass(frozen=True)
class Scale:
    """Least and largest of the logarithms of each cost, and of accuracy."""

    low: Array  # (costs + 1,)
    high: Array

    @classmethod
    def of(cls, trainings: Iterable[Trained]) -> Scale:
        rows = np.array([_row(one) for one in trainings if one.inside])
        low, high = rows.min(axis=0), rows.max(axis=0)
        return cls(low, np.where(high > low, high, low + 1.0))

    def curve(self, trainings: Sequence[Trained], top1: Mapping[str, float]) -> Array:
        """Return the hypervolume after each training, (n,); `top1` holds accuracies by network."""
        if not trainings:
            return np.zeros(0)
        costs, accuracies = self._scaled(trainings, top1)
        return trajectory(costs, accuracies)

    def volume(self, trainings: Sequence[Trained], top1: Mapping[str, float]) -> float:
        """Return the hypervolume of all of these together."""
        return hypervolume(*self._scaled(trainings, top1))

    def _scaled(self, trainings: Sequence[Trained], top1: Mapping[str, float]) -> tuple[Array, Array]:
        rows = np.array([_row(one._replace(top1=top1.get(one.network, 0.0))) for one in trainings])
        rows = (rows - self.low) / (self.high - self.low)
        inside = np.array([one.inside for one in trainings])
        return rows[:, :-1], np.where(inside, rows[:, -1], ADDS_NOTHING)


def _row(one: Trained) -> list[float]:
    return [*map(math.log, one.costs), one.top1]


def mean_top1(trainings: Iterable[Trained]) -> dict[str, float]:
    """Return the mean accuracy over its trainings of each network inside the limit."""
    values: dict[str, list[float]] = defaultdict(list)
    for one in trainings:
        if one.inside:
            values[one.network].append(one.top1)
    return {network: statistics.fmean(some) for network, some in values.items()}


def reach(trainings: Sequence[Trained], curve: Array, goal: float) -> Reach:
    """Return what was spent when the curve first came to the goal."""
    enough = np.flatnonzero(curve >= goal - 1e-12)
    if not enough.size:
        return Reach(trainings[-1].seconds if trainings else 0.0, len(trainings), False)
    first = int(enough[0])
    return Reach(trainings[first].seconds, first + 1, True)


def times_less(ours: Reach, peer: Reach, of: str) -> Times | None:
    """Return how many times as many `seconds` or `trainings` a peer needed; None where ours never had enough."""
    if not ours.reached:
        return None
    return Times(getattr(peer, of) / getattr(ours, of), not peer.reached)


def median_of(times: Sequence[Times | None]) -> Times | None:
    """Return the median over seeds; a bound in its place makes it a bound, a seed without any the least of all."""
    known = sorted(times, key=lambda one: (-math.inf, False) if one is None else (one.times, one.at_least))
    if not known:
        return None
    lower, upper = known[(len(known) - 1) // 2], known[len(known) // 2]
    if lower is None or upper is None:
        return None
    # A bound below the middle may in truth lie above it, which only raises the median.
    bound = any(one is not None and one.at_least for one in known[: len(known) // 2 + 1])
    return Times((lower.times + upper.times) / 2, bound)
