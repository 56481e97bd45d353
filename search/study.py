"""A study: its rows in Optuna's tables and in ours, in the same database, created, resumed and deleted together."""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import dataclass

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from sqlalchemy import exc

from search.settings import StudySettings
from search.store import optuna_mirror, reader
from search.store.connection.database import (
    LOCK_TIMEOUT_S,
    engine_options,
    open_any_for_reading,
    open_for_reading,
    open_for_writing,
    sqlite_file,
    tune_sqlite,
)
from search.store.connection.database_errors import database_errors, url_shown
from search.store.connection.printed_commands import printed_command
from search.store.rows import StudyRow
from search.store.store import StudyStore
from search.store.studies import delete_study, insert_study
from search.study_file import settings_from
from space.errors import FrozenSettings, NotOurDatabase, StudyExists, StudyNotFound

MAKING_TRIES = 20  # 0.3 s apart: another process that makes the tables takes a second or two
MAXIMIZE, MINIMIZE = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE


def objectives(settings: StudySettings) -> dict[str, StudyDirection]:
    """Return what Optuna optimises, by name in the order of a trial's values: the score, each latency, macs."""
    devices = settings.latency.minimised
    only_one = len(settings.latency.devices) == 1
    latencies = ["latency_ms"] if only_one else [f"latency_ms.{device}" for device in devices]
    return {settings.study.objective: MAXIMIZE, **dict.fromkeys(latencies, MINIMIZE), "macs": MINIMIZE}


@dataclass(frozen=True)
class OpenStudy:
    """A study opened for writing."""

    settings: StudySettings
    url: str
    engine: sa.Engine
    store: StudyStore
    optuna_study_id: int  # in Optuna's tables


def optuna_storage(url: str) -> RDBStorage:
    """Return Optuna's storage on the same database, with our SQLite settings."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Alembic would announce itself on the root logger's handlers at every start.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with database_errors(url):
        storage = _storage_with_tables(url)
        tune_sqlite(storage.engine)
        storage.engine.dispose()  # connections made before the settings were attached
    return storage


def _storage_with_tables(url: str) -> RDBStorage:
    """Return Optuna's storage, whose tables are made if necessary; try again if another process makes them just now."""
    # Optuna makes each table in its own transaction, which on a slow disk takes longer than SQLite waits by default.
    options = {"connect_args": {"timeout": LOCK_TIMEOUT_S}} if url.startswith("sqlite") else engine_options(url)
    for _ in range(MAKING_TRIES):
        try:
            return RDBStorage(url, options, skip_compatibility_check=False)
        except (exc.IntegrityError, exc.ProgrammingError, exc.OperationalError) as error:
            words = ("already exists", "unique", "no such table", "does not exist")
            if not any(word in str(error.orig).lower() for word in words):
                raise
            time.sleep(0.3)
    return RDBStorage(url, options, skip_compatibility_check=False)


def open_study(settings: StudySettings, url: str, resume: bool) -> OpenStudy:
    """Create the study, or open it again with `resume`.

    Raises:
        StudyExists: it exists and `resume` is false, or it is another program's Optuna study.
        FrozenSettings: it exists, and settings that must not change differ.
    """
    refuse_foreign_study(url, settings.study.name)
    engine = open_for_writing(url)
    name = settings.study.name
    with contextlib.ExitStack() as undo:
        undo.callback(engine.dispose)
        try:
            stored = reader.find_study(engine, name)
        except StudyNotFound:
            stored = None
        if stored is not None and not resume:
            raise already_exists(name, url)
        optuna_storage(url).engine.dispose()  # makes its tables
        if stored is None:
            if not _create(settings, engine) and not resume:
                raise already_exists(name, url)
            stored = reader.find_study(engine, name)
        _check_frozen(settings, stored)
        undo.pop_all()
    return OpenStudy(settings, url, engine, StudyStore(engine, stored.id), stored.optuna_study_id)


def _create(settings: StudySettings, engine: sa.Engine) -> bool:
    """Create the study in Optuna's tables and in ours, in one transaction; return False if its name is taken."""
    name = settings.study.name
    hashes = (settings.digest(), settings.digest_of_frozen())
    try:
        with engine.begin() as connection:
            theirs = optuna_mirror.insert_study(connection, name, objectives(settings))
            insert_study(connection, name, theirs, settings.model_dump(mode="json"), hashes)
    except exc.IntegrityError:  # another process has made one of this name just now
        return False
    return True


def refuse_foreign_study(url: str, name: str) -> None:
    """Do nothing unless Optuna's tables hold a study of this name that isn't ours; nothing is written in any case.

    Raises:
        StudyExists: they do. Another program's study must neither be changed nor deleted.
        DatabaseUnavailable: the database can't be asked.
    """
    engine = open_any_for_reading(url)
    if engine is None:
        return
    try:
        with database_errors(url), engine.connect() as connection:
            if optuna_mirror.holds_study(connection, name) and not reader.holds_study(connection, name):
                raise StudyExists(
                    f"an Optuna study called {name!r} that another program made is in {url_shown(url)}, and stays as "
                    "it is; choose another study.name, or another database with --storage."
                )
    finally:
        engine.dispose()


def existing_study(url: str, name: str) -> StudyRow | None:
    """Return the study of this name if the database holds it; an absent SQLite file holds none.

    Raises:
        DatabaseUnavailable: it can't be asked.
    """
    file = sqlite_file(url)
    if file is not None and not file.absolute().parent.is_dir():
        open_for_writing(url)  # raises the right error before any folder is made
    if file is not None and not file.exists():
        return None
    try:
        engine = open_for_reading(url)
    except NotOurDatabase:
        return None  # opening it for writing later reports what is wrong, or makes our tables beside Optuna's
    try:
        return reader.find_study(engine, name)
    except StudyNotFound:
        return None
    finally:
        engine.dispose()


def already_exists(name: str, url: str) -> StudyExists:
    """Return the error for a launch without --resume of a study that exists."""
    delete = printed_command(["condensery", "delete", name], url)
    return StudyExists(
        f"a study called {name!r} exists in this database; go on with it by --resume, rename yours, or `{delete}`."
    )


def _check_frozen(settings: StudySettings, stored: StudyRow) -> None:
    """Raise FrozenSettings if settings that must not change differ from the stored study's."""
    if stored.frozen_hash == settings.digest_of_frozen():
        return
    before = settings_from(stored.settings, "the stored settings").frozen_parts()
    now = settings.frozen_parts()
    differing = [
        f"{key} ({before.get(key)!r} -> {now.get(key)!r})"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if not differing:  # a new setting changes the hash, but its default keeps the behaviour
        return
    raise FrozenSettings(
        "a resumed study must keep its space, data, training, budget, latency, objective and seed, but "
        f"{len(differing)} differ: {'; '.join(differing[:5])}{' …' if len(differing) > 5 else ''}. Put them back, or "
        "launch under another name."
    )


def remove_study(url: str, name: str) -> None:
    """Delete a study from Optuna's tables and from ours.

    Raises:
        StudyNotFound: there is none of this name.
        StudyBusy: a process is running it.
    """
    engine = open_for_writing(url)
    try:
        stored = reader.find_study(engine, name)
        StudyStore(engine, stored.id).claim()
        with database_errors(url), engine.begin() as connection:
            optuna_mirror.delete_study(connection, stored.optuna_study_id, name)
            delete_study(connection, stored.id)
    finally:
        engine.dispose()
