"""PostgreSQL behind a pooler that gives every transaction another session, as PgBouncer in transaction mode does."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from search.store import reader
from search.store.connection.database import engine_options, open_for_reading, open_for_writing
from search.store.studies import create_study
from search.study import optuna_storage
from tests.search.tiny_studies import Bench, optuna_trials, tiny_settings
from tests.waiting import until

OFTEN = 12  # psycopg prepares what runs more than five times


@pytest.mark.slow
def test_no_session_keeps_a_statement_that_another_process_could_meet(postgres_url: str):
    """Every kind of engine that we or Optuna make: for writing, for reading, for Optuna's tables."""
    writing = open_for_writing(postgres_url)
    study = create_study(writing, "tiny", 1, tiny_settings().model_dump(mode="json"), ("a" * 64, "b" * 64))
    for engine in (writing, open_for_reading(postgres_url), optuna_storage(postgres_url).engine):
        with engine.connect() as connection:
            for _ in range(OFTEN):
                connection.execute(sa.select(sa.func.now())).all()
            assert connection.scalar(sa.text("SELECT count(*) FROM pg_prepared_statements")) == 0
        for _ in range(OFTEN):
            reader.read_trials(engine, study)
        engine.dispose()


@pytest.mark.parametrize("url", ["sqlite:///x.db", "postgresql+psycopg2://host/db"])
def test_other_drivers_are_given_no_option_of_psycopgs(url: str):
    assert engine_options(url) == {}


@pytest.fixture
def pooled_url(postgres_url: str) -> Iterator[str]:
    """A new database by way of a PgBouncer whose two sessions serve all connections, a transaction at a time."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("PgBouncer isn't installed: apt install pgbouncer")
    with tempfile.TemporaryDirectory(prefix="pooler-") as name:  # pytest's are closed to the user that it runs as
        yield from _pooled(program, Path(name), sa.make_url(postgres_url))


def _pooled(program: str, folder: Path, database: sa.URL) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "any",
        "pool_mode": "transaction",
        "default_pool_size": 2,
    }
    lines = [f"{database.database} = host={database.query['host']} user=postgres", "[pgbouncer]"]
    file = folder / "pgbouncer.ini"
    file.write_text("\n".join(["[databases]", *lines, *(f"{key} = {value}" for key, value in settings.items())]))
    folder.chmod(0o755)
    owner = Path(str(database.query["host"])).stat().st_uid  # may use the server's socket; PgBouncer refuses to be root
    user = ["setpriv", f"--reuid={owner}", "--clear-groups"] if os.geteuid() == 0 else []
    process = subprocess.Popen([*user, program, "-q", str(file)], stdin=subprocess.DEVNULL)
    try:
        until(lambda: process.poll() is not None or _answers(port))
        assert process.poll() is None
        yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/{database.database}"
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.long
def test_two_searches_run_through_a_pooler_at_once(pooled_url: str, tmp_path: Path):
    benches = [Bench(tmp_path, study__name=f"tiny-{number}", study__trainings=6) for number in range(2)]
    for bench in benches:
        bench.url = pooled_url
    first = benches[0].controller()
    benches[1].run()
    try:
        first.run()
    finally:
        first.store.release()
    for bench in benches:
        assert len(bench.done()) == 6
        assert len(optuna_trials(bench)) == len(bench.rows)
        bench.close()
