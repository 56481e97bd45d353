"""What the server keeps while a page is open: the studies, and what was computed of each for its present revision.

All open pages and all threads share what is computed. What is costly is computed at most every `COSTLY_EVERY_S`
seconds, however fast the study grows; pages learn of it from the slow revision.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from dashboards.data.columns import StudyColumns, View
from dashboards.data.live_study import LiveStudy
from dashboards.page.table import TableColumn, table_columns
from search.store.connection.database import open_for_reading
from search.store.connection.database_errors import database_errors, driver_errors
from search.store.reader import find_study, list_studies
from search.store.rows import StudyRow
from space.errors import (
    CondenseryError,
    DatabaseLocked,
    DatabaseUnavailable,
    DiskFull,
    NotOurDatabase,
    StudyNotFound,
)

AWAY = (DatabaseUnavailable, DatabaseLocked, NotOurDatabase, DiskFull)  # errors that pass when the database is back
AWAY_TEXT = "The database is away; this is shown as soon as it answers."
COSTLY_EVERY_S = 10.0
KEPT = 48  # payloads of a study
Payload = dict[str, Any]  # plain JSON
log = logging.getLogger("condensery.dashboard")


@dataclass(frozen=True)
class Computed:
    """A panel at one revision: what the page shows, and the same as a table (headers, rows, a last sentence)."""

    payload: Payload
    table: Payload


class CachedStudy:
    """One study on the page. Threads may share it."""

    def __init__(self, live: LiveStudy) -> None:
        self.live = live
        self._lock = threading.Lock()
        self._working: dict[Hashable, threading.Lock] = {}
        self._done: OrderedDict[Hashable, tuple[str, Computed]] = OrderedDict()
        self._slow = (live.columns, time.monotonic())
        self._table: tuple[StudyColumns, View, list[TableColumn]] | None = None

    @property
    def columns(self) -> StudyColumns:
        """The study as it was read last."""
        return self.live.columns

    @property
    def slow_columns(self) -> StudyColumns:
        """The study as costly panels show it: at most `COSTLY_EVERY_S` behind."""
        return self._slow[0]

    def refresh(self) -> None:
        """Read what is new, and pass it to the costly panels when it is time."""
        columns = self.live.refresh()
        with self._lock:
            before, since = self._slow
            if columns is not before and time.monotonic() - since >= COSTLY_EVERY_S:
                self._slow = (columns, time.monotonic())

    def table(self, view: View) -> tuple[StudyColumns, list[TableColumn]]:
        """Return the study and the columns of its trials table, which were made from it."""
        columns, table = self.columns, self._table
        if table is None or table[0] is not columns or table[1] != view:
            self._table = table = (columns, view, table_columns(columns, view))
        return table[0], table[2]

    def computed(self, key: Hashable, revision: str, compute: Callable[[], Computed]) -> Computed:
        """Return what `compute` gives for this revision; computed once, while others that ask for it wait.

        While the database is away or the study deleted, return what it gave last, though of an older revision.

        Raises:
            DatabaseUnavailable, DatabaseLocked, NotOurDatabase, DiskFull, StudyNotFound: and nothing older is kept.
        """
        with self._lock:
            lock = self._working.setdefault(key, threading.Lock())
        with lock:
            with self._lock:
                earlier = self._done.get(key)
            if earlier is not None and earlier[0] == revision:
                return earlier[1]
            try:
                with driver_errors(self.live.url):
                    done = compute()
            except (*AWAY, StudyNotFound):
                if earlier is None:
                    raise
                return earlier[1]
            done.payload["stamp"] = stamp(done.payload)
            with self._lock:
                self._done[key] = (revision, done)
                self._done.move_to_end(key)
                while len(self._done) > KEPT:
                    self._working.pop(self._done.popitem(last=False)[0], None)
            return done


def stamp(payload: Mapping[str, Any]) -> str:
    """Return a short text that is the same for the same payload: what a page already shows isn't sent again."""
    return hashlib.sha1(json.dumps(payload, default=str, sort_keys=True).encode(), usedforsecurity=False).hexdigest()


class Studies:
    """The studies of a database that a page may show: one, or all of them."""

    def __init__(self, url: str, only: str | None = None) -> None:
        """Open the database; with `only`, no other study is shown.

        Raises:
            StudyNotFound: there is no such study. Those of `open_for_reading`.
        """
        self.url, self.only = url, only
        self.engine = open_for_reading(url)
        self._lock = threading.Lock()
        self._opening: dict[str, threading.Lock] = {}
        self._studies: dict[str, CachedStudy] = {}
        self._several = False
        self._single: str | None = None  # the study that a page without a study in its address was opened with
        if only is not None:
            self.get(only)

    def list(self) -> list[StudyRow]:
        """Return the studies that may be shown, oldest first."""
        with database_errors(self.url):
            if self.only is not None:
                return [find_study(self.engine, self.only)]
            return list_studies(self.engine)

    def are_several(self) -> bool:
        """Whether there is a choice of studies; while the database is away, whether there was one."""
        with contextlib.suppress(*AWAY, StudyNotFound):
            self._several = self.only is None and len(self.list()) > 1
        return self._several

    def single(self) -> str:
        """Return the name of the only study; pages that name none show it from now on, even when others come.

        Raises:
            StudyNotFound: there is none, or there are several.
        """
        studies = self.list()
        if len(studies) != 1:
            raise StudyNotFound("name a study." if studies else "the database holds no study yet; launch one.")
        self._single = studies[0].name
        return self._single

    def get(self, name: str | None) -> CachedStudy:
        """Return a study; without a name the only one.

        Raises:
            StudyNotFound: there is none of this name, or several and no name. Those of `open_for_reading`.
        """
        name = self.only or name or self._single
        if name is None:
            name = self.single()
        with self._lock:
            study = self._studies.get(name)
            if study is not None:
                return study
            opening = self._opening.setdefault(name, threading.Lock())
        with opening:  # a first read may take seconds, and requests for other studies don't wait for it
            return self._opened(name)

    def _opened(self, name: str) -> CachedStudy:
        study = self._studies.get(name)
        try:
            if study is None:
                with database_errors(self.url):
                    study = CachedStudy(LiveStudy(self.url, name))
        finally:
            with self._lock:
                if study is not None:
                    self._studies[name] = study
                self._opening.pop(name, None)  # or names of studies that don't exist pile up
        return study


def guarded(part: str, compute: Callable[[], Payload]) -> Payload:
    """Return what `compute` gives; if it fails, a payload that says why.

    A database that is away is marked `away`: the page asks again when it is back.
    """
    try:
        return compute()
    except AWAY:
        return {"reason": AWAY_TEXT, "away": True, "stamp": AWAY_TEXT}
    except CondenseryError as error:
        return {"reason": f"This can't be shown now: {error}", "wrong": True, "stamp": str(error)}
    except Exception:
        log.exception("%s can't be computed", part)
        text = f"{part} can't be computed because of a fault of the program; the server's log says more."
        return {"reason": text, "wrong": True, "stamp": text}
