"""Verifying a bundle: its files' hashes, what its network says of the samples, its latency on a device, its budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from search.results.bundle.samples import input_of, logits_of
from search.results.picking.verification import Standing, took_of, verify
from search.settings import LatencySettings, StudySection, StudySettings
from space.errors import (
    BundleDamaged,
    BundleDisagrees,
    BundleOverBudget,
    BundleUndecided,
    BundleVersion,
    CondenseryError,
    InvalidSettings,
    MeasurementFailed,
)
from workers.bundled.infer import difference
from workers.bundled.reading import VERSION, check_files, read_deploy, read_samples, version_of
from workers.file_names import Runtime, precision_of, runtime_of
from workers.latency.agent.runtimes import installed_runtimes
from workers.latency.measurement import FailedMeasurement, LatencyProbe, Measurement
from workers.latency.record import LatencyPurpose, LatencyStatistic, statistic_of


@dataclass(frozen=True)
class SampleRun:
    """How a model file's outputs for the samples compare with the recorded ones."""

    file: str
    images: int
    difference: float | None  # the largest one, as a share of the largest logit; None: its runtime isn't installed
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether nothing speaks against it."""
        return self.difference is None or self.difference <= self.tolerance


@dataclass(frozen=True)
class MeasuredFor:
    """What is measured, and the limit that it is held to."""

    target: str  # the device, as latency.devices names it
    runtime: Runtime
    file: str
    policy: str
    threads: int
    limit_ms: float | None
    limit_of: str  # the device that the limit was set for
    max_ram_mb: float | None = None
    statistic: LatencyStatistic = "upper"  # the figure of the latency that is held to the limit


@dataclass(frozen=True)
class BundleReport:
    """What the verification of a bundle found; the steps after the one that failed were not done."""

    folder: Path
    version: int | None = None  # None: deploy.toml can't be read, or is of a newer version
    files: int | None = None  # whose hashes are right
    samples: tuple[SampleRun, ...] = ()
    measured: MeasuredFor | None = None
    latency: Measurement | None = None
    failure: CondenseryError | None = None

    @property
    def verdict(self) -> str:
        """PASS, FAIL, or UNDECIDED where no measurement was steady enough."""
        if self.failure is None:
            return "PASS"
        return "UNDECIDED" if isinstance(self.failure, BundleUndecided) else "FAIL"

    @property
    def verified_by(self) -> str:
        """What its latency was verified by, "measured on host:amd-epyc" or "estimated on …"; "" where it wasn't."""
        if self.latency is None or self.verdict == "UNDECIDED":
            return ""
        return f"{self.latency.kind} on {self.latency.device}"


def check_bundle(folder: Path) -> BundleReport:
    """Check a bundle's hashes, and run its samples with every runtime that is installed here."""
    report = BundleReport(folder)
    try:
        deploy = read_deploy(folder)
        report = replace(report, version=version_of(deploy))
        if version_of(deploy) < VERSION:
            raise BundleVersion(
                f"{folder} is a bundle of version {version_of(deploy)}, which has no samples and no hashes to verify; "
                "write it again with `condensery pick --out`. infer.py and load_bundle still run it."
            )
        report = replace(report, files=check_files(folder))
        report = replace(report, samples=tuple(_sample_runs(folder, deploy)))
    except (BundleDamaged, BundleDisagrees) as failure:
        return replace(report, failure=failure)
    if wrong := [run for run in report.samples if not run.agrees]:
        disagrees = BundleDisagrees(
            f"{wrong[0].file} of {folder} gives other outputs for the samples than when it was written: they differ by "
            f"{wrong[0].difference:.1e} of the largest logit, at most {wrong[0].tolerance:g} is allowed; find out what "
            "is different here (runtime version, processor) before you use it."
        )
        return replace(report, failure=disagrees)
    return report


def _sample_runs(folder: Path, deploy: Mapping[str, Any]) -> Sequence[SampleRun]:
    samples, installed = read_samples(folder), installed_runtimes()
    if not samples.images:
        return ()
    try:
        inputs = [input_of(folder / sample.file, deploy["preprocessing"]) for sample in samples.images]
    except Exception as error:  # Pillow's decoders raise a dozen unrelated types
        raise BundleDamaged(f"a sample of {folder} can't be read ({' '.join(str(error).split())}).") from error
    runs = []
    for file, tolerance in samples.tolerances.items():
        found = None
        if runtime_of(folder / file) in installed:
            expected = np.stack([sample.logits[file] for sample in samples.images])
            found = difference(_logits(folder / file, inputs), expected)
        runs.append(SampleRun(file, len(inputs), found, tolerance))
    return runs


