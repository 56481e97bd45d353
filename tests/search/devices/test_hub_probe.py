"""The probe that asks agents, held to the contract of all probes: a real hub, a real agent, real measurements."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from search.devices import agents, leases, model_store, registry
from search.devices.history import newest_jobs
from search.devices.probe import HubProbe, HubProbeSettings, _macs_of
from search.store.device_tables import model, result
from space.cost import cost_of
from space.deployed import DeployedCondenseNet
from space.errors import InvalidSettings
from tests.search.hub_process import Pair
from tests.search.tiny_studies import SMALLEST
from tests.workers.latency.test_latency_contract import TINY, LatencyProbeContract, sha256, write_network
from workers.clock import SimulatedClock, SystemClock
from workers.export.model_files import save_for
from workers.latency.measurement import Measurement, MeasurementStopped

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair(tmp_path_factory.mktemp("hub"))
    pair.start_hub()
    pair.start_agent()
    yield pair
    pair.close()


@pytest.fixture
def anchor(tmp_path: Path) -> Path:
    return write_network(tmp_path / "anchor.onnx", 5)


class TestHubProbe(LatencyProbeContract):
    @pytest.fixture
    def probe(self, pair: Pair, anchor: Path) -> HubProbe:
        return HubProbe(pair.engine, HubProbeSettings("tiny", TINY, anchor))

    def test_a_measurement_says_which_agent_made_it_in_which_job(self, probe: HubProbe, networks: list[Path]):
        (result,) = probe.measure(networks[:1])
        assert isinstance(result, Measurement)
        assert result.conditions["agent"] == "tiny"
        assert result.conditions["job"] >= 1
        assert len(result.conditions["processes"]) == len(result.samples_ms) == TINY.processes


def test_a_model_measured_under_the_same_key_is_not_measured_again(pair: Pair, anchor: Path, tmp_path: Path):
    network = write_network(tmp_path / "network.onnx", 11)
    (first,) = HubProbe(pair.engine, HubProbeSettings("tiny", TINY, anchor)).measure([network])
    assert isinstance(first, Measurement)
    with pair.engine.begin() as connection:  # what isn't steady is measured again, and this machine may be busy
        mine = result.c.job_id == first.conditions["job"]
        report = json.loads(connection.scalar(sa.select(result.c.report).where(mine)) or "")
        connection.execute(sa.update(result).where(mine).values(report=json.dumps({**report, "steady": True})))
    (again,) = HubProbe(pair.engine, HubProbeSettings("tiny", TINY, anchor)).measure([network])
    assert isinstance(again, Measurement)
    assert (again.samples_ms, again.conditions) == (first.samples_ms, first.conditions)
    other = TINY.model_copy(update={"runs": 6})
    (different,) = HubProbe(pair.engine, HubProbeSettings("tiny", other, anchor)).measure([network])
    assert isinstance(different, Measurement)
    assert different.conditions["job"] != first.conditions["job"]


def test_without_an_agent_it_waits_says_so_and_can_be_stopped(pair: Pair, anchor: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("search.devices.probe.NOTE_AFTER_S", 0.3)
    registry.add_device(pair.engine, "away")
    notes: list[str] = []
    probe = HubProbe(pair.engine, HubProbeSettings("away", TINY, anchor), notes.append)
    stop, ended = threading.Event(), threading.Event()
    network = write_network(tmp_path / "network.onnx", 12)

    def measure() -> None:
        with pytest.raises(MeasurementStopped):
            probe.measure([network], stop.is_set)
        ended.set()

    thread = threading.Thread(target=measure)
    thread.start()
    deadline = time.monotonic() + 30
    while not notes and time.monotonic() < deadline:
        time.sleep(0.02)
    stop.set()
    thread.join(30)
    assert ended.is_set()
    assert len(notes) == 1
    assert "waiting for a device of queue 'away' to measure 1 network" in notes[0]
    (line,) = [line for line in newest_jobs(pair.engine, 100) if line.queue == "away"]
    assert line.state == "failed"  # no one waits for it any more, so no device is kept busy with it
    assert line.model_sha256 == sha256(network)
    assert line.history[0].startswith("submitted")


def test_the_models_of_finished_jobs_do_not_stay_in_the_database(pair: Pair, anchor: Path, tmp_path: Path):
    network = write_network(tmp_path / "network.onnx", 13)
    HubProbe(pair.engine, HubProbeSettings("tiny", TINY, anchor)).measure([network])
    model_store.drop_models_of_finished(pair.engine, SimulatedClock(time.time() + 3600))
    with pair.engine.connect() as connection:
        assert connection.execute(model.select()).all() == []


class TwoMinutesAgo(SystemClock):
    """It goes on, so that the agent meets the job once it is submitted."""

    def now(self) -> float:
        return super().now() - 120.0


def test_a_dead_agents_job_goes_back_while_the_search_alone_waits(
    pair: Pair, anchor: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr("search.devices.probe.LOOK_AFTER_S", 0.1)
    engine = pair.engine
    caller = registry.device_by_token(engine, registry.add_device(engine, "mortal"))
    assert caller is not None
    network = write_network(tmp_path / "network.onnx", 14)
    stop = threading.Event()
    probe = HubProbe(engine, HubProbeSettings("mortal", TINY, anchor))

    def measure() -> None:
        with pytest.raises(MeasurementStopped):
            probe.measure([network], stop.is_set)

    thread = threading.Thread(target=measure)
    thread.start()
    long_ago = leases.LeaseTerms(clock=TwoMinutesAgo())
    facts = {"runtimes": {"onnxruntime": "1"}}
    agents.enrol(engine, caller, agents.Enrolment("a" * 32, facts, {}), clock=long_ago.clock)
    deadline = time.monotonic() + 30
    taken: list = []
    while not taken and time.monotonic() < deadline:
        taken = leases.lease_jobs(engine, caller, leases.LeaseRequest("a" * 32), long_ago)
    assert taken  # and is never heard of again
    while time.monotonic() < deadline:
        (line,) = [line for line in newest_jobs(engine, 100) if line.queue == "mortal"]
        if line.state == "waiting" and line.attempt == 1:
            break
        time.sleep(0.05)
    stop.set()
    thread.join(30)
    assert any(text.startswith("expired") for text in line.history)


def test_a_runtime_that_no_device_of_the_queue_has_is_refused_instead_of_awaited(pair: Pair, anchor: Path, monkeypatch):
    engine = pair.engine
    caller = registry.device_by_token(engine, registry.add_device(engine, "plain"))
    assert caller is not None
    agents.enrol(engine, caller, agents.Enrolment("b" * 32, {"runtimes": {"onnxruntime": "1"}}, {}))
    ncnn = TINY.model_copy(update={"runtime": "ncnn"})
    with pytest.raises(
        InvalidSettings, match="'ncnn' must be there on queue 'plain', but its devices have onnxruntime"
    ):
        HubProbe(engine, HubProbeSettings("plain", ncnn, anchor)).measure([anchor])
    (line,) = [line for line in newest_jobs(engine, 100) if line.queue == "plain"]
    assert line.state == "failed"  # taken back


@pytest.mark.parametrize("runtime", ["onnxruntime", "ncnn", "litert", "native"])
def test_the_macs_of_every_kind_of_model_file_are_known(runtime: str, tmp_path: Path):
    network = DeployedCondenseNet.random(SMALLEST)
    path = tmp_path / "model"
    save_for(runtime, network, path)
    assert _macs_of(path.read_bytes()) == cost_of(SMALLEST).macs


def test_the_macs_of_another_file_are_unknown(anchor: Path):
    assert _macs_of(anchor.read_bytes()) is None
    assert _macs_of(b"PK\x03\x04 and no zip") is None
    assert _macs_of(b"nothing") is None
