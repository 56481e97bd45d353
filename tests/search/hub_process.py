"""A hub and agents as processes of their own, over one database; each can be killed and started again.

The hub's process begins with the libraries imported (see `tests.command_line`); everything else is as `condensery
devices serve` does it: real sockets, real signals, a real end.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from search.devices import jobs, model_store, registry
from search.devices.jobs import JobRow, MeasurementRequest
from search.store.connection.database import open_for_writing
from search.store.device_tables import event, result
from search.store.vocabulary import OPEN_JOB_STATES, MeasurementMode, Verdict
from tests.command_line import ROOT, fork_server, hear_interrupts
from tests.waiting import PATIENCE_S, until
from tests.workers.latency.test_latency_contract import TINY
from workers.latency.agent_file import agent_path


@dataclass(frozen=True)
class Strangers:
    """What strangers are granted: open files of the hub in all, and seconds for each part of a request."""

    files: int | None = None
    patience_s: float | None = None


def _serve(
    url: str,
    address: tuple[str, int],
    tls: Sequence[Path],
    timing: dict[str, float],
    files: list[str],
    granted: Strangers,
) -> None:
    """Serve a database in the process that was just forked; `files` take its output and its errors."""
    hear_interrupts()
    for number, path in enumerate(files, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), number)
    from search.devices import hub, strangers

    if granted.files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (granted.files, granted.files))
    if granted.patience_s is not None:
        strangers.PATIENCE_S = dict.fromkeys(strangers.PATIENCE_S, granted.patience_s)
    hub.create_app = partial(hub.create_app, **timing)
    certificate, key = tls or (None, None)
    pem = None if certificate is None or key is None else (certificate, key)
    hub.serve(url, *address, pem, note=partial(print, flush=True))


class HubProcess:
    """A hub that serves a database, and how to talk to it as a device."""

    def __init__(
        self,
        url: str,
        folder: Path,
        address: tuple[str, int] = ("127.0.0.1", 0),
        tls: Sequence[Path] = (),
        strangers: Strangers | None = None,
        **timing: float,
    ) -> None:
        """Start a hub that writes hub.out and hub.err in a folder; `timing` is `create_app`'s lease_s and retry_s."""
        self.output, self.errors = folder / "hub.out", folder / "hub.err"
        for path in (self.output, self.errors):
            path.write_bytes(b"")
        files = [str(self.output), str(self.errors)]
        self._process = fork_server().Process(
            target=_serve, args=(url, address, tls, timing, files, strangers or Strangers())
        )
        self._process.start()
        self.greeting = until(self._greeting, every_s=0.005)
        self.address = self.greeting.removeprefix("hub at ")
        self.port = int(self.address.rpartition(":")[2])

    def _greeting(self) -> str:
        assert self._process.exitcode is None, self.errors.read_text()
        greeting = re.match(r"(hub at https?://\S+:\d+)\n", self.output.read_text())
        return "" if greeting is None else greeting[1]

    def call(self, token: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        """Return the status and the body of the response to a POST."""
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.address + path, json.dumps(body).encode(), headers)
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        if self._process.exitcode is None:
            os.kill(self._process.pid, number)

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        self._process.join(timeout_s)
        assert self._process.exitcode is not None
        return self._process.exitcode

    def end(self, number: int) -> tuple[int, str]:
        """Send a signal; return the exit code, and what the hub wrote to its standard error."""
        self.send_signal(number)
        return self.wait(), self.errors.read_text()

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Pair:
    """A hub and an agent as processes, over one database; each can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder / 'study.db'}"
        self.engine = open_for_writing(self.url)
        self.token = registry.add_device(self.engine, "tiny")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.file = agent_path()
        self.processes: dict[str, subprocess.Popen[bytes] | HubProcess] = {}

    def start_hub(self) -> None:
        self.processes["hub"] = HubProcess(self.url, self.folder, ("127.0.0.1", self.port), lease_s=2.0, retry_s=0.05)

    def start_agent(self, *options: str, name: str = "agent", token: str = "") -> None:
        hub = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, str(self.file), "run", "--hub", hub, "--folder", str(self.folder / name), *options]
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "CONDENSERY_TOKEN": token or self.token,
            "no_proxy": "127.0.0.1",
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(command, env=environment, stderr=log, cwd=self.folder)

    def start(self, name: str) -> None:
        self.start_hub() if name == "hub" else self.start_agent()

    def signal(self, name: str, number: signal.Signals) -> None:
        self.processes[name].send_signal(number)

    def kill(self, name: str) -> None:
        self.signal(name, signal.SIGKILL)
        self.wait(name)

    def wait(self, name: str) -> int:
        return self.processes[name].wait(PATIENCE_S)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def close(self) -> None:
        for name in self.processes:
            self.kill(name)
        self.engine.dispose()

    # -- what the database says

    def request(self, *models: Path) -> list[int]:
        """Request measurements; return their jobs."""
        policy = {**TINY.model_dump(mode="json"), "processes": 2, "run_s": 0.15}
        hashes = [model_store.put_model(self.engine, path.read_bytes()) for path in models]
        how = (MeasurementMode.WALL, "onnxruntime", 1, policy, "quick")
        requests = [MeasurementRequest("tiny", sha256, hashes[0], *how) for sha256 in hashes]
        return jobs.submit(self.engine, requests, "test")

    def rows(self, ids: list[int]) -> list[JobRow]:
        return jobs.states(self.engine, ids)

    def are_over(self, ids: list[int]) -> bool:
        jobs.renew(self.engine, "test")  # as a waiting search does
        return all(row.state not in OPEN_JOB_STATES for row in self.rows(ids))

    def has_seen(self, kind: str) -> bool:
        with self.engine.connect() as connection:
            return connection.scalar(sa.select(event.c.id).where(event.c.kind == kind).limit(1)) is not None

    def accepted(self) -> Counter[int]:
        with self.engine.connect() as connection:
            accepted = sa.select(result.c.job_id).where(result.c.verdict == Verdict.ACCEPTED)
            return Counter(connection.scalars(accepted))

    def verdicts(self) -> set[str]:
        with self.engine.connect() as connection:
            return set(connection.scalars(sa.select(result.c.verdict)))
