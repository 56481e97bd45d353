"""A tiny table, trained once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.replay.table import ReplayTable, read_table
from tests.search.replay.tiny_tables import trained_table


@pytest.fixture(scope="session")
def table_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_table(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="session")
def table(table_path: Path) -> ReplayTable:
    return read_table(str(table_path))
