"""The protocol of latency probes and what they return; `FakeProbe` makes up latencies for tests."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from space.errors import MeasurementFailed
from workers.latency.agent.files import hash_or_empty, sha256_of
from workers.latency.agent.subprocesses import never as never  # the `stop` that no one gives; also for importers
from workers.latency.record import LatencyKind
from workers.latency.record import Measurement as Measurement  # what a probe returns; also for importers
from workers.latency.stats import summarise


@dataclass(frozen=True)
class FailedMeasurement:
    """A model without a latency, and why in one line; `model_hash` is empty when the file can't be read."""

    model_hash: str
    reason: str


class MeasurementStopped(Exception):
    """`stop` became true before the batch was done; its processes are gone."""


class LatencyProbe(Protocol):
    """A source of latencies on one device.

    `measure` returns one result per path in the order given; equal paths are measured separately. A model that can't be
    measured gives a FailedMeasurement and raises nothing. Measuring may take minutes: `stop` is asked several times a
    second, and when it returns true the probe ends its processes and raises MeasurementStopped, whatever it has
    measured by then. KeyboardInterrupt leaves no process behind either.
    """

    device: str

    @property
    def runtime(self) -> str:
        """The runtime in whose format the models are."""
        ...

    def measure(
        self, models: Sequence[Path], stop: Callable[[], bool] = never
    ) -> list[Measurement | FailedMeasurement]:
        """Return the latency of each exported network, or why there is none."""
        ...


_MACHINE = ("core", "cores", "siblings", "pinned", "machine", "python_version")


def measurement_from_report(
    report: Mapping[str, Any], entry: Mapping[str, Any], device: str, policy: str | None = None
) -> Measurement | FailedMeasurement:
    """Turn one model's entry of an agent's report into what a probe returns.

    Args:
        report: the facts of runtime and machine, as `measure_batch` gives them.
        entry: one of its `models`; the number of attempts may be called `attempt` or, as the hub does, `tries`.
        device: the label of the device or queue.
        policy: the label of the requested policy; None: the one that the report names.
    """
    if "error" in entry:
        return FailedMeasurement(entry["sha256"], entry["error"])
    samples_ms = tuple(tuple(process["samples_ms"]) for process in entry["processes"])
    try:
        summary = summarise(samples_ms, entry.get("planned_from"))
    except ValueError as error:
        return FailedMeasurement(entry["sha256"], str(error))
    return Measurement(
        kind=LatencyKind.MEASURED,
        model_hash=entry["sha256"],
        device=device,
        cpu_model=report["cpu_model"],
        runtime=report["runtime"],
        runtime_version=report["runtime_version"],
        threads=report["threads"],
        policy=report["policy"] if policy is None else policy,
        median_ms=summary.median_ms,
        p90_ms=summary.p90_ms,
        interval_low_ms=summary.interval_low_ms,
        interval_high_ms=summary.interval_high_ms,
        samples_ms=samples_ms,
        stride=max(process["stride"] for process in entry["processes"]),
        conditions=_conditions(report, entry),
        cpu_ms=tuple(tuple(process.get("cpu_ms") or ()) for process in entry["processes"]),
        anchor_drift=entry["anchor_drift"],
        steady=entry["steady"],
        peak_memory_mb=min(_known(entry, "peak_memory_mb"), default=None),  # other models leave some behind, never less
        energy_mj=statistics.median(energies) if (energies := _known(entry, "energy_mj")) else None,
    )


def _known(entry: Mapping[str, Any], name: str) -> list[float]:
    return [process[name] for process in entry["processes"] if process.get(name) is not None]


def _conditions(report: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a report says about the machine, the attempt and each process, without the samples."""
    return {
        **{key: report[key] for key in _MACHINE if key in report},
        "attempt": entry["tries"] if "tries" in entry else entry["attempt"],
        "measured": entry.get("measured", len(entry["processes"])),
        "processes": [
            {key: value for key, value in process.items() if key not in ("samples_ms", "cpu_ms")}
            for process in entry["processes"]
        ],
    }


class FakeProbe:
    """Makes up latencies for tests: three processes of 40 samples each, within 1 % of `latency_ms(path)`.

    The samples depend only on the file's bytes. `latency_ms` raises MeasurementFailed to refuse a model.
    """

    runtime = "onnxruntime"

    def __init__(self, latency_ms: Callable[[Path], float], device: str = "fake") -> None:
        self.device = device
        self._latency_ms = latency_ms

    def measure(
        self, models: Sequence[Path], stop: Callable[[], bool] = never
    ) -> list[Measurement | FailedMeasurement]:
        """Return made-up results; see `LatencyProbe`."""
        results = []
        for path in models:
            if stop():
                raise MeasurementStopped
            results.append(self._measurement_of(path))
        return results

    def _measurement_of(self, path: Path) -> Measurement | FailedMeasurement:
        try:
            model_hash = sha256_of(path)
            centre_ms = self._latency_ms(path)
        except (OSError, MeasurementFailed) as error:
            return FailedMeasurement(hash_or_empty(path), str(error))
        rng = random.Random(model_hash)
        samples_ms = tuple(tuple(centre_ms * (1 + 0.01 * rng.uniform(-1, 1)) for _ in range(40)) for _ in range(3))
        summary = summarise(samples_ms)
        return Measurement(
            kind=LatencyKind.MEASURED,
            model_hash=model_hash,
            device=self.device,
            cpu_model="fake",
            runtime=self.runtime,
            runtime_version="0",
            threads=1,
            policy="quick",
            median_ms=summary.median_ms,
            p90_ms=summary.p90_ms,
            interval_low_ms=summary.interval_low_ms,
            interval_high_ms=summary.interval_high_ms,
            samples_ms=samples_ms,
            stride=1,
            conditions={"processes": []},
            anchor_drift=0.0,
            steady=True,
        )
