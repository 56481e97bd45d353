"""Trials on the nodes of a Ray cluster that runs already, and trials that wait for a node."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.engines.events import Done, Stopped
from search.engines.ray import engine as ray_engine
from search.engines.ray.engine import RayTuneEngine
from tests.search.engines.engine_contract import LONG, PATIENCE_S, MakeJob, collect
from tests.search.engines.ray.tiny_ray import Cluster, cluster, final, job_maker, settings, started
from tests.waiting import until
from tests.workers.tiny import digits
from workers.processes import lives

pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are watched through /proc, on Linux"),
]


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with cluster(monkeypatch) as running:
        yield running


@pytest.fixture
def make_job(tmp_path: Path) -> MakeJob:
    digits(tmp_path / "images")
    return job_maker(tmp_path, tmp_path / "images")


def test_trials_run_on_both_nodes_of_a_cluster_and_one_that_waits_for_a_node_can_be_cancelled(
    nodes: Cluster, make_job: MakeJob
):
    nodes.add_second()
    engine = None
    try:
        notes: list[str] = []
        deadline = time.monotonic() + PATIENCE_S
        while engine is None or any("room for 1 of" in text for text in notes):
            assert time.monotonic() < deadline
            if engine is not None:  # the second node wasn't there yet
                engine.close()
            notes.clear()
            engine = RayTuneEngine(settings(address=nodes.address, workers=3), set(), notes.append)
        assert "Ray has room for 2 of 3 workers now; the others wait for nodes" in notes
        for number in (0, 1, 2):
            engine.submit(make_job(number, epochs=LONG))
        pids = started(engine, {0, 1})
        parents = {int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in pids.values()}
        assert len(parents) == 2  # two raylets
        engine.cancel(2)
        assert final(collect(engine, {2}))[2].reason == "cancelled by the user"
        engine.stop()
        assert {type(event) for event in final(collect(engine, {0, 1})).values()} == {Stopped}
        engine.submit(make_job(3))
        assert isinstance(collect(engine, {3})[-1], Done)
        worker = next(iter(pids.values()))
        engine.close()
        engine = None
        until(lambda: not lives(worker))  # the cluster ends what was ours, and stays
        assert all(node.poll() is None for node in nodes.nodes)
    finally:
        if engine is not None:
            engine.close()


def test_a_trial_that_waits_for_a_node_is_alive_however_long_it_waits(
    nodes: Cluster, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ray_engine, "ALIVE_S", 8.0)
    notes: list[str] = []
    engine = RayTuneEngine(settings(address=nodes.address), set(), notes.append)
    try:
        assert "Ray has room for 1 of 2 workers now; the others wait for nodes" in notes
        engine.submit(make_job(0, epochs=LONG))
        started(engine, {0})
        engine.submit(make_job(1))
        looked_at = time.monotonic()
        until = looked_at + 2 * ray_engine.ALIVE_S
        while time.monotonic() < until:
            assert all(event.number == 0 for event in engine.poll(0.2))
            before, looked_at = looked_at, time.monotonic()
            stood_still = looked_at - before > ray_engine.ALIVE_S / 4  # the machine, and whoever gives signs of life
            assert stood_still or set(engine.alive()) == {0, 1}
        engine.cancel(0)
        events = collect(engine, {0, 1})
        assert [event.attempt for event in events if event.number == 1] == [1, 1]  # its curve, its result
        assert isinstance(final(events)[1], Done)
    finally:
        engine.close()
