"""One study as the dashboards see it: rows, front and a revision, by SELECTs only.

The revision is a few aggregates in SQL, so a page can ask every second whether anything is new without reading rows.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import sqlalchemy as sa

from search.pareto import pareto_front
from search.store.reader import StudyRow, TrialRow, count_waiting_requests, find_study, read_trials
from search.store.tables import artifact, curve, latency, request, study, trial


@dataclass(frozen=True)
class StudyView:
    """A study at one moment. `revision` differs from an earlier one's whenever what is shown could differ."""

    study: StudyRow
    trials: tuple[TrialRow, ...]
    front: tuple[int, ...]  # trial numbers, fastest first
    waiting_requests: int
    revision: str

    @property
    def front_rows(self) -> list[TrialRow]:
        """The trials on the front, fastest first."""
        by_number = {row.number: row for row in self.trials}
        return [by_number[number] for number in self.front]


def load_study_view(engine: sa.Engine, study_name: str) -> StudyView:
    """Read a study's rows and find its front.

    Raises:
        StudyNotFound: there is none of this name.
    """
    found = find_study(engine, study_name)
    # Read before the rows: a change in between gives a revision that is too old, and so one reload too many, never
    # one too few.
    revision = load_revision(engine, found.id)
    rows = tuple(read_trials(engine, found.id))
    front = tuple(row.number for row in pareto_front(rows))
    return StudyView(found, rows, front, count_waiting_requests(engine, found.id), revision)


def load_revision(engine: sa.Engine, study_id: int) -> str:
    """Return a short text that changes whenever the study's trials, curves, latencies, files or requests do."""
    mine = sa.select(trial.c.id).where(trial.c.study_id == study_id)
    queries: tuple[sa.Executable, ...] = (
        sa.select(study.c.settings_hash, study.c.data_info.is_(None), study.c.stop_requested, study.c.controller).where(
            study.c.id == study_id
        ),
        sa.select(
            trial.c.state,
            sa.func.count(),
            sa.func.max(trial.c.asked_at),
            sa.func.max(trial.c.started_at),
            sa.func.max(trial.c.finished_at),
            sa.func.sum(trial.c.attempt),
            sa.func.sum(trial.c.latency_id),
            sa.func.count(trial.c.test_top1),
            sa.func.sum(sa.cast(trial.c.cancel_requested, sa.Integer)),
        )
        .where(trial.c.study_id == study_id)
        .group_by(trial.c.state)
        .order_by(trial.c.state),
        # A resumed trial repeats epochs under the same key, with other seconds.
        sa.select(sa.func.count(), sa.func.sum(curve.c.seconds)).where(curve.c.trial_id.in_(mine)),
        sa.select(sa.func.max(latency.c.id)).where(latency.c.trial_id.in_(mine)),
        sa.select(sa.func.count(), sa.func.sum(sa.cast(artifact.c.removed, sa.Integer))).where(
            artifact.c.trial_id.in_(mine)
        ),
        sa.select(sa.func.count(), sa.func.count(request.c.trial_number)).where(request.c.study_id == study_id),
    )
    with engine.connect() as connection:
        facts = [[list(row) for row in connection.execute(query)] for query in queries]
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:16]
