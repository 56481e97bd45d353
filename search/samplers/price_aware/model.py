"""What is believed of candidates' accuracies, and how much training each is expected to add to the front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from search.results.pareto import non_dominated
from search.samplers.price_aware.accuracy import AccuracyModel, Believed
from search.samplers.price_aware.encoding import Encoding
from search.samplers.price_aware.gaussian_process import GaussianProcess
from search.samplers.price_aware.improvement import Front
from search.samplers.price_aware.known import Known, Priced
from search.samplers.price_aware.past import Past
from search.samplers.price_aware.pool import Params

Array = NDArray[np.float64]

MODELLED = 400  # values that the model sees at most
LEAST_CHANCE = 1e-4  # that a training works, however many like it have failed
BEYOND = 0.05  # how far beyond the dearest candidate the reference lies, of the costs' range


@dataclass(frozen=True)
class Scale:
    """Costs on a scale from 0 (the cheapest candidate) to 1 (the dearest), by their logarithms if all are positive."""

    log: NDArray[np.bool_]
    low: Array
    span: Array

    @classmethod
    def of(cls, costs: Array, plain: bool = False) -> Scale:
        """Return the scale of costs (n, k); without logarithms if `plain`."""
        log = np.asarray((costs > 0).all(axis=0) & (not plain))
        placed = np.where(log, np.log(np.where(log, costs, 1.0)), costs)
        low, high = placed.min(axis=0), placed.max(axis=0)
        return cls(log, low, np.where(high > low, high - low, 1.0))

    def __call__(self, costs: Array) -> Array:
        """Return where costs (n, k) lie on it."""
        placed = np.where(self.log, np.log(np.where(self.log, np.maximum(costs, 1e-300), 1.0)), costs)
        scaled: Array = (placed - self.low) / self.span
        return scaled


@dataclass(frozen=True)
class Judged:
    """Candidates as a model judges them."""

    believed: Believed  # of their accuracies
    chances: Array  # (n,), that their trainings don't fail
    scores: Array  # (n,), how much training each is expected to add

    def __add__(self, more: Judged) -> Judged:
        """Return these candidates and then more."""
        chances, scores = (np.concatenate([getattr(self, name), getattr(more, name)]) for name in ("chances", "scores"))
        return Judged(self.believed + more.believed, chances, scores)


class Model:
    """What is believed of candidates, from the trials so far."""

    def __init__(self, known: Known, encoding: Encoding, past: Past, signs: Array, priced: Priced) -> None:
        self._encoding = encoding
        accuracies, whole = np.array(past.accuracies), np.array(past.whole)
        reached, at = accuracies[whole], past.whole_costs(signs)
        places = _shown(accuracies, whole, at)
        shown = [past.observed[place] for place in places]
        shown_costs, running_costs = known.costs(shown, signs), known.costs(past.running, signs)
        self._scale = Scale.of(np.concatenate([priced.costs, at]))
        shown_extra = known.extra_features(shown)
        self._extra_scale = Scale.of(np.concatenate([shown_extra, priced.extra]), plain=True)
        features = self._features(shown, shown_costs, shown_extra)
        further = features.shape[1] - len(encoding.groups)
        groups = np.concatenate([encoding.groups, encoding.groups.max(initial=-1) + 1 + np.arange(further)])
        model = AccuracyModel.fitted(features, groups, accuracies[places])
        self._working = self._fitted_to_failures(known, past.failed[-MODELLED:], signs, features, groups)
        if past.running:
            features = self._features(past.running, running_costs, known.extra_features(past.running))
            reached = np.concatenate([reached, model.predict(features).median])
            at = np.concatenate([at, running_costs])
            model = model.with_believed(features)
        self._accuracy, known_costs = model, np.isfinite(at).all(axis=1)
        self._least = float(accuracies.min())
        self.most = float(max(reached, default=self._least))  # accuracy reached so far
        self._end = np.full(len(signs), 1.0 + BEYOND)
        self._at, self._reached = at[known_costs], reached[known_costs]
        self.front = self.front_with(self._at[:0], reached[:0])

    def front_with(self, costs: Array, accuracies: Array) -> Front:
        """Return the front as it will be if candidates (m, k) reach these accuracies, (m,)."""
        at, reached = np.concatenate([self._at, costs]), np.concatenate([self._reached, accuracies])
        return Front(self._scale(at), reached, self._end, self._least)

    def gains(self, front: Front, costs: Array, believed: Believed) -> Array:
        """Return what candidates are expected to add to a front, (n,)."""
        return front.expected_gain(self._scale(costs), believed.improvement(front.levels))

    def judged(self, priced: Priced, accurate: bool) -> Judged:
        """Return what is believed of candidates; only adding to the most accurate one scores if `accurate`."""
        features = self._features(priced.candidates, priced.costs, priced.extra)
        believed, chances = self._accuracy.predict(features), self._chances(features)
        if accurate:
            scores = believed.improvement(np.array([self.most]))[:, 0]
        else:
            scores = self.gains(self.front, priced.costs, believed)
        if scores.max() <= 0:  # nothing is expected of any of them: take what is least sure to be bad
            hopes = believed.scores + 2.0 * believed.deviations
            scores = 1e-300 * (1.0 + hopes - hopes.min())
        return Judged(believed, chances, scores * chances)

    def _fitted_to_failures(
        self, known: Known, failed: Sequence[Params], signs: Array, features: Array, groups: NDArray[np.intp]
    ) -> GaussianProcess | None:
        """Return a process that has learned 1 from trainings that worked, (n, f), and 0 from those that failed."""
        if not failed:
            return None
        of_failed = self._features(failed, known.costs(failed, signs), known.extra_features(failed))
        worked = np.repeat([1.0, 0.0], [len(features), len(of_failed)])
        return GaussianProcess(np.concatenate([features, of_failed]), groups, worked)

    def _chances(self, features: Array) -> Array:
        """Return how likely trainings are to work, (n,): never so little that nothing could outweigh it."""
        if self._working is None:
            return np.ones(len(features))
        mean, deviation = self._working.predict(features)
        chances: Array = np.maximum(ndtr((mean - 0.5) / deviation), LEAST_CHANCE)
        return chances

    def _features(self, candidates: Sequence[Params], costs: Array, extra: Array) -> Array:
        """Return the model's view of candidates; what has no costs any more counts as the cheapest."""
        scaled = [np.nan_to_num(self._scale(costs)), self._extra_scale(extra)]
        return np.concatenate([self._encoding.features(candidates), *scaled], axis=1)


def _shown(accuracies: Array, whole: NDArray[np.bool_], costs: Array) -> NDArray[np.intp]:
    """Return the places of what a model sees: everything while that is little, else the front and the newest."""
    count = len(accuracies)
    if count <= MODELLED:
        return np.arange(count)
    front = np.flatnonzero(whole)[non_dominated(np.column_stack([costs, -accuracies[whole]]))][-MODELLED:]
    others = np.setdiff1d(np.arange(count), front)
    return np.sort(np.concatenate([front, others[len(others) - (MODELLED - len(front)) :]]))
