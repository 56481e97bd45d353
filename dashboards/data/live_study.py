"""A study that is looked at again and again; its rows are read only when its revision says that something is new."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import sqlalchemy as sa

from dashboards.data.column_reader import ConfigBook, read_columns
from dashboards.data.columns import StudyColumns
from dashboards.data.revision import load_revision
from search.store.connection.database import open_for_reading
from search.store.connection.database_errors import database_errors
from space.errors import CondenseryError, StudyNotFound

LOOK_WHOLE_S = 5.0  # how often a live study looks for what takes a scan of whole tables to find


@dataclass(frozen=True)
class Stale:
    """The database can't be read."""

    since: float  # UTC seconds since 1970
    reason: str
    deleted: bool = False  # the database can be read, but the study is no longer in it


class LiveStudy:
    """A study that several threads look at again and again; it is read again only when it has changed.

    While the database can't be reached the columns stay as they were, and `stale` says since when and why.
    """

    def __init__(self, url: str, study_name: str) -> None:
        """Read the study for the first time; raises what `open_for_reading` and `find_study` raise."""
        self.url, self.name = url, study_name
        self._engine = open_for_reading(url)
        self._book, self._lock = ConfigBook(), threading.Lock()
        self._columns = read_columns(self._engine, study_name, self._book)
        self._stale: Stale | None = None
        self._looked_at = time.monotonic()

    @property
    def engine(self) -> sa.Engine:
        """The database, opened read-only."""
        return self._engine

    @property
    def columns(self) -> StudyColumns:
        """The columns as they were read last."""
        return self._columns

    @property
    def stale(self) -> Stale | None:
        """Since when the database can't be reached; None while it answers."""
        return self._stale

    def refresh(self) -> StudyColumns:
        """Return the columns as of now; the same object as before if nothing is new or the database is away."""
        with self._lock:
            try:
                with database_errors(self.url):
                    if self._revision() != self._columns.revision:
                        self._columns = read_columns(self._engine, self.name, self._book)
                self._stale = None
            except CondenseryError as error:  # away, locked, or the study deleted: what was read last stays
                self._stale = _stale(self._stale, error)
            return self._columns

    def _revision(self) -> str:
        columns, now = self._columns, time.monotonic()
        whole = now - self._looked_at >= LOOK_WHOLE_S
        if whole:
            self._looked_at = now
        return load_revision(self._engine, columns.study.id, "" if whole else columns.revision)


def _stale(before: Stale | None, error: CondenseryError) -> Stale:
    """Return why the study can't be read; since the first failure of the same kind."""
    deleted = isinstance(error, StudyNotFound)
    if before is not None and before.deleted == deleted:
        return before
    return Stale(time.time(), str(error), deleted)
