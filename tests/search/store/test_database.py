"""Opening the study database: ours is opened, everything else is refused with a word on what it is."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import alembic.autogenerate
import alembic.command
import alembic.migration
import optuna
import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory

from search.store import reader, tables
from search.store.connection import database, read_only, schema
from search.store.connection.database import open_for_reading, open_for_writing, sqlite_file, upgrade
from search.study import optuna_storage
from space.errors import DatabaseLocked, DatabaseUnavailable, DatabaseVersion, DiskFull, NotOurDatabase
from tests.search.earlier_databases import METRICS, take_back
from tests.search.tiny_studies import Bench, sqlite_url

ROOT = Path(__file__).parents[3]
OPENERS = [open_for_writing, open_for_reading]


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = sqlite_url(tmp_path)
    open_for_writing(url).dispose()
    return url


def set_version(url: str, version: str) -> None:
    with sqlite3.connect(sqlite_file(url)) as connection:
        connection.execute(f"UPDATE {tables.VERSION_TABLE} SET version_num = ?", (version,))
    connection.close()


def value_of(engine: sa.Engine, pragma: str) -> object:
    with engine.connect() as connection:
        return connection.exec_driver_sql(f"PRAGMA {pragma}").scalar()


def test_our_connections_and_optunas_have_wal_foreign_keys_and_a_time_out(url: str):
    ours, storage = open_for_writing(url), optuna_storage(url)
    for engine in (ours, storage.engine):
        assert value_of(engine, "journal_mode") == "wal"
        assert value_of(engine, "foreign_keys") == 1
        assert value_of(engine, "busy_timeout") == database.LOCK_TIMEOUT_S * 1000
        engine.dispose()


def test_a_writers_transaction_takes_the_lock_when_it_begins(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(database, "LOCK_TIMEOUT_S", 0.05)
    first, second = open_for_writing(url), open_for_writing(url)
    # `first` holds the lock before it has written anything.
    with first.begin(), pytest.raises(sa.exc.OperationalError, match="locked"), second.begin():
        pytest.fail("two writers at once")
    with second.begin() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(tables.study)) == 0
    first.dispose()
    second.dispose()


def test_a_reader_waits_for_no_writer(url: str):
    writer, reader = open_for_writing(url), open_for_reading(url)
    with writer.begin(), reader.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(tables.trial)) == 0
    writer.dispose()
    reader.dispose()


def test_nothing_can_be_written_through_a_reader(url: str):
    reader = open_for_reading(url)
    with pytest.raises(sa.exc.OperationalError, match="readonly"), reader.begin() as connection:
        connection.execute(sa.delete(tables.study))
    reader.dispose()


def test_the_migrations_give_exactly_the_metadata(url: str):
    engine = open_for_writing(url)
    with engine.connect() as connection:
        ours = {"version_table": tables.VERSION_TABLE}
        context = alembic.migration.MigrationContext.configure(connection, opts=ours)
        assert alembic.autogenerate.compare_metadata(context, tables.metadata) == []
    engine.dispose()


def test_the_comparison_with_the_metadata_would_notice_a_missing_column(url: str):
    engine = open_for_writing(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE condensery_study DROP COLUMN data_info")
        context = alembic.migration.MigrationContext.configure(connection, opts={"version_table": tables.VERSION_TABLE})
        assert len(alembic.autogenerate.compare_metadata(context, tables.metadata)) == 1
    engine.dispose()


def test_the_newest_migration_is_the_one_this_version_asks_for(url: str):
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [tables.HEAD_REVISION]
    revisions = [revision.revision for revision in script.walk_revisions()]
    assert revisions == sorted(revisions, reverse=True)  # `refuse_unknown` compares them as text
    assert upgrade(url) == (tables.HEAD_REVISION, tables.HEAD_REVISION)


def test_foreign_keys_hold_on_the_connection_that_made_the_tables(tmp_path: Path):
    engine = open_for_writing(sqlite_url(tmp_path))
    assert value_of(engine, "foreign_keys") == 1
    engine.dispose()


def test_every_table_of_ours_carries_the_prefix(url: str):
    assert all(name.startswith("condensery_") for name in (*tables.metadata.tables, tables.VERSION_TABLE))


def test_optuna_opens_a_database_that_was_ours_first_and_we_one_that_was_its_first(tmp_path: Path, url: str):
    optuna_storage(url).engine.dispose()
    open_for_reading(url).dispose()
    other = f"sqlite:///{tmp_path / 'optuna-first.db'}"
    storage = optuna.storages.RDBStorage(other)
    optuna.create_study(storage=storage, study_name="theirs")
    storage.engine.dispose()
    with pytest.raises(NotOurDatabase, match="holds no study"):
        open_for_reading(other)
    open_for_writing(other).dispose()
    open_for_reading(other).dispose()
    storage = optuna.storages.RDBStorage(other)
    assert optuna.study.get_all_study_names(storage) == ["theirs"]
    storage.engine.dispose()


@pytest.mark.parametrize("opener", [*OPENERS, upgrade])
@pytest.mark.parametrize("content", [b"hello", b"a text file that is longer than a header of SQLite"])
def test_a_text_file_is_refused_and_untouched(tmp_path: Path, opener, content: bytes):
    path = tmp_path / "study.db"
    path.write_bytes(content)
    with pytest.raises(NotOurDatabase, match=r"study\.db is not an SQLite database; choose another with --storage"):
        opener(sqlite_url(tmp_path))
    assert path.read_bytes() == content


@pytest.mark.parametrize("opener", [*OPENERS, upgrade])
def test_another_applications_database_is_refused_and_untouched(tmp_path: Path, opener):
    connection = sqlite3.connect(tmp_path / "study.db")
    connection.execute("CREATE TABLE moz_places (id INTEGER)")
    connection.commit()
    connection.close()
    with pytest.raises(NotOurDatabase):
        opener(sqlite_url(tmp_path))
    connection = sqlite3.connect(tmp_path / "study.db")
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("moz_places",)]
    connection.close()


def test_the_refusal_names_a_table_that_is_not_ours(tmp_path: Path):
    connection = sqlite3.connect(tmp_path / "study.db")
    connection.execute("CREATE TABLE moz_places (id INTEGER)")
    connection.close()
    with pytest.raises(NotOurDatabase, match=r"holds other tables .*moz_places"):
        open_for_writing(sqlite_url(tmp_path))


@pytest.mark.parametrize("opener", OPENERS)
def test_a_header_with_garbage_behind_it_is_refused(tmp_path: Path, opener):
    (tmp_path / "study.db").write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000)
    with pytest.raises(NotOurDatabase):
        opener(sqlite_url(tmp_path))


@pytest.mark.parametrize("opener", [*OPENERS, upgrade])
def test_a_newer_versions_database_says_to_upgrade_the_application(url: str, opener):
    set_version(url, "v9999")
    with pytest.raises(DatabaseVersion, match=r"version v9999, newer than this version's v\d+; upgrade Condensery"):
        opener(url)


@pytest.mark.parametrize("opener", OPENERS)
def test_a_database_that_can_be_upgraded_says_to_run_db_upgrade(url: str, opener, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(schema, "HEAD_REVISION", "v9999")
    with pytest.raises(
        DatabaseVersion, match=r"version v\d+, this version needs v9999; run `condensery db upgrade --storage .*`"
    ):
        opener(url)


def test_a_study_of_the_first_version_is_upgraded_with_all_its_trials(tmp_path: Path):
    """What later migrations added is taken away, then added again."""
    bench = Bench(tmp_path)
    assert bench.run() == "finished"
    before = bench.rows
    bench.close()
    connection = sqlite3.connect(tmp_path / "study.db")
    take_back(connection, "v0001")
    connection.close()
    assert upgrade(bench.url) == ("v0001", tables.HEAD_REVISION)
    bench.open(resume=True)
    assert bench.rows == before
    assert bench.study is not None
    measured = [one for row in before for one in reader.read_latencies(bench.study.engine, row.id)]
    assert measured
    assert all(one.samples_ms and one.cpu_ms == () for one in measured)  # a measurement from before CPU times
    bench.close()


def test_what_was_expected_and_predicted_of_top1_is_still_read_and_old_trials_lack_the_new_figures(tmp_path: Path):
    bench = Bench(tmp_path)
    assert bench.run() == "finished"
    bench.close()
    connection = sqlite3.connect(tmp_path / "study.db")
    take_back(connection, "v0007")
    connection.execute("UPDATE condensery_trial SET expected_top1 = 0.625 WHERE number = 1")
    connection.execute("DELETE FROM condensery_proposal")
    connection.execute("INSERT INTO condensery_proposal SELECT id, 'gain', 0.5, 0.125, 0.25 FROM condensery_trial")
    believed = {"text": "x", "macs": 1, "params": 1, "latencies_ms": {}}
    before = {**believed, "proposal": {"reason": "gain", "top1": 0.5, "deviation": 0.1, "gain": None}}
    connection.execute("DELETE FROM condensery_belief")
    document = json.dumps({"front": [before], "ahead": []})
    connection.execute("INSERT INTO condensery_belief SELECT id, 4, 0, ? FROM condensery_study", (document,))
    connection.commit()
    connection.close()
    assert upgrade(bench.url) == ("v0007", tables.HEAD_REVISION)
    engine = open_for_reading(bench.url)
    study = reader.find_study(engine, "tiny")
    rows = reader.read_trials(engine, study.id)
    assert rows[1].expected_score == 0.625
    assert {row.objective for row in rows} == {"top1"}
    done = [row for row in rows if row.state == "done"]
    assert done
    assert all(row.score == row.top1 is not None for row in done)
    assert all(getattr(row, name) is None for row in rows for name in METRICS)
    assert reader.class_predictions_of(engine, done[0]) is None
    assert all(one.score == 0.5 and one.deviation == 0.125 for one in reader.read_proposals(engine, study.id).values())
    assert reader.read_belief(engine, study.id).front[0].proposal.score == 0.5
    engine.dispose()


@pytest.mark.parametrize("opener", [*OPENERS, upgrade])
def test_a_database_from_before_the_first_release_says_to_choose_another(url: str, opener):
    set_version(url, "0006")
    with pytest.raises(
        DatabaseVersion, match=r"0006, from before .* can't be upgraded; choose a new .* --storage"
    ) as e:
        opener(url)
    assert "\n" not in str(e.value)
    assert e.value.exit_code == 31


@pytest.mark.parametrize("opener", [open_for_reading, upgrade])
def test_a_missing_file_is_not_created_by_reading(tmp_path: Path, opener):
    with pytest.raises(DatabaseUnavailable, match=r"no database at .*study\.db"):
        opener(sqlite_url(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_writing_creates_the_file_in_an_existing_folder_only(tmp_path: Path):
    with pytest.raises(DatabaseUnavailable, match=r"the folder of .* doesn't exist"):
        open_for_writing(f"sqlite:///{tmp_path}/absent/study.db")
    assert not (tmp_path / "absent").exists()
    open_for_writing(sqlite_url(tmp_path)).dispose()
    assert (tmp_path / "study.db").exists()


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("url", ["nonsense", "mysterydb://host/db", "sqlite:/x", ""])
def test_a_wrong_url_shows_how_one_looks(opener, url: str):
    with pytest.raises(DatabaseUnavailable, match=r"for example sqlite:///condensery\.db"):
        opener(url)


@pytest.mark.parametrize(("free", "kind"), [(4096, DiskFull), (1 << 30, DatabaseUnavailable)])
def test_an_io_error_where_there_is_no_room_is_a_full_disk(
    tmp_path: Path, monkeypatch, free: int, kind: type[Exception]
):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: shutil._ntuple_diskusage(1 << 40, 0, free))
    with pytest.raises(kind), database.database_errors(sqlite_url(tmp_path)):
        raise sqlite3.OperationalError("disk I/O error")


def test_a_password_is_never_shown():
    with pytest.raises(DatabaseUnavailable) as caught:
        open_for_writing("mysterydb://me:secret@host/db")
    assert "secret" not in str(caught.value)


def test_a_file_that_may_not_be_written_is_named(url: str, monkeypatch: pytest.MonkeyPatch):
    sqlite_file(url).chmod(0o400)
    if os.getuid() == 0:  # root may write everything: ask the system as if for another user
        monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(DatabaseUnavailable, match="can't be written; check its permissions"):
        open_for_writing(url)


@pytest.mark.parametrize("refused", [open_for_writing, upgrade], ids=["open", "upgrade"])
def test_a_foreign_database_is_not_touched(tmp_path: Path, refused):
    holder = sqlite3.connect(tmp_path / "study.db")
    holder.execute("create table cats (name text)")
    holder.commit()
    holder.close()
    before = (tmp_path / "study.db").read_bytes()
    with pytest.raises(NotOurDatabase):
        refused(sqlite_url(tmp_path))
    assert (tmp_path / "study.db").read_bytes() == before


def test_a_folder_is_refused(tmp_path: Path):
    (tmp_path / "study.db").mkdir()
    with pytest.raises(DatabaseUnavailable, match="can't be read"):
        open_for_reading(sqlite_url(tmp_path))


def test_a_path_with_percent_signs_and_question_marks_is_a_path(tmp_path: Path):
    folder = tmp_path / "100% sure"
    folder.mkdir()
    open_for_writing(sqlite_url(folder)).dispose()
    open_for_reading(sqlite_url(folder)).dispose()
    assert (folder / "study.db").exists()


def test_a_database_that_another_process_holds_is_locked_after_the_time_out(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(database, "LOCK_TIMEOUT_S", 0.05)
    engine = open_for_writing(url)
    holder = sqlite3.connect(sqlite_file(url), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    words = "locked by another process; wait for it"
    with pytest.raises(DatabaseLocked, match=words), database.database_errors(url), engine.begin():
        pytest.fail("the lock was taken from its holder")
    with pytest.raises(DatabaseLocked, match=words):
        open_for_writing(url)
    holder.close()
    engine.dispose()


def test_creating_a_database_that_another_process_holds_is_locked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(database, "LOCK_TIMEOUT_S", 0.05)
    monkeypatch.setattr(read_only, "READ_TIMEOUT_S", 0.05)
    holder = sqlite3.connect(tmp_path / "study.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(DatabaseLocked):
        open_for_writing(sqlite_url(tmp_path))
    holder.close()


def test_a_writer_waits_for_a_lock_that_is_given_back_in_time(url: str):
    engine = open_for_writing(url)
    holder = sqlite3.connect(sqlite_file(url), isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    given_back = threading.Event()

    def give_back() -> None:
        time.sleep(0.2)
        given_back.set()
        holder.execute("COMMIT")

    thread = threading.Thread(target=give_back)
    thread.start()
    with engine.begin():
        assert given_back.is_set()
    thread.join()
    holder.close()
    engine.dispose()


def test_two_processes_that_create_the_tables_at_once_both_get_them(tmp_path: Path):
    url, problems = sqlite_url(tmp_path), []

    def open_it() -> None:
        try:
            open_for_writing(url).dispose()
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    open_for_reading(url).dispose()


WRITER = """
import sys
import sqlalchemy as sa
from search.store.connection.database import open_for_reading, open_for_writing
engine = open_for_writing(sys.argv[1])
with engine.connect() as connection:  # given back to the pool, where it stays open
    connection.execute(sa.text("SELECT 1"))
