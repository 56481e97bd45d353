"""One study as the dashboards see it: rows, front and a revision, by SELECTs only.

The revision is a few aggregates in SQL, so a page can ask every second whether anything is new without reading rows.
Rows come as columns (`dashboards.data.columns`), and a `LiveStudy` reads them again only when the revision says so.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from dashboards.data.columns import StudyColumns
from dashboards.data.sql_columns import ConfigBook, read_columns_of
from search.store.database import database_errors, open_for_reading
from search.store.reader import find_study
from search.store.tables import artifact, curve, event, latency, request, study, trial
from search.store.vocabulary import OPEN_STATES
from space.errors import CondenseryError, StudyNotFound

LOOK_WHOLE_S = 5.0  # how often a live study looks for what takes a scan to find


@dataclass(frozen=True)
class Stale:
    """The database can't be read."""

    since: float  # UTC seconds since 1970
    reason: str
    deleted: bool = False  # it can be read, but the study isn't in it any more


def load_revision(engine: sa.Engine, study_id: int, before: str = "") -> str:
    """Return a short text that changes whenever the study's trials, curves, latencies, files or requests do.

    It may also change when they don't (another study of the database was measured): a reload too many. With a revision
    from `before` what takes a scan of tables is not looked at again but taken over: test results of ended trials and
    files removed.
    """
    parts = [_digest(engine, _quick_queries(study_id))]
    parts.append(before.partition(".")[2] if before else _digest(engine, _slow_queries(study_id)))
    return ".".join(parts)


def _digest(engine: sa.Engine, queries: Sequence[sa.Executable]) -> str:
    with engine.connect() as connection:
        facts = [[list(row) for row in connection.execute(query)] for query in queries]
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:12]


def _quick_queries(study_id: int) -> tuple[sa.Executable, ...]:
    """What an index or a key answers, however many trials have ended: a page asks every second."""
    columns = (study.c.settings_hash, study.c.data_info.is_(None), study.c.stop_requested, study.c.controller)
    in_study = trial.c.study_id == study_id
    is_open = trial.c.state.in_(OPEN_STATES)
    numbers = (
        *(sa.func.max(trial.c[name]) for name in ("asked_at", "started_at")),
        *(sa.func.sum(trial.c[name]) for name in ("attempt", "latency_id")),
        sa.func.sum(sa.cast(trial.c.cancel_requested, sa.Integer)),
    )
    return (
        sa.select(*columns).where(study.c.id == study_id),
        sa.select(trial.c.state, sa.func.count()).where(in_study).group_by(trial.c.state).order_by(trial.c.state),
        sa.select(*numbers).where(in_study, is_open),
        # Curves grow while a trial is open; a resumed one repeats epochs under the same key, with other seconds.
        sa.select(sa.func.count(), sa.func.sum(curve.c.seconds))
        .join(trial, trial.c.id == curve.c.trial_id)
        .where(in_study, is_open),
        sa.select(sa.func.max(latency.c.id)),
        sa.select(sa.func.max(event.c.id)).where(event.c.study_id == study_id),
        sa.select(sa.func.count(), sa.func.count(request.c.trial_number)).where(request.c.study_id == study_id),
    )


def _slow_queries(study_id: int) -> tuple[sa.Executable, ...]:
    return (
        sa.select(sa.func.count(trial.c.test_top1), sa.func.max(trial.c.finished_at)).where(
            trial.c.study_id == study_id
        ),
        sa.select(sa.func.count(), sa.func.sum(sa.cast(artifact.c.removed, sa.Integer))),
    )


def read_columns(engine: sa.Engine, study_name: str, book: ConfigBook | None = None) -> StudyColumns:
    """Read a study as columns; `book` saves time where a study is read again and again.

    Raises:
        StudyNotFound: there is none of this name.
    """
    found = find_study(engine, study_name)
    # Read before the rows: a change in between gives a revision that is too old, and so one reload too many, never
    # one too few.
    revision = load_revision(engine, found.id)
    with engine.connect() as connection:
        return read_columns_of(connection, found, revision, ConfigBook() if book is None else book)


class LiveStudy:
    """A study that is looked at again and again, by several threads: read anew only when it has changed.

    While the database is away the columns stay as they were, and `stale` says since when and why.
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
        """Since when the database has been away; None while it answers."""
        return self._stale

    def refresh(self) -> StudyColumns:
        """Return the columns as of now; the same object as before where nothing is new, or the database is away."""
        with self._lock:
            try:
                with database_errors(self.url):
                    if self._revision() != self._columns.revision:
                        self._columns = read_columns(self._engine, self.name, self._book)
                self._stale = None
            except CondenseryError as error:  # away, locked, or the study deleted: show what was known, and say so
                self._stale = _stale(self._stale, error)
            return self._columns

    def _revision(self) -> str:
        known, now = self._columns, time.monotonic()
        whole = now - self._looked_at >= LOOK_WHOLE_S
        if whole:
            self._looked_at = now
        return load_revision(self._engine, known.study.id, "" if whole else known.revision)


def _stale(before: Stale | None, error: CondenseryError) -> Stale:
    """Return why the study can't be read; since the first failure of the same kind."""
    deleted = isinstance(error, StudyNotFound)
    if before is not None and before.deleted == deleted:
        return before
    return Stale(time.time(), str(error), deleted)
