"""The hub as a process of its own, with real sockets, real signals and the real agent."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from search.devices import registry
from search.devices.hub import serve
from search.devices.jobs import MeasurementRequest, submit
from search.devices.model_store import put_model
from search.pricing.pricer import write_anchor
from space import DeployedCondenseNet
from space.cost import cost_of
from space.errors import InvalidSettings
from tests.certificates import self_signed
from tests.search.hub_process import HubProcess
from tests.search.tiny_devices import CONDITIONS, FACTS, Desk, instance_of, wall_report
from tests.search.tiny_studies import INSIDE, sqlite_url
from tests.waiting import until
from tests.workers.latency.test_latency_contract import TINY, write_network
from workers.export.model_files import save_for
from workers.latency.agent.serving.protocol import PROTOCOL
from workers.latency.agent_file import agent_command
from workers.latency.measurement import Measurement, measurement_from_report
from workers.latency.policy import QUICK

ONE = instance_of("one")
pytestmark = pytest.mark.slow


@pytest.fixture
def desk(desk_at_present: Desk) -> Desk:
    return desk_at_present


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    hubs: list[HubProcess] = []

    def start(host: str = "127.0.0.1", tls: Sequence[Path] = ()) -> HubProcess:
        hubs.append(HubProcess(sqlite_url(tmp_path), tmp_path, (host, 0), tls))
        return hubs[-1]

    yield start
    for hub in hubs:
        hub.kill()
        hub.wait()


def leased(hub: HubProcess, desk: Desk) -> tuple[str, dict[str, Any]]:
    """An enrolled agent's token and its first job."""
    token = registry.add_device(desk.engine, "pi", "pi5")
    desk.submit("net")
    enrolment = {"instance": ONE, "format": PROTOCOL, "virtual": False, "facts": FACTS, "conditions": CONDITIONS}
    assert hub.call(token, "/v1/enrol", enrolment)[0] == 200
    status, answer = hub.call(token, "/v1/leases", {"instance": ONE, "limit": 1, "conditions": {}})
    assert status == 200
    return token, answer["jobs"][0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_hub_in_order(start: Any, number: int):
    hub = start()
    assert hub.greeting == f"hub at http://127.0.0.1:{hub.port}"
    with urllib.request.urlopen(hub.address + "/v1/health", timeout=30) as response:
        assert json.load(response) == {"status": "ok", "protocol": PROTOCOL}
    assert hub.end(number) == (0, "")


def test_a_hub_that_other_machines_reach_without_tls_says_what_that_means(start: Any):
    hub = start("0.0.0.0")
    warning = "warning: 0.0.0.0 is open to other machines without TLS"
    until(lambda: warning in hub.output.read_text())


def test_a_hub_killed_in_the_middle_of_an_upload_leaves_nothing_half_written(start: Any, desk: Desk):
    hub = start()
    token, job = leased(hub, desk)
    body = json.dumps({"instance": ONE, "attempt": 1, "report": wall_report(job["model"]["sha256"])}).encode()
    head = (
        f"POST /v1/jobs/{job['id']}/result HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", hub.port)) as connection:
        connection.sendall(head.encode() + body[:-10])
        hub.end(signal.SIGKILL)
    assert desk.verdicts(job["id"]) == []
    assert desk.events(job["id"]) == ["submitted", "leased"]
    again = start()
    answer = {"instance": ONE, "attempt": 1, "report": wall_report(job["model"]["sha256"])}
    assert again.call(token, f"/v1/jobs/{job['id']}/result", answer) == (200, {"verdict": "accepted"})
    assert again.call(token, f"/v1/jobs/{job['id']}/result", answer) == (200, {"verdict": "repeated"})


def test_a_client_that_disconnects_in_the_middle_of_a_body_does_no_harm(start: Any, desk: Desk):
    hub = start()
    token, job = leased(hub, desk)
    for ending in (b"", b"{", b'{"instance": "'):
        head = f"POST /v1/leave HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {token}\r\nContent-Length: 99\r\n\r\n"
        with socket.create_connection(("127.0.0.1", hub.port)) as connection:
            connection.sendall(head.encode() + ending)
    with socket.create_connection(("127.0.0.1", hub.port)) as connection:
        connection.sendall(b"\x00\xff nonsense\r\n\r\n")
    sign = {"instance": ONE, "attempt": 1, "state": "measuring", "conditions": {}}
    assert hub.call(token, f"/v1/jobs/{job['id']}/heartbeat", sign)[0] == 200
    code, errors = hub.end(signal.SIGTERM)
    assert code == 0
    assert "Traceback" not in errors


