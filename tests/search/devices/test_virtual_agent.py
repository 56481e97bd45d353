"""A real agent in the ARM device in software, a real hub and HTTP between them: counts come back, latencies don't."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from search.devices import jobs, model_store, registry
from search.devices.jobs import JobRow, MeasurementRequest
from search.store.connection.database import open_for_writing
from search.store.device_tables import result
from tests.search.hub_process import HubProcess
from tests.search.tiny_devices import CONDITIONS, FACTS, instance_of, wall_report
from tests.waiting import PATIENCE_S, until
from tests.workers.arm_device import arm_device, write_condensenet
from tests.workers.latency.test_latency_contract import sha256, write_network
from workers.latency import Measurement
from workers.latency.agent.serving.protocol import PROTOCOL
from workers.latency.emulated.virtual_arm import VirtualArm
from workers.latency.estimated_probe import estimated_measurement
from workers.latency.policy import QUICK
from workers.latency.profiles import load_profile

pytestmark = pytest.mark.slow(seconds=20)

QUEUE, PROFILE = "pi", "raspberry-pi-5"


class Bench:
    """A hub's process and agents' processes over one database, with one virtual device."""

    def __init__(self, arm: VirtualArm, folder: Path) -> None:
        self.arm, self.folder = arm, folder
        url = f"sqlite:///{folder / 'study.db'}"
        self.engine = open_for_writing(url)
        self.token = registry.add_device(self.engine, "emulated", queue=QUEUE, profile=PROFILE)
        self.hub = HubProcess(url, folder)
        self.agents: list[subprocess.Popen[bytes]] = []

    def start_agent(self) -> subprocess.Popen[bytes]:
        command = [*self.arm.agent_command(self.hub.address), "--folder", str(self.folder / "agent")]
        environment = {**os.environ, "CONDENSERY_TOKEN": self.token, "no_proxy": "127.0.0.1"}
        with (self.folder / "agent.log").open("ab") as log:
            self.agents.append(subprocess.Popen(command, env=environment, stderr=log))
        return self.agents[-1]

    def close(self) -> None:
        for process in (*self.agents, self.hub):
            process.kill()
            process.wait(PATIENCE_S)
        self.engine.dispose()

    def call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Call the hub as the device, by hand."""
        status, answer = self.hub.call(self.token, f"/v1/{path}", body)
        assert status == 200
        return answer

    def request(self, *models: Path) -> list[int]:
        policy = QUICK.model_dump(mode="json")
        hashes = [model_store.put_model(self.engine, path.read_bytes()) for path in models]
        requests = [
            MeasurementRequest(QUEUE, one, None, "counts", "onnxruntime", 1, policy, "counts") for one in hashes
        ]
        return jobs.submit(self.engine, requests, "test")

    def rows(self, ids: list[int]) -> list[JobRow]:
        return jobs.states(self.engine, ids)

    def are_over(self, ids: list[int]) -> bool:
        jobs.renew(self.engine, "test")  # as a search does that waits
        return all(row.state in ("done", "failed") for row in self.rows(ids))

    def is_counting(self) -> bool:
        """Whether the emulator has written down the counts of a run."""
        return any(path.stat().st_size for path in (self.folder / "agent").glob("counts*"))

    def verdicts(self) -> Counter[tuple[int, str]]:
        with self.engine.connect() as connection:
            return Counter((row.job_id, row.verdict) for row in connection.execute(sa.select(result)))


@pytest.fixture
def bench(tmp_path) -> Iterator[Bench]:
    bench = Bench(arm_device(), tmp_path)
    yield bench
    bench.close()


def test_an_emulated_agent_counts_for_a_hub_and_one_killed_at_it_loses_nothing(bench, tmp_path):
    models = [write_condensenet(tmp_path / f"{layers}.onnx", layers) for layers in (1, 2)]
    ids = bench.request(*models)
    killed = bench.start_agent()
    until(bench.is_counting)
    killed.send_signal(signal.SIGKILL)
    killed.wait(PATIENCE_S)
    assert not bench.are_over(ids)
    agent = bench.start_agent()
    until(lambda: bench.are_over(ids))
    rows = bench.rows(ids)
    assert [row.state for row in rows] == ["done"] * 2, (tmp_path / "agent.log").read_text()
    assert bench.verdicts() == dict.fromkeys([(one, "accepted") for one in ids], 1)
    assert max(row.attempt for row in rows) > 1
    estimates = [estimated_measurement(row.report, row.report, load_profile(PROFILE), QUEUE) for row in rows]
    assert all(isinstance(one, Measurement) and one.kind == "estimated" for one in estimates)
    assert [one.model_hash for one in estimates] == [sha256(model) for model in models]
    medians = [one.median_ms for one in estimates]
    assert medians == sorted(medians)
    assert rows[0].runtime_version == bench.arm.facts["onnxruntime"]
    (device,) = registry.list_devices(bench.engine)
    assert device.facts["machine"] == "aarch64"
    assert device.facts["runtimes"]["onnxruntime"] == bench.arm.facts["onnxruntime"]
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(PATIENCE_S) == 0


def test_timed_samples_of_a_virtual_device_are_kept_in_quarantine_and_never_count(bench, tmp_path):
    (number,) = bench.request(write_network(tmp_path / "a.onnx"))
    instance = instance_of("emulated")
    facts = {**FACTS, "cpu_model": "emulated"}
    bench.call(
        "enrol", {"instance": instance, "format": PROTOCOL, "virtual": True, "facts": facts, "conditions": CONDITIONS}
    )
    (job,) = bench.call("leases", {"instance": instance, "limit": 1, "conditions": CONDITIONS})["jobs"]
    assert (job["id"], job["mode"]) == (number, "counts")
    body = {"instance": instance, "attempt": job["attempt"], "report": wall_report(job["model"]["sha256"])}
    assert bench.call(f"jobs/{number}/result", body) == {"verdict": "quarantined"}
    (row,) = bench.rows([number])
    assert (row.state, row.report) == ("waiting", None)
    assert bench.verdicts() == {(number, "quarantined"): 1}
