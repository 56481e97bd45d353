"""The requests of a waiting search: renewed while it waits, submitted again when they ran out, gone at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from search.devices import leases, registry
from search.devices.probe import AT_THE_GATE, CALIBRATING, VERIFYING, HubProbe, HubProbeSettings
from search.devices.transitions import CANCELLED, REQUEST_S
from search.pricing.targets import Probes, targets_of
from search.store.device_tables import job, request
from search.study_file import settings_from
from space.errors import InvalidSettings
from tests.search.tiny_devices import Agent, Desk, wall_report
from tests.search.tiny_studies import document
from tests.waiting import PATIENCE_S, until
from workers.clock import SimulatedClock
from workers.latency.measurement import LatencyProbe, Measurement, MeasurementStopped
from workers.latency.policy import QUICK


class Search:
    """A probe that measures in a thread of its own."""

    def __init__(self, probe: LatencyProbe, model: Path) -> None:
        self._probe, self._model = probe, model
        self._stop = threading.Event()
        self.found: list[Any] = []
        self._thread = threading.Thread(target=self._measure)
        self._thread.start()

    def _measure(self) -> None:
        try:
            self.found = list(self._probe.measure([self._model], self._stop.is_set))
        except MeasurementStopped:
            self.found = ["stopped"]

    def result(self) -> Any:
        self._thread.join(PATIENCE_S)
        (found,) = self.found
        return found

    def end(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Search]]:
    monkeypatch.setattr("search.devices.probe.LOOK_AFTER_S", 0.05)
    started: list[Search] = []

    def start(probe: LatencyProbe, model: Path) -> Search:
        started.append(Search(probe, model))
        return started[-1]

    yield start
    for search in started:
        search.end()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"net")
    return path


@pytest.fixture
def agent(desk: Desk) -> Agent:
    desk.clock.set_now(time.time())
    return desk.agent("pi")


def probe_of(desk: Desk, model: Path, **changes: Any) -> HubProbe:
    return HubProbe(desk.engine, HubProbeSettings("pi5", QUICK, model, **changes))


def rows_of(desk: Desk, table: sa.Table) -> list[sa.Row[Any]]:
    with desk.engine.connect() as connection:
        return list(connection.execute(sa.select(table).order_by(table.c[table.primary_key.columns.keys()[0]])))


def good_report(sha256: str, **changes: Any) -> dict[str, Any]:
    """A report as thorough as the quick policy."""
    process = wall_report(sha256)["processes"][0]
    process |= {"runs": QUICK.runs, "samples_ms": [5.0 + 0.01 * number for number in range(QUICK.runs)]}
    return wall_report(sha256, processes=[process] * QUICK.processes, **changes)


def test_a_request_is_renewed_while_it_is_awaited_and_gone_when_it_is_answered(desk, agent, model, start):
    search = start(probe_of(desk, model), model)
    (first,) = until(lambda: rows_of(desk, request))
    until(lambda: rows_of(desk, request)[0].renewed_at > first.renewed_at)
    (taken,) = until(agent.lease)
    agent.hand_in(taken, good_report(taken.model_sha256))
    assert isinstance(search.result(), Measurement)
    assert rows_of(desk, request) == []


def test_a_search_that_is_stopped_takes_its_request_back(desk, agent, model, start):
    search = start(probe_of(desk, model), model)
    until(lambda: rows_of(desk, request))
    search.end()
    assert search.result() == "stopped"
    assert rows_of(desk, request) == []
    assert rows_of(desk, job)[0].reason == CANCELLED


def test_a_search_that_stood_still_for_too_long_requests_again(desk, agent, model, start):
    search = start(probe_of(desk, model), model)
    until(lambda: rows_of(desk, request))

    def lost_once() -> bool:
        """A sweep leaves a request that is just being renewed to the next one."""
        leases.expire(desk.engine, "pi5", leases.LeaseTerms(clock=SimulatedClock(time.time() + REQUEST_S + PATIENCE_S)))
        return any(row.reason == CANCELLED for row in rows_of(desk, job))

    until(lost_once)
    lost, again = until(lambda: rows if len(rows := rows_of(desk, job)) == 2 else None)
    assert (lost.state, lost.reason) == ("failed", CANCELLED)
    (taken,) = until(agent.lease)
    assert taken.id == again.id
    agent.hand_in(taken, good_report(taken.model_sha256))
    assert isinstance(search.result(), Measurement)


def test_the_drift_recorded_is_that_of_the_anchors_own_times(desk, agent, model, start):
    search = start(probe_of(desk, model), model)
    (taken,) = until(agent.lease)
    report = good_report(taken.model_sha256, anchor_drift=0.0)
    first, *others = report["processes"]
    report["processes"] = [{**first, "anchor_ms": [2.0, 2.05]}, *others]
    assert agent.hand_in(taken, report) == "accepted"
    assert search.result().anchor_drift == pytest.approx(0.025)


def test_verifying_measures_again_and_pricing_does_not(desk, agent, model, start, tmp_path):
    settings = settings_from(document(latency={"devices": ["pi5"], "policy": "quick"}), "tiny.toml")

    def measure(priority: int) -> None:
        (target,) = targets_of(settings, desk.engine, tmp_path, print, priority)
        search = start(target.probe, model)
        until(lambda: search.found or [agent.hand_in(one, good_report(one.model_sha256)) for one in agent.lease()])
        assert isinstance(search.result(), Measurement)

    for priority in (AT_THE_GATE, CALIBRATING, VERIFYING, VERIFYING, AT_THE_GATE):
        measure(priority)
    assert [row.priority for row in rows_of(desk, job)] == [AT_THE_GATE, VERIFYING, VERIFYING]


def test_several_threads_are_refused_on_a_queue_of_virtual_devices(desk, tmp_path):
    registry.add_device(desk.engine, "soft", "counted", "raspberry-pi-5")
    for threads, names in ((1, "counted"), (2, "pi5")):
        registry.add_device(desk.engine, f"real{threads}", "pi5")
        latency = {"devices": [names], "policy": "quick", "threads": threads}
        Probes(settings_from(document(latency=latency), "tiny.toml"), desk.engine, tmp_path, print).on(names)
    latency = {"devices": ["counted"], "policy": "quick", "threads": 2}
    settings = settings_from(document(latency=latency), "tiny.toml")
    with pytest.raises(InvalidSettings, match=r"latency\.threads must be 1 on 'counted', but is 2: .* are virtual"):
        Probes(settings, desk.engine, tmp_path, print).on("counted")