def _logits(file: Path, inputs: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    try:
        return logits_of(file, inputs)
    except Exception as error:  # a runtime's errors have no class in common
        raise BundleDisagrees(f"{file} can't be run ({' '.join(str(error).split())}).") from error


def what_to_measure(folder: Path, device: str | None, limit_ms: float | None) -> MeasuredFor:
    """Return what is to be measured of a bundle on a device (None: the one that it was judged by).

    The limit is the given one, else the bundle's for this device, else the one that it was judged by.

    Raises:
        InvalidSettings: the bundle lacks the model file of the runtime that its latency is of, or has no latency.
    """
    deploy = read_deploy(folder)
    first, budget = deploy.get("latency"), deploy.get("budget", {})
    if first is None:
        raise InvalidSettings(f"{folder} names no latency, so there is nothing to hold it to; pick it again.")
    table = {first["target"]: first, **deploy.get("latency_on", {})}.get(device or first["target"], first)
    if "file" not in table:
        raise InvalidSettings(f"{folder} lacks the model file that its latency is of; write it again with `pick`.")
    target = device or first["target"]
    elsewhere = budget.get("max_latency_ms_on", {})
    limit_of = target if limit_ms is not None or target in elsewhere else first["target"]
    limit = limit_ms if limit_ms is not None else elsewhere.get(target, budget.get("max_latency_ms"))
    policy = table["policy"] if table["policy"] in ("standard", "quick") else "standard"
    runtime = runtime_of(folder / table["file"])
    memory = budget.get("max_ram_mb")
    statistic = statistic_of(budget.get("latency_statistic"))
    return MeasuredFor(target, runtime, table["file"], policy, table["threads"], limit, limit_of, memory, statistic)


def settings_for(measured: MeasuredFor) -> StudySettings:
    """Return the settings of a study that would measure so."""
    latency = LatencySettings(
        devices=(measured.target,),
        runtime=measured.runtime,
        policy="quick" if measured.policy == "quick" else "standard",
        threads=measured.threads,
    )
    return StudySettings(study=StudySection(name="verify"), space={}, latency=latency)


def measure_bundle(report: BundleReport, measured: MeasuredFor, probe: LatencyProbe) -> BundleReport:
    """Return the report with the latency of the bundle's model file, measured until it is decided, and the verdict.

    Raises:
        MeasurementFailed: the file can't be measured there.
    """
    file = report.folder / measured.file

    def measure() -> Measurement:
        (result,) = probe.measure([file])
        if isinstance(result, FailedMeasurement):
            raise MeasurementFailed(f"{file} could not be measured on {measured.target}: {result.reason}")
        labels = replace(result, target=measured.target, purpose=LatencyPurpose.VERIFY)
        return replace(labels, precision=precision_of(file))

    found = verify(measure, (), measured.limit_ms, measured.statistic)
    latency, limit = found.shown, measured.limit_ms
    failure: CondenseryError | None = None
    took = f"{took_of(latency, measured.statistic)[1]} on {latency.device} ({latency.kind})"
    if found.standing == Standing.OVER:
        failure = BundleOverBudget(f"the network of {report.folder} {took}, over the budget of {limit:g} ms.")
    elif found.standing == Standing.OPEN:
        failure = BundleUndecided(
            f"the network of {report.folder} {took}, in measurements that other work disturbed, so it is not decided "
            f"whether it keeps {limit:g} ms; verify it again on a quiet machine."
        )
    elif measured.max_ram_mb is not None and (latency.peak_memory_mb or 0) > measured.max_ram_mb:
        memory = f"used {latency.peak_memory_mb:.1f} MB of memory on {latency.device}"
        failure = BundleOverBudget(f"the network of {report.folder} {memory}, over {measured.max_ram_mb:g} MB.")
    return replace(report, measured=measured, latency=latency, failure=failure)
