"""Studies to run a controller on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from search.store.database import open_for_writing
from search.study import optuna_storage
from tests.search.tiny_studies import (
    Bench,
    sqlite_url,
)


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all tables and no study: making the tables takes longer than a whole search."""
    folder = tmp_path_factory.mktemp("database")
    open_for_writing(sqlite_url(folder)).dispose()
    optuna_storage(sqlite_url(folder)).engine.dispose()
    return folder / "study.db"


@pytest.fixture
def make_bench(tmp_path: Path, empty_database: Path):
    benches = []

    def make(**changes: Any) -> Bench:
        folder = tmp_path / str(len(benches))
        folder.mkdir()
        shutil.copy(empty_database, folder)
        benches.append(Bench(folder, **changes))
        return benches[-1]

    yield make
    for bench in benches:
        bench.close()
