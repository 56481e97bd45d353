"""The words that say what a latency is worth; they stay with the number from the agent's report to the model card."""

from __future__ import annotations

from enum import StrEnum


class LatencyKind(StrEnum):
    """Where a latency comes from; numbers of different kinds are never mixed without this label."""

    MEASURED = "measured"  # timed on the device
    ESTIMATED = "estimated"  # from the ARM instructions that were counted
    PREDICTED = "predicted"  # from the network's structure, by the model fitted to the device


class LatencyPurpose(StrEnum):
    """What a trial's latency was measured for."""

    PRICE = "price"  # the network with random weights, before training
    VERIFY = "verify"  # the trained file, by `pick`
