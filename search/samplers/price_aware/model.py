"""What is believed of candidates' accuracies, and how much training each is expected to add to the front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.results.pareto import non_dominated
from search.samplers.price_aware.encoding import Encoding
from search.samplers.price_aware.gaussian_process import GaussianProcess
from search.samplers.price_aware.improvement import Front, expected_improvement
from search.samplers.price_aware.known import Known, Priced
from search.samplers.price_aware.past import Past
from search.samplers.price_aware.pool import Params

Array = NDArray[np.float64]

MODELLED = 400  # values that the model sees at most
BEYOND = 0.05  # how far beyond the dearest candidate the reference lies, of the costs' range


@dataclass(frozen=True)
class Scale:
    """Costs on a scale from 0 (the cheapest candidate) to 1 (the dearest), by their logarithms if all are positive."""

    log: NDArray[np.bool_]
    low: Array
    span: Array

    @classmethod
    def of(cls, costs: Array) -> Scale:
        """Return the scale of costs (n, k)."""
        log = np.asarray((costs > 0).all(axis=0))
        placed = np.where(log, np.log(np.where(log, costs, 1.0)), costs)
        low, high = placed.min(axis=0), placed.max(axis=0)
        return cls(log, low, np.where(high > low, high - low, 1.0))

    def __call__(self, costs: Array) -> Array:
        """Return where costs (n, k) lie on it."""
        placed = np.where(self.log, np.log(np.where(self.log, np.maximum(costs, 1e-300), 1.0)), costs)
        scaled: Array = (placed - self.low) / self.span
        return scaled


class Model:
    """What is believed of candidates, from the trials so far."""

    def __init__(self, known: Known, encoding: Encoding, past: Past, signs: Array, priced: Priced) -> None:
        self._known, self._encoding = known, encoding
        priced_before = known.costs(past.observed, signs)
        costs = np.array(
            [
                row if measured is None else signs * np.asarray(measured)
                for row, measured in zip(priced_before, past.costs, strict=True)
            ]
        ).reshape(priced_before.shape)
        self._scale = Scale.of(np.concatenate([priced.costs, costs[np.isfinite(costs).all(axis=1)]]))
        everything = [*past.observed, *past.running]
        extra = known.extra_features([*everything, *priced.candidates])
        self._extra_low, self._extra_span = (
            extra.min(axis=0, initial=0.0),
            np.ptp(extra, axis=0) if extra.size else np.ones(0),
        )
        accuracies, whole = np.array(past.accuracies), np.array(past.whole)
        shown = _shown(np.column_stack([costs, -accuracies]), MODELLED)
        groups = encoding.groups
        self._groups = np.concatenate([groups, len(set(groups)) + np.arange(len(signs) + extra.shape[1])]).astype(
            np.intp
        )
        features = self._features([past.observed[place] for place in shown], np.nan_to_num(priced_before[shown]))
        self._process = GaussianProcess(features, self._groups, accuracies[shown])
        reached, at = accuracies[whole], costs[whole]
        if past.running:
            running = known.costs(past.running, signs)
            features = self._features(past.running, np.nan_to_num(running))
            believed, _ = self._process.predict(features)
            self._process = self._process.with_believed(features)
            reached, at = np.concatenate([reached, believed]), np.concatenate([at, running])
        finite = np.isfinite(at).all(axis=1)
        self._front = Front(
            self._scale(at[finite]), reached[finite], np.full(len(signs), 1.0 + BEYOND), float(accuracies.min())
        )
        self._most = float(reached.max()) if len(reached) else float(accuracies.min())

    def scores(self, priced: Priced, accurate: bool) -> Array:
        """Return how much training each candidate is expected to add; only to the most accurate one if `accurate`."""
        mean, deviation = self._process.predict(self._features(priced.candidates, priced.costs))
        if accurate:
            scores = expected_improvement(mean, deviation, self._most)
        else:
            scores = self._front.expected_gain(self._scale(priced.costs), mean, deviation)
        if scores.max() <= 0:  # nothing is expected of any of them: take what is least sure to be bad
            scores = 1e-300 * (1.0 + mean + 2.0 * deviation - (mean + 2.0 * deviation).min())
        return scores

    def _features(self, candidates: Sequence[Params], costs: Array) -> Array:
        extra = self._known.extra_features(candidates)
        scaled = (extra - self._extra_low) / np.where(self._extra_span > 0, self._extra_span, 1.0)
        return np.concatenate([self._encoding.features(candidates), self._scale(costs), scaled], axis=1)


def _shown(values: Array, most: int) -> NDArray[np.intp]:
    """Return the rows that a model sees: all of them while they are few, else the front's and the newest."""
    if len(values) <= most:
        return np.arange(len(values))
    members = np.flatnonzero(non_dominated(np.nan_to_num(values, nan=np.inf)))[-most:]
    others = np.setdiff1d(np.arange(len(values)), members)
    newest = others[len(others) - (most - len(members)) :]
    return np.sort(np.concatenate([members, newest]))
