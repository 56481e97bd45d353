"""What --json prints: strict JSON, complete, without NaN."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.studies.overview import Overview
from dashboards.terminal import documents
from search.results.pareto import pareto_front
from search.store import reader
from space.config import CondenseNetConfig
from tests.dashboards.studies import Study, lively
from tests.workers.latencies import without_samples
from workers.training.reporting import ProgressReport


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return lively(tmp_path_factory.mktemp("lively"))


def strict(document: Any) -> Any:
    return json.loads(json.dumps(document, allow_nan=False))


def test_every_document_of_a_lively_study_is_strict_json(made: Study) -> None:
    rows, found = made.rows(), reader.find_study(made.engine, made.name)
    front = pareto_front(rows)
    standing = reader.read_status(made.engine, made.id)
    assert len(strict(documents.trials_document(rows))["trials"]) == len(rows)
    assert [t["number"] for t in strict(documents.front_document(front))["front"]] == [row.number for row in front]
    study = strict(documents.study_document(found, standing))
    assert study["trials"] == len(rows)
    assert study["settings"]["budget"]["max_latency_ms"] == 0.4
    assert strict(documents.studies_document(Overview(made.engine).read()))["studies"][0]["name"] == made.name


def test_a_study_says_who_trains_what_and_what_went_wrong(tmp_path: Path) -> None:
    made = Study(tmp_path)
    number = made.running(0.3, epochs=2)
    made.store.set_worker(number, 1, "desk:12")
    made.store.note_event("lost", "it died", number, 1)
    made.store.set_reports({(number, 1): ProgressReport(0.25, 10.0, 640.0)})
    standing = reader.read_status(made.engine, made.id)
    (attempt,), (event,) = standing.running, standing.events
    study = dataclasses.replace(
        reader.find_study(made.engine, made.name), controller="desk:1", controller_seen_at=attempt.heartbeat_at - 3.0
    )
    document = strict(documents.study_document(study, standing, attempt.heartbeat_at + 4.0))
    assert document["controller_age_s"] == pytest.approx(7.0)
    (running,) = document["running"]
    assert (running["trial"], running["attempt"], running["worker"]) == (number, 1, "desk:12")
    assert (running["owner"], running["epochs"]) == (made.store.me, 2)
    assert running["under_way"] == {"progress": 0.25, "train_seconds": 10.0, "images_per_s": 640.0, "left_s": 30.0}
    assert document["left_s"] == pytest.approx(30.0 + 19 * 40.0)  # of 20 trainings, with one worker
    assert running["heartbeat_age_s"] == pytest.approx(4.0)
    (told,) = document["events"]
    assert (told["kind"], told["trial"], told["attempt"], told["detail"]) == ("lost", number, 1, "it died")
    assert told["age_s"] == pytest.approx(attempt.heartbeat_at + 4.0 - event.at)


def test_a_trial_in_detail_has_curve_samples_and_files(made: Study) -> None:
    row = next(row for row in made.rows() if row.state == "done")
    curve, latencies = reader.read_curve(made.engine, row.id), reader.read_latencies(made.engine, row.id)
    document = strict(documents.trial_detail_document(row, curve, latencies, {"model.onnx": {"path": "x"}}))
    assert len(document["curve"]) == 12
    assert len(document["measurements"][0]["samples_ms"]) == 3
    assert document["measurements"][0]["measured_at_unix_s"] > 0
    assert document["artifacts"] == {"model.onnx": {"path": "x"}}
    assert document["latency"]["interval_low_ms"] <= document["latency"]["median_ms"]
    assert CondenseNetConfig.from_dict(document["config"]) == row.config


def test_an_estimates_p90_is_null(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(0.3, 0.9, kind="estimated", **without_samples(0.3, 0.25, 0.4))
    row = made.row(0)
    document = strict(documents.trial_detail_document(row, [], reader.read_latencies(made.engine, row.id), {}))
    for latency in (document["latency"], document["measurements"][0]):
        assert (latency["median_ms"], latency["interval_high_ms"], latency["p90_ms"]) == (0.3, 0.4, None)


def test_a_trial_before_its_price_has_nulls(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.asked()
    document = strict(documents.trial_document(made.row(0)))
    assert document["latency"] is None
    assert document["top1"] is None
    assert document["finished_at_unix_s"] is None


def test_nan_and_infinity_become_null(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(0.3, 0.9)
    row = dataclasses.replace(made.row(0), top1=math.nan, val_loss=math.inf)
    document = strict(documents.trial_document(row))
    assert document["top1"] is None
    assert document["val_loss"] is None


NUMPY = st.sampled_from([np.float64("nan"), np.int64(3), np.bool_(True), np.array([1.0, np.inf])])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | NUMPY | st.tuples(st.floats())
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner))


@pytest.mark.slow
@given(TREES)
def test_whatever_goes_in_strict_json_comes_out(value: Any) -> None:
    strict(documents.plain(value))
