"""The estimating probe: it counts instructions in software, and a profile of the device prices them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from space.errors import MeasurementFailed
from workers.latency.agent.files import hash_or_empty
from workers.latency.emulated.virtual_arm import Counts, VirtualArm, counts_from_report
from workers.latency.measurement import FailedMeasurement, Measurement, MeasurementStopped, never
from workers.latency.profiles import VIRTUAL, Estimate, Profile
from workers.latency.record import LatencyKind

RUNS = 3  # counted per network: if one is disturbed, the median is that of the other two


class EstimatedProbe:
    """Estimates latencies on a profile's device from the instructions that each network executes.

    Its results are of the kind `estimated` and carry no samples: `median_ms` is the estimate, the interval the
    profile's own error (see `Profile.estimate`). Each network is counted once and its estimate kept by the file's hash
    as long as the probe exists; failures are not kept.
    """

    def __init__(
        self,
        profile: Profile,
        arm: VirtualArm,
        device: str | None = None,
        runs: int = RUNS,
        runtime: str | None = None,
    ) -> None:
        """Use the profile's label and runtime unless others are given."""
        self.device = device or VIRTUAL + profile.name
        self.runtime = runtime or profile.runtime
        self._profile = profile
        self._arm = arm
        self._runs = runs
        self._estimated: dict[str, Measurement] = {}  # by hash

    def measure(
        self, models: Sequence[Path], stop: Callable[[], bool] = never
    ) -> list[Measurement | FailedMeasurement]:
        """Estimate the models' latencies; see `LatencyProbe`."""
        if stop():
            raise MeasurementStopped
        hashes = [hash_or_empty(path) for path in models]
        new = {
            model_hash: path
            for model_hash, path in zip(hashes, models, strict=True)
            if model_hash not in self._estimated
        }
        unreadable = {place for place, model_hash in enumerate(hashes) if not model_hash}
        new.pop("", None)
        estimates = dict(zip(new, self._estimates(list(new.values()), stop), strict=True))
        for result in estimates.values():  # by the result's hash: a file may have changed before it was run
            if isinstance(result, Measurement):
                self._estimated[result.model_hash] = result
        results: list[Measurement | FailedMeasurement] = []
        for place, (model_hash, path) in enumerate(zip(hashes, models, strict=True)):
            if place in unreadable:
                results.append(FailedMeasurement("", f"the model {path} can't be read"))
            else:
                results.append(self._estimated.get(model_hash) or estimates[model_hash])
        return results

    def _estimates(self, models: Sequence[Path], stop: Callable[[], bool]) -> list[Measurement | FailedMeasurement]:
        if not models:
            return []
        try:
            counted = self._arm.count(models, self._runs, self.runtime, stop)
        except MeasurementFailed as error:
            return [FailedMeasurement(hash_or_empty(path), str(error)) for path in models]
        facts = self._arm.facts
        return [estimate(counts, self._profile, self.device, facts) for counts in counted]


def estimate(
    counts: Counts | FailedMeasurement, profile: Profile, device: str, facts: Mapping[str, Any] | None = None
) -> Measurement | FailedMeasurement:
    """Return the latency on `device` that a profile estimates from one network's counts; a failure is returned as is.

    The `facts` of the counting device go into the conditions, with the counts, both fits and why it extrapolates.
    """
    if isinstance(counts, FailedMeasurement):
        return counts
    try:
        priced = _priced(counts, profile)
    except MeasurementFailed as error:
        return FailedMeasurement(counts.model_hash, str(error))
    return Measurement(
        kind=LatencyKind.ESTIMATED,
        model_hash=counts.model_hash,
        device=device,
        cpu_model=profile.title,
        runtime=counts.runtime,
        runtime_version=counts.runtime_version,
        threads=profile.threads,
        policy="counts",
        median_ms=priced.latency_ms,
        p90_ms=None,
        interval_low_ms=priced.interval_low_ms,
        interval_high_ms=priced.interval_high_ms,
        samples_ms=(),
        stride=1,
        conditions={
            **(facts or {}),
            "profile": profile.name,
            "counts": counts.median,
            "counted_runs": len(counts.runs),
            "by_fit": priced.by_fit,
            "why": priced.reason,
        },
        anchor_drift=0.0,
        steady=True,
        extrapolates=priced.extrapolates,
    )


def _priced(counts: Counts, profile: Profile) -> Estimate:
    priced = profile.estimate(counts.median)
    return priced if counts.runtime == profile.runtime else _of_another_runtime(priced, counts.runtime, profile)


def _of_another_runtime(priced: Estimate, runtime: str, profile: Profile) -> Estimate:
    """Return an estimate marked as extrapolating, with an interval twice as wide in ratio.

    Its prices were fitted to another runtime. What an instruction costs depends on the processor, but the fitted prices
    also contain how much that runtime waits.
    """
    mismatch = f"{profile.name} was calibrated on {profile.runtime}, this is {runtime}"
    return replace(
        priced,
        interval_low_ms=priced.latency_ms * (priced.interval_low_ms / priced.latency_ms) ** 2,
        interval_high_ms=priced.latency_ms * (priced.interval_high_ms / priced.latency_ms) ** 2,
        extrapolates=True,
        reason="; ".join(part for part in (mismatch, priced.reason) if part),
    )


def estimated_measurement(
    report: Mapping[str, Any], entry: Mapping[str, Any], profile: Profile, device: str
) -> Measurement | FailedMeasurement:
    """Return the estimate from one network's entry of an agent's `count` report; see `counts_from_report`."""
    facts = {key: report[key] for key in ("machine", "python_version") if key in report}
    return estimate(counts_from_report(report, entry), profile, device, facts)
