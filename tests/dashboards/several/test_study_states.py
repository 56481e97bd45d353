"""In which state a study is and what to do next, in the list of a database's studies, on the page and in `status`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from dashboards.budget.table import BudgetTable
from dashboards.data.column_reader import read_columns
from dashboards.data.study_settings import budget_of
from dashboards.studies.overview import Overview
from dashboards.studies.state import Activity, StudyState, next_step, state_note, state_of
from search.store.reader import find_study
from search.store.rows import StudyRow
from tests.dashboards.several.several_studies import ODD, several
from tests.dashboards.studies import Study, lively
from workers.processes import process_name

NOW = 2e9
ENOUGH, FEWER, NONE = Activity(30, 20, NOW - 5), Activity(9, 7, NOW - 5), Activity(0, 0, None)


@pytest.fixture
def row(tmp_path: Path) -> StudyRow:
    made = Study(tmp_path)
    return find_study(made.engine, made.name)


@pytest.mark.parametrize(
    ("changed", "activity", "state"),
    [
        ({}, NONE, "not begun"),
        ({}, FEWER, "stopped"),
        ({}, ENOUGH, "finished"),
        ({"controller": process_name(os.getpid())}, FEWER, "searching"),
        ({"controller": process_name(os.getpid())}, NONE, "stuck"),  # created decades before NOW
        ({"controller": process_name(os.getpid()), "stop_requested": True}, FEWER, "stopping"),
        ({"controller": process_name(os.getpid())}, replace(FEWER, newest_at=NOW - 9999), "stuck"),
        ({"controller": f"{process_name(os.getpid()).partition(':')[0]}:999999999"}, FEWER, "interrupted"),
        ({"controller": "elsewhere:7", "controller_seen_at": NOW - 9}, FEWER, "searching"),
        ({"controller": "elsewhere:7", "controller_seen_at": NOW - 900}, FEWER, "interrupted"),
        ({"controller": "edited", "controller_seen_at": NOW - 9}, FEWER, "searching"),
    ],
)
def test_a_study_is_in_the_state_that_its_controller_and_trials_say(
    row: StudyRow, changed: dict, activity: Activity, state: str
) -> None:
    study = replace(row, **changed)
    assert state_of(study, activity, NOW) == state
    assert state_note(study, StudyState(state), activity, NOW)


def test_the_next_command_goes_on_looks_or_picks(row: StudyRow) -> None:
    def command(state: StudyState, best: int | None) -> str:
        return next_step(row, state, best, "--storage sqlite:///x.db").command

    assert command(StudyState.SEARCHING, 3) == "condensery status digits-small --storage sqlite:///x.db"
    assert command(StudyState.INTERRUPTED, 3) == "condensery launch study.toml --resume --storage sqlite:///x.db"
    assert command(StudyState.STOPPED, None).startswith("condensery launch study.toml --resume")
    assert command(StudyState.FINISHED, None) == "condensery trials digits-small --storage sqlite:///x.db"
    assert command(StudyState.FINISHED, 3) == "condensery pick digits-small --storage sqlite:///x.db --out bundle"
    replayed = replace(row, settings={**row.settings, "replay": {"table": "condensebench"}})
    assert "init train.toml --trial 3" in next_step(replayed, StudyState.FINISHED, 3).command


def test_the_list_has_the_best_that_each_studys_own_page_has_and_follows_what_is_trained(tmp_path: Path) -> None:
    made = lively(tmp_path)
    overview = Overview(made.engine)
    (summary,) = overview.read()
    columns = read_columns(made.engine, made.name)
    best = BudgetTable.of(columns, budget_of(columns.study.settings)).recommended
    assert summary.best is not None
    assert summary.best.number == best
    assert (summary.activity.trials, summary.activity.trainings, summary.wanted) == (len(columns), 25, 20)
    assert summary.devices == ("host:intel-xeon-8370c",)
    newest_at = summary.activity.newest_at
    assert newest_at is not None
    assert newest_at >= max(row.finished_at or 0.0 for row in made.rows())
    number = made.done(0.1, 0.999)
    (summary,) = overview.read()
    assert (summary.activity.newest_at or 0.0) > newest_at
    assert (summary.best and summary.best.number, summary.activity.trainings) == (number, 26)


def test_a_reader_in_a_hurry_gets_all_studies_and_their_best_networks_later(tmp_path: Path) -> None:
    overview = Overview(several(tmp_path).engine)
    hurried = overview.read(within_s=0.0)
    assert {summary.study.name for summary in hurried} == {
        *("first", "second", "elsewhere", "others", "other split"),
        ODD,
    }
    assert not any(summary.is_read or summary.best for summary in hurried)
    assert {summary.step.command for summary in hurried} == {""}  # what to do next isn't known before
    found = {summary.study.name: summary for summary in overview.read()}
    assert all(summary.is_read for summary in found.values())
    assert found["second"].best is not None
    assert found["second"].best.number == 1  # 0.3 ms is over its own limit
    assert found["second"].step.command.startswith("condensery pick second")
    assert found["elsewhere"].best is None
    assert "within its budget" in found["elsewhere"].why_none
