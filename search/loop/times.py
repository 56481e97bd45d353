"""The intervals of a controller's recurring work; tests set them small."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LoopTimes:
    """A controller's intervals and time limits, in seconds."""

    poll_s: float = 0.25  # the longest wait for events of workers
    pricing_poll_s: float = 0.25  # the longest wait for a batch of prices
    look_s: float = 0.25  # between two looks at users' requests; the controller's heartbeat is as frequent
    renew_s: float = 2.0  # between two renewals of the leases of running trials
    reports_s: float = 5.0  # between two writes of how far the running trials are
    silent_s: float = 120.0  # after which a worker that has given no sign of life counts as lost
    mirror_s: float = 2.0  # between two writes into Optuna's tables
    wind_down_s: float = 120.0  # for the workers to write their checkpoints when the search stops
