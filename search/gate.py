"""The gate: a candidate over a budget is never trained.

A latency is judged by the upper end of its 95 % interval, as `pick` judges it: what is let through can be picked.
"""

from __future__ import annotations

from dataclasses import dataclass

from search.store.reader import LatencyRow


@dataclass(frozen=True)
class Budget:
    """Upper limits; None is no limit."""

    max_latency_ms: float | None = None
    max_macs: float | None = None
    max_params: float | None = None

    def __str__(self) -> str:
        limits = [] if self.max_latency_ms is None else [f"{self.max_latency_ms:g} ms"]
        counts = (("macs", self.max_macs), ("params", self.max_params))
        limits += [f"{value:,.0f} {unit}" for unit, value in counts if value is not None]
        return ", ".join(limits) or "no limit"


def excess(budget: Budget, macs: int, params: int, latency_high_ms: float | None) -> dict[str, float]:
    """Return, for every limit, by which fraction it is exceeded; 0 or less is inside.

    A limit that isn't set, or a latency that was not measured (because another limit already refused the candidate),
    counts 0: every trial must carry the same set of constraints.
    """
    pairs = {
        "latency_ms": (latency_high_ms, budget.max_latency_ms),
        "macs": (macs, budget.max_macs),
        "params": (params, budget.max_params),
    }
    return {
        name: 0.0 if value is None or limit is None else value / limit - 1.0 for name, (value, limit) in pairs.items()
    }


def refusal(budget: Budget, macs: int, params: int, latency: LatencyRow | None) -> str | None:
    """Return why a candidate is over the budget, or None when it is inside (as far as is known yet)."""
    if budget.max_macs is not None and macs > budget.max_macs:
        return f"{macs:,} macs > {budget.max_macs:,.0f}"
    if budget.max_params is not None and params > budget.max_params:
        return f"{params:,} params > {budget.max_params:,.0f}"
    limit = budget.max_latency_ms
    if limit is not None and latency is not None and latency.interval_high_ms > limit:
        return (
            f"latency {latency.median_ms:.4g} ms (up to {latency.interval_high_ms:.4g}) > {limit:g} ms, {latency.kind}"
        )
    return None
