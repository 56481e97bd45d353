"""Agents to test: what a hub may offer them, how to run one here or as a process, and how to wait for it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.workers.latency.test_latency_contract import TINY
from tests.workers.small_hub import PATIENCE_S, TOKEN, SmallHub
from workers.latency.agent.sensors import usable_cores
from workers.latency.agent.serving.settings import HubSettings
from workers.latency.agent_file import agent_command, agent_path
from workers.processes import lives

QUICKEST = {**TINY.model_dump(mode="json"), "processes": 1, "runs": 1}
ENDLESS = {**QUICKEST, "run_s": 600.0}
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def signals_kept() -> Iterator[None]:
    """Keep what an agent in this process does to its signals from the tests after it."""
    handlers = [signal.getsignal(number) for number in HANDLED]
    yield
    for number, handler in zip(HANDLED, handlers, strict=True):
        signal.signal(number, handler)


def offer(hub: SmallHub, model: bytes, **changes: Any) -> dict[str, Any]:
    """Say what a job's answer says beside id and attempt; the model is its own anchor."""
    kept = hub.keep(model)
    shared = {"mode": "wall", "runtime": "onnxruntime", "threads": 1, "precision": "fp32", "policy": QUICKEST}
    return {**shared, "model": kept, "anchor": kept, **changes}


def settings(hub: SmallHub, folder: Path, **changes: Any) -> HubSettings:
    (folder / "agent").mkdir(exist_ok=True)
    here = {"folder": folder / "agent", "core": usable_cores()[-1], "program": agent_path()}
    return HubSettings(**{"url": hub.url, "token": TOKEN, "once": True, **here, **changes})


class Agent:
    """The agent's file, run on its own as a device runs it."""

    def __init__(self, hub: SmallHub, folder: Path, *options: str, **more: Any) -> None:
        self.log = folder / "agent.log"
        command = [*agent_command(), "run", "--hub", hub.url, "--folder", str(folder / "agent"), *options]
        with self.log.open("ab") as log:
            environment = {**os.environ, "CONDENSERY_TOKEN": TOKEN}
            self.process = subprocess.Popen(command, stderr=log, env=environment, **more)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def children(self) -> list[int]:
        return [
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]


@contextmanager
def agents_started(hub: SmallHub, folder: Path) -> Iterator[Callable[..., Agent]]:
    """Give a function that starts agents on the same folder; they are killed at the end."""
    agents: list[Agent] = []

    def start(*options: str, **more: Any) -> Agent:
        agents.append(Agent(hub, folder, *options, **more))
        return agents[-1]

    yield start
    for agent in agents:
        agent.process.kill()
        agent.process.wait(PATIENCE_S)


def is_gone(pid: int) -> bool:
    """Whether a process has ended; its parent may not have asked how."""
    return not lives(pid)
