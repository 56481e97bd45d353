"""The agent's process and the hub's process over loopback, killed at every moment: each job ends exactly once."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from search.devices import jobs, registry
from search.devices.jobs import JobRow, MeasurementRequest
from search.store.database import open_for_writing
from search.store.device_tables import event, result
from tests.workers.latency.test_latency_contract import TINY, sha256, write_corrupt, write_network
from workers.latency.agent.runtimes import installed_runtimes
from workers.latency.agent_file import agent_path

ROOT = Path(__file__).parents[3]
PATIENCE_S = 90.0  # until a test gives up waiting; none waits that long when all is well
HUB = """
import sys, uvicorn
from search.devices.hub import create_app
from search.store.database import open_for_writing
app = create_app(open_for_writing(sys.argv[1]), lease_s=2.0, retry_s=0.05)
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error")
"""


def until(holds: Callable[[], object]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.005)


class Pair:
    """A hub and an agent as processes, over one database; either can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder / 'study.db'}"
        self.engine = open_for_writing(self.url)
        self.token = registry.add_device(self.engine, "tiny")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.file = agent_path()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start_hub(self) -> None:
        self._start("hub", [sys.executable, "-c", HUB, self.url, str(self.port)], {})
        until(self.is_serving)

    def is_serving(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def start_agent(self, *options: str, name: str = "agent", token: str = "") -> None:
        hub = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, str(self.file), "run", "--hub", hub, "--folder", str(self.folder / name), *options]
        self._start(name, command, {"CONDENSERY_TOKEN": token or self.token, "no_proxy": "127.0.0.1"})

    def start(self, who: str) -> None:
        self.start_hub() if who == "hub" else self.start_agent()

    def _start(self, who: str, command: list[str], more: dict[str, str]) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}
        with (self.folder / f"{who}.log").open("ab") as log:
            self.processes[who] = subprocess.Popen(command, env=environment, stderr=log, cwd=self.folder)

    def signal(self, who: str, number: signal.Signals) -> None:
        self.processes[who].send_signal(number)

    def kill(self, who: str) -> None:
        self.signal(who, signal.SIGKILL)
        self.processes[who].wait(PATIENCE_S)

    def wait(self, who: str) -> int:
        return self.processes[who].wait(PATIENCE_S)

    def log(self, who: str) -> str:
        return (self.folder / f"{who}.log").read_text()

    # -- what the database says

    def request(self, *models: Path) -> list[int]:
        policy = {**TINY.model_dump(mode="json"), "processes": 2, "run_s": 0.15}
        anchor = jobs.put_model(self.engine, models[0].read_bytes())
        requests = [
            MeasurementRequest(
                "tiny",
                jobs.put_model(self.engine, path.read_bytes()),
                anchor,
                "wall",
                "onnxruntime",
                1,
                policy,
                "quick",
            )
            for path in models
        ]
        return jobs.submit(self.engine, requests, "test")

    def rows(self, ids: list[int]) -> list[JobRow]:
        return jobs.states(self.engine, ids)

    def are_over(self, ids: list[int]) -> bool:
        jobs.renew(self.engine, "test")  # as a search does that waits
        return all(row.state in ("done", "failed") for row in self.rows(ids))

    def has_seen(self, kind: str) -> bool:
        with self.engine.connect() as connection:
            return connection.scalar(sa.select(event.c.id).where(event.c.kind == kind).limit(1)) is not None

    def accepted(self) -> Counter[int]:
        with self.engine.connect() as connection:
            return Counter(connection.scalars(sa.select(result.c.job_id).where(result.c.verdict == "accepted")))

    def verdicts(self) -> set[str]:
        with self.engine.connect() as connection:
            return set(connection.scalars(sa.select(result.c.verdict)))


@pytest.fixture
def pair(tmp_path) -> Iterator[Pair]:
    pair = Pair(tmp_path)
    yield pair
    for process in pair.processes.values():
        process.kill()
        process.wait(PATIENCE_S)
    pair.engine.dispose()


def networks(folder: Path, count: int) -> list[Path]:
    return [write_network(folder / f"{channels}.onnx", channels) for channels in range(4, 4 + count)]


def check_each_ended_once(pair: Pair, ids: list[int], models: list[Path]) -> None:
    """Every job is done, by one accepted result that is its model's; nothing was refused as implausible."""
    rows = pair.rows(ids)
    assert [row.state for row in rows] == ["done"] * len(ids), [row.reason for row in rows]
    assert [row.report["sha256"] for row in rows if row.report] == [sha256(model) for model in models]
    assert pair.accepted() == dict.fromkeys(ids, 1)
    assert pair.verdicts() <= {"accepted", "late"}


