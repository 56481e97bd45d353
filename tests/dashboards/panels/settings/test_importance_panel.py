"""What matters: the parameter that decides an outcome comes first, and what can't be said is not said."""

from __future__ import annotations

import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dashboards import panels
from dashboards.data.columns import StudyColumns, View
from dashboards.panels.settings.forest import judge
from tests.dashboards.panels.panel_studies import (
    KINDS,
    awkward,
    columns_of,
    default_view,
    drawn_or_refused,
    is_sound,
    many,
)
from tests.dashboards.studies import Study


def decided(by: str, trials: int = 400) -> StudyColumns:
    """Columns whose accuracy is decided by one parameter alone, with a little noise."""
    columns = many(trials)
    values = {
        "G (groups)": columns.groups_1x1,
        "C (condensing)": columns.condense_factor,
        "bottleneck": columns.bottleneck,
        "growth": columns.growth[:, 1],
        "stages (layers)": columns.stages[:, 0],
    }[by].astype(float)
    noise = np.random.default_rng(2).normal(0, 0.002, trials)
    top1 = np.where(columns.trained, 0.8 + 0.1 * values / values.max() + noise, np.nan)
    return replace(columns, top1=top1, groups_3x3=np.ones_like(columns.groups_1x1), _fronts={})


@pytest.mark.parametrize("by", ["G (groups)", "C (condensing)", "bottleneck", "growth", "stages (layers)"])
def test_what_decides_the_accuracy_matters_most_for_it(by: str) -> None:
    info = panels.importance_info(decided(by), View(0))
    accuracy = info.outcomes[0]
    assert accuracy.name == "accuracy"
    assert accuracy.r2 is not None
    assert accuracy.r2 > 0.9
    assert accuracy.scores[0].parameter == by
    assert accuracy.scores[0].share > 0.85


def test_a_training_setting_that_varies_is_judged_too() -> None:
    columns = many(400)
    rates = np.random.default_rng(0).uniform(0, 1, 400)
    top1 = np.where(columns.trained, 0.9 + 0.05 * rates, np.nan)
    training = tuple({"epochs": 12, "learning_rate": float(rate)} for rate in rates)
    info = panels.importance_info(replace(columns, top1=top1, training=training, _fronts={}), View(0))
    assert info.outcomes[0].scores[0].parameter == "learning rate"


def test_the_same_trials_give_the_same_numbers() -> None:
    first, second = (panels.importance_info(many(300), View(0)) for _ in range(2))
    assert first == second
    assert panels.importance_info(many(300, seed=1), View(0)) != first


def test_no_more_rows_are_used_than_it_takes() -> None:
    info = panels.importance_info(many(5000), View(0))
    assert [outcome.rows for outcome in info.outcomes] == [1000] * 3
    assert all(outcome.trials > 1000 for outcome in info.outcomes)


@pytest.mark.parametrize("kind", KINDS)
def test_few_trials_say_why_nothing_can_be_computed(tmp_path: Path, kind: str) -> None:
    columns = columns_of(awkward(tmp_path, kind))
    info = panels.importance_info(columns, default_view(columns))
    assert info.reason is not None
    assert "can't be computed, because" in info.reason
    drawn_or_refused(panels.importance_figure, info)


def test_trials_that_are_all_the_same_say_so(tmp_path: Path) -> None:
    made = Study(tmp_path)
    for _ in range(25):
        made.done(0.2, 0.97)
    columns = columns_of(made)
    info = panels.importance_info(columns, default_view(columns))
    assert info.reason is not None
    assert "the same architecture" in info.reason


def test_an_outcome_that_never_varies_or_is_only_noise_has_a_reason_of_its_own() -> None:
    columns = many(300)
    ties = np.where(columns.trained, 0.9, np.nan)
    info = panels.importance_info(replace(columns, top1=ties, _fronts={}), View(0))
    accuracy, latency, _ = info.outcomes
    assert info.reason is None
    assert accuracy.reason == "all trials have the same accuracy"
    assert latency.scores
    noise = np.where(columns.trained, np.random.default_rng(0).uniform(0.8, 0.9, 300), np.nan)
    info = panels.importance_info(replace(columns, top1=noise, _fronts={}), View(0))
    assert "don't predict accuracy" in (info.outcomes[0].reason or "")
    assert any("No importance for accuracy" in words for words in info.notes)
    no_latency = panels.importance_info(columns, View(None))
    assert "no trial has a latency" in (no_latency.outcomes[1].reason or "")


def test_the_bars_the_table_and_the_fit_are_shown() -> None:
    info = panels.importance_info(decided("growth"), View(0))
    figure = panels.importance_figure(info)
    is_sound(figure)
    assert {trace.name for trace in figure.data} == {"for accuracy", "for latency", "for macs"}
    assert len({trace.marker.pattern.shape for trace in figure.data}) == 3
    assert list(figure.data[0].y)[-1] == info.parameters[0]
    table = info.table()
    assert [row[0] for row in table.rows] == info.parameters
    assert len(table.headers) == 4
    assert any(f"accuracy {info.outcomes[0].r2:.2f}" in words for words in info.notes)


def test_scikit_learn_waits_until_it_is_needed() -> None:
    code = "import sys, dashboards.panels.settings.importance; print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_forests_of_several_threads_leave_the_filters_of_warnings_as_they_are() -> None:
    rng = np.random.default_rng(0)
    rows, values = rng.random((40, 4)), rng.random(40)
    before = list(warnings.filters)
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(lambda _: judge(rows, values, [slice(0, 2)]), range(12)))
    assert list(warnings.filters) == before
    assert found == [found[0]] * 12
