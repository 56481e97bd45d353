"""Latencies for tests to start from."""

from __future__ import annotations

from typing import Any


def without_samples(median_ms: float, interval_low_ms: float, interval_high_ms: float) -> dict[str, Any]:
    """Fields of a measurement of which nothing was timed, for `dataclasses.replace`."""
    return {
        "median_ms": median_ms,
        "p90_ms": None,
        "interval_low_ms": interval_low_ms,
        "interval_high_ms": interval_high_ms,
        "samples_ms": (),
    }
