"""Transactions on one study: steps that commit together, retried while the database is away, and fenced.

Notable choices:
- Every method of the store is one transaction, unless it is called inside `transact`: then it takes part in that one.
- Once a process has claimed a study, each of its transactions checks that the study is still its own. A process that
  was suspended for an hour, and whose study another has taken over, can't write a row any more.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import sqlalchemy as sa

from search.store.connection.patience import Patience
from search.store.tables import event, study, trial
from search.store.vocabulary import StudyEvent
from space.errors import StudyBusy
from workers.clock import Clock, SystemClock
from workers.processes import host_and_pid, process_name

Result = TypeVar("Result")

KEYS_KEPT = 10_000
# Statements that run for every trial are built once: building one takes longer than SQLite needs to run it.
_OWNER = sa.select(study.c.controller).where(study.c.id == sa.bindparam("this")).with_for_update()
_KEY = sa.select(trial.c.id).where(trial.c.study_id == sa.bindparam("this"), trial.c.number == sa.bindparam("of"))


class Transactions:
    """The base of a study's store; used from one thread."""

    def __init__(
        self, engine: sa.Engine, study_id: int, patience: Patience | None = None, clock: Clock | None = None
    ) -> None:
        self.engine, self.study_id, self.patience = engine, study_id, patience or Patience()
        self.clock: Clock = clock or SystemClock()
        self._given_clock = clock  # None: the times that hosts compare are the database's
        self.me = process_name(os.getpid())
        self._fenced = False  # whether this process claimed the study
        self._keys: dict[int, int] = {}  # row ids of trials by number: they never change
        self._open: sa.Connection | None = None

    def transact(self, work: Callable[[], Result]) -> Result:
        """Run `work`, whose calls of this store then commit together or not at all; retried while there is no database.

        `work` may be called several times, so whatever it does outside the store must be repeatable.

        Raises:
            StudyBusy: another process has taken the study over.
        """
        if self._open is not None:
            return work()
        return self.patience.call(lambda: self._once(work))

    def with_connection(self, work: Callable[[sa.Connection], Result]) -> Result:
        """Run `work` as `transact` does, with the connection: for tables that are not this store's."""

        def work_on_connection() -> Result:
            assert self._open is not None
            return work(self._open)

        return self.transact(work_on_connection)

    def _once(self, work: Callable[[], Result]) -> Result:
        with self.engine.begin() as connection:
            if self._fenced:
                self._check_fence(connection)
            self._open = connection
            try:
                return work()
            finally:
                self._open = None

    @contextlib.contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        """Yield the connection of the open transaction, or of a new one."""
        if self._open is not None:
            yield self._open
            return
        with self.engine.begin() as connection:
            if self._fenced:
                self._check_fence(connection)
            yield connection

    @contextlib.contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        if self._open is not None:
            yield self._open
            return
        with self.engine.connect() as connection:
            yield connection

    def _check_fence(self, connection: sa.Connection) -> None:
        owner = connection.scalar(_OWNER, {"this": self.study_id})
        if owner != self.me:
            raise StudyBusy(f"this study was taken over by {shown(owner)}; this process ends here.")

    def _set_study(self, connection: sa.Connection, **values: Any) -> None:
        connection.execute(sa.update(study).where(study.c.id == self.study_id).values(values))

    def _key(self, connection: sa.Connection, number: int) -> int | None:
        """Return the row id of a trial; None where there is none. Remembered once it has been read or committed."""
        if number not in self._keys:
            key = connection.scalar(_KEY, {"this": self.study_id, "of": number})
            if key is None:
                return None
            if len(self._keys) > KEYS_KEPT:
                self._keys.clear()
            self._keys[number] = int(key)
        return self._keys[number]

    def note_event(self, kind: StudyEvent, detail: str, number: int | None = None, attempt: int | None = None) -> None:
        """Append an event to the study's log of what went wrong."""
        values = {"study_id": self.study_id, "kind": kind, "detail": detail, "at": self.clock.now()}
        with self._begin() as connection:
            connection.execute(sa.insert(event).values(number=number, attempt=attempt, **values))

    def numbers_of_event(self, kind: StudyEvent) -> set[int]:
        """Return the numbers of the trials for which an event of this kind is recorded."""
        query = sa.select(event.c.number).where(event.c.study_id == self.study_id, event.c.kind == kind)
        with self._read() as connection:
            return set(connection.scalars(query.where(event.c.number.is_not(None))))


def shown(owner: str | None) -> str:
    """Return an owner as messages name it: host:pid."""
    return "no one" if owner is None else host_and_pid(owner)
