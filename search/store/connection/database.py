"""Opening the study database: SQLite in WAL mode with immediate transactions, or any other SQLAlchemy URL.

Notable choices:
- A writer takes SQLite's write lock when its transaction begins (`BEGIN IMMEDIATE`), so it never finds out half-way
  that another process wrote in between. Readers open the file read-only and deferred: they wait for no one.
- Optuna's tables live in the same database and use the same settings through `tune_sqlite`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from search.store.connection.database_errors import database_errors, refuse_unescaped, url_shown
from search.store.connection.read_only import connect_read_only
from search.store.connection.schema import (
    check_version,
    has_tables,
    migrate,
    refuse_foreign,
    refuse_unknown,
    revision_of,
)
from space.errors import DatabaseUnavailable, NotOurDatabase

DEFAULT_STORAGE = "sqlite:///condensery.db"
LOCK_TIMEOUT_S = 30.0


def sqlite_file(url: str) -> Path | None:
    """Return the file of a SQLite URL; None for memory and for other databases."""
    refuse_unescaped(url)
    with database_errors(url):
        parsed = sa.make_url(url)
        if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
            return None
        return Path(parsed.database)


def engine_options(url: str) -> dict[str, Any]:
    """Return what every engine of a URL is made with.

    psycopg would prepare statements that run often, and find them again by names of its own. A pooler of connections
    (PgBouncer in transaction mode) gives each transaction another session, in which such a name is unknown, or taken by
    another process's statement.
    """
    is_psycopg = sa.make_url(url).get_driver_name() == "psycopg"
    return {"connect_args": {"prepare_threshold": None}} if is_psycopg else {}


def tune_sqlite(engine: sa.Engine) -> None:
    """Give every connection of a SQLite engine WAL, foreign keys, a lock time-out and immediate transactions."""
    if engine.dialect.name != "sqlite":
        return
    if engine.url.database and engine.url.database != ":memory:":
        _keep_to_one_file(engine, Path(engine.url.database).absolute())

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions by itself
        connection.execute(f"PRAGMA busy_timeout = {int(LOCK_TIMEOUT_S * 1000)}")
        _switch_to_wal(connection)
        connection.execute("PRAGMA synchronous = NORMAL")  # with WAL: survives any crash of a process
        connection.execute("PRAGMA foreign_keys = ON")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _keep_to_one_file(engine: sa.Engine, file: Path) -> None:
    """Make every connection and transaction fail once the engine's file is another one, or gone.

    Of a file that was removed or moved, the system keeps what open connections write until they close, and then drops
    it; a new connection would make an empty one in its place.
    """
    known: list[tuple[int, int]] = []  # device and inode, once there is a connection

    def check() -> None:
        if known and _identity(file) != known[0]:
            raise DatabaseUnavailable(
                f"{file} was removed, moved or replaced while it was in use; put it back, then --resume."
            )

    @sa.event.listens_for(engine, "do_connect")
    def _before_connecting(*_: Any) -> None:
        check()

    @sa.event.listens_for(engine, "connect")
    def _connected(*_: Any) -> None:
        if not known and (found := _identity(file)) is not None:
            known.append(found)

    @sa.event.listens_for(engine, "begin")
    def _before_a_transaction(_: sa.Connection) -> None:
        check()


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Turn on WAL; the file remembers it. While the mode changes SQLite doesn't wait for a lock by itself."""
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def open_for_writing(url: str) -> sa.Engine:
    """Open a database for a search, creating the file and our tables when they are not there.

    Raises:
        NotOurDatabase, DatabaseVersion, DatabaseLocked, DatabaseUnavailable.
    """
    file = sqlite_file(url)
    if file is not None and not file.absolute().parent.is_dir():
        raise DatabaseUnavailable(f"the folder of {url_shown(url)} doesn't exist; make it, or correct the URL.")
    if file is not None and file.exists():
        _check_sqlite_header(file, url)
        if not os.access(file, os.W_OK):
            raise DatabaseUnavailable(f"{url_shown(url)} can't be written; check its permissions.")
        with database_errors(url):  # before our settings are made in it: it may be another application's
            refuse_foreign(_read_only_engine(file), url)
    with database_errors(url), contextlib.ExitStack() as undo:
        engine = sa.create_engine(url, **engine_options(url), pool_pre_ping=file is None)  # a server may have restarted
        undo.callback(engine.dispose)
        if file is None:
            refuse_foreign(engine, url)
        tune_sqlite(engine)
        if has_tables(engine):
            check_version(engine, url)
        else:
            migrate(engine)
        undo.pop_all()
    return engine


