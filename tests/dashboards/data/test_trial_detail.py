"""Everything recorded of one trial, read from a real database without changing it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from dashboards.data.trial_detail import read_growth, read_trained_network, read_trial_detail
from dashboards.page.trial_parts import facts
from dashboards.panels.trial.tables import curve_table
from search.store import reader
from search.store.connection.database import open_for_reading
from search.store.tables import attempt, event
from space.errors import TrialNotFound
from tests.dashboards.studies import Study
from tests.search.tiny_studies import CountingProbe, sqlite_url
from tests.search.trained_study import files_of_trial, trained_study
from workers.file_names import NETWORK_FILE
from workers.training.reporting import ProgressReport


@pytest.fixture
def made(tmp_path: Path):
    made = Study(tmp_path)
    yield made
    made.engine.dispose()


def detail_of(made: Study, number: int):
    return read_trial_detail(made.engine, reader.find_study(made.engine, made.name), number)


def test_a_trained_trial_has_its_curve_measurements_files_and_attempts(made: Study):
    number = made.done(0.2, 0.95)
    made.store.add_latency(number, made.measurement(number, 0.21, purpose="verify"))
    made.store.add_artifacts(number, {"model.onnx": ("/there/model.onnx", "c" * 64)})
    detail = detail_of(made, number)
    assert (detail.row.number, detail.name, detail.study.name) == (number, f"trial {number}", made.name)
    assert [row["epoch"] for row in detail.curve] == list(range(1, 13))
    assert [one.purpose for one in detail.measurements] == ["price", "verify"]
    assert [detail.is_judged_by(one) for one in detail.measurements] == [True, False]
    price = detail.measurements[0]
    assert price.samples_ms
    assert min(map(min, price.samples_ms)) <= price.median_ms <= max(map(max, price.samples_ms))
    assert [(one.name, one.path, one.removed) for one in detail.files] == [("model.onnx", "/there/model.onnx", False)]
    assert [one.attempt for one in detail.attempts] == [1]
    assert detail.data == {"dataset": "digits"}


def test_only_the_trials_own_attempts_and_events_are_told(made: Study):
    for _ in range(3):
        made.done(0.2, 0.9)
    with made.engine.begin() as connection:
        common = {"study_id": made.id, "attempt": 1, "kind": "late", "at": 1.0}
        connection.execute(sa.insert(event), [{**common, "number": n, "detail": f"of {n}"} for n in (0, 1, 1)])
    detail = detail_of(made, 1)
    assert [one.detail for one in detail.events] == ["of 1", "of 1"]
    assert {one.number for one in detail.attempts} == {1}


def test_a_running_trial_says_how_far_it_is_on_the_page_and_that_counts_as_growth(made: Study):
    number = made.running(0.2, epochs=3)
    before = read_growth(made.engine, made.id, number)
    made.store.set_reports({(number, 1): ProgressReport(0.4375, 70.0, 1234.4)})
    assert read_growth(made.engine, made.id, number) != before
    detail = detail_of(made, number)
    assert detail.report == ProgressReport(0.4375, 70.0, 1234.4)
    said = json.dumps(facts(detail).to_plotly_json(), default=lambda part: part.to_plotly_json(), ensure_ascii=False)
    assert "epoch 6 of 12, 44 %, 1,234 images/s, about 1 min 30 s left" in said
    assert [row[-1] for row in curve_table(detail).rows] == ["1,234"] * 3
    made.store.end_attempt(number, 1, "stopped")
    assert detail_of(made, number).report is None


@pytest.mark.parametrize("state", ["asked", "infeasible", "failed"])
def test_a_trial_without_a_training_is_told_as_far_as_it_got(made: Study, state: str):
    make = {"asked": made.asked, "infeasible": lambda: made.infeasible(0.9), "failed": lambda: made.failed("nan")}
    detail = detail_of(made, make[state]())
    assert detail.row.state == state
    assert detail.curve == ()
    found = read_trained_network(made.engine, detail.row)
    assert found.indices is None
    why = f" ({detail.row.reason})" if detail.row.reason else ""
    assert found.reason == f"Trial 0 is {state}{why}; only a done trial has a network."


@pytest.mark.parametrize("number", [7, -1, 10**30])
def test_a_number_that_is_no_trial_is_refused_whatever_its_size(made: Study, number: int):
    made.asked()
    with pytest.raises(TrialNotFound):
        detail_of(made, number)


def test_a_password_in_the_studys_database_is_not_told(tmp_path: Path):
    made = Study(tmp_path, settings={"study": {"storage": "postgresql://me:secret@there/db"}, "data": None})
    detail = detail_of(made, made.asked())
    made.engine.dispose()
    assert "secret" not in str(detail.settings)
    assert detail.data == {}


def test_reading_goes_through_a_read_only_database(tmp_path: Path):
    store = trained_study(tmp_path, CountingProbe())
    store.engine.dispose()
    engine = open_for_reading(sqlite_url(tmp_path))
    detail = read_trial_detail(engine, reader.find_study(engine, "tiny"), 0)
    indices = read_trained_network(engine, detail.row).indices or {}
    assert {name: index.shape for name, index in indices.items()} == {"layers.0.conv_1x1.index": (8,)}
    (files_of_trial(tmp_path) / NETWORK_FILE).write_bytes(b"other")
    reason = read_trained_network(engine, detail.row).reason or ""
    engine.dispose()
    assert "is not the file that was recorded" in reason


def test_a_network_that_no_longer_lies_there_says_so(tmp_path: Path):
    store = trained_study(tmp_path, CountingProbe())
    (files_of_trial(tmp_path) / NETWORK_FILE).unlink()
    found = read_trained_network(store.engine, store.trials()[0])
    assert (found.indices, "is gone (moved or deleted)" in (found.reason or "")) == (None, True)
    with store.engine.begin() as connection:
        values = {"trial_id": 1, "attempt": 1, "owner": "big-box:7@1", "started_at": 0, "heartbeat_at": 0, "epochs": 0}
        connection.execute(sa.insert(attempt), [values])
    assert "on another machine" in (read_trained_network(store.engine, store.trials()[0]).reason or "")
    store.engine.dispose()
