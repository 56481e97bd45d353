"""The vocabulary of the tables: every word is written as text and read back as the enum's member."""

from __future__ import annotations

import json
from enum import StrEnum

import numpy as np
import pytest
import sqlalchemy as sa

from search.store import device_tables
from search.store.connection.database import open_for_writing
from search.store.tables import attempt, device_fit, event, latency, reference_latency, trial
from search.store.vocabulary import FINAL_STATES, OPEN_STATES, STATES, AttemptOutcome, TrialState

COLUMNS = (
    trial.c.state,
    trial.c.origin,
    attempt.c.outcome,
    latency.c.purpose,
    latency.c.kind,
    reference_latency.c.kind,
    device_fit.c.kind,
    event.c.kind,
    device_tables.job.c.mode,
    device_tables.job.c.state,
    device_tables.lease.c.doing,
    device_tables.lease.c.outcome,
    device_tables.result.c.verdict,
)


def words_of(column: sa.Column) -> type[StrEnum]:
    vocabulary = column.type.vocabulary
    assert issubclass(vocabulary, StrEnum)
    return vocabulary


@pytest.mark.parametrize("column", COLUMNS, ids=str)
def test_each_word_is_stored_as_its_text_and_read_as_the_member(database: str, column: sa.Column):
    engine = open_for_writing(database)
    table = sa.Table("words", sa.MetaData(), sa.Column("word", column.type), prefixes=["TEMPORARY"])
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(sa.insert(table), [{"word": word} for word in words_of(column)])
        read = list(connection.scalars(sa.select(table.c.word)))
        texts = list(connection.scalars(sa.text("SELECT word FROM words")))
        assert connection.scalar(sa.select(sa.func.count()).where(table.c.word == str(read[0]))) == 1
        assert connection.scalar(sa.text("SELECT count(*) FROM words WHERE word = :word"), {"word": read[0]}) == 1
    engine.dispose()
    assert read == list(words_of(column))
    assert all(type(word) is words_of(column) for word in read)
    assert texts == [word.value for word in read]
    assert all(type(text) is str for text in texts)


@pytest.mark.parametrize("column", COLUMNS, ids=str)
def test_every_word_fits_into_its_column(column: sa.Column):
    assert max(map(len, words_of(column))) <= column.type.length


def test_a_word_is_plain_text_in_texts_json_and_arrays():
    assert f"{TrialState.DONE}" == "done"
    assert TrialState.DONE == "done"
    assert json.dumps({"state": TrialState.DONE, AttemptOutcome.LOST: 1}) == '{"state": "done", "lost": 1}'
    assert list(np.array([TrialState.DONE, TrialState.ASKED]) == "done") == [True, False]


def test_a_state_is_open_or_final():
    assert OPEN_STATES == ("asked", "queued", "running")
    assert FINAL_STATES == ("done", "pruned", "infeasible", "duplicate", "failed", "cancelled")
    assert OPEN_STATES + FINAL_STATES == STATES
