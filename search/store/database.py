"""Opening the study database: SQLite in WAL mode with immediate transactions, or any other SQLAlchemy URL.

Notable choices:
- A writer takes SQLite's write lock when its transaction begins (`BEGIN IMMEDIATE`), so it never finds out half-way
  that another process wrote in between. Readers open the file read-only and deferred: they wait for nobody.
- Optuna's tables live in the same database and use the same settings through `tune_sqlite`.
- The tables are versioned by Alembic in a version table of our own; Optuna refuses a database with Alembic's default.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from search.store.patience import first_line
from search.store.tables import HEAD_REVISION, VERSION_TABLE
from space.errors import (
    CondenseryError,
    DatabaseLocked,
    DatabaseUnavailable,
    DatabaseVersion,
    DiskFull,
    NotOurDatabase,
)

DEFAULT_STORAGE = "sqlite:///condensery.db"
SECRETS = ("password", "sslpassword")  # of libpq, as parameters of a URL
LOCK_TIMEOUT_S = 30.0
MAKING_TABLES = 1_668_246_627  # of an advisory lock of PostgreSQL's: of several processes one makes the tables
READ_TIMEOUT_S = 10.0


@contextlib.contextmanager
def driver_errors(url: str) -> Iterator[None]:
    """Do the same for what the driver says alone: for a block that computes too, and may be wrong in its own ways."""
    try:
        yield
    except (exc.DBAPIError, exc.TimeoutError, sqlite3.Error) as error:
        raise _translated(error, url) from error


@contextlib.contextmanager
def database_errors(url: str) -> Iterator[None]:
    """Turn a driver's error into ours: locked, full, read-only, no database, out of reach."""
    try:
        with driver_errors(url):
            yield
    except (exc.ArgumentError, exc.NoSuchModuleError, ImportError, ValueError) as error:
        if isinstance(error, CondenseryError):
            raise
        raise DatabaseUnavailable(
            f"{url_shown(url)} can't be used as a database URL ({first_line(error)}); for example sqlite:///condensery.db."
        ) from error


def _translated(error: Exception, url: str) -> CondenseryError:
    text = str(getattr(error, "orig", None) or error)
    shown = url_shown(url)
    if "locked" in text or "busy" in text:
        return DatabaseLocked(f"{shown} is locked by another process; wait for it, or stop it, and try again.")
    if "disk is full" in text or "No space left" in text:
        return DiskFull(f"no space is left for {shown}; free some and run it again with --resume.")
    if "not a database" in text or "malformed" in text:
        return NotOurDatabase(f"{shown} is not a database of Condensery's ({text}); choose another with --storage.")
    if "readonly" in text or "read-only" in text or "unable to open" in text:
        return DatabaseUnavailable(
            f"{shown} can't be opened or written ({text}); check the folder and its permissions."
        )
    if "permission denied" in text or "must be owner" in text:
        return DatabaseUnavailable(
            f"{shown} doesn't allow this role that ({first_line(error)}); the tables' owner makes and changes them "
            "with `condensery db upgrade`."
        )
    return DatabaseUnavailable(f"{shown} can't be used: {first_line(error)}")


def url_shown(url: str) -> str:
    """Return the URL with its passwords hidden; of an unnamed one just what it is."""
    if url == "sqlite://":
        return "the study database"
    try:
        parsed = sa.make_url(url)
    except (exc.ArgumentError, ValueError):
        return repr(re.sub(r":.*@", ":***@", url))
    if "@" in (parsed.host or ""):  # of a password that wasn't written as a URL needs it
        parsed = parsed.set(host=(parsed.host or "").rpartition("@")[2])
    hidden = {name: "hidden" for name in SECRETS if name in parsed.query}
    if parsed.password is None and not hidden:
        return url
    return parsed.update_query_dict(hidden).render_as_string(hide_password=True)


def sqlite_file(url: str) -> Path | None:
    """Return the file of a SQLite URL; None for memory and for other databases."""
    with database_errors(url):
        parsed = sa.make_url(url)
        if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
            return None
        return Path(parsed.database)


def tune_sqlite(engine: sa.Engine) -> None:
    """Give every connection of a SQLite engine WAL, foreign keys, a lock time-out and immediate transactions."""
    if engine.dialect.name != "sqlite":
        return

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
        with database_errors(url):  # before our settings are made in it: it may be somebody else's
            _refuse_foreign(_read_only_engine(file), url)
    with database_errors(url), contextlib.ExitStack() as undo:
        engine = sa.create_engine(url, pool_pre_ping=file is None)  # a server may have restarted meanwhile
        undo.callback(engine.dispose)
        if file is None:
            _refuse_foreign(engine, url)
        tune_sqlite(engine)
        if VERSION_TABLE in _table_names(engine):
            _check_version(engine, url)
        else:
            _migrate(engine)
        undo.pop_all()
    return engine


def _refuse_foreign(engine: sa.Engine, url: str) -> None:
    tables = _table_names(engine)
    if VERSION_TABLE not in tables and tables - _optuna_tables():
        raise NotOurDatabase(
            f"{url_shown(url)} holds other tables ({', '.join(sorted(tables)[:3])}, …); choose another with --storage."
        )


