"""Predicted latency: how long a CondenseNet takes on a device, learned from a few dozen measured networks.

An operator's time is nearly linear in what it moves and multiplies. `workers.latency.features` adds up those amounts
over a network, and a `Predictor` finds a price >= 0 for each (non-negative least squares on relative error). The
accuracy comes from the amounts: a Gaussian process, in place of the prices or on their residuals, does no better.

Notable choices:
- Rows of equal networks are merged to their median; rows that no prices explain are set aside and named.
- The interval comes from the errors on networks left out of the fit; it is wider for a network unlike the fitted ones.
- No predictor is saved: fitting takes milliseconds, so it is fitted again from its data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.special import stdtrit

from space.config import CondenseNetConfig
from space.cost import cost_of
from space.errors import InvalidSettings
from workers.latency.features import FEATURES, feature_matrix

Array = NDArray[np.float64]

LEAST_NETWORKS = 8
RANGE_SLACK = 1.25  # a network this many times larger or smaller than the fitted ones still counts as like them
OUTSIDE_STRETCH = 2.0  # how much wider an interval gets outside

_OUTLIER = math.log(1.5)  # relative error from which a row may be set aside
_OUTLIER_SPREADS = 6.0  # and it must be this many robust standard deviations
_OUTLIERS_MOST = 0.2  # of the rows; with more of them it is the model that is wrong
_RIDGE = 0.1  # prior on the prices, for how unlike a network is
_LEAST_SPREAD = 0.002  # relative error: no device's latency repeats better than this
_LEAVE_ONE_OUT_UP_TO = 64  # networks; above, ten folds say how far predictions are off


@dataclass(frozen=True)
class Prediction:
    """A predicted latency in ms; `interval_low_ms <= latency_ms <= interval_high_ms` is its 95 % interval.

    `extrapolates` says that the network is unlike the fitted ones, and `reason` says in which respect ("" otherwise).
    """

    latency_ms: float
    interval_low_ms: float
    interval_high_ms: float
    extrapolates: bool
    reason: str


class Predictor:
    """The prices of `FEATURES` on one device, and the error of predictions by them; `fit` makes it.

    `networks` is how many different networks it was fitted on, `set_aside` which rows given to `fit` were not used
    because their latency is unlike all others (a disturbed measurement, or a wrong one).
    """

    def __init__(self, prices: Array, error: _Error, span: _Span, networks: int, set_aside: tuple[int, ...]) -> None:
        self._prices = prices  # ms, by feature
        self._error = error
        self._span = span
        self.networks = networks
        self.set_aside = set_aside

    @classmethod
    def fit(cls, configs: Sequence[CondenseNetConfig], latencies_ms: Sequence[float], seed: int = 0) -> Predictor:
        """Fit on networks and their latencies in ms, one each; equal rows and seed give an equal predictor.

        Rows of the same network count once, with their median. The seed draws the folds where there are many rows.

        Raises InvalidSettings: not one latency per network, one that is not finite and above 0, or fewer than 8
        different networks.
        """
        latencies = checked_latencies(configs, latencies_ms)
        networks = Networks.of(configs)
        networks.check()
        return cls.fit_networks(networks, latencies, seed)

    @classmethod
    def fit_networks(cls, networks: Networks, latencies: Array, seed: int) -> Predictor:
        """Fit on any number of networks that is at least 2."""
        merged = networks.medians(latencies)
        kept = _explained(networks.amounts, merged)
        amounts, merged = networks.amounts[kept], merged[kept]
        prices = _priced(amounts, merged)
        span = _Span.of([networks.configs[row] for row in networks.first[kept].tolist()])
        set_aside = tuple(np.flatnonzero(~kept[networks.place]).tolist())
        return cls(prices, _Error.of(amounts, merged, prices, seed), span, len(amounts), set_aside)

    def predict(self, configs: Sequence[CondenseNetConfig]) -> list[Prediction]:
        """Predict the latency of each network in ms, in order."""
        rows = feature_matrix(configs)
        latencies = np.maximum(rows @ self._prices, self._error.least_ms)
        margins = self._error.margins(rows, latencies)
        predictions = []
        for config, latency, margin in zip(configs, latencies.tolist(), margins.tolist(), strict=True):
            beyond, reason = self._span.outside(config)
            factor = math.exp(min(margin * (OUTSIDE_STRETCH + math.log2(beyond) if reason else 1.0), 50.0))
            predictions.append(Prediction(latency, latency / factor, latency * factor, bool(reason), reason))
        return predictions

    def prices_ms(self) -> dict[str, float]:
        """Return the price in ms of one unit of each feature."""
        return dict(zip(FEATURES, self._prices.tolist(), strict=True))


@dataclass(frozen=True)
class Networks:
    """The rows given, and the different networks among them (by their amounts)."""

    configs: Sequence[CondenseNetConfig]  # by row
    place: NDArray[np.int64]  # (rows,): the network of each row
    first: NDArray[np.int64]  # (networks,): a row of each network
    amounts: Array  # (networks, features)

    @classmethod
    def of(cls, configs: Sequence[CondenseNetConfig]) -> Networks:
        """Tell the different networks apart, one row each."""
        amounts, first, place = np.unique(feature_matrix(configs), axis=0, return_index=True, return_inverse=True)
        return cls(configs, place.reshape(-1), first, amounts)

    def check(self) -> None:
        """Raise InvalidSettings when there are too few."""
        if len(self.amounts) < LEAST_NETWORKS:
            raise InvalidSettings(
                f"a predictor needs at least {LEAST_NETWORKS} different networks with their latencies, but got "
                f"{len(self.amounts)} (in {len(self.place)} rows); measure more."
            )

    def medians(self, latencies: Array) -> Array:
        """Return one latency of each network: (networks,)."""
        order = np.argsort(self.place, kind="stable")
        ends = np.cumsum(np.bincount(self.place))[:-1]
        return np.array([np.median(part) for part in np.split(latencies[order], ends)])


def checked_latencies(configs: Sequence[CondenseNetConfig], latencies_ms: Sequence[float]) -> Array:
    """Return the latencies as (rows,); raise InvalidSettings unless each network has one that is finite and above 0."""
    latencies = np.asarray(latencies_ms, dtype=np.float64)
    if latencies.shape != (len(configs),):
        raise InvalidSettings(
            f"there must be one latency per network, but got {latencies.size} latencies for {len(configs)} networks."
        )
    wrong = np.flatnonzero(~(np.isfinite(latencies) & (latencies > 0)))
    if wrong.size:
        raise InvalidSettings(
            f"a latency must be finite and > 0 ms, but row {wrong[0]} has {latencies[wrong[0]]}; leave it out."
        )
    return latencies


def _priced(rows: Array, latencies: Array, weights: Array | None = None) -> Array:
    """Return the prices >= 0 with the least squared relative error: (features,), in ms."""
    relative = rows / latencies[:, None]  # (networks, features)
    scale = _scale(relative)
    weight = np.ones(len(rows)) if weights is None else np.sqrt(weights)
    prices: Array = nnls(relative / scale * weight[:, None], weight, maxiter=50 * len(scale))[0] / scale
    return prices


def _scale(relative: Array) -> Array:
    """Return the divisor that makes each feature's mean 1; it is 1 for a feature that no network has."""
    mean = relative.mean(axis=0, dtype=np.float64)
    scale: Array = np.where(mean > 0, mean, 1.0)
    return scale


