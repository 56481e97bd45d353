"""What measurements on a device teach: a fitted model of its latency, and a profile for its estimates.

More networks than those that studies priced can be measured for a fit; their latencies have an append-only table of
their own, and serve every study of the database.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from search.pricing.pricer import price, write_models
from search.store.reader import LatencySource, latencies_of_configs
from search.store.store import latency_values
from search.store.tables import device_fit, reference_latency
from space.config import CondenseNetConfig
from space.errors import DeviceNotFound, MeasurementFailed
from space.search_space import SearchSpace
from workers.latency.calibration import Calibration, fit_profile
from workers.latency.emulated.virtual_arm import Counts, VirtualArm
from workers.latency.measurement import FailedMeasurement, LatencyProbe, Measurement
from workers.latency.profiles import Profile, load_profile
from workers.latency.record import LatencyKind
from workers.latency.validation import cross_validate, macs_rank_correlation
from workers.wording import agreeing, counted, none_of

BATCH = 8  # networks measured between two runs of the anchor
FIT_LEAST = 8  # networks
LIKE = "raspberry-pi-5"  # the profile from whose ratios of prices a new one may start


@dataclass(frozen=True)
class Progress:
    """How far measuring for a fit has come, in networks."""

    recorded: int  # steady or not
    unsteady: int  # of those recorded; a fit leaves them out
    failed: int


@dataclass(frozen=True)
class DeviceFit:
    """How well a device's latency can be predicted from a network's structure, by cross-validation."""

    device: str
    runtime: str
    threads: int
    kind: LatencyKind  # of the latencies it was fitted on: measured or estimated
    networks: int
    median_error: float  # relative, of networks left out
    p90_error: float
    max_error: float
    coverage_95: float  # share of left-out latencies inside their 95 % interval
    spearman: float | None  # between predicted and true latencies; None where all are equal
    macs_spearman: float | None  # between macs and latencies: how far macs alone order networks
    fitted_at: float


def measure_more(
    engine: sa.Engine, probe: LatencyProbe, space: SearchSpace, count: int, files: Path
) -> Iterator[Progress]:
    """Measure networks sampled from a space until `count` more are recorded; yield the progress after each batch.

    Raises:
        MeasurementFailed: a whole batch failed.
    """
    rng = np.random.default_rng(int(time.time() * 1000) % 2**32)
    recorded = unsteady = failed = 0
    while recorded < count:
        configs = [space.sample(rng) for _ in range(min(BATCH, count - recorded))]
        prices = price(configs, probe, files)
        measured = [
            (config, latency)
            for config, latency in zip(configs, prices, strict=True)
            if isinstance(latency, Measurement)
        ]
        if not measured:
            reasons = [failure.reason for failure in prices if isinstance(failure, FailedMeasurement)]
            networks = none_of(len(prices), "network")
            raise MeasurementFailed(f"{networks} could be measured on {probe.device}: {reasons[0]}")
        add_references(engine, measured)
        recorded += len(measured)
        unsteady += sum(not measurement.steady for _, measurement in measured)
        failed += len(prices) - len(measured)
        yield Progress(recorded, unsteady, failed)


def add_references(engine: sa.Engine, measured: Sequence[tuple[CondenseNetConfig, Measurement]]) -> None:
    """Append latencies that belong to no trial."""
    rows = [{"config": config.to_json(), **latency_values(latency, reference_latency)} for config, latency in measured]
    with engine.begin() as connection:
        connection.execute(sa.insert(reference_latency), rows)


def fit_device(engine: sa.Engine, probe: LatencyProbe, threads: int, kind: LatencyKind) -> DeviceFit:
    """Cross-validate the predictor on every network whose latency on a device is known; record and return the errors.

    Raises:
        DeviceNotFound: the latency of fewer than 8 networks is known.
    """
    networks = _priced_networks(engine, probe, threads, kind, "a fit")
    configs, latencies_ms = zip(*networks, strict=True)
    errors = cross_validate(configs, latencies_ms)
    fit = DeviceFit(
        device=probe.device,
        runtime=probe.runtime,
        threads=threads,
        kind=kind,
        networks=len(networks),
        median_error=errors.median_error,
        p90_error=errors.p90_error,
        max_error=errors.max_error,
        coverage_95=errors.coverage_95,
        spearman=errors.spearman,
        macs_spearman=macs_rank_correlation(configs, latencies_ms),
        fitted_at=time.time(),
    )
    with engine.begin() as connection:
        connection.execute(sa.insert(device_fit), [asdict(fit)])
    return fit


def calibrate(
    engine: sa.Engine, probe: LatencyProbe, arm: VirtualArm, name: str, progress: Callable[[str], None]
) -> Profile:
    """Fit a profile for a device from networks measured on it and their instructions counted on the virtual one.

    Raises:
        DeviceNotFound: the latency of fewer than 8 networks is known. MeasurementFailed: counting failed.
    """
    networks = _priced_networks(engine, probe, 1, LatencyKind.MEASURED, "a profile")
    progress(f"counting the instructions of {len(networks)} networks …")
    counts_of_each = count_configs([config for config, _ in networks], arm, probe.runtime)
    pairs = [
        (counts.median, latency_ms)
        for counts, (_, latency_ms) in zip(counts_of_each, networks, strict=True)
        if isinstance(counts, Counts)
    ]
    if len(pairs) < FIT_LEAST:
        reasons = [counts.reason for counts in counts_of_each if isinstance(counts, FailedMeasurement)]
        raise MeasurementFailed(f"only {len(pairs)} of {len(networks)} networks could be counted: {reasons[0]}")
    about = Calibration(title=probe.device, runtime=probe.runtime, counted_with=tuple(sorted(arm.facts.items())))
    return fit_profile(name, pairs, about, like=load_profile(LIKE))


def count_configs(
    configs: Sequence[CondenseNetConfig], arm: VirtualArm, runtime: str
) -> list[Counts | FailedMeasurement]:
    """Count the instructions of configs with random weights on the virtual device, in the order given."""
    with tempfile.TemporaryDirectory(prefix="counting-") as folder:
        return list(arm.count(write_models(configs, runtime, Path(folder)), runtime=runtime))


def _priced_networks(
    engine: sa.Engine, probe: LatencyProbe, threads: int, kind: LatencyKind, purpose: str
) -> list[tuple[CondenseNetConfig, float]]:
    """Return `latencies_of_configs` for a purpose ("a fit"); raise DeviceNotFound if there are fewer than 8."""
    networks = latencies_of_configs(engine, LatencySource(probe.device, probe.runtime, threads, kind), FIT_LEAST)
    if len(networks) < FIT_LEAST:
        raise DeviceNotFound(
            f"{purpose} needs at least {FIT_LEAST} networks {kind} on {probe.device} with {probe.runtime} and "
            f"{counted(threads, 'thread')}, but {len(networks)} {agreeing(len(networks), 'is', 'are')} known (steady, "
            "of its newest runtime version); measure more with --networks."
        )
    return networks
