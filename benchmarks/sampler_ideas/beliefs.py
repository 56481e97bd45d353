"""What may be believed of a table's networks from those that were trained: the product's model, and others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from benchmarks.sample_efficiency.hypervolume import Array
from search.samplers.price_aware.accuracy import AccuracyModel, Believed
from search.samplers.price_aware.gaussian_process import GaussianProcess
from search.samplers.price_aware.improvement import expected_improvement

MARGIN = 0.1  # of the accuracies' range: how far above the best one the logarithm's end lies
TREES = 100
PARTS = 10  # of a table, each of which is predicted from the others
LEAST_DEVIATION = 1e-3
NODES = np.polynomial.hermite_e.hermegauss(24)[0]  # to average over a normal value, by
SHARES = np.polynomial.hermite_e.hermegauss(24)[1] / np.sqrt(2 * np.pi)


class Belief(Protocol):
    """What is believed of candidates' accuracies."""

    def improvement(self, levels: Array) -> Array:
        """Return the expected improvement of each candidate over each level, (m, levels)."""


@dataclass(frozen=True)
class Normal:
    """Normal accuracies."""

    mean: Array
    deviation: Array

    def improvement(self, levels: Array) -> Array:
        """Return the expected improvement in closed form."""
        return expected_improvement(self.mean[:, None], self.deviation[:, None], levels)


@dataclass(frozen=True)
class Logged:
    """Accuracies whose distance from an end has a normal logarithm: the gain is that of a put option."""

    end: float
    mean: Array  # of minus the distance's logarithm
    deviation: Array

    def improvement(self, levels: Array) -> Array:
        """Return the expected improvement in closed form."""
        strike, log_mean, deviation = self.end - levels, -self.mean[:, None], self.deviation[:, None]
        off = (np.log(np.maximum(strike, 1e-12)) - log_mean) / deviation
        distance = np.exp(log_mean + deviation**2 / 2) * ndtr(off - deviation)
        improvement: Array = np.maximum(strike * ndtr(off) - distance, 0.0)
        return improvement


@dataclass(frozen=True)
class Mixture:
    """Several beliefs, each as likely."""

    parts: Sequence[Belief]

    def improvement(self, levels: Array) -> Array:
        """Return the mean of their improvements."""
        improvement: Array = np.mean([part.improvement(levels) for part in self.parts], axis=0)
        return improvement


@dataclass(frozen=True)
class View:
    """A table as a model sees it."""

    features: Array  # (n, f)
    groups: NDArray[np.intp]  # (f,)
    accuracy: Array  # (n,), 0..1 over the table
    costs: Array  # (n, k), 0..1 over the table

    def with_columns(self, columns: Array) -> View:
        """Return the view with further columns, each a group of its own."""
        last = self.groups.max(initial=-1)
        groups = np.concatenate([self.groups, last + 1 + np.arange(columns.shape[1])])
        return replace(self, features=np.concatenate([self.features, columns], axis=1), groups=groups)


Believes = Callable[[View, NDArray[np.intp], NDArray[np.intp], int], Belief]


def product(view: View, trained: NDArray[np.intp], others: NDArray[np.intp], seed: int) -> Belief:
    """Believe what the product's sampler does."""
    return AccuracyModel.fitted(view.features[trained], view.groups, view.accuracy[trained]).predict(
        view.features[others]
    )


def process(view: View, trained: NDArray[np.intp], others: NDArray[np.intp], seed: int) -> Belief:
    """Believe what a Gaussian process of accuracies says."""
    fitted = GaussianProcess(view.features[trained], view.groups, view.accuracy[trained])
    return Normal(*fitted.predict(view.features[others]))


def ranked(view: View, trained: NDArray[np.intp], others: NDArray[np.intp], seed: int) -> Believed:
    """Believe what a process of their ranks says, whether there are outliers or not."""
    return AccuracyModel.of_ranks(view.features[trained], view.groups, view.accuracy[trained]).predict(
        view.features[others]
    )


