"""A study: its rows in Optuna's tables and in ours, in the same database, created, resumed and deleted together."""

from __future__ import annotations

import contextlib
import logging
import shlex
import time
import warnings
from dataclasses import dataclass

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from sqlalchemy import exc

from search.settings import StudySettings
from search.store import reader
from search.store.connection.database import LOCK_TIMEOUT_S, open_for_writing, tune_sqlite
from search.store.connection.database_errors import database_errors
from search.store.rows import StudyRow
from search.store.store import StudyStore
from search.store.studies import create_study, delete_study
from search.study_file import settings_from
from space.errors import FrozenSettings, StudyExists, StudyNotFound

MAKING_TRIES = 20  # 0.3 s apart: another process that makes the tables takes a second or two
MAXIMIZE, MINIMIZE = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE


def objectives(settings: StudySettings) -> dict[str, StudyDirection]:
    """Return what Optuna optimises, by name in the order of a trial's values: top1, each latency, macs."""
    devices = settings.latency.minimised
    only_one = len(settings.latency.devices) == 1
    latencies = ["latency_ms"] if only_one else [f"latency_ms.{device}" for device in devices]
    return {"top1": MAXIMIZE, **dict.fromkeys(latencies, MINIMIZE), "macs": MINIMIZE}


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
    options = {"connect_args": {"timeout": LOCK_TIMEOUT_S}} if url.startswith("sqlite") else {}
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
        StudyExists: it exists and `resume` is false.
        FrozenSettings: it exists, and settings that must not change differ.
    """
    engine = open_for_writing(url)
    name = settings.study.name
    try:
        stored = reader.find_study(engine, name)
    except StudyNotFound:
        stored = None
    if stored is not None and not resume:
        raise already_exists(name)
    storage = optuna_storage(url)
    if stored is None:
        try:
            _create(settings, engine, storage)
        except StudyExists:  # another launch has created it just now
            if not resume:
                raise
        stored = reader.find_study(engine, name)
    _check_frozen(settings, stored)
    storage.engine.dispose()
    return OpenStudy(settings, url, engine, StudyStore(engine, stored.id), stored.optuna_study_id)


def _create(settings: StudySettings, engine: sa.Engine, storage: RDBStorage) -> None:
    """Create the study in Optuna's tables, then in ours.

    A crash in between leaves an empty Optuna study of this name, which the next launch takes over.

    Raises:
        StudyExists: ours exists.
    """
    name, aims = settings.study.name, objectives(settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            storage=storage, study_name=name, directions=list(aims.values()), load_if_exists=True
        )
        study.set_metric_names(list(aims))
    hashes = (settings.digest(), settings.digest_of_frozen())
    create_study(engine, name, study._study_id, settings.model_dump(mode="json"), hashes)


def already_exists(name: str) -> StudyExists:
    """Return the error for a launch without --resume of a study that exists."""
    return StudyExists(
        f"a study called {name!r} exists in this database; go on with it by --resume, rename yours, or "
        f"`condensery delete {shlex.quote(name)}`."
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
        f"a resumed study must keep its space, data, training, budget, latency and seed, but {len(differing)} differ: "
        f"{'; '.join(differing[:5])}{' …' if len(differing) > 5 else ''}. Put them back, or launch under another name."
    )


def remove_study(url: str, name: str) -> None:
    """Delete a study from Optuna's tables and from ours.

    Raises:
        StudyNotFound: there is none of this name.
        StudyBusy: a process is running it.
    """
    engine = open_for_writing(url)
    stored = reader.find_study(engine, name)
    store = StudyStore(engine, stored.id)
    store.claim()
    storage = optuna_storage(url)
    with database_errors(url):
        with contextlib.suppress(KeyError):  # an interrupted delete has done this already
            optuna.delete_study(study_name=name, storage=storage)
        delete_study(engine, stored.id)
    engine.dispose()
