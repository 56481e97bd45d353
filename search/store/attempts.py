"""The attempts of a study's trials: each has an owner, a lease kept alive by heartbeats, and one end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from search.store.connection.transactions import Transactions
from search.store.tables import attempt, curve, trial
from search.store.vocabulary import AttemptOutcome, TrialState
from workers.metrics import OBJECTIVES
from workers.training.reporting import ProgressReport

# Built once; see `connection.transactions`.
_MINE = (attempt.c.trial_id == sa.bindparam("key")) & (attempt.c.attempt == sa.bindparam("of"))
_RUN = (
    sa.update(trial)
    .where(trial.c.id == sa.bindparam("key"))
    .values(
        state=TrialState.RUNNING,
        attempt=sa.bindparam("of"),
        started_at=sa.func.coalesce(trial.c.started_at, sa.bindparam("now", type_=sa.Float)),
    )
)
_CHANGE = sa.update(attempt).where(_MINE)  # the columns are those of the parameters
_END = _CHANGE.where(attempt.c.outcome.is_(None))
_START = sa.insert(attempt)
_REPORT = sa.update(attempt).where(
    attempt.c.trial_id
    == sa.select(trial.c.id)
    .where(trial.c.study_id == sa.bindparam("in_study"), trial.c.number == sa.bindparam("number"))
    .scalar_subquery(),
    attempt.c.attempt == sa.bindparam("of"),
)
_COUNT_EPOCH = _CHANGE.values(epochs=attempt.c.epochs + sa.bindparam("new"))  # and how far that is
_FORGET_EPOCH = sa.delete(curve).where(curve.c.trial_id == sa.bindparam("key"), curve.c.epoch == sa.bindparam("at"))
_ADD_EPOCH = sa.insert(curve)
_EPOCHS = sa.select(curve.c.epoch).where(curve.c.trial_id == sa.bindparam("key"))


class Attempts(Transactions):
    """The part of a study's store that records attempts: which worker trains a trial, and how that ends."""

    def set_running(self, number: int, of: int) -> None:
        """Record that a worker starts on a trial: its attempt `of`."""
        at = self.clock.now()
        with self._begin() as connection:
            key = self._key(connection, number)
            connection.execute(_RUN, {"key": key, "of": of, "now": at})
            lease = {"owner": self.me, "started_at": at, "heartbeat_at": at}
            if connection.execute(_CHANGE, {"key": key, "of": of, **lease}).rowcount == 0:
                connection.execute(_START, {"trial_id": key, "attempt": of, "epochs": 0, **lease})

    def set_worker(self, number: int, of: int, worker: str) -> None:
        """Record which process runs an attempt, as host:pid."""
        with self._begin() as connection:
            connection.execute(_CHANGE, {"key": self._key(connection, number), "of": of, "worker": worker})

    def renew_attempts(self, numbers: Iterable[int]) -> None:
        """Renew the leases of these trials' open attempts: their workers are alive."""
        ids = sa.select(trial.c.id).where(trial.c.study_id == self.study_id, trial.c.number.in_(list(numbers)))
        is_open = attempt.c.trial_id.in_(ids) & attempt.c.outcome.is_(None)
        with self._begin() as connection:
            connection.execute(sa.update(attempt).where(is_open).values(heartbeat_at=self.clock.now()))

    def set_reports(self, reports: Mapping[tuple[int, int], ProgressReport]) -> None:
        """Record how far running trials are, by trial number and attempt, in place of their last reports."""
        rows = [
            {"in_study": self.study_id, "number": number, "of": of, **asdict(report)}
            for (number, of), report in reports.items()
        ]
        if rows:
            with self._begin() as connection:
                connection.execute(_REPORT, rows)

    def end_attempt(self, number: int, of: int, outcome: AttemptOutcome, reason: str | None = None) -> None:
        """Record how an attempt ended; the first outcome stays."""
        values = {"outcome": outcome, "reason": reason, "ended_at": self.clock.now()}
        with self._begin() as connection:
            connection.execute(_END, {"key": self._key(connection, number), "of": of, **values})

    def losses_in_a_row(self, number: int, of: int) -> int:
        """Return how many attempts in a row were lost without a new epoch, up to attempt `of`, whose loss is the news.

        0 if that attempt has reported an epoch itself.
        """
        count = 0
        with self._read() as connection:
            up_to = (attempt.c.trial_id == self._key(connection, number)) & (attempt.c.attempt <= of)
            query = sa.select(attempt.c.attempt, attempt.c.outcome, attempt.c.epochs).where(up_to)
            for row in connection.execute(query.order_by(attempt.c.attempt.desc())):
                was_lost = row.attempt == of or row.outcome == AttemptOutcome.LOST
                if not was_lost or row.epochs:
                    break
                count += 1
        return count

    def add_curve_row(self, number: int, row: Mapping[str, Any], of: int | None = None) -> bool:
        """Insert or replace one epoch: a resumed trial repeats those since its checkpoint. `of` is the attempt.

        Returns whether the epoch is new; only a new one is counted for the attempt. An attempt that dies where the one
        before it died has made no progress, however many epochs it repeated.
        """
        with self._begin() as connection:
            key = self._key(connection, number)
            is_new = not connection.execute(_FORGET_EPOCH, {"key": key, "at": row["epoch"]}).rowcount
            connection.execute(_ADD_EPOCH, {"trial_id": key, **row})
            if of is not None:
                so_far = {name: row.get(name) for name in ("progress", "seconds", "images_per_s")}
                connection.execute(_COUNT_EPOCH, {"key": key, "of": of, "new": int(is_new), **so_far})
        return is_new

    def curves(self) -> dict[int, list[dict[str, float]]]:
        """Return, by trial number, what a stopping rule reads of each recorded epoch, in order.

        That is progress, the losses, and every score that may be a study's objective.
        """
        names = ("progress", "val_loss", "train_loss", *(f"val_{name}" for name in OBJECTIVES))
        query = sa.select(trial.c.number, *(curve.c[name] for name in names))
        mine = query.join(trial, trial.c.id == curve.c.trial_id).where(trial.c.study_id == self.study_id)
        found: dict[int, list[dict[str, float]]] = {}
        with self._read() as connection:
            for number, *values in connection.execute(mine.order_by(trial.c.number, curve.c.epoch)):
                found.setdefault(number, []).append(dict(zip(names, values, strict=True)))
        return found

    def epochs_of(self, number: int) -> int:
        """Return how many epochs of a trial are recorded."""
        with self._read() as connection:
            return len(list(connection.scalars(_EPOCHS, {"key": self._key(connection, number)})))

    def fill_curve(self, number: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert the epochs that are missing: a checkpoint holds them, but no controller lived to record them."""
        with self._begin() as connection:
            key = self._key(connection, number)
            recorded = set(connection.scalars(_EPOCHS, {"key": key}))
            missing = [{"trial_id": key, **row} for row in rows if row["epoch"] not in recorded]
            if missing:
                connection.execute(_ADD_EPOCH, missing)
