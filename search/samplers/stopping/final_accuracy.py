"""A learning-curve model: the deployed accuracy that a training will end with, predicted while it is under way.

Notable choices:
- A linear model in standardised features, with a Gaussian prior on its coefficients (ridge regression). A study has
  tens of finished trainings, not thousands, and the model is fitted again for every verdict.
- Its penalty, and whether the network's known facts stand beside the curve, are chosen by the error that each finished
  training would have had, had it been left out (closed form: Allen 1974, PRESS). Early in a schedule, a curve says
  little and the config much; near its end it is the other way round.
- The same error is the prediction's spread. It holds all that the model can't know: the luck of a seed as well as
  whatever isn't linear. It is larger for a network unlike those seen, by its leverage.
- With few trainings the spread itself is uncertain, so quantiles are those of Student's t.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
PENALTIES = np.geomspace(1e-3, 30.0, 8)
CONSTANT = 1e-9  # a feature that varies less than this says nothing


@dataclass(frozen=True)
class Prediction:
    """What a training is expected to end with: a scaled and shifted Student's t."""

    mean: float  # score: what the study maximises
    spread: float  # of one training's outcome, in the same
    freedom: float  # degrees of freedom

    def quantile(self, share: float) -> float:
        """Return the score that an outcome stays below with probability `share`."""
        return self.mean + self.spread * float(stdtrit(self.freedom, share))

    def above(self, score: float) -> float:
        """Return the probability that the outcome is above a score."""
        if self.spread <= 0:
            return float(self.mean > score)
        return float(stdtr(self.freedom, (self.mean - score) / self.spread))


@dataclass(frozen=True)
class _Fit:
    """A ridge regression with one penalty."""

    error: float  # mean square of the left-out errors
    freedom: float
    penalty: float
    coefficients: Floats  # (r,), in the directions of the singular vectors


def predict(features: Sequence[Floats], final: Floats, mine: Sequence[Floats]) -> Prediction | None:
    """Predict one training's final score from the best of several sets of features.

    Args:
        features: one array (n, d) for each set, of the finished trainings.
        final: (n,) their scores; n >= 3.
        mine: one array (d,) for each set, of the training in question.

    Returns:
        The prediction of the set with the smallest left-out error; None if no set can be fitted.
    """
    fitted = [_predict(known, final, new) for known, new in zip(features, mine, strict=True)]
    possible = [pair for pair in fitted if pair is not None]
    return min(possible, key=lambda pair: pair[0])[1] if possible else None


def _predict(known: Floats, final: Floats, new: Floats) -> tuple[float, Prediction] | None:
    """Return the left-out error of one set of features with its prediction; None if values aren't finite."""
    if not (np.isfinite(known).all() and np.isfinite(new).all()):
        return None
    middle, scale = known.mean(axis=0), known.std(axis=0)
    varies = scale > CONSTANT
    z = (known[:, varies] - middle[varies]) / scale[varies]  # (n, d)
    x = (new[varies] - middle[varies]) / scale[varies]  # (d,)
    left, singular, right = np.linalg.svd(z, full_matrices=False)
    fit = min((_fit(left, singular, final, penalty) for penalty in PENALTIES), key=lambda fit: fit.error)
    inside = right @ x  # the new training in the directions that the known ones vary in
    outside = max(float(x @ x - inside @ inside), 0.0)
    leverage = float((inside**2 / (singular**2 + fit.penalty)).sum()) + outside / fit.penalty
    mean = float(final.mean() + inside @ fit.coefficients)
    return fit.error, Prediction(mean, math.sqrt(fit.error * (1 + leverage)), fit.freedom)


def _fit(left: Floats, singular: Floats, final: Floats, penalty: float) -> _Fit:
    centred = final - final.mean()
    kept = singular**2 / (singular**2 + penalty)
    along = left.T @ centred
    hat = (left**2 * kept).sum(axis=1) + 1 / len(final)  # the mean is fitted too
    left_out = (centred - left @ (kept * along)) / np.maximum(1 - hat, CONSTANT)
    return _Fit(
        error=float((left_out**2).mean()),
        freedom=max(len(final) - 1 - float(kept.sum()), 1.0),
        penalty=float(penalty),
        coefficients=singular / (singular**2 + penalty) * along,
    )
