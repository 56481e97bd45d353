"""A study's revision: a few aggregates in SQL, so that a page can ask every second whether anything is new."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import sqlalchemy as sa

from search.store.tables import artifact, belief, curve, event, latency, note, point, request, study, trial
from search.store.vocabulary import OPEN_STATES


def load_revision(engine: sa.Engine, study_id: int, before: str = "") -> str:
    """Return a short text that changes whenever the study's trials, curves, latencies, files or requests do.

    It may also change when they don't (another study of the database was measured), which costs one reload too many.
    Test results of ended trials and removed files take a scan of whole tables to find: where `before` is an earlier
    revision, they aren't looked at and its part about them is kept.
    """
    parts = [_digest(engine, _quick_queries(study_id))]
    parts.append(before.partition(".")[2] if before else _digest(engine, _slow_queries(study_id)))
    return ".".join(parts)


def _digest(engine: sa.Engine, queries: Sequence[sa.Executable]) -> str:
    with engine.connect() as connection:
        facts = [[list(row) for row in connection.execute(query)] for query in queries]
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:12]


def _quick_queries(study_id: int) -> tuple[sa.Executable, ...]:
    """Return what an index or a key answers, however many trials have ended: a page asks every second."""
    columns = (study.c.settings_hash, study.c.data_info.is_(None), study.c.stop_requested, study.c.controller)
    in_study = trial.c.study_id == study_id
    is_open = trial.c.state.in_(OPEN_STATES)
    numbers = (
        *(sa.func.max(trial.c[name]) for name in ("asked_at", "started_at")),
        *(sa.func.sum(trial.c[name]) for name in ("attempt", "latency_id")),
        sa.func.sum(sa.cast(trial.c.cancel_requested, sa.Integer)),
    )
    requests = (sa.func.count(request.c[name]) for name in ("trial_number", "withdrawn_at"))
    return (
        sa.select(*columns).where(study.c.id == study_id),
        sa.select(trial.c.state, sa.func.count()).where(in_study).group_by(trial.c.state).order_by(trial.c.state),
        sa.select(*numbers).where(in_study, is_open),
        # Curves grow while a trial is open; a resumed one repeats epochs under the same key, with other seconds.
        sa.select(sa.func.count(), sa.func.sum(curve.c.seconds))
        .join(trial, trial.c.id == curve.c.trial_id)
        .where(in_study, is_open),
        sa.select(sa.func.max(latency.c.id)),
        sa.select(sa.func.max(point.c.id)),
        sa.select(sa.func.max(event.c.id)).where(event.c.study_id == study_id),
        sa.select(belief.c.trainings, belief.c.at).where(belief.c.study_id == study_id),
        sa.select(sa.func.count(), *requests).where(request.c.study_id == study_id),
        sa.select(sa.func.count(), sa.func.max(note.c.changed_at), sa.func.sum(note.c.trial_id)),
    )


def _slow_queries(study_id: int) -> tuple[sa.Executable, ...]:
    """Return what takes a scan of whole tables."""
    return (
        sa.select(sa.func.count(trial.c.test_top1), sa.func.max(trial.c.finished_at)).where(
            trial.c.study_id == study_id
        ),
        sa.select(sa.func.count(), sa.func.sum(sa.cast(artifact.c.removed, sa.Integer))),
    )
