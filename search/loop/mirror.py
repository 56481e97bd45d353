"""Writes ended trials into Optuna's tables, so that Optuna's own tools can read the study.

They are written in batches, each in one transaction with our own mark that its trials are mirrored.
"""

from __future__ import annotations

import sqlalchemy as sa

from search.samplers.proposer import Proposer
from search.store.optuna_mirror import MirroredTrial, drop_open_trials, write_trials
from search.store.rows import TrialRow
from search.store.store import StudyStore
from search.study import OpenStudy
from workers.clock import Clock, SystemClock


class OptunaMirror:
    """The ended trials of one study that Optuna's tables don't hold yet."""

    def __init__(self, store: StudyStore, optuna_study_id: int, proposer: Proposer, clock: Clock) -> None:
        self._store, self._optuna_study_id, self._proposer = store, optuna_study_id, proposer
        self._clock = clock
        self._unwritten: list[TrialRow] = []
        self._written_at = clock.monotonic()

    @classmethod
    def of(cls, study: OpenStudy) -> OptunaMirror:
        """Return the mirror of a study that no controller runs."""
        return cls(study.store, study.optuna_study_id, Proposer(study.settings), SystemClock())

    def drop_open_trials(self) -> None:
        """Delete the trials that Optuna's tables hold as running: Condensery never writes such a trial."""
        self._store.with_connection(lambda connection: drop_open_trials(connection, self._optuna_study_id))

    def add(self, row: TrialRow) -> None:
        """Keep an ended trial for the next batch."""
        self._unwritten.append(row)

    def write_after(self, seconds: float) -> None:
        """Write the trials kept so far, if the last batch was written more than `seconds` ago."""
        if self._clock.monotonic() - self._written_at > seconds:
            self.write()

    def write(self) -> None:
        """Write the trials kept so far."""
        if not self._unwritten:
            return
        trials = [self._mirrored(row) for row in self._unwritten]

        def write(connection: sa.Connection) -> None:
            ids = write_trials(connection, self._optuna_study_id, trials, self._proposer.distributions)
            self._store.mark_mirrored(ids)

        self._store.with_connection(write)
        self._unwritten, self._written_at = [], self._clock.monotonic()

    def _mirrored(self, row: TrialRow) -> MirroredTrial:
        record = self._proposer.record_for_optuna(row)
        return MirroredTrial(
            row.number,
            record.state,
            record.values,
            record.params,
            record.constraints,
            began_at=row.asked_at,
            ended_at=row.finished_at,
        )
