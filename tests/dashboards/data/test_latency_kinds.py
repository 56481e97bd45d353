"""Latencies of two kinds on one device never stand for each other: star, budget, tables and CSV say which is which."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from dashboards.budget.table import BudgetTable
from dashboards.data.columns import StudyColumns, View
from dashboards.page.table import Question, as_csv, rows, table_columns
from dashboards.panels import FrontOptions, front_figure, front_info, macs_latency_figure, macs_latency_info
from dashboards.report.trials_data import trials_data
from search.budget import Budget
from tests.dashboards.panels.panel_studies import columns_of
from tests.dashboards.studies import SETTINGS, Study


def two_kinds(folder: Path) -> Study:
    """Trials 0 to 4 are measured, 5 (the best) is predicted, 6 measured with another runtime; all on the host."""
    made = Study(folder)
    for index in range(5):
        made.done(0.20 + 0.02 * index, 0.90 + 0.01 * index)
    made.done(0.10, 0.99, kind="predicted", extrapolates=True)
    made.done(0.15, 0.95, runtime_version="0.1")
    return made


@pytest.fixture
def columns(tmp_path: Path) -> StudyColumns:
    return columns_of(two_kinds(tmp_path))


def test_an_offer_says_what_its_latency_is_and_of_which_group(columns: StudyColumns) -> None:
    table = BudgetTable.of(columns, Budget(0.4))
    best = table.offers[0]
    assert (best.number, best.kinds) == (5, ("predicted, extrapolated",))
    assert columns.latency_groups[best.groups[0]].kind == "predicted"
    assert "(predicted, extrapolated)" in best.latency


def test_the_fastest_says_what_its_latency_is(columns: StudyColumns, tmp_path: Path) -> None:
    assert "The fastest needs 0.1" in BudgetTable.of(columns, Budget(0.01)).sentence({"host": 0.01})
    assert "ms (predicted)." in BudgetTable.of(columns, Budget(0.01)).sentence({"host": 0.01})


@pytest.mark.parametrize(
    ("trial", "says"),
    [
        (4, "recommended: trial 4"),
        (5, "recommended: trial 5 (predicted: not shown here)"),
        (6, "recommended: trial 6 (measured with another runtime or device: not shown here)"),
    ],
)
def test_the_star_stands_only_among_latencies_of_its_own_group(columns: StudyColumns, trial: int, says: str) -> None:
    view = View(columns.default_group)
    figures = (
        front_figure(front_info(columns, view, FrontOptions(recommended=trial))),
        macs_latency_figure(macs_latency_info(columns, view, recommended=trial)),
    )
    for figure in figures:
        star = figure.data[-1]
        assert (star.meta, star.name) == ("recommended", says)
        assert [x is not None for x in star.x] == [trial == 4]
        assert figure.layout.meta["group"] == view.group
        assert figure.layout.meta["kind"] == "measured"


def test_accuracy_against_macs_has_the_star_whatever_the_latency_is(columns: StudyColumns) -> None:
    view = View(columns.default_group, "macs")
    star = front_figure(front_info(columns, view, FrontOptions(recommended=5))).data[-1]
    assert star.name == "recommended: trial 5"
    assert len(star.x) == 1


@pytest.mark.parametrize("way", ["asc", "desc"])
def test_the_table_sorts_one_group_and_has_the_others_below_with_their_kind(columns: StudyColumns, way: str) -> None:
    shown = table_columns(columns, View(columns.default_group))
    found = rows(shown, Question(sort=[{"colId": "latency:host", "sort": way}]))["rows"]
    numbers = [int(row["number"]) for row in found]
    assert numbers == ([0, 1, 2, 3, 4] if way == "asc" else [4, 3, 2, 1, 0]) + [5, 6]
    assert [row["kind:host"] for row in found[:5]] == ["measured"] * 5
    assert found[5]["kind:host"] == "predicted"
    assert found[5]["latency:host"].startswith("0.09988 predicted [")
    assert " 0.1, 1 thread" in found[6]["kind:host"]
    titles = {column.name: column.title for column in shown}
    assert titles["latency:host"] == "measured ms on host"


def test_the_csv_has_the_kind_of_every_latency(columns: StudyColumns) -> None:
    shown = table_columns(columns, View(columns.default_group))
    found = list(csv.DictReader(io.StringIO(as_csv(columns, shown, Question()))))
    assert [row["latency_kind.host"] for row in found] == ["measured"] * 5 + ["predicted", "measured"]
    assert all(float(row["latency_ms.host"]) > 0 for row in found)
    assert len({row["latency_is.host"] for row in found}) == 3
    assert found[5]["latency_is.host"].startswith("predicted, quick, extrapolated; ")


def test_the_report_table_has_the_other_groups_apart(columns: StudyColumns) -> None:
    found = {column["name"]: column for column in trials_data(columns, Budget(0.4))["columns"]}
    assert found["latency_ms.host"]["apart"] == [5, 6]
    kinds = found["latency_kind.host"]
    assert [kinds["texts"][place] for place in kinds["values"]] == ["measured"] * 5 + ["predicted", "measured"]


def test_a_limit_without_a_name_is_of_the_first_device_whichever_has_latencies(tmp_path: Path) -> None:
    settings = {
        **SETTINGS,
        "latency": {**SETTINGS["latency"], "devices": ["host", "pi5"]},
        "budget": {**SETTINGS["budget"], "max_latency_ms": {"host": 0.4, "pi5": 30.0}},
    }
    made = Study(tmp_path, settings=settings)
    number = made.asked()
    made.store.add_latency(number, made.measurement(number, 20.0, device="pi5:a76", target="pi5"), judged=False)
    made.store.set_running(number, 1)
    made.store.finish(number, "done", top1=0.9)
    table = BudgetTable.of(columns_of(made), Budget(0.4, elsewhere_ms={"pi5": 30.0}))
    assert [(control.target, control.limit_ms) for control in table.controls] == [("pi5", 30.0)]
    assert table.judged_by == "host"
    assert BudgetTable.of(columns_of(made), Budget(0.4)).controls[0].limit_ms is None