def _explained(rows: Array, latencies: Array) -> NDArray[np.bool_]:
    """Return which rows the prices of least absolute error explain; all of them if too many would be set aside."""
    weights = np.ones(len(rows))
    for _ in range(20):  # reweighting turns squared relative errors into absolute errors of the logarithm
        predicted = rows @ _priced(rows, latencies, weights)
        off = np.abs(_log_ratio(predicted, latencies))
        weights = np.maximum(off, 0.01) / np.maximum(np.abs(predicted / latencies - 1), 0.01) ** 2
    spread = 1.4826 * float(np.median(off))
    kept = off <= max(_OUTLIER, _OUTLIER_SPREADS * spread)
    if len(rows) - kept.sum() > _OUTLIERS_MOST * len(rows) or kept.sum() < LEAST_NETWORKS:
        return np.ones(len(rows), dtype=np.bool_)
    return kept


def _log_ratio(predicted: Array, latencies: Array) -> Array:
    """Return log(latency / prediction); a prediction of nothing counts as a thousandth."""
    ratio: Array = np.log(latencies / np.maximum(predicted, latencies / 1000))
    return ratio


@dataclass(frozen=True)
class _Error:
    """The error of predictions, by how unlike the fitted ones a network is: its leverage, with a prior on prices."""

    spread: float  # standard deviation of log(latency / prediction) at no leverage
    freedom: int
    scale: Array  # (features,)
    inverse: Array  # (features, features)
    least_ms: float

    @classmethod
    def of(cls, rows: Array, latencies: Array, prices: Array, seed: int) -> _Error:
        """Learn it from predictions for networks left out of the fit."""
        count = len(rows)
        left_out = np.empty(count)
        for fold in folds_of(count, None, seed):
            rest = np.delete(np.arange(count), fold)
            left_out[fold] = _log_ratio(rows[fold] @ _priced(rows[rest], latencies[rest]), latencies[fold])
        relative = rows / latencies[:, None]
        scale = _scale(relative)
        gram = (relative / scale).T @ (relative / scale)
        inverse = np.asarray(np.linalg.inv(gram + _RIDGE * np.eye(len(scale))), dtype=np.float64)
        leverage = np.einsum("nf,fg,ng->n", relative / scale, inverse, relative / scale)
        leverage = leverage / (1 - leverage)  # as seen from the others
        plain = np.sort(np.abs(left_out) / np.sqrt(1 + leverage))  # as if without leverage
        by_quantile = plain[min(count, math.ceil(0.95 * (count + 1))) - 1] / float(stdtrit(count, 0.975))
        spread = max(math.sqrt(float(np.mean(plain**2))), float(by_quantile), _LEAST_SPREAD)  # errors have heavy tails
        return cls(spread, count, scale, inverse, float(latencies.min()) / 1000)

    def margins(self, rows: Array, latencies: Array) -> Array:
        """Return the half width of the 95 % interval of log(latency): (networks,)."""
        relative = rows / latencies[:, None] / self.scale
        leverage = np.einsum("nf,fg,ng->n", relative, self.inverse, relative)
        margins: Array = float(stdtrit(self.freedom, 0.975)) * self.spread * np.sqrt(1 + leverage)
        return margins


