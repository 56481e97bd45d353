"""Latency: how long a network takes on a device, measured, estimated or predicted.

Names are handed on lazily, so importing the package costs nothing until one of them is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from space.lazy_names import lazy_names

if TYPE_CHECKING:
    from workers.latency.host_probe import HostProbe, default_core, host_name, siblings
    from workers.latency.measurement import (
        FailedMeasurement,
        FakeProbe,
        LatencyProbe,
        Measurement,
        MeasurementStopped,
        never,
    )
    from workers.latency.policy import QUICK, STANDARD, MeasurementPolicy, policy_named
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
    "MeasurementStopped",
    "default_core",
    "host_name",
    "never",
    "policy_named",
    "siblings",
    "summarise",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "measurement": "FailedMeasurement FakeProbe LatencyProbe Measurement MeasurementStopped never",
        "policy": "QUICK STANDARD MeasurementPolicy policy_named",
        "host_probe": "HostProbe default_core host_name siblings",
        "stats": "LatencySummary summarise",
    },
)
