"""Ray as the tests use it: an engine's settings, what its processes are, a cluster on this machine."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from search.engines.events import AttemptEnd, EngineEvent, EpochEnded, Resumed, Started
from search.engines.ray.engine import RayTuneEngine
from search.settings import EngineSettings
from tests.search.engines.engine_contract import PATIENCE_S, MakeJob
from tests.waiting import until
from tests.workers.tiny import DIGITS, TRAINING, job
from workers.processes import children_of
from workers.training.job import TrialJob

ROOT = Path(__file__).parents[4]


def job_maker(folder: Path, cache: Path) -> MakeJob:
    def make(number: int, attempt: int = 1, epochs: int = 1, broken: bool = False) -> TrialJob:
        schedule = TRAINING.model_copy(update={"epochs": epochs})
        images = DIGITS.model_copy(update={"dataset": "imagefolder:/nowhere"}) if broken else DIGITS
        return job(folder / f"trial-{number}", cache, number=number, attempt=attempt, training=schedule, data=images)

    return make


def settings(**values: object) -> EngineSettings:
    return EngineSettings.model_validate({"kind": "ray", "workers": 2, "device": "cpu", **values})


def until_quietly(engine: RayTuneEngine, condition: Callable[[], bool]) -> None:
    """Poll the engine, which says nothing, until the condition is true."""

    def polled() -> bool:
        if condition():
            return True
        assert engine.poll(0.1) == []
        return False

    until(polled, PATIENCE_S)


def started(engine: RayTuneEngine, numbers: set[int]) -> dict[int, int]:
    """Poll until these trials have begun and shown an epoch; return their workers' process ids."""
    pids: dict[int, int] = {}
    learning: set[int] = set()
    deadline = time.monotonic() + PATIENCE_S
    while not (numbers <= pids.keys() and numbers <= learning):
        assert time.monotonic() < deadline
        for event in engine.poll(0.1):
            assert not isinstance(event, AttemptEnd), event
            if isinstance(event, Started):
                pids[event.number] = int(event.worker.rpartition(":")[2])
            else:
                learning.add(event.number)
    return pids


def final(events: list[EngineEvent]) -> dict[int, EngineEvent]:
    return {event.number: event for event in events if isinstance(event, AttemptEnd)}


def epochs_of(events: list[EngineEvent], number: int) -> list[int]:
    """The epochs that an attempt says, those of the checkpoint that it goes on from first."""
    (resumed,) = [event for event in events if event.number == number and isinstance(event, Resumed)]
    own = [event.epoch for event in events if event.number == number and isinstance(event, EpochEnded)]
    return [row["epoch"] for row in [*resumed.epochs, *own]]


def descendants(pid: int) -> set[int]:
    found = set(children_of(pid))
    return found.union(*(descendants(child) for child in found)) if found else found


def command_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def wait_for_port(port: int) -> None:
    def answers() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
        return False

    until(answers)


@dataclass
class Cluster:
    """Nodes with one CPU each on this machine, the head first."""

    address: str
    nodes: list[subprocess.Popen[bytes]]

    def add(self, *words: str) -> None:
        command = [str(Path(sys.executable).parent / "ray"), "start", *words, "--num-cpus=1", "--disable-usage-stats"]
        own = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
        self.nodes.append(subprocess.Popen([*command, "--object-store-memory=80000000", "--block"], env=own, **quiet))

    def add_second(self) -> None:
        self.add(f"--address={self.address}", "--dashboard-agent-listen-port=52999")


@contextlib.contextmanager
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head with one CPU and a token of its own; whatever was added to it is ended with it."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))  # of this cluster, not the user's
    port, folder = 6400 + os.getpid() % 1000, f"/tmp/condensery-test-{os.getpid()}"
    started = Cluster(f"127.0.0.1:{port}", [])
    try:
        started.add("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}")
        wait_for_port(port)
        yield started
    finally:
        for node in started.nodes:
            for pid in (*descendants(node.pid), node.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            node.wait()
        shutil.rmtree(folder, ignore_errors=True)
