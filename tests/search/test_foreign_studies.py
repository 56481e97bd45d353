"""Another program's Optuna study in the same database: refused by its name, and never changed or deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.storages import RDBStorage

from search.launch import launch
from search.loop.callbacks import SilentCallback
from search.store import reader
from search.store.connection.database import open_for_reading
from search.study import objectives, open_study, optuna_storage, remove_study
from space.errors import StudyExists, StudyNotFound
from tests.search.tiny_studies import tiny_settings

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def everything_in(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of every table."""
    engine = sa.create_engine(url)
    tables = sa.MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        rows = {
            name: sorted(map(tuple, connection.execute(sa.select(table))), key=repr)
            for name, table in tables.tables.items()
        }
    engine.dispose()
    return rows


@pytest.fixture
def foreign(database: str) -> str:
    """The URL of a database with another program's study "tiny" of one objective; one of its trials is open."""
    storage = optuna_storage(database)
    study = optuna.create_study(storage=storage, study_name="tiny")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    study.ask()
    storage.engine.dispose()
    return database


@pytest.mark.parametrize("resume", [False, True])
def test_a_launch_by_its_name_is_refused_and_touches_nothing(foreign: str, resume: bool, tmp_path: Path) -> None:
    before, files = everything_in(foreign), sorted(tmp_path.rglob("*"))
    for start in (lambda: launch(tiny_settings(), foreign, resume, SilentCallback()), lambda: opened(foreign, resume)):
        with pytest.raises(StudyExists, match=r"'tiny' that another program made .* choose another study.name"):
            start()
    assert everything_in(foreign) == before
    assert sorted(tmp_path.rglob("*")) == files


def test_a_database_of_optunas_alone_gets_no_tables_of_ours_by_a_refusal(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'theirs.db'}"
    storage = RDBStorage(url)
    optuna.create_study(storage=storage, study_name="tiny")
    storage.engine.dispose()
    before = (tmp_path / "theirs.db").read_bytes()
    with pytest.raises(StudyExists):
        launch(tiny_settings(), url, False, SilentCallback())
    assert (tmp_path / "theirs.db").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.db"]


def test_it_is_not_deleted_by_its_name(foreign: str) -> None:
    before = everything_in(foreign)
    with pytest.raises(StudyNotFound):
        remove_study(foreign, "tiny")
    assert everything_in(foreign) == before


def test_ours_is_made_and_deleted_beside_it_whole(foreign: str) -> None:
    before = everything_in(foreign)
    ours = tiny_settings(study__name="ours")
    study = open_study(ours, foreign, resume=False)
    storage = optuna_storage(foreign)
    as_optuna_reads_it = optuna.load_study(study_name="ours", storage=storage)
    assert as_optuna_reads_it.directions == list(objectives(ours).values())
    assert as_optuna_reads_it.metric_names == list(objectives(ours))
    assert as_optuna_reads_it.trials == []
    storage.engine.dispose()
    study.engine.dispose()
    remove_study(foreign, "ours")
    assert everything_in(foreign) == before


def test_a_study_is_made_in_both_tables_or_in_none(database: str, monkeypatch) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("search.study.insert_study", die)
    before = everything_in(database)
    with pytest.raises(KeyboardInterrupt):
        opened(database)
    monkeypatch.undo()
    assert everything_in(database) == before
    opened(database)
    engine = open_for_reading(database)
    assert [study.name for study in reader.list_studies(engine)] == ["tiny"]
    engine.dispose()


def test_a_study_whose_optuna_rows_were_deleted_leaves_their_successor_alone(database: str) -> None:
    """SQLite gives a new row the key of one that was deleted."""
    opened(database)
    storage = optuna_storage(database)
    optuna.delete_study(study_name="tiny", storage=storage)
    optuna.create_study(storage=storage, study_name="theirs").ask()
    remove_study(database, "tiny")
    assert len(optuna.load_study(study_name="theirs", storage=storage).trials) == 1
    storage.engine.dispose()


def opened(url: str, resume: bool = False) -> None:
    open_study(tiny_settings(), url, resume).engine.dispose()