def open_for_reading(url: str) -> sa.Engine:
    """Open an existing database read-only; nothing is ever written through the engine returned.

    Raises:
        DatabaseUnavailable: there is no such file. NotOurDatabase, DatabaseVersion: it is something else.
    """
    file = sqlite_file(url)
    with database_errors(url):
        if file is None:
            engine = sa.create_engine(url, pool_pre_ping=True)
        else:
            if not file.exists():
                raise DatabaseUnavailable(f"no database at {file}; launch a study first, or name it with --storage.")
            _check_sqlite_header(file, url)
            engine = _read_only_engine(file)
        if VERSION_TABLE not in _table_names(engine):
            raise NotOurDatabase(f"{url_shown(url)} holds no study of Condensery's; choose another with --storage.")
        _check_version(engine, url)
    return engine


def _read_only_engine(file: Path) -> sa.Engine:
    return sa.create_engine("sqlite://", creator=lambda: _connect_read_only(file), poolclass=sa.NullPool)


def _connect_read_only(file: Path) -> sqlite3.Connection:
    # Percent signs and question marks in a path would be read as URI syntax.
    name = file.absolute().as_uri()
    return sqlite3.connect(f"{name}?mode=ro", uri=True, timeout=READ_TIMEOUT_S, check_same_thread=False)


def upgrade(url: str) -> tuple[str, str]:
    """Bring our tables to this version, making those that are missing; return the revision before and after.

    The first is "" for a database that had none. No file is made: of a wrong path nothing would tell.

    Raises:
        DatabaseVersion: the database was written by a newer version. NotOurDatabase: it holds something else.
    """
    file = sqlite_file(url)
    if file is not None:
        if not file.exists():
            raise DatabaseUnavailable(f"no database at {file}; nothing to upgrade.")
        _check_sqlite_header(file, url)
    with database_errors(url):
        engine = sa.create_engine(url) if file is None else _read_only_engine(file)
        _refuse_foreign(engine, url)
        before = _revision(engine) if VERSION_TABLE in _table_names(engine) else ""
        _refuse_newer(before, url)
        engine.dispose()
        engine = sa.create_engine(url)
        tune_sqlite(engine)
        _migrate(engine)
        after = _revision(engine)
        engine.dispose()
    return before, after


def _check_sqlite_header(file: Path, url: str) -> None:
    """Refuse a file that is no SQLite database, without opening the file ourselves.

    POSIX takes every lock that a process has on a file when the process closes any descriptor of it. A connection of
    ours would then go on without its lock, the next process to close the database would believe to be its last user and
    delete the log, and everything written from then on would be lost. SQLite knows, and closes with care.
    """
    if not os.access(file, os.R_OK) or file.is_dir():
        why = os.strerror(errno.EISDIR if file.is_dir() else errno.EACCES)
        raise DatabaseUnavailable(f"{url_shown(url)} can't be read ({why}).")
    with contextlib.closing(_connect_read_only(file)) as connection:
        try:
            connection.execute("PRAGMA schema_version")
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
                raise NotOurDatabase(f"{file} is not an SQLite database; choose another with --storage.") from None


def _table_names(engine: sa.Engine) -> set[str]:
    return set(sa.inspect(engine).get_table_names())


def _optuna_tables() -> set[str]:
    from optuna.storages._rdb.models import BaseModel

    return set(BaseModel.metadata.tables) | {"alembic_version"}


def _revision(engine: sa.Engine) -> str:
    with engine.connect() as connection:
        row = connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).first()
    return "" if row is None else str(row[0])


def _check_version(engine: sa.Engine, url: str) -> None:
    revision = _revision(engine)
    _refuse_newer(revision, url)
    if revision != HEAD_REVISION:
        raise DatabaseVersion(
            f"{url_shown(url)} has tables of version {revision or 'none'}, this version needs {HEAD_REVISION}; "
            "run `condensery db upgrade`."
        )


def _refuse_newer(revision: str, url: str) -> None:
    if revision > HEAD_REVISION:  # revisions are numbered
        raise DatabaseVersion(
            f"{url_shown(url)} has tables of version {revision}, newer than this version's {HEAD_REVISION}; "
            "upgrade Condensery."
        )


def _migrate(engine: sa.Engine) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    with engine.connect() as connection, _foreign_keys_off(connection), connection.begin():
        if connection.dialect.name == "postgresql":  # SQLite's transaction has the lock already
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": MAKING_TABLES})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@contextlib.contextmanager
def _foreign_keys_off(connection: sa.Connection) -> Iterator[None]:
    """Let SQLite drop a table that others refer to: it alters a column by making the table anew, and with foreign keys
    on, dropping the old one deletes what refers to its rows. Outside a transaction: inside one the switch does nothing.
    """
    if connection.dialect.name != "sqlite":
        yield
        return
    raw = connection.connection.cursor()
    raw.execute("PRAGMA foreign_keys = OFF")
    try:
        yield
    finally:
        raw.execute("PRAGMA foreign_keys = ON")
        raw.close()
