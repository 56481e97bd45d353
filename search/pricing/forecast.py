"""Latencies predicted from those measured before, so that a config surely over a limit needs no measurement.

Fitted on every config that this database has priced on the same device, runtime and thread count, over all studies.
"""

from __future__ import annotations

import sqlalchemy as sa

from search.store.connection.patience import is_away
from search.store.reader import LatencySource, count_rows_of_configs, latencies_of_configs
from space.config import CondenseNetConfig
from workers.latency.measurement import Measurement
from workers.latency.predictor import Prediction, Predictor
from workers.latency.record import LatencyKind

ROWS_LEAST = 30  # configs measured before anything is predicted
REFIT_GROWTH = 1.1  # the factor by which the measured configs must grow before the model is fitted again


class FittedForecast:
    """Predicts latencies on one device; returns None while too few configs are measured."""

    def __init__(
        self, engine: sa.Engine, device: str, runtime: str, threads: int, kind: LatencyKind = LatencyKind.MEASURED
    ) -> None:
        self._engine, self._source = engine, LatencySource(device, runtime, threads, kind)
        self._fitted_on = self._rows = 0
        self._predictor: Predictor | None = None

    def over(self, config: CondenseNetConfig, limit_ms: float) -> Measurement | None:
        """Return the prediction when it is surely over the limit: by twice its 95 % interval (on a log scale)."""
        predictor = self._fitted()
        if predictor is None:
            return None
        (prediction,) = predictor.predict([config])
        surely_ms = prediction.latency_ms * (prediction.interval_low_ms / prediction.latency_ms) ** 2
        if prediction.extrapolates or surely_ms <= limit_ms:
            return None
        return self._as_measurement(prediction)

    def _fitted(self) -> Predictor | None:
        try:
            rows = count_rows_of_configs(self._engine, self._source)
            if rows == self._rows:  # this runs for every candidate, and reading all rows takes long
                return self._predictor
            networks = latencies_of_configs(self._engine, self._source, least=ROWS_LEAST)
        except sa.exc.DBAPIError as error:
            if not is_away(error):
                raise
            return self._predictor  # a prediction only saves time: it isn't worth waiting for the database
        self._rows = rows
        if len(networks) < self._fitted_on:  # a replaced runtime makes the latencies of the former one obsolete
            self._predictor, self._fitted_on = None, 0
        if len(networks) >= max(ROWS_LEAST, self._fitted_on * REFIT_GROWTH):
            configs, latencies_ms = zip(*networks, strict=True)
            self._predictor, self._fitted_on = Predictor.fit(configs, latencies_ms), len(networks)
        return self._predictor

    def _as_measurement(self, prediction: Prediction) -> Measurement:
        return Measurement(
            kind=LatencyKind.PREDICTED,
            device=self._source.device,
            runtime=self._source.runtime,
            runtime_version="",
            threads=self._source.threads,
            policy="model",
            median_ms=prediction.latency_ms,
            p90_ms=None,
            interval_low_ms=prediction.interval_low_ms,
            interval_high_ms=prediction.interval_high_ms,
            samples_ms=(),
            stride=1,
            conditions={"fitted_on": self._fitted_on, "fitted_kind": self._source.kind},
            anchor_drift=0.0,
            steady=True,
            extrapolates=prediction.extrapolates,
        )
