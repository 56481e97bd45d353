"""The budget control's table answers as `search.results.ranking` ranks, whatever the budget."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboards.budget.table import BudgetTable, limit_text, more_than
from dashboards.data.column_reader import read_columns
from dashboards.data.columns import StudyColumns
from search.budget import Budget
from search.results.ranking import rank
from tests.dashboards.studies import SETTINGS, Study, lively

NO_LIMIT = Budget()
TWO_DEVICES = {**SETTINGS, "latency": {**SETTINGS["latency"], "devices": ["host", "pi5"]}}
latencies = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 6)), max_size=9)


def table_of(made: Study, budget: Budget = NO_LIMIT) -> BudgetTable:
    return BudgetTable.of(read_columns(made.engine, made.name), budget)


def on_two_devices(folder: Path, trained: list[tuple[int, int, int]]) -> Study:
    made = Study(folder, settings=TWO_DEVICES)
    for host, pi5, top1 in trained:
        number = made.done(host / 10, 0.9 + top1 / 100)
        made.store.add_latency(
            number, made.measurement(number, float(pi5), device="pi5:cortex-a76", target="pi5"), judged=False
        )
    return made


@pytest.mark.slow
@settings(max_examples=40)
@given(trained=latencies, host=st.integers(0, 10), pi5=st.one_of(st.none(), st.integers(0, 10)))
def test_best_runner_up_and_number_are_those_of_pick(
    trained: list[tuple[int, int, int]], host: int, pi5: int | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = on_two_devices(Path(folder), trained)
        limit_ms = host / 10 + 0.05
        elsewhere = {} if pi5 is None else {"pi5": pi5 + 0.5}
        table = table_of(made)
        limits: dict[str, float | None] = {"host": limit_ms, **elsewhere}
        found, ranked = table.answer(limits), rank(made.rows(), Budget(limit_ms, elsewhere_ms=elsewhere))
        assert found.fits == len(ranked)
        places = (found.best, found.runner_up)
        offered = [None if place is None else table.offers[place].number for place in places]
        assert offered == [row.number for row in ranked[:2]] + [None] * (2 - len(ranked[:2]))
        raised = Budget(
            limit_ms + more_than(limit_ms), elsewhere_ms={name: ms + more_than(ms) for name, ms in elsewhere.items()}
        )
        more = rank(made.rows(), raised)
        gains = bool(more) and (not ranked or (more[0].top1 or 0) > (ranked[0].top1 or 0))
        assert (None if found.more is None else table.offers[found.more].number) == (more[0].number if gains else None)
        made.engine.dispose()


def test_the_table_is_plain_json_with_null_for_what_is_not_known(tmp_path: Path) -> None:
    made = on_two_devices(tmp_path, [(3, 4, 2)])
    made.done(0.2, 0.99)  # not measured on the second device
    text = json.dumps(table_of(made).to_dict(), allow_nan=False)
    assert json.loads(text)["highs_ms"][1][1] is None
    assert table_of(made).answer({"host": 1.0}).fits == 2
    assert table_of(made).answer({"host": 1.0, "pi5": 100.0}).fits == 1


def test_of_many_networks_only_those_are_kept_that_can_be_offered(tmp_path: Path) -> None:
    made = lively(tmp_path)
    columns = read_columns(made.engine, made.name)
    table = BudgetTable.of(columns, Budget())
    assert 0 < len(table.offers) < table.trained
    assert len(table.highs_ms) == table.trained


def test_limits_on_macs_and_params_hold_for_every_answer(tmp_path: Path) -> None:
    made = lively(tmp_path)
    macs = int(np.median([row.macs for row in made.rows() if row.state == "done"]))
    table = table_of(made, Budget(max_macs=macs))
    assert all(offer.macs <= macs for offer in table.offers)
    assert table.answer({}).fits == sum(row.macs <= macs for row in made.rows() if row.state == "done")
    assert "at most" in table.sentence({"host": 1.0})


@pytest.mark.parametrize(
    ("make", "start"),
    [
        (lambda made: None, "This study has no trials yet."),
        (lambda made: made.infeasible(0.9), "No candidate was inside the budget"),
        (lambda made: made.running(0.2), "No network has finished its training yet"),
        (lambda made: made.failed("the loss became nan"), "No trial led to a trained network"),
    ],
)
def test_without_a_trained_network_the_sentence_says_why(tmp_path: Path, make: Any, start: str) -> None:
    made = Study(tmp_path)
    make(made)
    assert table_of(made).sentence({"host": 0.4}).startswith(start)


def test_the_sentence_answers_which_one_to_deploy(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.store.set_data_info({"dataset": "Digits", "validation_images": 288})
    for ms, top1 in ((10.0, 0.90), (12.0, 0.95), (13.5, 0.96)):
        made.done(ms, top1)
    text = table_of(made).sentence({"host": 13.0})
    assert text.startswith(
        "2 of 3 trained networks fit 13 ms. Best: trial 1 (2-2 growth 8-16 G=4 C=4 B=4), 95.00 % top-1"
    )
    assert "(95 % interval 91.8 % to 97.0 %)" in text
    assert "Runner-up: trial 0" in text
    assert "2 ms more would buy 96.00 %: trial 2" in text
    assert "2 ms more would buy nothing better." in table_of(made).sentence({"host": 20.0})


def test_a_budget_that_nothing_fits_says_what_the_fastest_needs(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(10.0, 0.9)
    table = table_of(made)
    text = table.sentence({"host": 1.0})
    assert text.startswith("0 of 1 trained network fit 1 ms. The fastest needs ")
    needed = float(text.partition("needs ")[2].partition(" ms")[0])
    assert table.answer({"host": needed}).fits == 1


@pytest.mark.parametrize(
    ("limit", "more"), [(100.0, 2.0), (10.0, 2.0), (9.0, 2.0), (6.0, 1.0), (0.3, 0.06), (0.001, 2e-4)]
)
def test_a_little_more_is_two_milliseconds_or_about_a_fifth(limit: float, more: float) -> None:
    assert more_than(limit) == pytest.approx(more)


@given(st.floats(1e-4, 1e5))
def test_a_little_more_is_never_nothing_and_never_a_lot(limit: float) -> None:
    assert 0 < more_than(limit) <= max(2.0, 0.31 * limit)
    assert float(limit_text(limit)) == pytest.approx(limit, rel=1e-5)


@pytest.mark.parametrize(("ms", "text"), [(12.0, "12"), (0.35, "0.35"), (1e-5, "0.00001"), (2e6, "2000000")])
def test_limits_are_written_without_needless_digits(ms: float, text: str) -> None:
    assert limit_text(ms) == text


def test_the_controls_reach_from_below_the_fastest_to_above_the_slowest(tmp_path: Path) -> None:
    made = lively(tmp_path)
    columns: StudyColumns = read_columns(made.engine, made.name)
    (control,) = BudgetTable.of(columns, Budget(0.4)).controls
    highs = columns.latencies["host"].high_ms[columns.trained]
    assert control.low_ms < highs.min()
    assert max(highs.max(), 0.4) <= control.high_ms
    assert control.limit_ms == 0.4
    assert 50 <= (control.high_ms - control.low_ms) / control.step_ms <= 2000
    assert not math.isnan(control.step_ms)
