"""A Gaussian process over few noisy values: which accuracy a network has, and how sure that is.

Notable choices:
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
    """What is fitted: a length for each group, the variance of the function and of the noise."""

    inverse_squares: Array  # 1 / length², (groups,)
    variance: float
    noise: float

    @classmethod
    def of(cls, logs: Array) -> _Hyper:
        return cls(np.exp(-2.0 * logs[:-2]), float(np.exp(logs[-2])), float(np.exp(logs[-1])) + LEAST_NOISE)

    def kernel(self, squares: Array) -> Array:
        """Return covariances for squared distances in units of the lengths."""
        distance = np.sqrt(squares + 1e-12)
        covariance: Array = self.variance * (1 + ROOT_5 * distance + 5 / 3 * squares) * np.exp(-ROOT_5 * distance)
        return covariance


class GaussianProcess:
    """A fitted process.

    Args:
        features: (n, f), each column scaled to about 0..1.
        groups: (f,), the group of each column, numbered from 0.
        values: (n,).
    """

    def __init__(self, features: Array, groups: NDArray[np.intp], values: Array) -> None:
        self._groups, self._count = groups, int(groups.max()) + 1
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
        covariance = self._hyper.kernel(self._distances(features, self._features))
        mean = covariance @ self._weights
        solved = solve_triangular(self._root, covariance.T, lower=True, check_finite=False)
        variance = np.maximum(self._hyper.variance - (solved**2).sum(axis=0), 1e-10)
        return mean * self._deviation + self._mean, np.sqrt(variance) * self._deviation

    def _condition(self, features: Array, values: Array) -> None:
        self._features, self._values = features, values
        covariance = self._hyper.kernel(self._distances(features, features))
        covariance[np.diag_indices(len(features))] += self._hyper.noise
        self._root = cholesky(covariance, lower=True, check_finite=False)
        self._weights = cho_solve((self._root, True), values, check_finite=False)

    def _distances(self, one: Array, other: Array) -> Array:
        """Return squared distances in units of the lengths, (n, m)."""
        factors = np.sqrt(self._hyper.inverse_squares)[self._groups]
        return _squares(one * factors, other * factors)

    def _squares_by_group(self, features: Array) -> Array:
        columns = [features[:, self._groups == group] for group in range(self._count)]
        return np.stack([_squares(column, column) for column in columns])


def _squares(one: Array, other: Array) -> Array:
    products = one @ other.T
    squares: Array = np.maximum((one**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2.0 * products, 0.0)
    return squares


def _fitted(squares: Array, values: Array) -> _Hyper:
    """Return the most probable lengths, variance and noise; squares (groups, n, n), values (n,) of deviation 1."""
    groups = len(squares)
    length = LENGTH_PRIOR[0] + np.log(np.sqrt(groups))
    prior = np.array([[length, LENGTH_PRIOR[1]]] * groups + [SCALE_PRIOR, NOISE_PRIOR])
    bounds = [(-4.0, 7.0)] * groups + [(-4.0, 4.0), (-9.0, 1.0)]
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
    """Return minus the log of (likelihood × prior) and its gradient, at the logs of lengths, variance and noise."""
    hyper, size = _Hyper.of(logs), len(values)
    total = np.tensordot(hyper.inverse_squares, squares, 1)
    distance = np.sqrt(total + 1e-12)
    decay = np.exp(-ROOT_5 * distance)
    covariance = hyper.variance * (1 + ROOT_5 * distance + 5 / 3 * total) * decay
    covariance[np.diag_indices(size)] += hyper.noise
    try:
        root = cholesky(covariance, lower=True, check_finite=False)
    except LinAlgError:
        return 1e9, np.zeros_like(logs)
    weights = cho_solve((root, True), values, check_finite=False)
    inverse = cho_solve((root, True), np.eye(size), check_finite=False)
    outer = inverse - np.outer(weights, weights)
    off = (logs - prior[:, 0]) / prior[:, 1]
    loss = 0.5 * values @ weights + np.log(np.diag(root)).sum() + 0.5 * (off**2).sum()
    slope = 0.5 * outer * (hyper.variance * 5 / 3 * (1 + ROOT_5 * distance) * decay)
    trace = float(np.trace(outer))
    gradient = off / prior[:, 1]
    gradient[:-2] += np.tensordot(squares, slope, 2) * hyper.inverse_squares
    gradient[-2] += 0.5 * ((outer * covariance).sum() - hyper.noise * trace)
    gradient[-1] += 0.5 * trace * (hyper.noise - LEAST_NOISE)
    return float(loss), gradient
