"""Where a network's latency goes, part by part: predicted by what measurements on its device taught.

A `Predictor` prices the amounts that a network moves and multiplies; here its prices are laid on the amounts of each
part. What comes out is a prediction, and only as good as the fit: how good that is stands beside it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from search.store.reader import count_rows_of_configs, latencies_of_configs
from search.store.tables import device_fit
from space.config import CondenseNetConfig
from space.errors import DeviceNotFound, InvalidSettings
from workers.latency.features import FEATURES, part_matrix
from workers.latency.predictor import Predictor
from workers.latency.record import LatencyRecord

UNASKED_LEAST = 30  # networks from which a fit is trusted although nobody ran `devices fit`, as by the forecast
LEAST = 8  # networks below which there is none
MOST = 400  # networks fitted on: more of them cost seconds and don't change the prices
REFIT_GROWTH = 1.1

Key = tuple[str, str, int, str]  # device, runtime, threads, kind


@dataclass(frozen=True)
class LayerShares:
    """Predicted shares of a network's latency on one device.

    `of_parts` has one fraction for each of `space.cost.parts_of`, `of_run` is what a run takes whatever the network;
    together they are 1.
    """

    of_parts: tuple[float, ...]
    of_run: float
    predicted_ms: float
    device: str
    runtime: str
    threads: int
    kind: str  # of the latencies it was fitted on: measured or estimated
    networks: int  # fitted on
    median_error: float | None  # relative, by cross-validation; None where `devices fit` never recorded it
    extrapolates: str  # in what the network is unlike those fitted; "" where it is like them


@dataclass(frozen=True)
class _Fit:
    rows: int  # that were looked at
    predictor: Predictor | None  # None: too few networks
    median_error: float | None


class DeviceShares:
    """Keeps a fit for each device it was asked for, and renews it as measurements come in; the database is only read.

    Threads may share it; while one fits, the others wait, and find the fit made.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._fits: dict[Key, _Fit] = {}
        self._lock = threading.Lock()

    def of(self, config: CondenseNetConfig, latency: LatencyRecord) -> LayerShares:
        """Return the shares of a network on the device that a latency of it is of.

        Raises:
            DeviceNotFound: there is no fit of this device; the message says how to get one.
        """
        for kind in ("estimated",) if latency.kind == "estimated" else ("measured", "estimated"):
            key = (latency.device, latency.runtime, latency.threads, kind)
            with self._lock:
                fit = self._fit(key)
            if fit.predictor is not None:
                return _shares(config, key, fit, fit.predictor)
        raise DeviceNotFound(
            f"no fit of {latency.device} with {latency.runtime} and {latency.threads} thread(s): run "
            f"`condensery devices fit {latency.target}` (--networks measures more networks for it)."
        )

    def _fit(self, key: Key) -> _Fit:
        rows, recorded, known = (
            count_rows_of_configs(self._engine, *key),
            self._recorded_error(key),
            self._fits.get(key),
        )
        if known is None or known.predictor is None:
            news = known is None or (known.rows, known.median_error) != (rows, recorded)
        else:
            news = rows > known.rows * REFIT_GROWTH or known.median_error != recorded
        if known is None or news:
            known = self._fits[key] = _Fit(rows, self._fitted(key, rows, recorded is not None), recorded)
        return known

    def _fitted(self, key: Key, rows: int, asked: bool) -> Predictor | None:
        least = LEAST if asked else UNASKED_LEAST
        networks = latencies_of_configs(self._engine, *key, least=least, most=MOST) if rows >= least else []
        if len(networks) < least:
            return None
        try:
            return Predictor.fit([config for config, _ in networks], [latency_ms for _, latency_ms in networks])
        except InvalidSettings:  # too few that differ
            return None

    def _recorded_error(self, key: Key) -> float | None:
        """Return the median error that the newest `devices fit` recorded, or None."""
        same = zip(("device", "runtime", "threads", "kind"), key, strict=True)
        query = sa.select(device_fit.c.median_error).where(*(device_fit.c[name] == value for name, value in same))
        with self._engine.connect() as connection:
            return connection.scalar(query.order_by(device_fit.c.id.desc()).limit(1))


def _shares(config: CondenseNetConfig, key: Key, fit: _Fit, predictor: Predictor) -> LayerShares:
    prices = predictor.prices_ms()
    amounts_ms = part_matrix(config) @ np.array([prices[name] for name in FEATURES])
    total_ms = float(amounts_ms.sum())
    fractions = (amounts_ms / total_ms).tolist() if total_ms > 0 else [0.0] * len(amounts_ms)
    (seen,) = predictor.predict([config])
    device, runtime, threads, kind = key
    return LayerShares(
        of_parts=tuple(fractions[:-1]),
        of_run=fractions[-1],
        predicted_ms=seen.latency_ms,
        device=device,
        runtime=runtime,
        threads=threads,
        kind=kind,
        networks=predictor.networks,
        median_error=fit.median_error,
        extrapolates=seen.why,
    )
