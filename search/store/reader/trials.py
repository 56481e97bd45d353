"""A study's trials, with the latencies they are priced with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from search.store.reader.studies import objective_of_study
from search.store.rows import StudyRow, TrialRow
from search.store.tables import file_predictions, latency, note, trial
from search.store.vocabulary import EvaluatedSplit, LatencyPurpose, TrialState
from space.config import CondenseNetConfig
from space.documents import short_number
from space.errors import TrialNotFound
from workers.latency.record import RECORD_FIELDS, LatencyRecord
from workers.metrics import Objective

LARGEST_NUMBER = 2**31 - 1  # the largest integer that every database takes
MOST_NUMBERS = 1000  # in one statement
_BUILT = (
    "config",
    "training",
    "latency",
    "others",
    "file_hash",
    "objective",
    "starred",
    "note",
)  # fields that are no plain columns of the trial's row
_PLAIN_FIELDS = tuple(name for name in TrialRow.__dataclass_fields__ if name not in _BUILT)


def read_trials(
    engine: sa.Engine,
    study_id: int,
    number: int | None = None,
    states: Sequence[TrialState] | None = None,
    numbers: Sequence[int] | None = None,
) -> list[TrialRow]:
    """Return the study's trials by number; optionally only one number, some states or some numbers."""
    if numbers is not None and len(numbers) > MOST_NUMBERS:
        chosen = set(numbers)
        return [row for row in read_trials(engine, study_id, number, states) if row.number in chosen]
    columns: list[sa.ColumnElement[Any]] = [trial.c[name] for name in _PLAIN_FIELDS]
    columns += [trial.c.config, trial.c.training, latency.c.id.label("judged_by")]
    columns += [latency.c[name].label(f"latency_{name}") for name in RECORD_FIELDS]
    columns += [note.c.starred, note.c.text.label("note")]
    query = (
        sa.select(*columns)
        .select_from(trial.outerjoin(latency, trial.c.latency_id == latency.c.id).outerjoin(note))
        .where(trial.c.study_id == study_id)
        .order_by(trial.c.number)
    )
    if number is not None:
        query = query.where(trial.c.number == number)
    if states is not None:
        query = query.where(trial.c.state.in_(states))
    if numbers is not None:
        query = query.where(trial.c.number.in_(numbers))
    with engine.connect() as connection:
        others = _other_latencies(connection, study_id, [number] if number is not None else numbers)
        objective = objective_of_study(connection, study_id)
        return [_trial_row(row._mapping, others, objective) for row in connection.execute(query)]


def _other_latencies(
    connection: sa.Connection, study_id: int, numbers: Sequence[int] | None
) -> dict[int, list[LatencyRecord]]:
    """Return by trial row the newest price on each device but the one that the trial is judged by."""
    judged = latency.alias()
    query = (
        sa.select(trial.c.id.label("trial"), *(latency.c[name] for name in RECORD_FIELDS))
        .select_from(latency)
        .join(trial, trial.c.id == latency.c.trial_id)
        .outerjoin(judged, judged.c.id == trial.c.latency_id)
        .where(trial.c.study_id == study_id, latency.c.purpose == LatencyPurpose.PRICE)
        .where(judged.c.target.is_(None) | (judged.c.target != latency.c.target))
        .order_by(latency.c.target, latency.c.id)
    )
    if numbers is not None:
        query = query.where(trial.c.number.in_(numbers))
    newest: dict[int, dict[str, LatencyRecord]] = {}
    for row in connection.execute(query):
        values = dict(row._mapping)
        key = values.pop("trial")
        newest.setdefault(key, {})[values["target"]] = LatencyRecord(**values)
    return {key: list(by_target.values()) for key, by_target in newest.items()}


def _trial_row(row: Any, others: Mapping[int, Sequence[LatencyRecord]], objective: Objective) -> TrialRow:
    judged = None
    if row["judged_by"] is not None:
        judged = LatencyRecord(**{name: row[f"latency_{name}"] for name in RECORD_FIELDS})
    return TrialRow(
        **{name: row[name] for name in _PLAIN_FIELDS},
        config=CondenseNetConfig.from_json(row["config"]),
        training=json.loads(row["training"]),
        latency=judged,
        others=tuple(others.get(row["id"], ())),
        objective=objective,
        starred=bool(row["starred"]),
        note=row["note"] or "",
    )


def find_trial(engine: sa.Engine, study: StudyRow, number: int) -> TrialRow:
    """Return one trial.

    Raises:
        TrialNotFound: the study has none of this number.
    """
    rows = read_trials(engine, study.id, number) if 0 <= number <= LARGEST_NUMBER else []
    if rows:
        return rows[0]
    with engine.connect() as connection:
        last = connection.scalar(sa.select(sa.func.max(trial.c.number)).where(trial.c.study_id == study.id))
    held = "has no trials yet" if last is None else f"has trials 0 to {last}"
    raise TrialNotFound(f"study {study.name!r} {held}, but you asked for {short_number(number)}.")


def read_objectives(engine: sa.Engine, study_id: int) -> list[sa.Row[Any]]:
    """Return the objectives of the trials that are done: number, score, macs and the latency's columns.

    Only these few columns are read, so that 10,000 trials take a fraction of a second.
    """
    names = ("kind", "device", "runtime", "runtime_version", "threads", "median_ms")
    with engine.connect() as connection:
        score = trial.c[objective_of_study(connection, study_id)]
        query = (
            sa.select(trial.c.number, score.label("score"), trial.c.macs, *(latency.c[name] for name in names))
            .join(latency, trial.c.latency_id == latency.c.id)
            .where(trial.c.study_id == study_id, trial.c.state == TrialState.DONE, score.is_not(None))
            .order_by(trial.c.number)
        )
        return list(connection.execute(query))


def count_states(engine: sa.Engine, study_id: int) -> dict[TrialState, int]:
    """Return how many trials are in each state that any is in."""
    query = sa.select(trial.c.state, sa.func.count()).where(trial.c.study_id == study_id).group_by(trial.c.state)
    with engine.connect() as connection:
        return {row[0]: row[1] for row in connection.execute(query)}


def count_continued(engine: sa.Engine, study_id: int) -> int:
    """Return how many trials have ended, early or not, that took up one which had ended early."""
    ended = trial.c.state.in_((TrialState.DONE, TrialState.PRUNED))
    query = sa.select(sa.func.count()).where(trial.c.study_id == study_id, ended, trial.c.continues.is_not(None))
    with engine.connect() as connection:
        return int(connection.scalar(query) or 0)


def continued_by(engine: sa.Engine, study_id: int, number: int) -> int | None:
    """Return the number of the trial that took up one which had ended early; None if none did."""
    query = sa.select(trial.c.number).where(trial.c.study_id == study_id, trial.c.continues == number)
    with engine.connect() as connection:
        return connection.scalar(query.order_by(trial.c.number))


def count_test_evaluations(engine: sa.Engine, study_id: int) -> int:
    """Return how many networks of a study have been evaluated on the test split; a file in another precision is one."""
    trained = sa.select(sa.func.count()).where(trial.c.study_id == study_id, trial.c.test_top1.is_not(None))
    files = (
        sa.select(sa.func.count())
        .join(trial, trial.c.id == file_predictions.c.trial_id)
        .where(trial.c.study_id == study_id, file_predictions.c.split == EvaluatedSplit.TEST)
    )
    with engine.connect() as connection:
        return int(connection.scalar(trained) or 0) + int(connection.scalar(files) or 0)
