"""Latency: the measuring loop, its policy and statistics, and the probes that price a network in milliseconds.

Names are handed on lazily, so importing the package costs nothing until one of them is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workers.latency.policy import QUICK, STANDARD, MeasurementPolicy, policy_named
    from workers.latency.probes import (
        FailedMeasurement,
        FakeProbe,
        HostProbe,
        LatencyProbe,
        Measurement,
        default_core,
        host_name,
        siblings,
    )
    from workers.latency.stats import LatencySummary, summarise

__all__ = [
    "QUICK",
    "STANDARD",
    "FailedMeasurement",
    "FakeProbe",
    "HostProbe",
    "LatencyProbe",
    "LatencySummary",
    "Measurement",
    "MeasurementPolicy",
    "default_core",
    "host_name",
    "policy_named",
    "siblings",
    "summarise",
]

_POLICY = {"QUICK", "STANDARD", "MeasurementPolicy", "policy_named"}
_STATS = {"LatencySummary", "summarise"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "policy" if name in _POLICY else "stats" if name in _STATS else "probes"
    return getattr(import_module(f"{__name__}.{module}"), name)
