"""The study that the dashboards are measured on: read back by the real readers, ours and Optuna's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import TrialState

from benchmarks.dashboard_fill import fill, grow
from benchmarks.dashboard_rows import HOST, PI
from search.store import reader
from search.store.connection.database import open_for_reading
from search.store.rows import TrialRow
from search.study import optuna_storage

TRIALS = 300


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = f"sqlite:///{tmp_path_factory.mktemp('filled') / 'study.db'}"
    fill(made, TRIALS, epochs=5)
    return made


def rows_of(url: str) -> list[TrialRow]:
    engine = open_for_reading(url)
    rows = reader.read_trials(engine, reader.find_study(engine, "cifar-many").id)
    engine.dispose()
    return rows


def test_the_trials_are_in_every_state_and_near_half_of_them_are_done(url: str) -> None:
    states = Counter(row.state for row in rows_of(url))
    assert sum(states.values()) == TRIALS
    assert set(states) == {
        "done", "pruned", "infeasible", "failed", "cancelled", "duplicate", "running", "queued", "asked"
    }  # fmt: skip
    assert 0.3 < states["done"] / TRIALS < 0.6


def test_what_is_done_has_both_latencies_an_accuracy_and_a_whole_curve(url: str) -> None:
    engine = open_for_reading(url)
    for row in rows_of(url):
        if row.state == "done":
            assert [(target, latency.kind) for target, latency in row.latencies.items()] == [
                (HOST, "measured"),
                (PI, "estimated"),
            ]
            curve = reader.read_curve(engine, row.id)
            assert (len(curve), curve[-1]["val_top1"], curve[-1]["form"]) == (5, row.top1, "deployed")
    engine.dispose()


def test_some_were_refused_by_a_prediction(url: str) -> None:
    kinds = Counter(row.latency.kind for row in rows_of(url) if row.state == "infeasible" and row.latency)
    assert set(kinds) == {"measured", "predicted"}


def test_optuna_reads_the_finished_trials_of_the_same_file(url: str) -> None:
    storage = optuna_storage(url)
    rows = {row.number: row for row in rows_of(url)}
    trials = storage.get_all_trials(storage.get_study_id_from_name("cifar-many"))
    assert {trial.number for trial in trials} == {row.number for row in rows.values() if row.mirrored}
    assert len(trials) == TRIALS - 6
    for trial in trials:
        row = rows[trial.number]
        if trial.state == TrialState.COMPLETE:
            assert row.latency is not None
            pi = row.others[0].median_ms
            assert trial.values == [row.top1, row.latency.median_ms, pi, row.macs]
    storage.engine.dispose()


def test_a_seed_writes_the_same_study_and_a_study_can_grow(tmp_path: Path) -> None:
    one, other = (f"sqlite:///{tmp_path / name}" for name in ("one.db", "other.db"))
    for url in (one, other):
        fill(url, 40, seed=5, epochs=2, open_trials=False)
    first = [(row.identity, row.state, row.top1, row.latency) for row in rows_of(one)]
    assert first == [(row.identity, row.state, row.top1, row.latency) for row in rows_of(other)]
    assert grow(one, 3) == [40, 41, 42]
    assert [(row.identity, row.state, row.top1, row.latency) for row in rows_of(one)][:40] == first
    assert len(rows_of(one)) == 43