def open_for_reading(url: str) -> sa.Engine:
    """Open an existing database read-only; nothing is ever written through the engine returned.

    Raises:
        DatabaseUnavailable: there is no such file. NotOurDatabase, DatabaseVersion: it is something else.
    """
    with database_errors(url):
        engine = open_any_for_reading(url)
        if engine is None:
            place = sqlite_file(url)
            raise DatabaseUnavailable(f"no database at {place}; launch a study first, or name it with --storage.")
        with contextlib.ExitStack() as undo:
            undo.callback(engine.dispose)
            if not has_tables(engine):
                raise NotOurDatabase(f"{url_shown(url)} holds no study of Condensery's; choose another with --storage.")
            check_version(engine, url)
            undo.pop_all()
    return engine


def open_any_for_reading(url: str) -> sa.Engine | None:
    """Open a database read-only, whatever tables it has; None for an SQLite file that isn't there.

    Raises:
        NotOurDatabase: the file is no database. DatabaseUnavailable: it can't be read.
    """
    with database_errors(url):
        file = sqlite_file(url)
        if file is None:
            return sa.create_engine(url, **engine_options(url), pool_pre_ping=True)
        if not file.exists():
            return None
        _check_sqlite_header(file, url)
        return _read_only_engine(file)


def _read_only_engine(file: Path) -> sa.Engine:
    url = sa.URL.create("sqlite", database=str(file.absolute()))
    return sa.create_engine(url, creator=lambda: connect_read_only(file), poolclass=sa.NullPool)


def upgrade(url: str) -> tuple[str, str]:
    """Bring our tables to this version, making those that are missing; return the revision before and after.

    The first is "" for a database that had none. No file is made: a misspelt path would go unnoticed.

    Raises:
        DatabaseVersion: no upgrade leads from its tables to this version. NotOurDatabase: it holds something else.
    """
    file = sqlite_file(url)
    if file is not None:
        if not file.exists():
            raise DatabaseUnavailable(f"no database at {file}; nothing to upgrade.")
        _check_sqlite_header(file, url)
    with database_errors(url):
        engine = sa.create_engine(url, **engine_options(url)) if file is None else _read_only_engine(file)
        refuse_foreign(engine, url)
        before = revision_of(engine)
        refuse_unknown(before, url)
        engine.dispose()
        engine = sa.create_engine(url, **engine_options(url))
        tune_sqlite(engine)
        migrate(engine)
        after = revision_of(engine)
        engine.dispose()
    return before, after


def _check_sqlite_header(file: Path, url: str) -> None:
    """Raise NotOurDatabase for a file that isn't an SQLite database, without opening the file ourselves.

    When a process closes any descriptor of a file, POSIX releases all of its locks on that file. An open connection of
    ours would lose its lock unnoticed; the next process that closes the database would take itself for its last user
    and delete the log, and with it everything written from then on. SQLite knows this, and closes files with care.
    """
    if not os.access(file, os.R_OK) or file.is_dir():
        reason = os.strerror(errno.EISDIR if file.is_dir() else errno.EACCES)
        raise DatabaseUnavailable(f"{url_shown(url)} can't be read ({reason}).")
    with contextlib.closing(connect_read_only(file)) as connection:
        try:
            connection.execute("PRAGMA schema_version")
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
                raise NotOurDatabase(f"{file} is not an SQLite database; choose another with --storage.") from None
