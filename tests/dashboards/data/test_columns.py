"""A study as columns says what its rows say, of every state and device; its front is `search.results.pareto`'s."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from dashboards.data.column_reader import read_columns
from dashboards.data.columns import StudyColumns, View
from search.results.pareto import pareto_front
from search.store.tables import trial
from search.store.vocabulary import STATES
from tests.dashboards.studies import SETTINGS, SMALL, Study, lively

TWO_DEVICES = {**SETTINGS, "latency": {**SETTINGS["latency"], "devices": ["host", "pi5"]}}


def columns_of(made: Study) -> StudyColumns:
    return read_columns(made.engine, made.name)


def same(found: float, row: float | None) -> bool:
    return math.isnan(found) if row is None else found == row


def test_columns_say_what_the_rows_say(tmp_path: Path) -> None:
    made = lively(tmp_path)
    columns, rows = columns_of(made), made.rows()
    assert len(columns) == len(rows)
    for i, row in enumerate(rows):
        assert (columns.number[i], STATES[columns.state[i]]) == (row.number, row.state)
        assert (columns.macs[i], columns.params[i], columns.attempt[i]) == (row.macs, row.params, row.attempt)
        for name in "top1 val_loss test_top1 train_seconds started_at finished_at duplicate_of continues".split():
            assert same(getattr(columns, name)[i], getattr(row, name)), name
        assert (columns.reason[i], columns.config_text[i]) == (row.reason, str(row.config))
        assert columns.config_json[i] == row.config.to_json()
        assert (columns.groups_1x1[i], columns.condense_factor[i]) == (row.config.groups, row.config.condense_factor)
        assert (columns.bottleneck[i], columns.groups_3x3[i]) == (row.config.bottleneck, row.config.conv3x3_groups)
        assert columns.stages[i][: len(row.config.stages)].tolist() == list(row.config.stages)
        assert np.isnan(columns.stages[i][len(row.config.stages) :]).all()
        assert columns.growth[i][: len(row.config.growth)].tolist() == list(row.config.growth)
        assert columns.layers[i] == sum(row.config.stages)
        assert dict(columns.training[i]) == row.training
        host = columns.latencies["host"]
        assert same(host.median_ms[i], None if row.latency is None else row.latency.median_ms)
        assert same(host.high_ms[i], None if row.latency is None else row.latency.interval_high_ms)
    assert columns.counts == {state: sum(row.state == state for row in rows) for state in columns.counts}
    assert sum(columns.counts.values()) == len(rows)


def test_the_front_of_the_columns_is_that_of_the_rows(tmp_path: Path) -> None:
    made = lively(tmp_path)
    columns = columns_of(made)
    on_front = columns.number[columns.front(columns.default_group)].tolist()
    assert sorted(on_front) == sorted(row.number for row in pareto_front(made.rows()))


def test_a_study_without_trials_has_empty_columns(tmp_path: Path) -> None:
    columns = columns_of(Study(tmp_path))
    assert len(columns) == 0
    assert columns.counts == {}
    assert columns.default_group is None
    assert columns.front(None).shape == (0,)
    assert columns.axis_values(View()).shape == (0,)
    assert list(columns.latencies) == ["host"]


def test_latencies_of_other_kinds_and_devices_are_other_groups(tmp_path: Path) -> None:
    made = Study(tmp_path, settings=TWO_DEVICES)
    numbers = [made.done(0.2, 0.9), made.done(0.3, 0.95, kind="estimated"), made.done(0.1, 0.8)]
    made.store.add_latency(numbers[0], made.measurement(0, 7.0, device="pi5:cortex-a76", target="pi5"), judged=False)
    made.store.add_latency(numbers[0], made.measurement(0, 8.0, device="pi5:cortex-a76", target="pi5"), judged=False)
    made.store.add_latency(numbers[0], made.measurement(0, 0.5, purpose="verify"))
    columns = columns_of(made)
    kinds = [(group.target, group.kind) for group in columns.latency_groups]
    assert kinds == [("host", "measured"), ("host", "estimated"), ("pi5", "measured")]
    assert columns.default_group == 0
    assert columns.latencies["pi5"].median_ms[0] == pytest.approx(8.0, rel=0.02)  # the newest price
    # The verification is shown; what it is judged by is held to a limit all the same, until two are against it.
    host = columns.latencies["host"]
    assert (host.median_ms[0], host.priced_ms[0]) == pytest.approx((0.5, 0.2), rel=0.02)
    assert host.verified.tolist() == [True, False, False]
    assert host.held_ms["upper"][0] == pytest.approx(0.2, rel=0.02)
    estimated = columns.of_group(1)
    assert np.isnan(estimated.median_ms).tolist() == [True, False, True]
    assert columns.axis_values(View(1, "latency"))[1] == pytest.approx(0.3, rel=0.02)
    assert columns.axis_values(View(1, "macs")).tolist() == columns.macs.tolist()
    assert columns.number[columns.front(0)].tolist() == [numbers[0], numbers[2]]
    assert columns.number[columns.front(1)].tolist() == [numbers[1]]


def test_a_damaged_config_is_shown_as_it_stands(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(0.2, 0.9)
    made.done(0.3, 0.95)
    with made.engine.begin() as connection:
        connection.execute(sa.update(trial).where(trial.c.number == 1).values(config='{"stages": <script>'))
    columns = columns_of(made)
    assert columns.config_text == (str(SMALL), '{"stages": <script>')
    assert columns.layers.tolist() == [4, 0]


@pytest.mark.parametrize("number", [-1, 2, 99])
def test_a_number_that_no_trial_has_stands_nowhere(tmp_path: Path, number: int) -> None:
    made = Study(tmp_path)
    made.done(0.2, 0.9)
    made.done(0.3, 0.95)
    columns = columns_of(made)
    assert columns.index_of(1) == 1
    assert columns.index_of(number) is None


def test_a_nan_accuracy_is_no_trained_network(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(0.2, 0.9)
    made.done(0.1, 0.95)
    with made.engine.begin() as connection:
        connection.execute(sa.update(trial).where(trial.c.number == 1).values(top1=None))
    columns = columns_of(made)
    assert columns.trained.tolist() == [True, False]
    assert columns.front(columns.default_group).tolist() == [True, False]


def test_ties_all_stand_on_the_front(tmp_path: Path) -> None:
    made = Study(tmp_path)
    names = ("median_ms", "p90_ms", "interval_low_ms", "interval_high_ms")
    same = {name: getattr(made.measurement(0, 0.2), name) for name in names}
    for _ in range(3):
        made.done(0.2, 0.9, **same)
    made.done(0.3, 0.9)
    columns: Any = columns_of(made)
    assert columns.front(columns.default_group).tolist() == [True, True, True, False]
