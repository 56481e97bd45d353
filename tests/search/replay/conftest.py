"""A tiny table, trained once a session, and a study that replays it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from search.replay.table import ReplayTable, read_table
from search.store.replayed import replayed_from
from tests.search.replay.replays import Replays, command
from tests.search.replay.tiny_tables import trained_table


@pytest.fixture(scope="session")
def table_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_table(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="session")
def table(table_path: Path) -> ReplayTable:
    return read_table(str(table_path))


@pytest.fixture
def replays(table_path: Path, study_database: str, tmp_path: Path) -> Replays:
    return Replays(table_path, study_database, tmp_path)


@pytest.fixture(scope="session")
def shown(table_path: Path, empty_database: Path, tmp_path_factory) -> Replays:
    """A replayed study, which tests only look at."""
    folder = tmp_path_factory.mktemp("shown")
    shutil.copy(empty_database, folder)
    replays = Replays(table_path, f"sqlite:///{folder / 'study.db'}", folder)
    done = command(replays, "launch", "--replay", table_path, "--set", "study.trainings=6")
    assert done.returncode == 0, done.stderr
    assert f"6 of 6 trainings replayed from {replayed_from({'replay': {'table': str(table_path)}})}" in done.stderr
    (folder / "launch.txt").write_text(done.stderr)
    replays.star(next(row.number for row in replays.rows() if row.state == "done"))
    return replays
