"""What the sampler believed of each trial when it proposed it, and what it believes of the study."""

from __future__ import annotations

import json
from collections.abc import Collection

import sqlalchemy as sa

from search.store.beliefs import believed_of
from search.store.reader.studies import objective_of_study
from search.store.rows import BeliefRow, Proposal
from search.store.tables import belief, proposal, trial
from search.store.vocabulary import TrialState

_COLUMNS = tuple(proposal.c[name] for name in Proposal.__dataclass_fields__)


def read_proposals(
    engine: sa.Engine, study_id: int, newest: int | None = None, up_to: int | None = None
) -> dict[int, Proposal]:
    """Return why trials were proposed and what was predicted for them, by number, the newest first.

    Only of those of which it was recorded; optionally only of so many of the newest, and none after trial `up_to`.
    """
    query = sa.select(trial.c.number, *_COLUMNS).join(trial, trial.c.id == proposal.c.trial_id)
    query = query.where(trial.c.study_id == study_id)
    if up_to is not None:
        query = query.where(trial.c.number <= up_to)
    query = query.order_by(trial.c.number.desc()).limit(newest)
    with engine.connect() as connection:
        return {number: Proposal(*values) for number, *values in connection.execute(query)}


def read_reached(engine: sa.Engine, study_id: int, numbers: Collection[int]) -> dict[int, float]:
    """Return the score that trials have reached, by number; only of those of the given ones that are done."""
    if not numbers:
        return {}
    with engine.connect() as connection:
        score = trial.c[objective_of_study(connection, study_id)]
        query = sa.select(trial.c.number, score).where(trial.c.study_id == study_id, score.is_not(None))
        query = query.where(trial.c.state == TrialState.DONE, trial.c.number.between(min(numbers), max(numbers)))
        return {number: reached for number, reached in connection.execute(query) if number in numbers}


def read_belief(engine: sa.Engine, study_id: int) -> BeliefRow | None:
    """Return what a study's sampler believed last; None if it never said."""
    with engine.connect() as connection:
        row = connection.execute(sa.select(belief).where(belief.c.study_id == study_id)).first()
    if row is None:
        return None
    document = json.loads(row.document)
    front, ahead = (tuple(map(believed_of, document[name])) for name in ("front", "ahead"))
    return BeliefRow(row.trainings, row.at, front, ahead)
