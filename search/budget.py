"""A study's budget, and the gate in front of training: a candidate over a limit is never trained.

A latency is judged by the upper end of its 95 % interval, as `pick` judges it, so every trained network can be picked.
A study may name several devices; its first device judges a trial unless a limit names another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from workers.latency.record import LatencyRecord, kind_words


@dataclass(frozen=True)
class Budget:
    """Upper limits; None means no limit."""

    max_latency_ms: float | None = None  # on the study's first device
    max_macs: float | None = None
    max_params: float | None = None
    elsewhere_ms: Mapping[str, float] = field(default_factory=dict)  # latency on the study's further devices, by name
    # Of `pick` alone, in 10^6 bytes: the model file of a device's runtime, and the process that runs it.
    max_file_mb: float | None = None
    max_ram_mb: float | None = None

    @classmethod
    def of_settings(cls, budget: Mapping[str, Any], devices: Sequence[str]) -> Budget:
        """Read a study's `[budget]`; a number is the first device's, a table has one for each device it names."""
        limit = budget.get("max_latency_ms")
        by_device = dict(limit) if isinstance(limit, Mapping) else {} if limit is None else {devices[0]: float(limit)}
        first = by_device.pop(devices[0], None)
        return cls(first, budget.get("max_macs"), budget.get("max_params"), by_device)

    def __str__(self) -> str:
        limits = [] if self.max_latency_ms is None else [f"{self.max_latency_ms:g} ms"]
        limits += [f"{limit:g} ms on {device}" for device, limit in self.elsewhere_ms.items()]
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


def excess(
    budget: Budget, macs: int, params: int, latency: LatencyRecord | None, others: Sequence[LatencyRecord] = ()
) -> dict[str, float]:
    """Return the fraction by which each limit is exceeded; 0 or less is inside.

    A limit that isn't set, or a latency that was not measured (because another limit refused the candidate before),
    counts as 0: every trial must carry the same set of constraints.
    """
    elsewhere = {row.target: row for row in others}
    pairs = {
        "latency_ms": (_high(latency), budget.max_latency_ms),
        "macs": (macs, budget.max_macs),
        "params": (params, budget.max_params),
        **{f"latency_ms.{name}": (_high(elsewhere.get(name)), limit) for name, limit in budget.elsewhere_ms.items()},
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
        if limit is not None and row.interval_high_ms > limit:
            place = "" if row is latency else f" on {row.target}"
            latency_text = f"{row.median_ms:.4g} ms (up to {row.interval_high_ms:.4g})"
            return f"latency {latency_text}{place} > {limit:g} ms, {kind_words(row)}"
        if budget.max_ram_mb is not None and (row.peak_memory_mb or 0) > budget.max_ram_mb:
            return f"{row.peak_memory_mb:.1f} MB memory > {budget.max_ram_mb:g} MB"
    return None


def _high(row: LatencyRecord | None) -> float | None:
    return None if row is None else row.interval_high_ms
