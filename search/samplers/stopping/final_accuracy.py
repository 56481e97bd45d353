"""A learning-curve model: the deployed accuracy that a training will end with, predicted while it is under way.

Notable choices:
- Linear models in standardised features, with a Gaussian prior on their coefficients (ridge regression), one for each
  of several sets of features. A study has tens of finished trainings, not thousands.
- Each model's penalty, and how much it counts beside the others, are chosen by the errors that each training would have
  had, had it been left out (closed form: Allen 1974, PRESS; stacking: Breiman 1996, "Stacked regressions"). Early in a
  schedule a curve says little and the config much; near its end it is the other way round.
- The same errors, of finished trainings alone, are the prediction's spread. It holds all that the model can't know:
  the luck of a seed as well as whatever isn't linear. It is larger for a network unlike those seen, by its leverage.
- With few trainings the spread itself is uncertain, so probabilities are those of Student's t.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls
from scipy.special import stdtr

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
PENALTIES = np.geomspace(1e-3, 30.0, 8)
CONSTANT = 1e-9  # a feature that varies less than this says nothing
FIRMLY = 1e3  # how firmly the weights are held to a sum of 1
SLIGHTLY = 0.1  # how firmly to equal ones, so that two models that are as good both count


@dataclass(frozen=True)
class Prediction:
    """What a training is expected to end with: a scaled and shifted Student's t."""

    mean: float  # score: what the study maximises
    spread: float  # of one training's outcome, in the same
    freedom: float  # degrees of freedom

    def above(self, score: float) -> float:
        """Return the probability that the outcome is above a score."""
        if self.spread <= 0:
            return float(self.mean > score)
        return float(stdtr(self.freedom, (self.mean - score) / self.spread))


@dataclass(frozen=True)
class _Ridge:
    """A ridge regression with one penalty."""

    left_out: Floats  # (n,) the error of each training, had it been left out
    freedom: float
    penalty: float
    coefficients: Floats  # (r,), in the directions of the singular vectors

    @property
    def error(self) -> float:
        """The mean square of the left-out errors."""
        return float((self.left_out**2).mean())


@dataclass(frozen=True)
class _Fit:
    """The ridge regression of one set of features, with what it takes to predict by it."""

    middle: Floats  # (d,) of the features that vary, and their scale
    scale: Floats
    varies: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    singular: Floats  # (r,)
    right: Floats  # (r, d)
    mean: float  # of the scores
    ridge: _Ridge

    def predict(self, new: Floats) -> tuple[float, float]:
        """Return the score at features (all of the set's), and their leverage."""
        x = (new[self.varies] - self.middle) / self.scale  # (d,)
        inside = self.right @ x  # the new training in the directions that the known ones vary in
        outside = max(float(x @ x - inside @ inside), 0.0)
        penalty = self.ridge.penalty
        leverage = float((inside**2 / (self.singular**2 + penalty)).sum()) + outside / penalty
        return self.mean + float(inside @ self.ridge.coefficients), leverage


@dataclass(frozen=True)
class Model:
    """Ridge regressions of the same scores from several sets of features, and how much each counts."""

    fits: tuple[_Fit, ...]
    weights: Floats  # of each; together 1
    error: float  # mean square of the left-out errors of their weighted mean

    @classmethod
    def of(cls, features: Sequence[Floats], final: Floats, finished: int) -> Model:
        """Fit to trainings that have ended.

        Args:
            features: one array (n, d) for each set, all finite.
            final: (n,) their scores; n >= 3.
            finished: how many of them, the first ones, have that score; those of the others are predictions, by which
                the model's errors aren't judged.
        """
        fits = tuple(_fitted(known, final) for known in features)
        left_out = np.column_stack([fit.ridge.left_out for fit in fits])  # (n, sets)
        weights = _weights(left_out, float(final.std()))
        return cls(fits, weights, float(((left_out @ weights)[:finished] ** 2).mean()))

    def predict(self, new: Sequence[Floats]) -> Prediction:
        """Predict the score of a training under way by one array (d,) for each set of features, all finite."""
        means, leverages = np.array([fit.predict(one) for fit, one in zip(self.fits, new, strict=True)]).T
        return Prediction(
            mean=float(self.weights @ means),
            spread=math.sqrt(self.error * (1 + float(self.weights @ leverages))),
            freedom=min(fit.ridge.freedom for fit in self.fits),
        )


def _weights(left_out: Floats, deviation: float) -> Floats:
    """Return the weights (sets,), positive and together 1, whose mean has the smallest left-out errors (n, sets).

    How firmly they are held is in units of the scores' `deviation`.
    """
    count, unit = left_out.shape[1], deviation or 1.0
    rows = np.vstack([left_out, np.full((1, count), FIRMLY * unit), SLIGHTLY * unit * np.eye(count)])
    goal = np.concatenate([np.zeros(len(left_out)), [FIRMLY * unit], np.full(count, SLIGHTLY * unit / count)])
    weights, _ = nnls(rows, goal)
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def _fitted(known: Floats, final: Floats) -> _Fit:
    """Return the ridge regression of scores (n,) on features (n, d) whose penalty has the smallest left-out error."""
    middle, scale = known.mean(axis=0), known.std(axis=0)
    varies = scale > CONSTANT
    middle, scale = middle[varies], scale[varies]
    left, singular, right = np.linalg.svd((known[:, varies] - middle) / scale, full_matrices=False)
    ridges = (_ridge(left, singular, final, penalty) for penalty in PENALTIES)
    best = min(ridges, key=lambda ridge: ridge.error)
    return _Fit(middle, scale, varies, singular, right, float(final.mean()), best)


def _ridge(left: Floats, singular: Floats, final: Floats, penalty: float) -> _Ridge:
    centred = final - final.mean()
    kept = singular**2 / (singular**2 + penalty)
    along = left.T @ centred
    hat = (left**2 * kept).sum(axis=1) + 1 / len(final)  # the mean is fitted too
    return _Ridge(
        left_out=(centred - left @ (kept * along)) / np.maximum(1 - hat, CONSTANT),
        freedom=max(len(final) - 1 - float(kept.sum()), 1.0),
        penalty=float(penalty),
        coefficients=singular / (singular**2 + penalty) * along,
    )
