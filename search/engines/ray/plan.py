"""The plan that a Ray driver starts with, and the message about a job that it hands to a worker."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.engines.ray.run_folder import PAUSES

DIED, NO_MEMORY = "the worker died: ", "out of memory"  # how a reason begins, and what it says after a kill by Ray


@dataclass(frozen=True)
class Plan:
    """All that the driver needs, as plain values."""

    folder: str  # of this run's files, removed with it; short, because sockets' paths are limited
    host: str
    workers: int
    threads: int
    gpus: float  # of each worker
    address: str | None  # of a cluster; None = a Ray of our own
    exchange: str | None
    cores: tuple[int, ...] | None  # the processors that workers on this machine are pinned to

    def job_message(self, serial: int, job: dict[str, Any]) -> str:
        """Return what a worker is sent: the job and where it runs, as JSON."""
        place = {
            "host": self.host,
            "pauses": str(Path(self.folder) / PAUSES),
            "cores": self.cores,
            "threads": self.threads,
        }
        return json.dumps({"serial": serial, "job": job, "exchange": self.exchange} | place)
