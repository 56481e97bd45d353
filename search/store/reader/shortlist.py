"""The trials that users starred, or noted something about."""

from __future__ import annotations

import sqlalchemy as sa

from search.store.rows import Noted
from search.store.tables import note, trial


def read_shortlist(engine: sa.Engine, study_id: int) -> dict[int, Noted]:
    """Return a study's starred and noted trials, by number."""
    query = sa.select(trial.c.number, note.c.starred, note.c.text).join(trial, trial.c.id == note.c.trial_id)
    with engine.connect() as connection:
        rows = connection.execute(query.where(trial.c.study_id == study_id).order_by(trial.c.number))
        return {row.number: Noted(row.starred, row.text) for row in rows}
