"""How good a latency predictor is: its error on networks that were left out of the fit, beside what macs alone give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from space.config import CondenseNetConfig
from space.cost import cost_of
from space.errors import InvalidSettings
from workers.latency.calibration import rank_correlation
from workers.latency.predictor import Networks, Prediction, Predictor, checked_latencies, folds_of


@dataclass(frozen=True)
class Validation:
    """How predictions compare with the latencies of `n` networks that were left out of the fit.

    Errors are |predicted / measured - 1|; `coverage_95` is the fraction inside the 95 % interval, `median_width` the
    median of half its width over the prediction. `spearman` is 0 where one side doesn't vary.
    """

    median_error: float
    p90_error: float
    max_error: float
    spearman: float
    coverage_95: float
    median_width: float
    n: int


def cross_validate(
    configs: Sequence[CondenseNetConfig], latencies_ms: Sequence[float], folds: int | None = None, seed: int = 0
) -> Validation:
    """Fit without each fold of the networks in turn and predict it.

    `folds` None leaves one network out at a time; above 64 networks it is ten folds. The seed draws the folds.

    Raises InvalidSettings as `Predictor.fit` does, and for fewer than 2 folds.
    """
    if folds is not None and folds < 2:
        raise InvalidSettings(f"a cross-validation needs at least 2 folds, but got {folds}.")
    latencies = checked_latencies(configs, latencies_ms)
    networks = Networks.of(configs)
    networks.check()
    predictions: dict[int, Prediction] = {}
    for fold in folds_of(len(networks.amounts), folds, seed):
        held = np.isin(networks.place, fold)  # all rows of a network: otherwise the fit would include it
        rest = Networks.of([configs[row] for row in np.flatnonzero(~held).tolist()])
        predictor = Predictor.fit_networks(rest, latencies[~held], seed)
        rows = np.flatnonzero(held).tolist()
        predictions |= zip(rows, predictor.predict([configs[row] for row in rows]), strict=True)
    return validation_of([predictions[row] for row in range(len(configs))], latencies.tolist())


def validation_of(predictions: Sequence[Prediction], latencies_ms: Sequence[float]) -> Validation:
    """Compare predictions with the latencies of the same networks, at least one."""
    latency = np.asarray(latencies_ms, dtype=np.float64)
    predicted = np.array([p.latency_ms for p in predictions])
    low, high = (np.array([getattr(p, f"interval_{end}_ms") for p in predictions]) for end in ("low", "high"))
    error = np.abs(predicted / latency - 1)
    return Validation(
        median_error=float(np.median(error)),
        p90_error=float(np.quantile(error, 0.9)),
        max_error=float(error.max()),
        spearman=rank_correlation(predicted, latency) or 0.0,
        coverage_95=float(np.mean((low <= latency) & (latency <= high))),
        median_width=float(np.median((high - low) / 2 / predicted)),
        n=len(latency),
    )


def macs_rank_correlation(configs: Sequence[CondenseNetConfig], latencies_ms: Sequence[float]) -> float:
    """Return Spearman's rank correlation of macs and latency; 0 where one of them doesn't vary."""
    macs = np.array([cost_of(config).macs for config in configs], dtype=np.float64)
    return rank_correlation(macs, checked_latencies(configs, latencies_ms)) or 0.0
