"""Studies to run a controller on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from search.store.connection.database import open_for_writing
from search.study import optuna_storage
from tests.postgres import database_of
from tests.search.tiny_devices import Desk
from tests.search.tiny_hub import Hub
from tests.search.tiny_studies import Bench, sqlite_url


@pytest.fixture(scope="session")
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


@pytest.fixture
def study_database(tmp_path: Path, empty_database: Path) -> str:
    """The URL of a SQLite database of the test's own, with all tables and no study."""
    shutil.copy(empty_database, tmp_path)
    return sqlite_url(tmp_path)


@pytest.fixture(scope="session")
def postgres_tables(postgres: sa.URL) -> Iterator[str]:
    """The name of a PostgreSQL database with all tables and no study, to be copied."""
    with database_of(postgres) as url:
        open_for_writing(url).dispose()
        optuna_storage(url).engine.dispose()
        yield str(sa.make_url(url).database)


@pytest.fixture
def postgres_database(postgres: sa.URL, postgres_tables: str) -> Iterator[str]:
    """The URL of a PostgreSQL database of the test's own, with all tables and no study."""
    with database_of(postgres, postgres_tables) as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database(request: pytest.FixtureRequest) -> str:
    """The URL of a database of the test's own, of each kind, with all tables and no study."""
    url: str = request.getfixturevalue("study_database" if request.param == "sqlite" else "postgres_database")
    return url


@pytest.fixture
def database_bench(tmp_path: Path, database: str) -> Iterator[Callable[..., Bench]]:
    """Makes a bench on each kind of database."""
    benches = []

    def make(**changes: Any) -> Bench:
        benches.append(Bench(tmp_path, **changes))
        benches[-1].url = database
        return benches[-1]

    yield make
    for bench in benches:
        bench.close()


@pytest.fixture
def desk(database: str) -> Iterator[Desk]:
    """Devices and jobs, on each kind of database."""
    desk = Desk(open_for_writing(database))
    yield desk
    desk.engine.dispose()


@pytest.fixture
def hub(tmp_path: Path, study_database: str) -> Iterator[Hub]:
    hub = Hub(tmp_path)
    with hub.client:
        yield hub
    hub.desk.engine.dispose()
