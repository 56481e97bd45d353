"""Learning curves for the charts: those of chosen trials, and the newest epoch of each trial that isn't done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from search.store.reader.studies import objective_of_study
from search.store.tables import curve, trial
from search.store.vocabulary import TrialState

UNFINISHED = (  # states of trials that may have trained for a while and have no result
    TrialState.RUNNING,
    TrialState.QUEUED,
    TrialState.PRUNED,
    TrialState.FAILED,
    TrialState.CANCELLED,
)


class LastEpoch(NamedTuple):
    """The newest epoch of a trial that isn't done: how far it came, and its score there."""

    epoch: int
    progress: float
    score: float  # fraction, of whatever form the network had then


def read_curves(engine: sa.Engine, study_id: int, numbers: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    """Return the learning curves of some trials by number, epoch by epoch; a trial without one is left out."""
    columns = [column for column in curve.c if column.name != "trial_id"]
    query = (
        sa.select(trial.c.number.label("number"), *columns)
        .join(trial, trial.c.id == curve.c.trial_id)
        .where(trial.c.study_id == study_id, trial.c.number.in_(list(numbers)))
        .order_by(trial.c.number, curve.c.epoch)
    )
    curves: dict[int, list[dict[str, Any]]] = {}
    with engine.connect() as connection:
        for row in connection.execute(query):
            values = dict(row._mapping)
            curves.setdefault(values.pop("number"), []).append(values)
    return curves


def read_last_epochs(engine: sa.Engine, study_id: int) -> dict[int, LastEpoch]:
    """Return the newest epoch of every trial that isn't done and has one, by number."""
    newest = (
        sa.select(curve.c.trial_id, sa.func.max(curve.c.epoch).label("epoch"))
        .join(trial, trial.c.id == curve.c.trial_id)
        .where(trial.c.study_id == study_id, trial.c.state.in_(UNFINISHED))
        .group_by(curve.c.trial_id)
        .subquery()
    )
    with engine.connect() as connection:
        score = curve.c[f"val_{objective_of_study(connection, study_id)}"]
        query = (
            sa.select(trial.c.number, curve.c.epoch, curve.c.progress, score)
            .join(newest, sa.and_(newest.c.trial_id == curve.c.trial_id, newest.c.epoch == curve.c.epoch))
            .join(trial, trial.c.id == curve.c.trial_id)
        )
        rows = connection.execute(query).all()
    return {row[0]: LastEpoch(row[1], row[2], math.nan if row[3] is None else row[3]) for row in rows}
