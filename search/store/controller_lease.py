"""Who runs a study: one controller at a time, which holds a lease in the study's row.

A controller on this host is alive while its process is; one on another host is believed by its heartbeat, by the
database's clock where it has one. Taking over is one transaction, and every later write of the former owner fails
(see `connection.transactions`).
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import sqlalchemy as sa

from search.store.connection.clock import now_of
from search.store.connection.printed_commands import printed_command
from search.store.connection.transactions import Transactions, shown
from search.store.tables import attempt, study, trial
from search.store.vocabulary import AttemptOutcome, StudyEvent
from space.errors import StudyBusy
from workers.clock import Clock
from workers.processes import is_alive

LEASE_S = 60.0
_NO_CONTROLLER = {"controller": None, "controller_seen_at": None, "stop_requested": False}


@dataclass(frozen=True)
class LeaseTimes:
    """The intervals and time limits of a controller's lease, in seconds."""

    lease_s: float = LEASE_S  # a controller on another host counts as dead when it was not seen for this long
    renew_s: float = LEASE_S / 6  # between two renewals, while the controller does something long
    stuck_s: float = 1800.0  # a controller that gave no heartbeat of its own for so long loses its lease
    look_s: float = 0.5  # between two looks of a stand-by at who runs the study

    @classmethod
    def of_lease(cls, lease_s: float) -> LeaseTimes:
        """Return the times of a lease of another length."""
        return cls(lease_s, lease_s / 6)