def folds_of(count: int, folds: int | None, seed: int) -> list[NDArray[np.int64]]:
    """Return the numbers in each fold, drawn at random; None: one at a time, or ten folds where there are many."""
    if folds is None:
        folds = count if count <= _LEAVE_ONE_OUT_UP_TO else 10
    order = np.random.default_rng(seed).permutation(count)
    return [np.sort(fold) for fold in np.array_split(order, min(folds, count))]


@dataclass(frozen=True)
class _Span:
    """The range of the fitted networks."""

    ranges: dict[str, tuple[float, float]]
    groups: frozenset[tuple[str, int]]

    @classmethod
    def of(cls, configs: Sequence[CondenseNetConfig]) -> _Span:
        amounts = [_amounts(config) for config in configs]
        ranges = {name: (min(a[name] for a in amounts), max(a[name] for a in amounts)) for name in amounts[0]}
        return cls(ranges, frozenset(kind for config in configs for kind in _kinds(config)))

    def outside(self, config: CondenseNetConfig) -> tuple[float, str]:
        """Return how many times beyond the ranges a network is, and in what ("": it is inside)."""
        beyond, reasons = 1.0, []
        for name, value in _amounts(config).items():
            low, high = self.ranges[name]
            times = max(value / high, low / value)
            if times > RANGE_SLACK:
                beyond = max(beyond, times)
                reasons.append(f"{name} {value:.4g} (fitted on {low:.4g} to {high:.4g})")
        reasons += [f"{name} {number} (fitted on none)" for name, number in _kinds(config) - self.groups]
        return beyond, "; ".join(sorted(reasons))


def _amounts(config: CondenseNetConfig) -> dict[str, float]:
    return {
        "macs": cost_of(config).macs,
        "layers": len(config.layer_shapes),
        "positions": config.layer_shapes[0].positions,
        "features": config.num_features,
    }


def _kinds(config: CondenseNetConfig) -> set[tuple[str, int]]:
    return {("groups", config.groups), ("groups_3x3", config.conv3x3_groups)}
