"""`condensery devices …` as processes: what they leave behind when killed, and what runs beside what."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from search.devices import leases, registry
from search.devices.probe import CALIBRATING
from search.devices.transitions import CANCELLED, REQUEST_S
from search.store.device_tables import device, job
from space.errors import MeasurementFailed
from tests.command_line import StartedCommand, run_command
from tests.search.hub_process import Pair
from tests.waiting import PATIENCE_S, until
from tests.workers.arm_device import arm_device, linked_copy
from tests.workers.latency.test_latency_contract import write_corrupt, write_network
from workers.clock import SimulatedClock

pytestmark = pytest.mark.slow


def rows_of(engine: sa.Engine, table: sa.Table) -> list[sa.Row[Any]]:
    with engine.connect() as connection:
        return list(connection.execute(sa.select(table)))


@pytest.mark.parametrize("verb", ["fit", "calibrate"])
def test_devices_measure_nothing_for_a_command_that_was_killed(pair: Pair, tmp_path: Path, verb: str):
    if verb == "calibrate":
        arm_device()  # which it looks for first
    options = ["--out", tmp_path / "profile.json"] if verb == "calibrate" else []
    words = ("devices", verb, "tiny", "--networks", "1", "--storage", pair.url, *options)
    process = StartedCommand(*words, cwd=tmp_path, log=tmp_path / "log")
    try:
        (row,) = until(lambda: rows_of(pair.engine, job))
    finally:
        process.kill()
        process.wait(PATIENCE_S)
    assert (row.state, row.priority) == ("waiting", CALIBRATING)

    def swept() -> sa.Row[Any] | None:
        """Rows that the killed command's connection still locks are left to the next sweep."""
        leases.expire(pair.engine, "tiny", leases.LeaseTerms(clock=SimulatedClock(time.time() + 2 * REQUEST_S)))
        (row,) = rows_of(pair.engine, job)
        return row if row.state != "waiting" else None

    row = until(swept)
    assert (row.state, row.reason) == ("failed", CANCELLED)


def test_a_virtual_agent_runs_beside_a_native_one_of_the_same_user(pair: Pair, tmp_path: Path):
    cache = tmp_path / "cache"
    linked_copy(arm_device(), cache / "arm64")
    token = registry.add_device(pair.engine, "soft", "counted", "raspberry-pi-5")
    pair.start_hub()
    hub = ("--hub", f"http://127.0.0.1:{pair.port}")
    home = {"HOME": str(tmp_path), "CONDENSERY_CACHE": str(cache), "no_proxy": "127.0.0.1"}
    native = [sys.executable, str(pair.file), "run", *hub]
    agents = [
        subprocess.Popen(native, env={**os.environ, **home, "CONDENSERY_TOKEN": pair.token}, cwd=tmp_path),
        StartedCommand("devices", "virtual", *hub, cwd=tmp_path, log=tmp_path / "log", CONDENSERY_TOKEN=token, **home),
    ]
    try:
        until(lambda: all(row.instance is not None for row in rows_of(pair.engine, device)))
        assert [agent.poll() for agent in agents] == [None, None]
        assert len(list(cache.glob("agent-*/instance"))) == 1
        assert (tmp_path / ".condensery-agent" / "instance").exists()
    finally:
        for agent in agents:
            agent.send_signal(signal.SIGTERM)
            assert agent.wait(PATIENCE_S) == 0


def test_counting_says_which_models_failed_and_ends_with_a_code_of_its_own(tmp_path: Path):
    arm = arm_device()
    good, bad = write_network(tmp_path / "good.onnx", 4), write_corrupt(tmp_path / "bad.onnx")
    words = ("devices", "virtual", "--folder", arm.folder)
    counted = run_command(*words, "--count", good, "--count", bad, cwd=tmp_path)
    assert counted.returncode == MeasurementFailed.exit_code, counted.stderr
    assert "good.onnx" in counted.stdout
    assert "bad.onnx" in counted.stdout
    assert counted.stderr.splitlines()[-1] == "error: 1 of 2 models could not be counted; see above."


@pytest.mark.long
def test_counting_ends_with_0_where_every_model_was_counted(tmp_path: Path):
    good = write_network(tmp_path / "good.onnx", 4)
    counted = run_command("devices", "virtual", "--folder", arm_device().folder, "--count", good, cwd=tmp_path)
    assert (counted.returncode, "good.onnx" in counted.stdout) == (0, True), counted.stderr
