"""How a network's latency divides among its parts, predicted from measurements of other networks on its device.

A `Predictor` has a price for each amount that a network moves or multiplies; here its prices are applied to the amounts
of each part. The result is a prediction, only as good as the fit, whose error is given with it.
"""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass

import numpy as np
import sqlalchemy as sa

from search.store.connection.printed_commands import printed_command
from search.store.reader import LatencySource, count_rows_of_configs, latencies_of_configs
from search.store.tables import device_fit
from space.config import CondenseNetConfig
from space.errors import DeviceNotFound, InvalidSettings
from workers.latency.features import FEATURES, part_matrix
from workers.latency.predictor import Predictor
from workers.latency.record import LatencyKind, LatencyRecord
from workers.wording import counted

UNASKED_LEAST = 30  # networks from which a fit is trusted even if `devices fit` was never run; so does the forecast
LEAST = 8  # networks that any fit needs
MOST = 400  # networks to fit on: more take seconds and don't change the prices
REFIT_GROWTH = 1.1  # the factor by which the measured networks must grow before a fit is made again


@dataclass(frozen=True)
class LayerShares:
    """Predicted shares of a network's latency on one device.

    `of_parts` has one fraction for each of `space.cost.parts_of`, `of_run` is the fraction that every run takes,
    whatever the network; together they are 1.
    """

    of_parts: tuple[float, ...]
    of_run: float
    predicted_ms: float
    device: str
    runtime: str
    threads: int
    kind: LatencyKind  # of the latencies it was fitted on: measured or estimated
    networks: int  # fitted on
    median_error: float | None  # relative, by cross-validation; None where `devices fit` never recorded it
    extrapolates: str  # how the network differs from those of the fit; "" where it doesn't


@dataclass(frozen=True)
class _Fit:
    rows: int  # of latencies that it was made from
    predictor: Predictor | None  # None: too few networks
    median_error: float | None


class DeviceShares:
    """The fits of the devices that were asked for, renewed as measurements come in; the database is only read.

    Threads may share it: while one of them fits, the others wait for its fit.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._fits: dict[LatencySource, _Fit] = {}
        self._lock = threading.Lock()

    def of(self, config: CondenseNetConfig, latency: LatencyRecord) -> LayerShares:
        """Return how a network's latency on a device divides among its parts.

        Raises:
            DeviceNotFound: there is no fit of this device; the message says how to get one.
        """
        for kind in _kinds_to_try(latency.kind):
            source = LatencySource(latency.device, latency.runtime, latency.threads, kind)
            with self._lock:
                fit = self._fit(source)
            if fit.predictor is not None:
                return _shares(config, source, fit, fit.predictor)
        fit_it = ["condensery", "devices", "fit", latency.target, "--runtime", latency.runtime]
        fit_it += ["--threads", str(latency.threads)]
        raise DeviceNotFound(
            f"no fit of {latency.device} with {latency.runtime} and {counted(latency.threads, 'thread')}: run "
            f"`{printed_command(fit_it, self._engine.url)}` (--networks measures more networks for it)."
        )

    def _fit(self, source: LatencySource) -> _Fit:
        rows, recorded = count_rows_of_configs(self._engine, source), self._recorded_error(source)
        fit = self._fits.get(source)
        if fit is None:
            is_outdated = True
        elif fit.predictor is None:
            is_outdated = (fit.rows, fit.median_error) != (rows, recorded)
        else:
            is_outdated = rows > fit.rows * REFIT_GROWTH or fit.median_error != recorded
        if fit is None or is_outdated:
            fit = self._fits[source] = _Fit(rows, self._fitted(source, rows, recorded is not None), recorded)
        return fit

    def _fitted(self, source: LatencySource, rows: int, asked: bool) -> Predictor | None:
        least = LEAST if asked else UNASKED_LEAST
        networks = latencies_of_configs(self._engine, source, least=least, most=MOST) if rows >= least else []
        if len(networks) < least:
            return None
        try:
            return Predictor.fit([config for config, _ in networks], [latency_ms for _, latency_ms in networks])
        except InvalidSettings:  # too few different networks
            return None

    def _recorded_error(self, source: LatencySource) -> float | None:
        """Return the median error that the newest `devices fit` recorded, or None."""
        same = (device_fit.c[name] == value for name, value in asdict(source).items())
        query = sa.select(device_fit.c.median_error).where(*same)
        with self._engine.connect() as connection:
            return connection.scalar(query.order_by(device_fit.c.id.desc()).limit(1))


def _kinds_to_try(kind: LatencyKind) -> tuple[LatencyKind, ...]:
    """Return the kinds of latencies that a fit may be made of, the better first: estimates explain only estimates."""
    return (kind,) if kind == LatencyKind.ESTIMATED else (LatencyKind.MEASURED, LatencyKind.ESTIMATED)


def _shares(config: CondenseNetConfig, source: LatencySource, fit: _Fit, predictor: Predictor) -> LayerShares:
    prices = predictor.prices_ms()
    amounts_ms = part_matrix(config) @ np.array([prices[name] for name in FEATURES])
    total_ms = float(amounts_ms.sum())
    fractions = (amounts_ms / total_ms).tolist() if total_ms > 0 else [0.0] * len(amounts_ms)
    (prediction,) = predictor.predict([config])
    return LayerShares(
        of_parts=tuple(fractions[:-1]),
        of_run=fractions[-1],
        predicted_ms=prediction.latency_ms,
        device=source.device,
        runtime=source.runtime,
        threads=source.threads,
        kind=source.kind,
        networks=predictor.networks,
        median_error=fit.median_error,
        extrapolates=prediction.reason,
    )
