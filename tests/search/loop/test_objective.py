"""A study that maximises another score than top-1: whoever ranks networks ranks them by it, and top-1 stays its own."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.storages import RDBStorage
from optuna.study import load_study

from search.budget import Budget
from search.engines.fake import instant_result
from search.pricing.pricer import Target
from search.results.pareto import front_of_study, non_dominated, pareto_front
from search.results.quantizing import fp32_top1
from search.results.ranking import rank
from search.samplers.stopping import CurveRule, RungRule, make_rule, score_of_epoch
from search.store import reader
from search.study import objectives
from space.errors import FrozenSettings, InvalidSettings
from tests.search.tiny_studies import Bench, tiny_settings
from workers.file_names import precision_of
from workers.latency import FakeProbe
from workers.metrics import Objective, Predictions
from workers.training.job import TrialJob, TrialResult


def rare_classes_suffer(job: TrialJob) -> TrialResult:
    """A made-up outcome in which the more accurate network has the worse macro-F1, with predictions to show for it."""
    made_up = instant_result(job)
    predictions = Predictions.of(np.eye(2)[[0, 0, 0, 1]], np.array([0, 0, 1, 1]))
    return replace(
        made_up,
        macro_f1=1.0 - made_up.top1,
        balanced_accuracy=0.5,
        predictions=base64.b64encode(predictions.to_bytes()).decode(),
    )


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Any:
    bench = Bench(tmp_path_factory.mktemp("macro"), study__objective="macro_f1", study__trainings=8)
    bench.engine.outcome = rare_classes_suffer
    assert bench.run() == "finished"
    yield bench
    bench.close()


def test_a_trial_whose_price_is_in_int8_is_judged_by_its_file_in_int8(tmp_path: Path) -> None:
    bench = Bench(tmp_path, search__precision=["fp32", "int8"], study__trainings=1)
    exact, of_file = (Predictions.of(np.eye(2)[said], np.array([0, 0, 1, 1])) for said in ([0, 0, 1, 1], [0, 0, 1, 0]))

    def outcome(job: TrialJob) -> TrialResult:
        assert job.int8_for == "onnxruntime"
        said, of_fp32 = (base64.b64encode(one.to_bytes()).decode() for one in (of_file, exact))
        return replace(instant_result(job), top1=0.75, predictions=said, fp32_predictions=of_fp32)

    bench.engine.outcome = outcome
    probe = FakeProbe(lambda path: 0.1 if precision_of(path) == "int8" else 0.2)
    study = bench.open()
    study.store.claim()
    on = (Target("host", probe, precisions=("fp32", "int8")),)
    assert bench.controller_on(study, on, bench.files).run() == "finished"
    (row,) = bench.done()
    assert row.latency is not None
    assert (row.latency.precision, row.score) == ("int8", 0.75)
    assert reader.class_predictions_of(study.engine, row) == of_file
    assert fp32_top1(study.store, row) == 1.0  # what the file lost is counted from here
    bench.close()


def test_each_trial_has_its_top1_and_is_judged_by_the_objective(bench: Bench) -> None:
    for row in bench.done():
        assert row.objective == "macro_f1"
        assert row.score == row.macro_f1 == pytest.approx(1.0 - (row.top1 or 0.0))
        assert row.balanced_accuracy == 0.5
        found = reader.class_predictions_of(bench.study.engine, row)
        assert found is not None
        assert found.predicted.tolist() == [0, 0, 0, 1]


def test_front_and_pick_rank_by_it(bench: Bench) -> None:
    rows = bench.done()
    assert rank(rows, Budget())[0].macro_f1 == max(row.macro_f1 for row in rows)
    costs = np.array([[-row.macro_f1, row.latency.median_ms, row.macs] for row in rows])
    expected = {row.number for row, kept in zip(rows, non_dominated(costs), strict=True) if kept}
    assert {row.number for row in pareto_front(rows)} == expected
    assert {row.number for row in front_of_study(bench.study.engine, bench.study.store.study_id)} == expected


def test_optuna_sees_its_name_and_its_values(bench: Bench) -> None:
    storage = RDBStorage(bench.url)
    study = load_study(study_name="tiny", storage=storage)
    assert study.metric_names == ["macro_f1", "latency_ms", "macs"]
    told = {trial.number: trial.values[0] for trial in study.trials if trial.values}
    assert told == pytest.approx({row.number: row.macro_f1 for row in bench.done()})
    storage.engine.dispose()
    assert next(iter(objectives(tiny_settings(study__objective="balanced_accuracy")))) == "balanced_accuracy"


def test_a_study_keeps_its_objective(bench: Bench) -> None:
    before = bench.settings
    bench.settings = before.model_copy(update={"study": before.study.model_copy(update={"objective": "top1"})})
    with pytest.raises(FrozenSettings, match=r"study\.objective \('macro_f1' -> 'top1'\)"):
        bench.open(resume=True)
    bench.settings = before
    bench.open(resume=True)


def test_a_study_file_names_one_of_three_objectives() -> None:
    assert tiny_settings().study.objective == "top1"
    with pytest.raises(InvalidSettings, match=r"study\.objective.*'top1', 'balanced_accuracy' or 'macro_f1'"):
        tiny_settings(study__objective="auc")


def test_a_study_from_before_there_was_a_choice_maximises_top1() -> None:
    assert reader.objective_of({}) == reader.objective_of({"study": {"name": "old"}}) == "top1"
    assert reader.objective_of({"study": {"objective": "balanced_accuracy"}}) == "balanced_accuracy"


@pytest.mark.parametrize("objective", ["top1", "balanced_accuracy", "macro_f1"])
def test_stopping_rules_read_the_objective_of_every_epoch(objective: Objective) -> None:
    epoch = {"val_top1": 0.9, "val_balanced_accuracy": 0.5, "val_macro_f1": 0.3}
    assert score_of_epoch(epoch, objective) == epoch[f"val_{objective}"]
    assert np.isnan(score_of_epoch({"val_top1": 0.9}, objective)) == (objective != "top1")
    rungs = make_rule(tiny_settings(study__objective=objective, search__stopping="rungs"))
    curves = make_rule(tiny_settings(study__objective=objective, search__stopping="aggressive"))
    assert isinstance(rungs, RungRule)
    assert isinstance(curves, CurveRule)
    assert rungs.objective == objective


def test_an_ended_training_is_ended_for_its_macro_f1() -> None:
    """Five cheaper networks are worse in top-1 and better in macro-F1 at the same rung."""
    from tests.search.samplers.test_stopping import trial as row

    rule = RungRule(("host",), "macro_f1")
    for number in range(6):
        mine = row(number, macs=100 + number)
        epoch = {"progress": 0.6, "val_top1": 0.5 + 0.05 * number, "val_macro_f1": 0.9 - 0.05 * number}
        rule.observe(mine, [epoch])
    assert "ended early: macro-F1 65.0 %" in (rule.verdict(row(5, macs=105)) or "")
    assert rule.verdict(row(0, macs=100)) is None
