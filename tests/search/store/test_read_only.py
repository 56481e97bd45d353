"""Reading a database where this user may write neither it nor beside it: nothing is written, nothing is missed."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from search.store.connection.read_only import connect_read_only


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A database of one row in its file and one in its log, and a connection that is still open."""
    folder = tmp_path / "written"
    folder.mkdir()
    writer = sqlite3.connect(folder / "study.db", isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("CREATE TABLE row (number INTEGER)")
    writer.execute("INSERT INTO row VALUES (1)")
    writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    writer.execute("INSERT INTO row VALUES (2)")
    yield folder
    writer.close()


@pytest.fixture
def unwritable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system says that nothing may be written: root may write everything."""
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and allowed(path, mode))


def rows(file: Path) -> int:
    connection = connect_read_only(file)
    try:
        return int(connection.execute("SELECT count(*) FROM row").fetchone()[0])
    finally:
        connection.close()


def copied(written: Path, *names: str) -> Path:
    """A folder with copies of these files, and its listing to compare with."""
    folder = written.with_name("copied")
    folder.mkdir()
    for name in names:
        shutil.copy(written / name, folder)
    return folder


@pytest.mark.usefixtures("unwritable")
@pytest.mark.parametrize(
    ("names", "count"),
    [
        (["study.db"], 1),  # closed cleanly, as far as anyone can tell
        (["study.db", "study.db-wal"], 2),  # copied while a search ran, or left by a crash
        (["study.db", "study.db-wal", "study.db-shm"], 2),
        (["study.db", "study.db-shm"], 1),
    ],
)
def test_everything_that_was_committed_is_read_and_nothing_is_written(written, names, count):
    folder = copied(written, *names)
    before = {name: (folder / name).read_bytes() for name in names if not name.endswith("shm")}
    assert rows(folder / "study.db") == count
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert {name: (folder / name).read_bytes() for name in before} == before


@pytest.mark.usefixtures("unwritable")
def test_an_empty_log_is_none(written):
    folder = copied(written, "study.db")
    (folder / "study.db-wal").touch()
    assert rows(folder / "study.db") == 1


@pytest.mark.usefixtures("unwritable")
def test_a_running_writer_is_followed(written):
    assert rows(written / "study.db") == 2
    with sqlite3.connect(written / "study.db") as writer:
        writer.execute("INSERT INTO row VALUES (3)")
    writer.close()
    assert rows(written / "study.db") == 3


@pytest.mark.usefixtures("unwritable")
def test_a_link_leads_to_the_log_beside_its_target(written):
    folder = copied(written, "study.db", "study.db-wal")
    (folder.parent / "link.db").symlink_to(folder / "study.db")
    assert rows(folder.parent / "link.db") == 2
    assert not list(folder.parent.glob("link.db-*"))
