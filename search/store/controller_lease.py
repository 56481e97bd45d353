"""Who runs a study: one controller at a time, known by a lease in the study's row.

On one host the process itself is asked; of another host's the heartbeat is believed, by the database's clock where it
has one. Taking over is one transaction, and the former owner's every write fails from then on (see `transactions`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import sqlalchemy as sa

from search.store.clock import now_of
from search.store.tables import attempt, study, trial
from search.store.transactions import Transactions, shown
from space.errors import StudyBusy
from workers.processes import is_alive

LEASE_S = 60.0  # a controller on another host that was not seen for this long is taken for dead
LOOK_S = 0.5  # between two looks at who runs a study, standing by
RENEWALS = 6  # of the lease in its time, when the controller is at something long
STUCK_S = 1800.0  # a controller that didn't come round for so long is not kept in office any more
_NOBODY = {"controller": None, "controller_seen_at": None, "stop_requested": False}


class ControllerLease(Transactions):
    """The part of a study's store that says who runs it."""

    _round_at = -1e9  # when this process last claimed the study or gave a heartbeat of its own

    def claim(self, after: str | None = None) -> None:
        """Become the controller; the attempts that the one before left open are ended as stopped.

        Args:
            after: only after this owner, that the caller has watched for long enough to know it dead, whatever the
                clocks say ("": only when there is none). None: after any that is dead.

        Raises:
            StudyBusy: another live process is.
        """
        with self.engine.begin() as connection:
            query = sa.select(study.c.controller).where(study.c.id == self.study_id).with_for_update()
            before = connection.scalar(query)
            others = before not in (None, self.me, after)
            if others and (after is not None or self._live_owner(connection) is not None):
                raise StudyBusy(
                    f"this study is being run by {shown(before)} (host:pid); wait for it, `condensery stop` it, or "
                    "launch with --stand-by to take over when it dies."
                )
            self._set_study(connection, controller=self.me, controller_seen_at=now_of(connection), stop_requested=False)
            self._open = connection
            try:
                if before not in (None, self.me):
                    self.note_event("taken over", f"{shown(self.me)} goes on after {shown(before)}")
                who = "its controller" if before is None else f"its controller {shown(before)}"
                self._lose_attempts(connection, f"{who} is gone")
            finally:
                self._open = None
        self._fenced, self._round_at = True, time.monotonic()

    def _lose_attempts(self, connection: sa.Connection, reason: str) -> None:
        mine = sa.select(trial.c.id).where(trial.c.study_id == self.study_id)
        still = attempt.c.trial_id.in_(mine) & attempt.c.outcome.is_(None)
        values = {"outcome": "stopped", "reason": reason, "ended_at": time.time()}
        connection.execute(sa.update(attempt).where(still).values(values))

    def heartbeat(self) -> bool:
        """Say that the controller lives; return whether someone asked the study to stop.

        Raises:
            StudyBusy: another process has taken the study over.
        """
        with self._begin() as connection:
            self._check_fence(connection)
            self._set_study(connection, controller_seen_at=now_of(connection))
            self._round_at = time.monotonic()
            return bool(connection.scalar(sa.select(study.c.stop_requested).where(study.c.id == self.study_id)))

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Renew the claimed lease while the block lasts, whatever its thread is at, and release it at the end.

        Ray's start, or the reading of a large study, takes longer than a lease lasts. A block that gave no heartbeat of
        its own for `STUCK_S` is taken for stuck, and its lease runs out.
        """
        ended = threading.Event()
        thread = threading.Thread(target=self._renew, args=(ended,), name="lease", daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            self._end_renewing(ended, thread)
            with contextlib.suppress(sa.exc.DBAPIError):  # what ended the block is to be heard; the lease runs out
                self.release()
            raise
        self._end_renewing(ended, thread)
        self.patience.call(self.release)

    @staticmethod
    def _end_renewing(ended: threading.Event, thread: threading.Thread) -> None:
        ended.set()
        thread.join(5.0)  # no longer: one that waits for a database renews nothing that was released

    def _renew(self, ended: threading.Event) -> None:
        mine = ControllerLease(self.engine, self.study_id)  # with connections of its own
        mine.me, mine._fenced = self.me, True
        renewed = time.monotonic()
        while not ended.wait(LEASE_S / RENEWALS / 4):
            now = time.monotonic()
            if now - max(renewed, self._round_at) < LEASE_S / RENEWALS or now - self._round_at > STUCK_S:
                continue
            try:
                mine.heartbeat()
                renewed = now
            except StudyBusy:  # taken over: the block's next write says so
                return
            except sa.exc.SQLAlchemyError:  # away, or locked: asked again soon
                continue

    def release(self) -> None:
        """Stop being the controller."""
        self._fenced = False
        with self.engine.begin() as connection:
            mine = (study.c.id == self.study_id) & (study.c.controller == self.me)
            connection.execute(sa.update(study).where(mine).values(_NOBODY))

    def request_stop(self) -> str | None:
        """Ask the running controller to stop cleanly; return who that is, None when nobody runs the study."""
        with self.engine.begin() as connection:
            owner = self._live_owner(connection)
            if owner is not None:
                self._set_study(connection, stop_requested=True)
        return owner

    def is_running(self) -> bool:
        """Whether a live process is this study's controller."""
        with self._read() as connection:
            return self._live_owner(connection) is not None

    def _live_owner(self, connection: sa.Connection) -> str | None:
        query = sa.select(study.c.controller, study.c.controller_seen_at).where(study.c.id == self.study_id)
        row = connection.execute(query).one()
        if row.controller is None:
            return None
        alive = is_alive(row.controller)
        if alive is None:
            alive = row.controller_seen_at is not None and now_of(connection) - row.controller_seen_at < LEASE_S
        return row.controller if alive else None

    def stand_by(self, stopped: Callable[[], bool], waiting: Callable[[str], None]) -> bool:
        """Wait until nobody runs the study, and claim it; return False when `stopped` says to end instead.

        A controller on another host is dead when its heartbeat has not changed for `LEASE_S` by this process's own
        monotonic clock, in which the database was there: no wall clock is asked, so none can mislead.
        """
        seen: tuple[str | None, float | None] = (None, None)
        quiet_s, looked_at, told = 0.0, time.monotonic(), ""
        while not stopped():
            owner, at = self.patience.call(self._owner)
            now = time.monotonic()
            # A longer time between two looks says nothing: the database was away, or this machine stood still.
            quiet_s = quiet_s + min(now - looked_at, 2 * LOOK_S) if (owner, at) == seen else 0.0
            seen, looked_at = (owner, at), now
            alive = None if owner is None else is_alive(owner)
            if owner is None or alive is False or (alive is None and quiet_s > LEASE_S):
                try:
                    self.patience.call(partial(self.claim, after=owner or ""))
                    return True
                except StudyBusy:  # another one that stood by was faster
                    continue
            if owner != told:
                told = owner
                waiting(f"standing by: {shown(owner)} (host:pid) runs this study")
            time.sleep(LOOK_S)
        return False

    def _owner(self) -> tuple[str | None, float | None]:
        query = sa.select(study.c.controller, study.c.controller_seen_at).where(study.c.id == self.study_id)
        query = query.with_for_update()  # a server that can be read only is away: nobody's heartbeat gets through
        with self.engine.connect() as connection:
            row = connection.execute(query).one()
        return row.controller, row.controller_seen_at
