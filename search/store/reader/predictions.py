"""What trained networks said of each image of a split."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from search.store.rows import TrialRow
from search.store.tables import predictions, trial
from search.store.vocabulary import EvaluatedSplit
from space.errors import StudyDamaged
from workers.metrics import Predictions


def read_class_predictions(
    engine: sa.Engine,
    study_id: int,
    numbers: Sequence[int],
    split: EvaluatedSplit = EvaluatedSplit.VALIDATION,
) -> dict[int, Predictions]:
    """Return the predictions of some trials by number; a trial without any is left out.

    Raises:
        StudyDamaged: they can't be read.
    """
    query = (
        sa.select(trial.c.number, predictions.c.content)
        .join(trial, trial.c.id == predictions.c.trial_id)
        .where(trial.c.study_id == study_id, trial.c.number.in_(list(numbers)), predictions.c.split == split)
    )
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    return {number: _predictions(number, content) for number, content in rows}


def class_predictions_of(
    engine: sa.Engine, row: TrialRow, split: EvaluatedSplit = EvaluatedSplit.VALIDATION
) -> Predictions | None:
    """Return what a trial's network said of a split's images; None where it isn't recorded.

    Raises:
        StudyDamaged: it can't be read.
    """
    query = sa.select(predictions.c.content).where(predictions.c.trial_id == row.id, predictions.c.split == split)
    with engine.connect() as connection:
        content = connection.scalar(query)
    return None if content is None else _predictions(row.number, content)


def _predictions(number: int, content: bytes) -> Predictions:
    try:
        return Predictions.from_bytes(content)
    except ValueError as error:
        raise StudyDamaged(
            f"the predictions of trial {number} must be as they were recorded, but {error}; restore the database from "
            "a backup."
        ) from None
