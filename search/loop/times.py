"""How often a controller does what it does now and then; a test that waits for something sets these small."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LoopTimes:
    """A controller's rhythm, in seconds."""

    poll_s: float = 0.25  # at most, that it waits for news of workers
    pricing_poll_s: float = 0.25  # at most, that it waits for a batch of prices; one that is there is taken at once
    look_s: float = 0.25  # between two looks at what users want; as often it says that it lives
    renew_s: float = 2.0  # between two renewals of the leases of running trials
    silent_s: float = 120.0  # a worker that the engine knows nothing of for so long is taken for lost
    mirror_s: float = 2.0  # between two writes into Optuna's tables
    wind_down_s: float = 120.0  # for every worker to write its checkpoint at the end