class ControllerLease(Transactions):
    """The part of a study's store that says who runs it.

    Its waits and intervals go by the store's clock, or by `lease_clock`. What hosts compare goes by the database's,
    unless a clock is given.
    """

    _round_at = -math.inf  # when this process last claimed the study or gave a heartbeat of its own
    lease_times = LeaseTimes()
    lease_clock: Clock | None = None  # for waits and intervals, where the store's own clock is simulated

    @property
    def _waits_by(self) -> Clock:
        return self.lease_clock or self.clock

    def claim(self, after: str | None = None) -> None:
        """Become the controller; attempts that the controller before left open are ended as stopped.

        Args:
            after: take over from this owner only, which the caller has watched long enough to know that it is dead,
                whatever the clocks say ("": only when there is no owner). None: from any owner that is dead.

        Raises:
            StudyBusy: another live process is the controller.
        """
        after = self._silent_owner() if after is None else after
        with self.engine.begin() as connection:
            query = sa.select(study.c.controller).where(study.c.id == self.study_id).with_for_update()
            before = connection.scalar(query)
            is_others = before not in (None, self.me, after)
            if is_others and (after is not None or self._live_owner(connection) is not None):
                name = connection.scalar(sa.select(study.c.name).where(study.c.id == self.study_id))
                stop = printed_command(["condensery", "stop", str(name)], self.engine.url)
                raise StudyBusy(
                    f"this study is being run by {shown(before)} (host:pid); wait for it, `{stop}` it, or "
                    "launch with --stand-by to take over when it dies."
                )
            now = now_of(connection, self._given_clock)
            self._set_study(connection, controller=self.me, controller_seen_at=now, stop_requested=False)
            self._open = connection
            try:
                if before not in (None, self.me):
                    self.note_event(StudyEvent.TAKEN_OVER, f"{shown(self.me)} takes over from {shown(before)}")
                controller = "its controller" if before is None else f"its controller {shown(before)}"
                self._stop_attempts(connection, f"{controller} is gone")
            finally:
                self._open = None
        self._fenced, self._round_at = True, self._waits_by.monotonic()

    def _silent_owner(self) -> str | None:
        """Return an owner elsewhere whose last heartbeat lies in the future, if it gives no other for `lease_s`.

        Its clock and this one differ, so only a change tells whether it is alive. None in any other case, at once.
        """
        with self._read() as connection:
            now = now_of(connection, self._given_clock)
        owner, at = first = self.patience.call(self._owner)
        if owner is None or at is None or at - now < self.lease_times.lease_s or is_alive(owner) is not None:
            return None
        until = self._waits_by.monotonic() + self.lease_times.lease_s
        while self._waits_by.monotonic() < until:
            self._waits_by.sleep(self.lease_times.look_s)
            if self.patience.call(self._owner) != first:
                return None
        return owner

    def _stop_attempts(self, connection: sa.Connection, reason: str) -> None:
        mine = sa.select(trial.c.id).where(trial.c.study_id == self.study_id)
        is_open = attempt.c.trial_id.in_(mine) & attempt.c.outcome.is_(None)
        values = {"outcome": AttemptOutcome.STOPPED, "reason": reason, "ended_at": self.clock.now()}
        connection.execute(sa.update(attempt).where(is_open).values(values))

    def heartbeat(self) -> bool:
        """Record that the controller is alive; return whether a user asked the study to stop.

        Raises:
            StudyBusy: another process has taken the study over.
        """
        with self._begin() as connection:
            self._check_fence(connection)
            self._set_study(connection, controller_seen_at=now_of(connection, self._given_clock))
            self._round_at = self._waits_by.monotonic()
            return bool(connection.scalar(sa.select(study.c.stop_requested).where(study.c.id == self.study_id)))

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Renew the claimed lease while the block runs, however long one of its steps takes, and release it at the end.

        Starting Ray, or reading a large study, takes longer than a lease lasts. A block that gives no heartbeat of its
        own for `LeaseTimes.stuck_s` counts as stuck, and its lease runs out.
        """
        ended = threading.Event()
        thread = threading.Thread(target=self._renew, args=(ended,), name="lease", daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            self._end_renewing(ended, thread)
            with contextlib.suppress(sa.exc.DBAPIError):  # the caller must see what ended the block; the lease runs out
                self.release()
            raise
        self._end_renewing(ended, thread)
        self.patience.call(self.release)

    @staticmethod
    def _end_renewing(ended: threading.Event, thread: threading.Thread) -> None:
        ended.set()
        thread.join(5.0)  # no longer: a thread that waits for the database can't renew a released lease

    def _renew(self, ended: threading.Event) -> None:
        renewal = _Renewal(self)
        while not ended.wait(self.lease_times.renew_s / 4):
            try:
                renewal.renew_if_due()
            except StudyBusy:  # taken over: the block's next write raises it
                return
            except sa.exc.SQLAlchemyError:  # away or locked: tried again soon
                continue

    def release(self) -> None:
        """Stop being the controller."""
        self._fenced = False
        with self.engine.begin() as connection:
            mine = (study.c.id == self.study_id) & (study.c.controller == self.me)
            connection.execute(sa.update(study).where(mine).values(_NO_CONTROLLER))

    def request_stop(self) -> str | None:
        """Ask the running controller to stop cleanly; return its owner name, None when no controller runs the study."""
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
            now = now_of(connection, self._given_clock)
            alive = row.controller_seen_at is not None and now - row.controller_seen_at < self.lease_times.lease_s
        return row.controller if alive else None

    def stand_by(self, stopped: Callable[[], bool], waiting: Callable[[str], None]) -> bool:
        """Wait until no controller runs the study, and claim it; return False if `stopped` becomes true first.

        A controller on another host counts as dead when its heartbeat has not changed for `lease_s` of this process's
        monotonic clock, without the time in which the database was away. No wall clock is read, so none can mislead.
        """
        times = self.lease_times
        seen: tuple[str | None, float | None] = (None, None)
        unchanged_s, looked_at, announced = 0.0, self._waits_by.monotonic(), ""
        while not stopped():
            owner, at = self.patience.call(self._owner)
            now = self._waits_by.monotonic()
            # More time between two looks proves nothing: the database was away, or this machine was suspended.
            unchanged_s = unchanged_s + min(now - looked_at, 2 * times.look_s) if (owner, at) == seen else 0.0
            seen, looked_at = (owner, at), now
            alive = None if owner is None else is_alive(owner)
            if owner is None or alive is False or (alive is None and unchanged_s > times.lease_s):
                try:
                    self.patience.call(partial(self.claim, after=owner or ""))
                    return True
                except StudyBusy:  # another stand-by was faster
                    continue
            if owner != announced:
                announced = owner
                waiting(f"standing by: {shown(owner)} (host:pid) runs this study")
            self._waits_by.sleep(times.look_s)
        return False

    def _owner(self) -> tuple[str | None, float | None]:
        query = sa.select(study.c.controller, study.c.controller_seen_at).where(study.c.id == self.study_id)
        query = query.with_for_update()  # a read-only server counts as away: no heartbeat gets through
        with self.engine.connect() as connection:
            row = connection.execute(query).one()
        return row.controller, row.controller_seen_at


class _Renewal:
    """Renews a claimed lease by connections of its own, while its owner's thread does something long."""

    def __init__(self, owner: ControllerLease) -> None:
        self._owner, self._times, self._renewed_at = owner, owner.lease_times, owner._waits_by.monotonic()
        self._lease = ControllerLease(owner.engine, owner.study_id, clock=owner._given_clock)
        self._lease.me, self._lease._fenced = owner.me, True

    def renew_if_due(self) -> None:
        """Renew the lease if neither did so for a while, unless its owner is stuck.

        Raises:
            StudyBusy: another process has taken the study over.
        """
        now, round_at = self._owner._waits_by.monotonic(), self._owner._round_at
        if now - max(self._renewed_at, round_at) < self._times.renew_s or now - round_at > self._times.stuck_s:
            return
        self._lease.heartbeat()
        self._renewed_at = now