def ranks_taken_for_normal(view: View, trained: NDArray[np.intp], others: NDArray[np.intp], seed: int) -> Belief:
    """Believe in normal accuracies with the mean and deviation that a process of ranks gives."""
    believed = ranked(view, trained, others, seed)
    assert believed.curve is not None
    outcomes = believed.curve(believed.scores + believed.deviations * NODES[:, None])
    mean = SHARES @ outcomes
    return Normal(mean, np.sqrt(SHARES @ (outcomes - mean) ** 2) + LEAST_DEVIATION)


class AllOthersKnown:
    """Believes of each network what a process says that has seen nine tenths of the table without it."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Array, Array]] = {}

    def __call__(self, view: View, trained: NDArray[np.intp], others: NDArray[np.intp], seed: int) -> Belief:
        if id(view) not in self._known:
            self._known[id(view)] = self._of(view)
        mean, deviation = self._known[id(view)]
        return Normal(mean[others], deviation[others])

    @staticmethod
    def _of(view: View) -> tuple[Array, Array]:
        part_of = np.random.default_rng(0).permutation(len(view.accuracy)) % PARTS
        mean, deviation = np.empty(len(part_of)), np.empty(len(part_of))
        for part in range(PARTS):
            seen, asked = part_of != part, part_of == part
            fitted = GaussianProcess(view.features[seen], view.groups, view.accuracy[seen])
            mean[asked], sure = fitted.predict(view.features[asked])
            deviation[asked] = np.hypot(sure, fitted.noise)
        return mean, deviation


def logged(view: View, trained: NDArray[np.intp], others: NDArray[np.intp], seed: int) -> Belief:
    """Believe what a process of the logarithm of the distance from the best says."""
    known = view.accuracy[trained]
    end = float(known.max() + MARGIN * (np.ptp(known) or 1.0))
    fitted = GaussianProcess(view.features[trained], view.groups, -np.log(end - known))
    return Logged(end, *fitted.predict(view.features[others]))


def clipped(view: View, trained: NDArray[np.intp], others: NDArray[np.intp], seed: int) -> Belief:
    """Believe what a process says to which very bad networks look only bad."""
    known = view.accuracy[trained]
    middle, high = np.quantile(known, [0.5, 0.75])
    fitted = GaussianProcess(view.features[trained], view.groups, np.maximum(known, middle - 5 * (high - middle)))
    return Normal(*fitted.predict(view.features[others]))


def forest(view: View, trained: NDArray[np.intp], others: NDArray[np.intp], seed: int) -> Belief:
    """Believe what a random forest says; how its trees differ is how unsure it is."""
    from sklearn.ensemble import RandomForestRegressor

    fitted = RandomForestRegressor(TREES, random_state=seed).fit(view.features[trained], view.accuracy[trained])
    votes = np.stack([tree.predict(view.features[others]) for tree in fitted.estimators_])
    return Normal(votes.mean(axis=0), votes.std(axis=0) + LEAST_DEVIATION)


def both(view: View, trained: NDArray[np.intp], others: NDArray[np.intp], seed: int) -> Belief:
    """Believe process and forest alike."""
    return Mixture([process(view, trained, others, seed), forest(view, trained, others, seed)])


def above_a_line(view: View, trained: NDArray[np.intp], others: NDArray[np.intp], seed: int) -> Belief:
    """Believe a process of what lies above a straight line over the costs: a prior that more costs more accuracy."""
    design = np.column_stack([np.ones(len(view.costs)), view.costs])
    line = np.linalg.lstsq(design[trained], view.accuracy[trained], rcond=None)[0]
    fitted = GaussianProcess(view.features[trained], view.groups, view.accuracy[trained] - design[trained] @ line)
    mean, deviation = fitted.predict(view.features[others])
    return Normal(mean + design[others] @ line, deviation)
