"""A Gaussian process over few noisy values: which accuracy a network has, and how sure that is.

Notable choices:
- A sum of functions of one setting each, and of one of all settings together (Duvenaud et al. 2011, "Additive Gaussian
  processes"): what a setting does whatever the others are is learnt from every training, not only from alike ones.
- Matérn 5/2 with a length for each group of features (all columns of one category are a group), so that a setting that
  doesn't matter is found not to matter.
- Lengths, scale and noise are the most probable ones under priors that grow with the number of groups, as BoTorch's
  defaults do (Hvarfner et al. 2024, "Vanilla Bayesian optimization performs great in high dimensions", section 4).
- numpy and scipy alone: at 400 values a fit takes less than a second, and nothing is carried from one fit to the next,
  so equal values give equal predictions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

Array = NDArray[np.float64]

ROOT_5 = np.sqrt(5.0)
LEAST_NOISE = 1e-4  # variance, of values scaled to 1; keeps the matrix well conditioned
STEPS = 40  # of the optimiser
FITTED = 150  # values, evenly chosen, to which lengths, scale and noise are fitted; the rest are conditioned on
LENGTH_PRIOR = (np.sqrt(2.0) - 0.5, 1.2)  # mean (beside log sqrt(groups)) and deviation of a length's logarithm
SCALE_PRIOR = (0.0, 1.0)  # of the variance's logarithm
NOISE_PRIOR = (np.log(0.01), 1.5)  # of the noise variance's logarithm
PART = 1_000  # candidates predicted at once, which bounds memory


@dataclass(frozen=True)
class _Hyper:
    """What is fitted: a length for each group, and variances: of both parts of the function, and of the noise."""

    inverse_squares: Array  # 1 / length², (groups,)
    together: float  # of the function of all settings
    alone: float  # of the sum of functions of one setting each
    noise: float

    @classmethod
    def of(cls, logs: Array) -> _Hyper:
        together, alone, noise = (float(value) for value in np.exp(logs[-3:]))
        return cls(np.exp(-2.0 * logs[:-3]), together, alone, noise + LEAST_NOISE)

    @property
    def variance(self) -> float:
        """The variance of the function."""
        return self.together + self.alone


def _matern(squares: Array) -> Array:
    """Return correlations at squared distances in units of the lengths."""
    distance = np.sqrt(squares + 1e-12)
    correlation: Array = (1 + ROOT_5 * distance + 5 / 3 * squares) * np.exp(-ROOT_5 * distance)
    return correlation


class GaussianProcess:
    """A fitted process.

    Args:
        features: (n, f), each column scaled to about 0..1.
        groups: (f,), the group of each column, numbered from 0.
        values: (n,).
    """

    def __init__(self, features: Array, groups: NDArray[np.intp], values: Array) -> None:
        self._columns = [np.flatnonzero(groups == group) for group in range(int(groups.max()) + 1)]
        self._mean, self._deviation = float(values.mean()), float(values.std()) or 1.0
        scaled = (values - self._mean) / self._deviation
        some = np.unique(np.linspace(0, len(values) - 1, FITTED).round().astype(int))
        self._hyper = _fitted(self._squares_by_group(features[some]), scaled[some])
        self._condition(features, scaled)

    @property
    def noise(self) -> float:
        """The deviation of a value from the function's."""
        return float(np.sqrt(self._hyper.noise)) * self._deviation

    def with_believed(self, features: Array) -> GaussianProcess:
        """Return the process as it will be if values at these features (m, f) come out as they are predicted."""
        believed = object.__new__(GaussianProcess)
        believed.__dict__.update(self.__dict__)
        predicted = (self.predict(features)[0] - self._mean) / self._deviation
        believed._condition(np.concatenate([self._features, features]), np.concatenate([self._values, predicted]))
        return believed

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation of the function (without noise) at features (m, f); each (m,)."""
        parts = [self._predict(features[start : start + PART]) for start in range(0, len(features), PART)]
        means, deviations = zip(*parts, strict=True)
        return np.concatenate(means), np.concatenate(deviations)

    def _predict(self, features: Array) -> tuple[Array, Array]:
        covariance = self._covariance(features, self._features)
        mean = covariance @ self._weights
        solved = solve_triangular(self._root, covariance.T, lower=True, check_finite=False)
        variance = np.maximum(self._hyper.variance - (solved**2).sum(axis=0), 1e-10)
        return mean * self._deviation + self._mean, np.sqrt(variance) * self._deviation

    def _condition(self, features: Array, values: Array) -> None:
        self._features, self._values = features, values
        covariance = self._covariance(features, features)
        covariance[np.diag_indices(len(features))] += self._hyper.noise
        self._root = cholesky(covariance, lower=True, check_finite=False)
        self._weights = cho_solve((self._root, True), values, check_finite=False)

    def _covariance(self, one: Array, other: Array) -> Array:
        """Return the covariances of the function at features (n, f) and (m, f), (n, m)."""
        squares, alone = np.zeros((len(one), len(other))), np.zeros((len(one), len(other)))
        for columns, inverse_square in zip(self._columns, self._hyper.inverse_squares, strict=True):
            # Most settings have few values, and the dear part is done once for each.
            rows, places = np.unique(one[:, columns], axis=0, return_inverse=True)
            of_group = _squares(rows, other[:, columns]) * inverse_square
            squares += of_group[places]
            alone += _matern(of_group)[places]
        covariance: Array = self._hyper.together * _matern(squares) + self._hyper.alone / len(self._columns) * alone
        return covariance

    def _squares_by_group(self, features: Array) -> Array:
        return np.stack([_squares(features[:, columns], features[:, columns]) for columns in self._columns])


def _squares(one: Array, other: Array) -> Array:
    products = one @ other.T
    squares: Array = np.maximum((one**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2.0 * products, 0.0)
    return squares


def _fitted(squares: Array, values: Array) -> _Hyper:
    """Return the most probable lengths and variances; squares (groups, n, n), values (n,) of deviation 1."""
    groups = len(squares)
    length = LENGTH_PRIOR[0] + np.log(np.sqrt(groups))
    prior = np.array([[length, LENGTH_PRIOR[1]]] * groups + [SCALE_PRIOR, SCALE_PRIOR, NOISE_PRIOR])
    bounds = [(-4.0, 7.0)] * groups + [(-4.0, 4.0), (-6.0, 4.0), (-9.0, 1.0)]
    result = minimize(
        _loss,
        prior[:, 0],
        (squares, values, prior),
        "L-BFGS-B",
        jac=True,
        bounds=bounds,
        options={"maxiter": STEPS, "maxfun": 2 * STEPS},
    )
    return _Hyper.of(result.x)


def _loss(logs: Array, squares: Array, values: Array, prior: Array) -> tuple[float, Array]:
    """Return minus the log of (likelihood × prior) and its gradient, at the logs of lengths and variances."""
    hyper, size = _Hyper.of(logs), len(values)
    scaled = squares * hyper.inverse_squares[:, None, None]
    total = scaled.sum(axis=0)
    together, alone = hyper.together * _matern(total), hyper.alone * _matern(scaled).mean(axis=0)
    covariance = together + alone
    covariance[np.diag_indices(size)] += hyper.noise
    try:
        root = cholesky(covariance, lower=True, check_finite=False)
    except LinAlgError:
        return 1e9, np.zeros_like(logs)
    weights = cho_solve((root, True), values, check_finite=False)
    outer = cho_solve((root, True), np.eye(size), check_finite=False) - np.outer(weights, weights)
    off = (logs - prior[:, 0]) / prior[:, 1]
    loss = 0.5 * values @ weights + np.log(np.diag(root)).sum() + 0.5 * (off**2).sum()
    slopes = hyper.together * _slope(total) + hyper.alone / len(squares) * _slope(scaled)
    gradient = off / prior[:, 1]
    gradient[:-3] += 0.5 * (scaled * slopes * outer).sum(axis=(1, 2))
    gradient[-3] += 0.5 * (outer * together).sum()
    gradient[-2] += 0.5 * (outer * alone).sum()
    gradient[-1] += 0.5 * np.trace(outer) * (hyper.noise - LEAST_NOISE)
    return float(loss), gradient


def _slope(squares: Array) -> Array:
    """Return what a correlation gains with the length's logarithm, for each of the squared distance."""
    distance = np.sqrt(squares + 1e-12)
    slope: Array = 5 / 3 * (1 + ROOT_5 * distance) * np.exp(-ROOT_5 * distance)
    return slope
