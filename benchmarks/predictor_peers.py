"""The peers of the latency predictor: each predicts the latencies of `wanted` networks from those of `known` ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from space.config import CondenseNetConfig
from space.cost import cost_of
from workers.latency.features import feature_matrix
from workers.latency.predictor import Predictor

Array = NDArray[np.float64]
Peer = Callable[[list[CondenseNetConfig], Array, list[CondenseNetConfig]], Array]
SEED = 0


def relative_prices(rows: Array, latencies: Array, new: Array) -> Array:
    scale = rows.max(axis=0)
    prices, _ = nnls(rows / scale / latencies[:, None], np.ones(len(rows)))
    return np.asarray(new / scale @ prices, dtype=np.float64)


def from_macs(known: list[CondenseNetConfig], latencies: Array, wanted: list[CondenseNetConfig]) -> Array:
    def rows(configs: list[CondenseNetConfig]) -> Array:
        return np.array([[1.0, cost_of(config).macs] for config in configs])

    return relative_prices(rows(known), latencies, rows(wanted))


def gaussian_process(describe: Callable[[list[CondenseNetConfig]], Array]) -> Peer:
    """Return a Gaussian process on the logarithm of the latency, over some description of a network."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
    from sklearn.preprocessing import StandardScaler

    def peer(known: list[CondenseNetConfig], latencies: Array, wanted: list[CondenseNetConfig]) -> Array:
        scaler = StandardScaler().fit(describe(known))
        kernel = ConstantKernel(1.0, (1e-2, 1e2)) * RBF(3.0, (0.5, 100.0)) + WhiteKernel(0.1, (1e-3, 1.0))
        model = GaussianProcessRegressor(kernel, normalize_y=True, random_state=SEED)
        model.fit(scaler.transform(describe(known)), np.log(latencies))
        return np.asarray(np.exp(model.predict(scaler.transform(describe(wanted)))), dtype=np.float64)

    return peer


def with_process_on_the_rest(
    known: list[CondenseNetConfig], latencies: Array, wanted: list[CondenseNetConfig]
) -> Array:
    """Predict with the predictor, and what it leaves over with a Gaussian process."""

    def describe(configs: list[CondenseNetConfig]) -> Array:
        return np.log1p(feature_matrix(configs))

    predictor = Predictor.fit(known, latencies.tolist(), SEED)
    ours, new = (np.array([p.latency_ms for p in predictor.predict(configs)]) for configs in (known, wanted))
    return new * gaussian_process(describe)(known, latencies / ours, wanted)


def peers() -> dict[str, Peer]:
    return {
        "macs and a constant": from_macs,
        "Gaussian process on log features": gaussian_process(lambda configs: np.log1p(feature_matrix(configs))),
        "ours, a Gaussian process on the rest": with_process_on_the_rest,
    }
