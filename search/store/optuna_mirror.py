"""Our studies and finished trials in Optuna's tables of the same database, so that Optuna's own tools can read them.

Our tables are the truth; nothing is ever read back from Optuna's. A trial is mirrored once it has ended, with plain
inserts (Optuna's storage takes some 20 ms a trial, these less than 1 ms). The layout is that of
`optuna.storages._rdb.models`; a test reads what is written here through Optuna's own storage.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import TrialState

from search.store.studies import new_id
from search.store.vocabulary import OPTUNA_CONSTRAINT

STUDIES = models.StudyModel.__table__
DIRECTIONS = models.StudyDirectionModel.__table__
STUDY_ATTRIBUTES = models.StudySystemAttributeModel.__table__
TRIALS = models.TrialModel.__table__
VALUES = models.TrialValueModel.__table__
PARAMS = models.TrialParamModel.__table__
ATTRIBUTES = models.TrialSystemAttributeModel.__table__
_CHILDREN = (
    VALUES,
    PARAMS,
    ATTRIBUTES,
    models.TrialUserAttributeModel.__table__,
    models.TrialIntermediateValueModel.__table__,
    models.TrialHeartbeatModel.__table__,
)
METRIC_NAMES = "study:metric_names"  # the key by which Optuna keeps them


@dataclass(frozen=True)
class MirroredTrial:
    """A finished trial as Optuna sees it; `params` are in Optuna's external form, times UTC seconds since 1970."""

    number: int
    state: TrialState
    values: Sequence[float] | None
    params: Mapping[str, Any]
    constraints: Mapping[str, float] = field(default_factory=dict)
    began_at: float | None = None
    ended_at: float | None = None


def insert_study(connection: sa.Connection, name: str, objectives: Mapping[str, StudyDirection]) -> int:
    """Insert a study with its objectives' names and directions; return its id in Optuna's tables.

    Raises:
        sqlalchemy.exc.IntegrityError: the name is taken.
    """
    key = new_id(connection.execute(sa.insert(STUDIES).values(study_name=name)))
    directions = [
        {"study_id": key, "objective": objective, "direction": direction}
        for objective, direction in enumerate(objectives.values())
    ]
    connection.execute(sa.insert(DIRECTIONS), directions)
    names = {"study_id": key, "key": METRIC_NAMES, "value_json": json.dumps(list(objectives))}
    connection.execute(sa.insert(STUDY_ATTRIBUTES).values(names))
    return key


def holds_study(connection: sa.Connection, name: str) -> bool:
    """Whether Optuna's tables hold a study of this name, whoever made it."""
    if not sa.inspect(connection).has_table(STUDIES.name):
        return False
    return connection.scalar(sa.select(STUDIES.c.study_id).where(STUDIES.c.study_name == name)) is not None


def delete_study(connection: sa.Connection, optuna_study_id: int, name: str) -> None:
    """Delete a study and its trials; one of this id with another name is another program's, and stays."""
    if not sa.inspect(connection).has_table(STUDIES.name):
        return
    mine = sa.select(STUDIES.c.study_id).where(STUDIES.c.study_id == optuna_study_id, STUDIES.c.study_name == name)
    if connection.scalar(mine) is None:
        return
    trials = sa.select(TRIALS.c.trial_id).where(TRIALS.c.study_id == optuna_study_id)
    for table in _CHILDREN:
        connection.execute(sa.delete(table).where(table.c.trial_id.in_(trials)))
    user_attributes = models.StudyUserAttributeModel.__table__
    for table in (TRIALS, DIRECTIONS, STUDY_ATTRIBUTES, user_attributes, STUDIES):
        connection.execute(sa.delete(table).where(table.c.study_id == optuna_study_id))


def write_trials(
    connection: sa.Connection,
    optuna_study_id: int,
    trials: Sequence[MirroredTrial],
    distributions: Mapping[str, BaseDistribution],
) -> dict[int, int]:
    """Insert the trials that are not mirrored yet; return Optuna's trial id of each, by number."""
    mirrored = _ids(connection, optuna_study_id, [trial.number for trial in trials])
    new = [trial for trial in trials if trial.number not in mirrored]
    if not new:
        return mirrored
    rows = [
        {
            "number": trial.number,
            "study_id": optuna_study_id,
            "state": trial.state,
            "datetime_start": _naive_utc(trial.began_at),
            "datetime_complete": _naive_utc(trial.ended_at),
        }
        for trial in new
    ]
    connection.execute(sa.insert(TRIALS), rows)
    added = _ids(connection, optuna_study_id, [trial.number for trial in new])
    values, params, attributes = [], [], []
    for trial in new:
        key = added[trial.number]
        for objective, value in enumerate(trial.values or ()):
            stored, kind = models.TrialValueModel.value_to_stored_repr(value)
            values.append({"trial_id": key, "objective": objective, "value": stored, "value_type": kind})
        for name, value in trial.params.items():
            distribution = distributions[name]
            stored = distribution.to_internal_repr(value)
            text = distribution_to_json(distribution)
            params.append({"trial_id": key, "param_name": name, "param_value": stored, "distribution_json": text})
        for name, excess in trial.constraints.items():
            attributes.append({"trial_id": key, "key": OPTUNA_CONSTRAINT + name, "value_json": json.dumps(excess)})
    for table, content in ((VALUES, values), (PARAMS, params), (ATTRIBUTES, attributes)):
        if content:
            connection.execute(sa.insert(table), content)
    return mirrored | added


def drop_open_trials(connection: sa.Connection, optuna_study_id: int) -> int:
    """Delete the trials that Optuna's tables hold as open, which Condensery never writes; return how many."""
    states = (TrialState.RUNNING, TrialState.WAITING)
    open_trials = sa.select(TRIALS.c.trial_id).where(TRIALS.c.study_id == optuna_study_id, TRIALS.c.state.in_(states))
    ids = list(connection.scalars(open_trials))
    for start in range(0, len(ids), 500):
        portion = ids[start : start + 500]
        for table in _CHILDREN:
            connection.execute(sa.delete(table).where(table.c.trial_id.in_(portion)))
        connection.execute(sa.delete(TRIALS).where(TRIALS.c.trial_id.in_(portion)))
    return len(ids)


def _ids(connection: sa.Connection, optuna_study_id: int, numbers: Sequence[int]) -> dict[int, int]:
    ids: dict[int, int] = {}
    for start in range(0, len(numbers), 500):
        portion = numbers[start : start + 500]
        query = sa.select(TRIALS.c.number, TRIALS.c.trial_id).where(TRIALS.c.study_id == optuna_study_id)
        ids |= {row[0]: row[1] for row in connection.execute(query.where(TRIALS.c.number.in_(portion)))}
    return ids


def _naive_utc(at: float | None) -> datetime | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).replace(tzinfo=None)
