"""Stars and notes: written by `note`, shown wherever a trial is."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import condensery
from dashboards.data.column_reader import read_columns
from dashboards.data.revision import load_revision
from dashboards.report.trials_data import trial_columns
from search.store import reader
from space.errors import CondenseryError, InvalidSettings, TrialNotFound
from tests.dashboards.studies import Study

RUNNER = CliRunner()


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study of three trained networks, alone in its database."""
    monkeypatch.setenv("CONDENSERY_STORAGE", f"sqlite:///{tmp_path / 'study.db'}")
    monkeypatch.chdir(tmp_path)
    study = Study(tmp_path)
    for number in range(3):
        study.done(0.1 + number / 10, 0.9 + number / 100)
    return study


def told(*words: str) -> Result:
    done = RUNNER.invoke(condensery.app, list(words))
    assert done.exit_code == 0, done.output
    return done


def refused(*words: str) -> Exception:
    done = RUNNER.invoke(condensery.app, list(words))
    assert isinstance(done.exception, CondenseryError), done.output
    return done.exception


def said_of(number: int) -> dict[str, object]:
    return json.loads(told("note", str(number), "--json").stdout)


def test_a_star_and_a_note_are_kept_and_taken_back_one_by_one(study: Study):
    assert "No trial is starred or noted." in told("note").stdout
    before = load_revision(study.engine, study.id)
    assert told("note", "1", "  fits,\nfor now ", "--star").stderr.splitlines() == [
        "noted about trial 1",
        "trial 1 is on the shortlist",
    ]
    assert load_revision(study.engine, study.id) != before  # or an open page wouldn't show it
    assert said_of(1) == {"number": 1, "starred": True, "note": "fits,\nfor now"}
    assert told("note", "1").stdout.splitlines() == ["⚑ starred", "fits,", "for now"]
    told("note", "2", "slow")
    told("note", "1", "fits")
    shortlist = told("note").stdout
    assert "⚑ 1" in shortlist
    assert "note: fits" in shortlist
    assert "note: slow" in shortlist
    told("note", "1", "--unstar")
    assert said_of(1) == {"number": 1, "starred": False, "note": "fits"}
    told("note", "1", "--star")
    told("note", "1", "")
    assert said_of(1) == {"number": 1, "starred": True, "note": None}
    told("note", "1", "--clear")
    assert list(reader.read_shortlist(study.engine, study.id)) == [2]


def test_lists_files_and_the_report_show_what_is_starred_and_noted(study: Study, tmp_path: Path):
    told("note", "1", "<b>=1+1</b>, for\nnow", "--star")
    table = told("trials").stdout
    assert "⚑ 1" in table
    assert "note: <b>=1+1</b>, for now" in table
    assert [row["number"] for row in json.loads(told("trials", "--starred", "--json").stdout)["trials"]] == [1]
    assert "⚑: on the shortlist" in told("pareto").stdout
    panel = told("show", "1").stdout
    assert "⚑ starred" in panel
    assert "<b>=1+1</b>, for" in panel
    told("trials", "--csv", "trials.csv")
    rows = list(csv.DictReader((tmp_path / "trials.csv").read_text().splitlines()))
    assert [row["starred"] for row in rows] == ["", "⚑ starred", ""]
    assert rows[1]["note"] == "<b>=1+1</b>, for now"
    columns = {column["name"]: column for column in trial_columns(read_columns(study.engine, study.name))}
    in_report = [columns[name] for name in ("starred", "note")]
    assert [column["title"] for column in in_report] == ["shortlist", "note"]
    assert [column["texts"][column["values"][1]] for column in in_report] == ["⚑ starred", "<b>=1+1</b>, for now"]


@pytest.mark.parametrize(
    ("words", "error", "text"),
    [
        (["note", "9", "gone"], TrialNotFound, "has trials 0 to 2, but you asked for 9"),
        (["note", "1", "x" * 2001], InvalidSettings, "at most 2,000 characters, but has 2,001"),
        (["note", "1", "\x1b[2J"], InvalidSettings, "control character"),
        (["note", "1", "both", "--clear"], InvalidSettings, "without a text"),
        (["note", "--star"], InvalidSettings, "need a trial's number"),
    ],
)
def test_a_wrong_note_is_refused_in_one_line(study: Study, words: list[str], error: type[Exception], text: str):
    problem = refused(*words)
    assert isinstance(problem, error)
    assert text in str(problem)
    assert reader.read_shortlist(study.engine, study.id) == {}


def test_a_note_that_was_changed_meanwhile_is_not_written_over(study: Study):
    assert study.store.set_note(1, "first", before="") is None
    assert study.store.set_note(1, "second", before="") == "first"
    assert study.store.set_note(1, "second", before="first") is None
    assert reader.read_shortlist(study.engine, study.id)[1].note == "second"
