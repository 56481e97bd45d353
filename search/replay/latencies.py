"""A table's latencies as a probe: what each network was once measured or estimated to take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from search.pricing.pricer import NotRecorded
from search.replay.table import ReplayTable
from space.config import CondenseNetConfig
from workers.latency.measurement import FailedMeasurement, Measurement, MeasurementStopped, never
from workers.latency.record import REPLAYED


class RecordedLatencies:
    """Knows the latencies of the networks that a table has a training of, under one runtime and on the table's device.

    Any other network is refused: neither its accuracy nor its latency is known.
    """

    def __init__(self, table: ReplayTable, runtime: str, seed: int) -> None:
        self._table, self.runtime, self._seed = table, runtime, seed
        self.device = table.latency.device

    def measure(
        self, models: Sequence[Path], stop: Callable[[], bool] = never
    ) -> list[Measurement | FailedMeasurement]:
        """Return a failure for each: a table can't measure files; see `LatencyProbe`."""
        if stop():
            raise MeasurementStopped
        return [FailedMeasurement("", f"the table {self._table.name} can't measure files") for _ in models]

    def of(self, config: CondenseNetConfig) -> Measurement | FailedMeasurement:
        """Return a network's recorded latency, or why it can't be replayed."""
        reason = self._table.refusal(config, self._seed)
        if reason is not None:
            return NotRecorded("", reason)
        latency = self._table.latency_of(config, self.runtime)
        if latency is None:
            return NotRecorded("", f"the table {self._table.name} has no latency of this network under {self.runtime}")
        origin = self._table.latency
        return Measurement(
            kind=origin.kind,
            policy=REPLAYED,
            device=origin.device,
            runtime=self.runtime,
            runtime_version=origin.runtimes[self.runtime],
            threads=origin.threads,
            median_ms=latency.median_ms,
            p90_ms=None,
            interval_low_ms=latency.low_ms,
            interval_high_ms=latency.high_ms,
            steady=True,
            extrapolates=self.runtime in origin.extrapolates,
            cpu_model=origin.cpu_model,
            samples_ms=(),
            stride=1,
            conditions={"replayed_from": self._table.name, "sha256": self._table.sha256},
        )
