"""What happened in a study: its attempts, events, curves and files, and its status now."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from search.store.places import study_folder
from search.store.reader.requests import count_waiting_requests
from search.store.reader.trials import count_continued, count_states
from search.store.rows import AttemptRow, EventRow, StudyRow, StudyStatus
from search.store.tables import artifact, attempt, curve, event, study, trial
from search.store.vocabulary import TrialState


def read_status(engine: sa.Engine, study_id: int, events: int = 5) -> StudyStatus:
    """Return a study's counts, its open attempts and so many of its newest events."""
    return StudyStatus(
        count_states(engine, study_id),
        count_waiting_requests(engine, study_id),
        read_attempts(engine, study_id, only_open=True),
        newest_events(engine, study_id, events),
        _mean_train_s(engine, study_id),
        count_continued(engine, study_id),
    )


def _mean_train_s(engine: sa.Engine, study_id: int) -> float | None:
    """Return how many seconds the trainings that are done took on average."""
    is_done = (trial.c.study_id == study_id) & (trial.c.state == TrialState.DONE)
    with engine.connect() as connection:
        return connection.scalar(sa.select(sa.func.avg(trial.c.train_seconds)).where(is_done))


def read_attempts(
    engine: sa.Engine, study_id: int, only_open: bool = False, number: int | None = None
) -> list[AttemptRow]:
    """Return a study's attempts by trial; optionally only those that have not ended, or of one trial."""
    columns = [attempt.c[name] for name in AttemptRow.__dataclass_fields__ if name in attempt.c]
    query = (
        sa.select(trial.c.number, *columns, trial.c.training)
        .join(trial, trial.c.id == attempt.c.trial_id)
        .where(trial.c.study_id == study_id)
        .order_by(trial.c.number, attempt.c.attempt)
    )
    if only_open:
        query = query.where(attempt.c.outcome.is_(None))
    if number is not None:
        query = query.where(trial.c.number == number)
    with engine.connect() as connection:
        rows = [dict(row._mapping) for row in connection.execute(query)]
    schedules = [json.loads(row.pop("training")).get("epochs") for row in rows]
    return [AttemptRow(**row, schedule_epochs=epochs) for row, epochs in zip(rows, schedules, strict=True)]


def newest_events(engine: sa.Engine, study_id: int, last: int, number: int | None = None) -> list[EventRow]:
    """Return the `last` newest of a study's events, the newest first; optionally only those about one trial."""
    columns = [event.c[name] for name in EventRow.__dataclass_fields__]
    query = sa.select(*columns).where(event.c.study_id == study_id).order_by(event.c.id.desc()).limit(last)
    if number is not None:
        query = query.where(event.c.number == number)
    with engine.connect() as connection:
        return [EventRow(**row._mapping) for row in connection.execute(query)]


def read_curve(engine: sa.Engine, trial_id: int) -> list[dict[str, Any]]:
    """Return a trial's learning curve by epoch; the keys are the columns of `search.store.tables.curve`."""
    query = sa.select(curve).where(curve.c.trial_id == trial_id).order_by(curve.c.epoch)
    with engine.connect() as connection:
        rows = [dict(row._mapping) for row in connection.execute(query)]
    return [{name: value for name, value in row.items() if name != "trial_id"} for row in rows]


def read_artifacts(engine: sa.Engine, trial_id: int) -> dict[str, dict[str, Any]]:
    """Return a trial's files by name: their path here, sha256, and whether a retention rule removed them."""
    its_study = sa.select(study.c.name, study.c.settings).join(trial, trial.c.study_id == study.c.id)
    with engine.connect() as connection:
        rows = connection.execute(sa.select(artifact).where(artifact.c.trial_id == trial_id)).all()
        if not rows:
            return {}
        of = connection.execute(its_study.where(trial.c.id == trial_id)).one()
    folder = study_folder(json.loads(of.settings), of.name, engine.url)
    return {row.name: {"path": str(folder / row.path), "sha256": row.sha256, "removed": row.removed} for row in rows}


def read_artifact_paths(engine: sa.Engine, study: StudyRow, numbers: Sequence[int], name: str) -> dict[int, Path]:
    """Return where the files of this name of some trials are, by number; a file that was removed is left out."""
    query = (
        sa.select(trial.c.number, artifact.c.path)
        .join(trial, trial.c.id == artifact.c.trial_id)
        .where(trial.c.study_id == study.id, trial.c.number.in_(list(numbers)))
        .where(artifact.c.name == name, artifact.c.removed.is_(False))
    )
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    folder = study_folder(study.settings, study.name, engine.url)
    return {number: folder / path for number, path in rows}