def test_a_hub_killed_at_any_moment_accepts_each_result_once(start: Any, desk: Desk):
    hub = start()
    token, first = leased(hub, desk)
    keys = desk.submit(*(f"net {number}" for number in range(8)))
    _, answer = hub.call(token, "/v1/leases", {"instance": ONE, "limit": 16, "conditions": {}})
    jobs = [first, *answer["jobs"]]
    assert len(jobs) == 1 + len(keys)
    for turn, job in enumerate(jobs):
        body = json.dumps({"instance": ONE, "attempt": 1, "report": wall_report(job["model"]["sha256"])}).encode()
        head = (
            f"POST /v1/jobs/{job['id']}/result HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        if turn % 3 == 0:
            with socket.create_connection(("127.0.0.1", hub.port)) as connection:
                connection.sendall(head.encode() + body)
                time.sleep(0.002 * turn)
                hub.end(signal.SIGKILL)
            hub = start()
        status, verdict = hub.call(token, f"/v1/jobs/{job['id']}/result", json.loads(body))
        assert status == 200
        assert verdict["verdict"] in ("accepted", "repeated")
    for job in jobs:
        assert desk.verdicts(job["id"]) == [("accepted", None)]
        assert desk.events(job["id"]) == ["submitted", "leased", "accepted"]


def agent_of(hub: HubProcess, folder: Path, *options: str) -> list[str]:
    return [*agent_command(), "run", "--hub", hub.address, "--folder", str(folder), *options]


def test_an_agent_works_over_tls_with_a_certificate_that_it_was_given(start: Any, desk: Desk, tmp_path: Path):
    hub = start(tls=self_signed(tmp_path))
    assert hub.greeting == f"hub at https://127.0.0.1:{hub.port}"
    network = put_model(desk.engine, write_network(tmp_path / "network.onnx", 4).read_bytes())
    policy = {**TINY.model_dump(mode="json"), "processes": 1}
    request = MeasurementRequest("pi5", network, network, "wall", "onnxruntime", 1, policy, "quick")
    (key,) = submit(desk.engine, [request], "test")
    environment = {**os.environ, "CONDENSERY_TOKEN": registry.add_device(desk.engine, "pi", "pi5")}
    command = agent_of(hub, tmp_path / "a", "--cafile", str(tmp_path / "hub.pem"), "--once")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert desk.job(key).state == "done"
    assert "unencrypted" not in done.stderr


@pytest.mark.parametrize("trusted", ["another", "the system's"])
def test_an_agent_tells_no_hub_its_token_whose_certificate_it_was_not_given(
    start: Any, desk: Desk, tmp_path: Path, trusted: str
):
    hub = start(tls=self_signed(tmp_path))
    options = ["--cafile", str(self_signed(tmp_path, "another")[0])] if trusted == "another" else []
    environment = {**os.environ, "CONDENSERY_TOKEN": registry.add_device(desk.engine, "pi", "pi5")}
    command = agent_of(hub, tmp_path / "a", *options)
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        process.terminate()
        process.communicate(timeout=60)
    assert "no answer from the hub: its certificate can't be trusted (self-signed certificate); name a file" in line
    assert registry.list_devices(desk.engine)[0].state == "never enrolled"


def test_a_key_of_another_certificate_is_refused_in_one_line(tmp_path: Path, study_database: str):
    certificate, _ = self_signed(tmp_path)
    _, key = self_signed(tmp_path, "another")
    with pytest.raises(InvalidSettings, match=r"must be a certificate and its key in PEM: .*mismatch"):
        serve(study_database, port=0, tls=(certificate, key))


def test_a_taken_address_is_refused_in_one_line(tmp_path: Path, empty_database: Path):
    shutil.copy(empty_database, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidSettings, match=rf"127\.0\.0\.1 port {port} can't be listened on"):
            serve(sqlite_url(tmp_path), port=port)
    with pytest.raises(InvalidSettings, match=r"no\.such\.host\.invalid port 0 can't be listened on"):
        serve(sqlite_url(tmp_path), "no.such.host.invalid", 0)
    with pytest.raises(InvalidSettings, match=r"a port must be in 0\.\.65535, but got 70000"):
        serve(sqlite_url(tmp_path), port=70_000)


def test_a_file_that_is_no_certificate_is_refused_in_one_line(tmp_path: Path, empty_database: Path):
    shutil.copy(empty_database, tmp_path)
    nothing = tmp_path / "cert.pem"
    for _ in range(2):
        with pytest.raises(InvalidSettings, match=r"must be a certificate and its key in PEM"):
            serve(sqlite_url(tmp_path), port=0, tls=(nothing, nothing))
        nothing.write_text("nothing")


def test_the_agent_measures_what_was_requested(start: Any, desk: Desk, tmp_path: Path):
    anchor = write_anchor(tmp_path).read_bytes()
    network = tmp_path / "network.onnx"
    save_for("onnxruntime", DeployedCondenseNet.random(INSIDE), network)
    content = network.read_bytes()
    assert content != anchor
    policy = QUICK.model_copy(update={"attempts": 1, "processes": 2})
    request = MeasurementRequest(
        queue="pi5",
        model_sha256=put_model(desk.engine, content),
        anchor_sha256=put_model(desk.engine, anchor),
        mode="wall",
        runtime="onnxruntime",
        threads=1,
        policy=policy.model_dump(mode="json"),
        policy_label=policy.label,
        macs=cost_of(INSIDE).macs,
    )
    broken = dataclasses.replace(request, model_sha256=put_model(desk.engine, b"no network"))
    keys = submit(desk.engine, [request, broken], "test")
    hub, token = start(), registry.add_device(desk.engine, "pi", "pi5")
    fetched = tmp_path / "agent.pyz"
    with urllib.request.urlopen(hub.address + "/agent.pyz", timeout=30) as response:
        fetched.write_bytes(response.read())
    command = [
        sys.executable,
        str(fetched),
        "run",
        "--hub",
        hub.address,
        "--folder",
        str(tmp_path / "a"),
        "--once",
    ]
    environment = {**os.environ, "CONDENSERY_TOKEN": token}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert desk.verdicts(keys[0]) == [("accepted", None)]
    row = desk.job(keys[0])
    assert row.report is not None
    found = measurement_from_report(row.report, {**row.report, "attempt": row.report["tries"]}, "pi5")
    assert isinstance(found, Measurement)
    assert found.model_hash == request.model_sha256
    assert desk.job(keys[1]).state == "failed"
    (device,) = registry.list_devices(desk.engine)
    assert (device.state, device.accepted, device.facts["runtimes"]["onnxruntime"]) == (
        "offline",
        1,
        found.runtime_version,
    )
    assert hub.end(signal.SIGTERM) == (0, "")
