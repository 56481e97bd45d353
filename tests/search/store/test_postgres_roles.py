"""Least rights on a real PostgreSQL: the owner makes the tables, the runner runs a study, the reader only reads."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from dashboards.page import Access, make_app
from search.engines.fake import FakeEngine
from search.store.connection.database import open_for_reading, open_for_writing, upgrade
from search.store.tables import HEAD_REVISION, metadata
from space.errors import DatabaseUnavailable
from tests.command_line import ROOT, run_command
from tests.postgres import database_of
from tests.search.tiny_studies import Bench, assert_consistent

pytestmark = pytest.mark.slow

TOKEN = "correct-horse-battery"
ROLES = ROOT / "deploy" / "postgres-roles.sql"


def run_roles(url: str) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(ROLES.read_text().replace("%", "%%"))


def condensery(*words: str, url: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of ours that finds its database in the environment."""
    return run_command(*words, cwd=cwd, timeout_s=300.0, environment={"CONDENSERY_STORAGE": url})


@contextmanager
def roles_of(server: sa.URL, template: str = "template1") -> Iterator[Callable[[str], str]]:
    """A database with the roles: gives the URL of each role."""
    with database_of(server, template) as url:
        run_roles(url)
        yield lambda role: sa.make_url(url).set(username=f"condensery_{role}").render_as_string(hide_password=False)


@pytest.fixture
def empty(postgres: sa.URL) -> Iterator[Callable[[str], str]]:
    """Without tables."""
    with roles_of(postgres) as as_role:
        yield as_role


@pytest.fixture(scope="module")
def tables(postgres: sa.URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a database whose tables were made as the documents say, to be copied."""
    with roles_of(postgres) as as_role:
        done = condensery("db", "upgrade", url=as_role("owner"), cwd=tmp_path_factory.mktemp("owner"))
        assert (done.returncode, done.stderr) == (0, f"the database is at version {HEAD_REVISION} (new)\n")
        yield str(sa.make_url(as_role("owner")).database)


@pytest.fixture
def as_role(postgres: sa.URL, tables: str) -> Iterator[Callable[[str], str]]:
    """With the tables."""
    with roles_of(postgres, tables) as as_role:
        yield as_role


def refused(url: str, statement: str) -> str:
    """Run a statement that must fail; return why."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with pytest.raises(sa.exc.DBAPIError) as caught, engine.begin() as connection:
        connection.exec_driver_sql(statement)
    return str(caught.value.orig)


def run_study(url: str, folder: Path) -> Bench:
    bench = Bench(folder)
    bench.url, bench.engine = url, FakeEngine()
    assert bench.run() == "finished"
    return bench


def test_the_runner_runs_a_study_from_its_beginning_to_its_end(as_role, tmp_path: Path):
    bench = run_study(as_role("runner"), tmp_path)
    assert len(bench.done()) == 4
    assert_consistent(bench)  # through Optuna's own storage, with the same role
    bench.close()
    done = condensery("delete", "tiny", "--yes", url=as_role("runner"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_runner_registers_a_device(as_role, tmp_path: Path):
    done = condensery("devices", "add", "pi5", url=as_role("runner"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "pi5" in condensery("devices", "list", url=as_role("reader"), cwd=tmp_path).stdout


@pytest.mark.parametrize("role", ["runner", "reader"])
@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE condensery_event",
        "ALTER TABLE condensery_study ADD COLUMN more integer",
        "TRUNCATE condensery_trial",
        "CREATE TABLE public.more (id integer)",
        "CREATE TEMPORARY TABLE more (id integer)",
        "CREATE SCHEMA more",
    ],
)
def test_neither_the_runner_nor_the_reader_makes_or_drops_anything(as_role, role: str, statement: str):
    why = refused(as_role(role), statement)
    assert "permission denied" in why or "must be owner" in why or "read-only transaction" in why


def test_the_reader_sees_a_study_and_writes_nothing(as_role, tmp_path: Path):
    run_study(as_role("runner"), tmp_path).close()
    for words in (("status",), ("pareto", "--json"), ("trials",), ("show", "0"), ("report",)):
        done = condensery(*words, url=as_role("reader"), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    for table in [*metadata.tables, "studies", "trials"]:
        assert "read-only transaction" in refused(as_role("reader"), f"DELETE FROM {table}")
        # ... and not only because its transactions begin as read-only.
        assert "permission denied" in refused(as_role("reader"), f"SET TRANSACTION READ WRITE; DELETE FROM {table}")
    headers = {"Authorization": f"Bearer {TOKEN}", "X-Condensery": "write", "Host": "localhost"}
    for role, code in (("reader", 503), ("runner", 200)):  # what the live page writes, by its role
        page = make_app(as_role(role), None, Access(TOKEN)).server
        note = {"trial": 0, "text": "mine", "before": ""}
        answer = page.test_client().post("/do/note", json=note, headers=headers)
        for engine in (page.config["STUDIES"].engine, page.config["STUDIES"].get(None).live.engine):
            engine.dispose()
        assert (answer.status_code, "read-only transaction" in answer.text) == (code, code == 503)
    engine = open_for_reading(as_role("reader"))
    with engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(metadata.tables["condensery_study"])) == 1
    engine.dispose()


def test_without_tables_the_runner_is_told_who_makes_them(empty, tmp_path: Path):
    with pytest.raises(DatabaseUnavailable, match=r"permission denied.*`condensery db upgrade`"):
        open_for_writing(empty("runner"))
    done = condensery("devices", "add", "pi5", url=empty("runner"), cwd=tmp_path)
    assert done.returncode == DatabaseUnavailable.exit_code
    assert done.stderr.count("\n") == 1


def test_the_roles_may_be_made_again_when_the_tables_are_there(as_role, postgres: sa.URL, tmp_path: Path):
    database = sa.make_url(as_role("owner")).database
    run_roles(postgres.set(database=database).render_as_string(hide_password=False))
    run_study(as_role("runner"), tmp_path).close()
    assert upgrade(as_role("owner")) == (HEAD_REVISION, HEAD_REVISION)


def test_tables_of_an_administrator_are_opened_to_the_roles_later(postgres: sa.URL, tmp_path: Path):
    with database_of(postgres) as url:
        assert condensery("db", "upgrade", url=url, cwd=tmp_path).returncode == 0
        run_roles(url)
        run_study(sa.make_url(url).set(username="condensery_runner").render_as_string(), tmp_path).close()
