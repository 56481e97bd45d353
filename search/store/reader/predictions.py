"""What trained networks said of each image of a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from search.store.rows import TrialRow
from search.store.tables import file_predictions, predictions, trial
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


def predictions_of_rows(engine: sa.Engine, study_id: int, rows: Sequence[TrialRow]) -> dict[int, Predictions]:
    """Return what networks said of the validation images, by number; of rows in another precision, what files did.

    Raises:
        StudyDamaged: it can't be read.
    """
    of_files = {row.number: class_predictions_of(engine, row) for row in rows if row.file_hash}
    known = read_class_predictions(engine, study_id, [row.number for row in rows if not row.file_hash])
    return known | {number: said for number, said in of_files.items() if said is not None}


def class_predictions_of(
    engine: sa.Engine, row: TrialRow, split: EvaluatedSplit = EvaluatedSplit.VALIDATION
) -> Predictions | None:
    """Return what a trial's network, or the file that its row is of, said of a split; None where it isn't recorded.

    Raises:
        StudyDamaged: it can't be read.
    """
    if row.file_hash:
        return file_predictions_of(engine, row, row.file_hash, split)
    query = sa.select(predictions.c.content).where(predictions.c.trial_id == row.id, predictions.c.split == split)
    return _read(engine, row, query)


def file_predictions_of(engine: sa.Engine, row: TrialRow, sha256: str, split: EvaluatedSplit) -> Predictions | None:
    """Return what one file of a trial's network said of a split, by the file's SHA-256; raises as the above."""
    table = file_predictions
    of_file = (table.c.trial_id == row.id) & (table.c.model_hash == sha256) & (table.c.split == split)
    return _read(engine, row, sa.select(table.c.content).where(of_file))


def _read(engine: sa.Engine, row: TrialRow, query: sa.Select[Any]) -> Predictions | None:
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
