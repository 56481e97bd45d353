"""A latency with all that is needed to judge it, in the one form that goes from a device's report to a model card.

A probe's `Measurement` is a record with its raw samples; the database stores it, trials carry it, and tables, pages,
JSON and the texts of a bundle show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, get_args

# Which figure of a latency must keep a limit: the upper end of the 95 % interval, the median, or the 90th percentile.
LatencyStatistic = Literal["upper", "median", "p90"]
STATISTICS: tuple[LatencyStatistic, ...] = get_args(LatencyStatistic)
STATISTIC_WORDS: Mapping[str, str] = {
    "upper": "the upper end of the 95 % interval",
    "median": "the median",
    "p90": "the 90th percentile of the runs",
}
REPLAYED = "replayed"  # the policy of a latency that a table of trainings has recorded: never learned from


def statistic_of(value: Any) -> LatencyStatistic:
    """Return the statistic that a file or a database names; "upper" where it names none, as earlier ones do."""
    return next((statistic for statistic in STATISTICS if statistic == value), "upper")


class LatencyKind(StrEnum):
    """Where a latency comes from; numbers of different kinds are never mixed without this label."""

    MEASURED = "measured"  # timed on the device
    ESTIMATED = "estimated"  # from the ARM instructions that were counted
    PREDICTED = "predicted"  # from the network's structure, by the model fitted to the device


class LatencyPurpose(StrEnum):
    """What a trial's latency was measured for."""

    PRICE = "price"  # the network with random weights, before training
    VERIFY = "verify"  # the trained file, by `pick`


@dataclass(frozen=True)
class LatencyRecord:
    """One network's latency on one device, in milliseconds, with its labels; the interval is 95 %.

    (model_hash, device, runtime and version, threads, precision) says what the number is of. A probe doesn't know
    `target` and `purpose`: its caller sets them.
    """

    kind: LatencyKind
    policy: str  # "standard" or "quick"; "counts" for an estimate, "model" for a prediction, or REPLAYED
    device: str
    runtime: str
    runtime_version: str
    threads: int
    median_ms: float
    p90_ms: float | None  # None where nothing was timed: estimates and predictions
    interval_low_ms: float
    interval_high_ms: float
    steady: bool  # nothing disturbed it: anchor and network agree between processes, and no one else ran there
    target: str = "host"  # the device as the study's latency.devices names it
    extrapolates: bool = False  # the network lies outside what the estimate or prediction was calibrated on
    precision: str = "fp32"
    model_hash: str = ""  # SHA-256 of the file, hexadecimal; "" of a prediction, which needs no file
    cpu_model: str = ""
    peak_memory_mb: float | None = None  # the most that the process held which ran it, runtime included; 10^6 bytes
    energy_mj: float | None = None  # of the whole machine for one run; None without a meter
    anchor_drift: float | None = None  # how far the anchor's medians moved: (max - min) / min
    purpose: LatencyPurpose = LatencyPurpose.PRICE
    measured_at: float | None = None  # UTC seconds since 1970; None until it is recorded

    @property
    def verified(self) -> bool:
        """Whether it is of the trained file, not of a network of the same shape with random weights."""
        return self.purpose == LatencyPurpose.VERIFY

    def judged_ms(self, statistic: LatencyStatistic) -> float | None:
        """Return the figure that a limit is held against, in ms; None where it isn't known.

        Estimates and predictions have no 90th percentile, because nothing was timed.
        """
        if statistic == "p90":
            return self.p90_ms
        return self.median_ms if statistic == "median" else self.interval_high_ms


def kind_words(latency: Any) -> str:
    """Return what kind of number a latency (a record, or a row of the database) is, as it is shown to people.

    "measured", "estimated" or "predicted"; of one that a table has recorded, "estimated, replayed": the kind is then
    what the table says, not something that was done here.
    """
    return f"{latency.kind}, {REPLAYED}" if latency.policy == REPLAYED else str(latency.kind)


RECORD_FIELDS = tuple(LatencyRecord.__dataclass_fields__)


@dataclass(frozen=True, kw_only=True)
class Measurement(LatencyRecord):
    """A latency as a probe returns it: the record, with the samples and conditions that it comes from."""

    # By process, thinned to every `stride`-th run; () where nothing was timed.
    samples_ms: tuple[tuple[float, ...], ...]
    stride: int  # 1: every run was kept
    conditions: Mapping[str, Any]  # JSON-able: temperature, frequency, throttling, load, … of each process
    cpu_ms: tuple[tuple[float, ...], ...] = ()  # the CPU time of each run in samples_ms; () where it isn't known

    @property
    def record(self) -> LatencyRecord:
        """The record without its samples."""
        return LatencyRecord(**{name: getattr(self, name) for name in RECORD_FIELDS})
