"""The process of a Ray driver and its supervisor, as the engine holds it."""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from search.engines.ray.plan import Plan
from search.engines.ray.run_folder import RayFolder
from search.engines.ray.supervisor import supervisor_main
from search.settings import EngineSettings
from workers.processes import interrupts_blocked

END_S = 30.0  # at most, for the supervisor to end everything


@dataclass
class DriverProcess:
    """One process with a Tune run; `ready` once it takes jobs."""

    process: SpawnProcess
    pipe: Connection
    folder: RayFolder
    started_at: float = field(default_factory=time.monotonic)
    ready: bool = False
    reason: str = ""  # why it ended, as it reported

    def end(self) -> None:
        """End the driver and everything it started."""
        self.pipe.close()  # tells the supervisor to end everything
        self.process.join(END_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.folder.remove()  # the supervisor did, unless it was killed


def start_driver(settings: EngineSettings, exchange: str | None, cores: Sequence[int] | None) -> DriverProcess:
    """Start a driver; its workers on this machine are pinned to `cores` (None: not pinned)."""
    folder = RayFolder()
    plan = Plan(
        folder=str(folder.path),
        host=socket.gethostname(),
        workers=settings.workers,
        threads=settings.threads,
        gpus=settings.gpus,
        address=settings.address,
        exchange=exchange,
        cores=None if cores is None else tuple(cores),
    )
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=supervisor_main, args=(theirs, plan), daemon=True)
    with interrupts_blocked():
        process.start()
    theirs.close()
    return DriverProcess(process, ours, folder)