@pytest.mark.slow
def test_the_agent_the_hub_hands_out_serves_it(pair, tmp_path):
    models = [*networks(tmp_path, 2), write_corrupt(tmp_path / "bad.onnx")]
    ids = pair.request(*models)
    pair.start_hub()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{pair.port}/agent.pyz") as reply:
        pair.file = tmp_path / "device" / "agent.pyz"
        pair.file.parent.mkdir()
        pair.file.write_bytes(reply.read())
    pair.start_agent("--once")
    assert pair.wait("agent") == 0, pair.log("agent")
    rows = pair.rows(ids)
    assert [row.state for row in rows] == ["done", "done", "failed"]
    assert [row.device for row in rows[:2]] == ["tiny", "tiny"]
    assert rows[0].runtime_version == installed_runtimes()["onnxruntime"]
    assert registry.list_devices(pair.engine)[0].facts["runtimes"] == installed_runtimes()


@pytest.mark.slow
def test_a_revoked_device_stops_and_its_job_waits_for_another(pair, tmp_path):
    ids = pair.request(*networks(tmp_path, 1))
    pair.start_hub()
    registry.revoke_device(pair.engine, "tiny")
    pair.start_agent()
    assert pair.wait("agent") == 3
    assert [row.state for row in pair.rows(ids)] == ["waiting"]


def at_its_lease(pair: Pair) -> None:
    until(lambda: pair.has_seen("leased"))


def at_a_download_nobody_answers(pair: Pair) -> None:
    until(lambda: pair.has_seen("leased"))
    pair.signal("hub", signal.SIGSTOP)


def while_measuring(pair: Pair) -> None:
    until(lambda: pair.has_seen("measuring"))


def at_a_post_nobody_answers(pair: Pair) -> None:
    while_measuring(pair)
    pair.signal("hub", signal.SIGSTOP)
    until(lambda: list((pair.folder / "agent" / "unsent").glob("*/*.json")))


def once_a_result_is_in(pair: Pair) -> None:
    until(pair.accepted)


MOMENTS = [at_its_lease, at_a_download_nobody_answers, while_measuring, at_a_post_nobody_answers, once_a_result_is_in]


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["agent", "hub"])
@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.__name__)
def test_a_kill_at_any_moment_loses_no_job_and_ends_none_twice(pair, tmp_path, victim, moment):
    models = networks(tmp_path, 3)
    ids = pair.request(*models)
    pair.start_hub()
    pair.start_agent()
    moment(pair)
    pair.kill(victim)
    lives = pair.log("agent").count("enrolled as tiny")
    if victim == "agent":
        pair.signal("hub", signal.SIGCONT)
        lives += 1
    pair.start(victim)
    until(lambda: pair.are_over(ids))
    check_each_ended_once(pair, ids, models)
    until(lambda: pair.log("agent").count("enrolled as tiny") >= lives)  # before, a signal just ends it
    pair.signal("agent", signal.SIGTERM)
    assert pair.wait("agent") == 0, pair.log("agent")
    assert not list((tmp_path / "agent" / "unsent").glob("*/*"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_kills_at_random_moments_lose_no_job_and_end_none_twice(pair, tmp_path, seed):
    rng = random.Random(seed)
    models = networks(tmp_path, 6)
    ids = pair.request(*models)
    pair.start_hub()
    pair.start_agent()
    for victim in rng.sample(["agent", "hub"] * 2, 4):  # fewer than the troubles that end a job
        time.sleep(rng.uniform(0.2, 1.5))
        pair.kill(victim)
        pair.start(victim)
    until(lambda: pair.are_over(ids))
    check_each_ended_once(pair, ids, models)


@pytest.mark.slow
def test_a_lease_held_by_an_agent_that_went_silent_goes_to_the_next(pair, tmp_path):
    models = networks(tmp_path, 2)
    ids = pair.request(*models)
    pair.start_hub()
    pair.start_agent()
    at_its_lease(pair)
    pair.signal("agent", signal.SIGSTOP)
    token = registry.add_device(pair.engine, "second", queue="tiny")
    pair.start_agent(name="second", token=token)
    until(lambda: pair.are_over(ids))
    pair.signal("agent", signal.SIGCONT)  # it finds its leases gone, or sends what is late
    for name in ("agent", "second"):
        pair.signal(name, signal.SIGTERM)
        assert pair.wait(name) == 0, pair.log(name)
    check_each_ended_once(pair, ids, models)
