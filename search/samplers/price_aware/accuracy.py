"""What is believed of candidates' accuracies: by a Gaussian process of accuracies as they are, or of their ranks.

Notable choices:
- Where some networks collapse to chance and the good ones differ by little, a process of the accuracies sees hardly
  more than the collapse. A process of their ranks (each value's normal score, as in Salinas et al. 2020, "A
  quantile-based approach for hyperparameter transfer learning") tells the good ones apart. Where accuracies are spread
  evenly, ranks only lose how far apart two of them are.
- So ranks are believed where the worst accuracy is an outlier by Tukey's rule: it lies below the lower quartile by more
  than 1.5 times what lies between the quartiles.
- What is believed of a rank is turned back into accuracies by straight lines between those that were seen. That is far
  from normal, and how far an accuracy is expected to exceed a level still has a closed form.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from search.samplers.price_aware.gaussian_process import GaussianProcess
from search.samplers.price_aware.improvement import expected_improvement

Array = NDArray[np.float64]

FENCE = 1.5  # times what lies between the quartiles: how far below the lower one an outlier begins
LEAST = 3  # different accuracies without which ranks say nothing
BEYOND = 4  # the best accuracies go on as steeply as the best one of so many of them do


@dataclass(frozen=True)
class Curve:
    """Accuracies by scores: straight lines between knots, flat before the first, a given slope beyond the last."""

    scores: Array  # (k,), ascending
    accuracies: Array  # (k,), ascending
    beyond: float  # slope

    @classmethod
    def of(cls, scores: Array, accuracies: Array) -> Curve:
        """Return the curve through pairs, (n,) each, of which equal accuracies have equal scores."""
        accuracies, places = np.unique(accuracies, return_index=True)
        scores, before = scores[places], -max(2, len(accuracies) // BEYOND)
        slope = (accuracies[-1] - accuracies[before]) / (scores[-1] - scores[before])
        return cls(scores, accuracies, float(slope))

    def __call__(self, scores: Array) -> Array:
        """Return the accuracies of scores, of any shape."""
        over = np.maximum(scores - self.scores[-1], 0.0)
        accuracies: Array = np.interp(scores, self.scores, self.accuracies) + self.beyond * over
        return accuracies

    def score_of(self, accuracies: Array) -> Array:
        """Return the scores of accuracies; the first knot's of what is below it."""
        over = np.maximum(accuracies - self.accuracies[-1], 0.0) / self.beyond
        scores: Array = np.interp(accuracies, self.accuracies, self.scores) + over
        return scores

    def improvement(self, mean: Array, deviation: Array, levels: Array) -> Array:
        """Return E[max(accuracy - level, 0)] where scores are normal, (m, levels).

        Each line of the curve adds its slope times what the score is expected to gain along it.
        """
        at = self.score_of(levels)
        knots = np.unique(np.concatenate([self.scores, at]))  # ascending; the last one begins the line without an end
        slopes = np.append(np.diff(self(knots)) / np.diff(knots), self.beyond)
        excess = expected_improvement(mean[:, None], deviation[:, None], knots)
        along = slopes * (excess - np.concatenate([excess[:, 1:], np.zeros((len(mean), 1))], axis=1))
        from_knot = np.cumsum(along[:, ::-1], axis=1)[:, ::-1]
        below = np.maximum(self.accuracies[0] - levels, 0.0)  # surely gained: nothing is believed below the first knot
        improvement: Array = from_knot[:, np.searchsorted(knots, at)] + below
        return improvement


@dataclass(frozen=True)
class Believed:
    """What is believed of the accuracies of candidates, (m,)."""

    scores: Array  # the mean of what is normal: accuracies as they are or, if there is a `curve`, of their scores
    deviations: Array  # of that mean
    noise: float  # what a training adds to it
    curve: Curve | None = None

    @cached_property
    def median(self) -> Array:
        """The accuracies that training them reaches or exceeds as likely as not, (m,).

        Where a network may collapse, the mean lies where none ever ends: between the good ones and chance.
        """
        return self.scores if self.curve is None else self.curve(self.scores)

    @cached_property
    def spread(self) -> Array:
        """Half of what two thirds of trainings of them would lie within, (m,): the deviation where that is normal."""
        off = np.hypot(self.deviations, self.noise)
        if self.curve is None:
            return off
        return (self.curve(self.scores + off) - self.curve(self.scores - off)) / 2.0

    def improvement(self, levels: Array) -> Array:
        """Return how far each is expected to exceed each of some accuracies, (m, levels)."""
        if self.curve is None:
            return expected_improvement(self.scores[:, None], self.deviations[:, None], levels)
        return self.curve.improvement(self.scores, self.deviations, levels)

    def of(self, places: NDArray[np.intp]) -> Believed:
        """Return what is believed of some of them."""
        return replace(self, scores=self.scores[places], deviations=self.deviations[places])

    def __add__(self, more: Believed) -> Believed:
        """Return what is believed of these and then of more, by the same model."""
        scores, deviations = (
            np.concatenate([getattr(self, name), getattr(more, name)]) for name in ("scores", "deviations")
        )
        return replace(self, scores=scores, deviations=deviations)


@dataclass(frozen=True)
class AccuracyModel:
    """A process that has seen trainings, and how its values are read as accuracies."""

    process: GaussianProcess
    curve: Curve | None = None

    @classmethod
    def fitted(cls, features: Array, groups: NDArray[np.intp], accuracies: Array) -> AccuracyModel:
        """Return the model of trainings, (n, f) and (n,); `groups` as in `GaussianProcess`."""
        if _collapsed(accuracies):
            return cls.of_ranks(features, groups, accuracies)
        return cls(GaussianProcess(features, groups, accuracies))

    @classmethod
    def of_ranks(cls, features: Array, groups: NDArray[np.intp], accuracies: Array) -> AccuracyModel:
        """Return the model of their ranks; at least two accuracies must differ."""
        scores = ndtri((rankdata(accuracies) - 0.5) / len(accuracies))
        return cls(GaussianProcess(features, groups, scores), Curve.of(scores, accuracies))

    def with_believed(self, features: Array) -> AccuracyModel:
        """Return the model as it will be if trainings at these features (m, f) come out as they are predicted."""
        return replace(self, process=self.process.with_believed(features))

    def predict(self, features: Array) -> Believed:
        """Return what is believed of candidates with these features, (m, f)."""
        return Believed(*self.process.predict(features), self.process.noise, self.curve)


def _collapsed(accuracies: Array) -> bool:
    """Whether the worst accuracy is an outlier (Tukey 1977, "Exploratory data analysis", chapter 2)."""
    low, high = np.quantile(accuracies, [0.25, 0.75])
    return bool(accuracies.min() < low - FENCE * (high - low)) and len(np.unique(accuracies)) >= LEAST
