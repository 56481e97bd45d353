"""A study's budget, and the gate in front of training: a candidate over a limit is never trained.

A latency is judged by the upper end of its 95 % interval, or by another of its figures if the study says so
(`LatencyStatistic`), as `pick` judges it, so every trained network can be picked. A study may name several devices; its
first device judges a trial unless a limit names another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from workers.latency.record import LatencyRecord, LatencyStatistic, kind_words, statistic_of


@dataclass(frozen=True)
class Budget:
    """Upper limits; None means no limit."""

    max_latency_ms: float | None = None  # on the study's first device
    max_macs: float | None = None
    max_params: float | None = None
    elsewhere_ms: Mapping[str, float] = field(default_factory=dict)  # latency on the study's further devices, by name
    # In 10^6 bytes: the model file of a device's runtime, for `pick` alone, and the process that runs it.
    max_file_mb: float | None = None
    max_ram_mb: float | None = None
    latency_statistic: LatencyStatistic = "upper"  # what of a latency must keep its limit

    @classmethod
    def of_settings(cls, budget: Mapping[str, Any], devices: Sequence[str]) -> Budget:
        """Read a study's `[budget]`; a number is the first device's, a table has one for each device it names."""
        limit = budget.get("max_latency_ms")
        by_device = dict(limit) if isinstance(limit, Mapping) else {} if limit is None else {devices[0]: float(limit)}
        first = by_device.pop(devices[0], None)
        statistic = statistic_of(budget.get("latency_statistic"))
        counts = budget.get("max_macs"), budget.get("max_params")
        return cls(first, *counts, by_device, max_ram_mb=budget.get("max_ram_mb"), latency_statistic=statistic)

    def __str__(self) -> str:
        of = "" if self.latency_statistic == "upper" else f" ({self.latency_statistic})"
        limits = [] if self.max_latency_ms is None else [f"{self.max_latency_ms:g} ms{of}"]
        limits += [f"{limit:g} ms{of} on {device}" for device, limit in self.elsewhere_ms.items()]
        counts = (("macs", self.max_macs), ("params", self.max_params))
        limits += [f"{value:,.0f} {unit}" for unit, value in counts if value is not None]
        sizes = (("file", self.max_file_mb), ("memory", self.max_ram_mb))
        limits += [f"{value:g} MB {what}" for what, value in sizes if value is not None]
        return ", ".join(limits) or "no limit"

    def limits_ms(self, first: str) -> dict[str, float | None]:
        """Return the limit of each device by its name in the study, whose first device is called `first`."""
        return {first: self.max_latency_ms, **self.elsewhere_ms}

    def with_limits_ms(self, limits_ms: Mapping[str, float], first: str) -> Budget:
        """Return the budget with these latency limits in place of its own, by the device's name; see `limits_ms`."""
        further = {name: limit for name, limit in limits_ms.items() if name != first}
        own = limits_ms.get(first, self.max_latency_ms)
        return replace(self, max_latency_ms=own, elsewhere_ms={**self.elsewhere_ms, **further})

    def latency_limit(self, row: LatencyRecord, first: bool) -> float | None:
        """Return the limit that a latency must keep; `first` says that it was measured on the study's first device."""
        return self.max_latency_ms if first else self.elsewhere_ms.get(row.target)

    def judged_ms(self, latency: LatencyRecord) -> float | None:
        """Return the figure of a latency that this budget's limits are held against; None where it isn't known."""
        return latency.judged_ms(self.latency_statistic)


def excess(
    budget: Budget, macs: int, params: int, latency: LatencyRecord | None, others: Sequence[LatencyRecord] = ()
) -> dict[str, float]:
    """Return the fraction by which each limit is exceeded; 0 or less is inside.

    A limit that isn't set, or a latency that was not measured (because another limit refused the candidate before),
    counts as 0: every trial of a study must carry the same set of constraints. Memory is one where it is limited.
    """
    elsewhere = {row.target: row for row in others}
    known_mb = [row.peak_memory_mb for row in (latency, *others) if row is not None and row.peak_memory_mb is not None]
    memory = {} if budget.max_ram_mb is None else {"ram_mb": (max(known_mb, default=None), budget.max_ram_mb)}
    pairs = {
        "latency_ms": (_judged_or_high(budget, latency), budget.max_latency_ms),
        "macs": (macs, budget.max_macs),
        "params": (params, budget.max_params),
        **{
            f"latency_ms.{name}": (_judged_or_high(budget, elsewhere.get(name)), limit)
            for name, limit in budget.elsewhere_ms.items()
        },
        **memory,
    }
    return {
        name: 0.0 if value is None or limit is None else value / limit - 1.0 for name, (value, limit) in pairs.items()
    }


def refusal(
    budget: Budget, macs: int, params: int, latency: LatencyRecord | None, others: Sequence[LatencyRecord] = ()
) -> str | None:
    """Return why a candidate is over the budget; None if it is inside, judged by the latencies given."""
    if budget.max_macs is not None and macs > budget.max_macs:
        return f"{macs:,} macs > {budget.max_macs:,.0f}"
    if budget.max_params is not None and params > budget.max_params:
        return f"{params:,} params > {budget.max_params:,.0f}"
    for row in (*(() if latency is None else (latency,)), *others):
        limit = budget.latency_limit(row, row is latency)
        if limit is not None and (over := _over(budget, row, limit)) is not None:
            place = "" if row is latency else f" on {row.target}"
            return f"latency {over[0]}{place} {over[1]}, {kind_words(row)}"
        if budget.max_ram_mb is not None and (row.peak_memory_mb or 0) > budget.max_ram_mb:
            return f"{row.peak_memory_mb:.1f} MB memory > {budget.max_ram_mb:g} MB"
    return None


def _over(budget: Budget, row: LatencyRecord, limit_ms: float) -> tuple[str, str] | None:
    """Return a latency over a limit, and how it is over, in words; None where it keeps the limit."""
    value_ms = _judged_or_high(budget, row)
    if value_ms is not None and value_ms > limit_ms:
        return f"{row.median_ms:.4g} ms{_beside_median(budget, row)}", f"> {limit_ms:g} ms"
    if budget.judged_ms(row) is None:
        return f"{row.median_ms:.4g} ms", f"has no {budget.latency_statistic} to hold to {limit_ms:g} ms"
    return None


def _beside_median(budget: Budget, row: LatencyRecord) -> str:
    """Return the figure that is over a limit, in brackets behind the median."""
    if budget.latency_statistic == "median":
        return " (median)"
    if budget.latency_statistic == "p90" and row.p90_ms is not None:
        return f" (p90 {row.p90_ms:.4g})"
    return f" (up to {row.interval_high_ms:.4g})"


def _judged_or_high(budget: Budget, row: LatencyRecord | None) -> float | None:
    """Return what a limit is held against; of a prediction without a 90th percentile, the interval's upper end.

    The gate refuses a candidate by its prediction only if it is surely over, and then the upper end is, too.
    """
    if row is None:
        return None
    value_ms = budget.judged_ms(row)
    return row.interval_high_ms if value_ms is None else value_ms
