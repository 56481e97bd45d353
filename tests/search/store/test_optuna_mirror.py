"""What we write into Optuna's tables is what Optuna itself would have written there."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from search.store.optuna_mirror import (
    ATTRIBUTES,
    PARAMS,
    TRIALS,
    VALUES,
    MirroredTrial,
    drop_open_trials,
    write_trials,
)
from search.store.vocabulary import OPTUNA_CONSTRAINT
from search.study import optuna_storage
from tests.search.tiny_studies import OUTSIDE, optuna_trials

SHAPES = {
    "groups": CategoricalDistribution([1, 2, 4]),
    "form": CategoricalDistribution(["a", "b"]),
    "layers": IntDistribution(1, 9, step=2),
    "growth": IntDistribution(1, 64, log=True),
    "rate": FloatDistribution(0.01, 1.0, log=True),
    "dropout": FloatDistribution(0.0, 0.5),
}
AIMS = ["maximize", "minimize", "minimize"]
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture
def storage(database: str) -> Iterator[RDBStorage]:
    storage = optuna_storage(database)
    yield storage
    storage.engine.dispose()


def told(storage: RDBStorage) -> list[FrozenTrial]:
    """A study's trials of every kind of ending, written by Optuna's own ask and tell."""
    study = optuna.create_study(
        storage=storage, study_name="told", directions=AIMS, sampler=optuna.samplers.RandomSampler(seed=1)
    )
    endings: list[tuple[TrialState, list[float] | None]] = [
        (TrialState.COMPLETE, [0.75, 1.5, 89632.0]),
        (TrialState.COMPLETE, [1 / 3, 1e-9, 2.0**60]),
        (TrialState.COMPLETE, [0.5, math.inf, -math.inf]),
        (TrialState.PRUNED, None),
        (TrialState.FAIL, None),
    ]
    for state, values in endings:
        trial = study.ask(SHAPES if state != TrialState.FAIL else None)
        if state != TrialState.FAIL:
            for name, excess in (("latency_ms", -0.25), ("macs", 0.0), ("params", 1 / 7)):
                trial.set_constraint(name, excess)
        study.tell(trial, values, state)
    return study.get_trials(deepcopy=True)


def mirrored(trial: FrozenTrial) -> MirroredTrial:
    """The same, as our tables would give it."""
    began, ended = trial.datetime_start, trial.datetime_complete
    assert began is not None
    assert ended is not None
    constraints = {
        name.removeprefix(OPTUNA_CONSTRAINT): value
        for name, value in trial.system_attrs.items()
        if name.startswith(OPTUNA_CONSTRAINT)
    }
    values = trial.values if trial.state == TrialState.COMPLETE else None
    return MirroredTrial(
        trial.number, trial.state, values, trial.params, constraints, began.timestamp(), ended.timestamp()
    )


def seen(trial: FrozenTrial) -> dict[str, Any]:
    """Everything that Optuna knows of a trial but its id."""
    values = {name.lstrip("_"): value for name, value in vars(trial).items()}
    del values["trial_id"]
    return values


def rows(storage: RDBStorage) -> dict[str, list[Any]]:
    with storage.engine.connect() as connection:
        return {
            table.name: sorted(map(repr, connection.execute(sa.select(table)).all()))
            for table in (TRIALS, VALUES, PARAMS, ATTRIBUTES)
        }


def write(storage: RDBStorage, study_id: int, trials: list[MirroredTrial]) -> dict[int, int]:
    with storage.engine.begin() as connection:
        return write_trials(connection, study_id, trials, SHAPES)


@pytest.fixture(params=["UTC", "Asia/Kolkata", "America/St_Johns"])
def time_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("time_zone")
def test_optuna_reads_what_we_wrote_as_it_reads_what_it_wrote_itself(storage: RDBStorage):
    expected = told(storage)
    study = optuna.create_study(storage=storage, study_name="mirrored", directions=AIMS)
    ids = write(storage, study._study_id, [mirrored(trial) for trial in expected])
    fresh = optuna_storage(storage.url)  # nothing it has cached
    found = fresh.get_all_trials(study._study_id)
    fresh.engine.dispose()
    assert [seen(trial) for trial in found] == [seen(trial) for trial in expected]
    assert {trial.number: trial._trial_id for trial in found} == ids
    assert [trial.constraints for trial in found] == [trial.constraints for trial in expected]


def test_no_column_holds_what_a_database_may_not_hold(storage: RDBStorage):
    """Not every database knows infinity; Optuna marks it beside an empty value."""
    study = optuna.create_study(storage=storage, study_name="mirrored", directions=AIMS)
    one = MirroredTrial(0, TrialState.COMPLETE, [0.5, math.inf, -math.inf], {}, {}, 1.0, 2.0)
    write(storage, study._study_id, [one])
    with storage.engine.connect() as connection:
        stored = list(connection.scalars(sa.select(VALUES.c.value)))
    assert sorted(stored, key=str) == [0.5, None, None]
    assert study.get_trials()[0].values == [0.5, math.inf, -math.inf]


def test_writing_again_changes_nothing(storage: RDBStorage):
    trials = [mirrored(trial) for trial in told(storage)]
    study = optuna.create_study(storage=storage, study_name="mirrored", directions=AIMS)
    first = write(storage, study._study_id, trials[:3])
    before = rows(storage)
    assert write(storage, study._study_id, trials[:3]) == first
    assert rows(storage) == before
    both = write(storage, study._study_id, trials)  # those that are there, and two more
    assert first.items() <= both.items()
    assert both.keys() == set(range(5))
    assert [trial.number for trial in study.get_trials()] == [0, 1, 2, 3, 4]


def test_more_trials_than_fit_one_question_are_all_written(storage: RDBStorage):
    study = optuna.create_study(storage=storage, study_name="mirrored", directions=AIMS)
    many = [MirroredTrial(n, TrialState.FAIL, None, {}, {}, 1.0, 2.0) for n in range(1201)]
    ids = write(storage, study._study_id, many)
    assert len(set(ids.values())) == 1201
    assert write(storage, study._study_id, many) == ids
    assert len(study.get_trials(deepcopy=False)) == 1201


def test_open_trials_are_dropped_with_all_they_have_and_finished_ones_stay(storage: RDBStorage):
    kept = told(storage)
    study = optuna.load_study(storage=storage, study_name="told")
    other = optuna.create_study(storage=storage, study_name="other", directions=AIMS)
    before = rows(storage)
    for _ in range(2):
        trial = study.ask(SHAPES)
        trial.set_user_attr("word", 1)
        trial.set_constraint("macs", 0.5)
    study.enqueue_trial({"groups": 2})
    with storage.engine.begin() as connection:
        assert drop_open_trials(connection, other._study_id) == 0
        assert drop_open_trials(connection, study._study_id) == 3
        assert drop_open_trials(connection, study._study_id) == 0
    assert rows(storage) == before
    fresh = optuna_storage(storage.url)
    found = fresh.get_all_trials(study._study_id)
    fresh.engine.dispose()
    assert [seen(trial) for trial in found] == [seen(trial) for trial in kept]


def test_a_searched_study_is_read_by_optuna_as_the_search_knew_it(database_bench):
    """Optuna's study in the controller's memory was asked and told; its tables were only written by us."""
    # TPE proposes networks over a limit, too, which are then refused.
    bench = database_bench(search__sampler="tpe", budget__max_macs=40_000, study__trainings=4)
    bench.open().store.enqueue(OUTSIDE, bench.settings.training)
    controller = bench.controller(resume=True)
    controller.run()
    memory = controller.proposer._study._storage  # asked by number: its lists leave out what samplers pass over
    known = [memory.get_trial(trial.number) for trial in bench.rows]
    assert {trial.state for trial in known} == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    stored = optuna_trials(bench)
    assert [trial.number for trial in stored] == [row.number for row in bench.rows]
    for mine, theirs, row in zip(known, stored, bench.rows, strict=True):
        assert (theirs.number, theirs.state, theirs.values) == (mine.number, mine.state, mine.values)
        # Of what a network of fewer stages has no use for, we have no record.
        assert theirs.params.items() <= mine.params.items()
        assert theirs.distributions.items() <= mine.distributions.items()
        assert theirs.params.keys() == theirs.distributions.keys()
        assert bool(theirs.params) == bool(mine.params)
        assert theirs.constraints == (mine.constraints if mine.params else {})
        assert theirs.datetime_start.timestamp() == pytest.approx(row.asked_at, abs=2e-6)
        assert theirs.datetime_complete.timestamp() == pytest.approx(row.finished_at, abs=2e-6)