open_for_writing(sys.argv[1]).dispose()
open_for_reading(sys.argv[1]).dispose()
print("open", flush=True)
input()
with engine.begin() as connection:
    connection.execute(sa.text("CREATE TABLE written (at INTEGER)"))
print("written", flush=True)
input()
"""


def test_what_a_killed_process_wrote_stays_whoever_else_opened_and_closed_the_database(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    open_for_writing(url).dispose()
    command = [sys.executable, "-c", WRITER, url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        with contextlib.closing(sqlite3.connect(tmp_path / "study.db")) as other:  # its last user, it must not believe
            other.execute("SELECT count(*) FROM condensery_study").fetchone()
        writer.stdin.write("\n")
        writer.stdin.flush()
        assert writer.stdout.readline() == "written\n"
        writer.kill()
    with contextlib.closing(sqlite3.connect(tmp_path / "study.db")) as after:
        assert after.execute("SELECT count(*) FROM written").fetchone() == (0,)


@pytest.mark.parametrize("way", ["removed", "moved", "replaced"])
@pytest.mark.parametrize("opened", [open_for_writing, lambda url: optuna_storage(url).engine], ids=["ours", "optunas"])
def test_a_file_that_goes_away_while_it_is_in_use_is_an_error_at_once(url: str, way: str, opened, tmp_path: Path):
    """An open file can be written to after it was removed, and all of that is lost."""
    engine, file = opened(url), sqlite_file(url)
    with engine.begin() as connection:
        connection.execute(sa.text("SELECT 1"))
    if way == "replaced":
        (tmp_path / "other.db").write_bytes(file.read_bytes())
        (tmp_path / "other.db").replace(file)
    else:
        file.rename(tmp_path / "elsewhere.db") if way == "moved" else file.unlink()
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable, match="while it was in use"), engine.begin() as connection:
            connection.execute(sa.text("SELECT 1"))
        engine.dispose()  # the second time by a new connection
    assert file.exists() == (way == "replaced")
