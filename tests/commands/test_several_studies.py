"""Commands about several studies: compare, report and status; and a stop of a study that is only just starting."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from commands import running
from condensery import app
from dashboards.data.column_reader import read_columns
from dashboards.studies.fronts import compare
from space.errors import CondenseryError, DatabaseUnavailable, InvalidSettings, StudyNotFound
from tests.dashboards.several.several_studies import made, several


@pytest.fixture
def storage(tmp_path: Path) -> str:
    several(tmp_path)
    return f"sqlite:///{tmp_path / 'study.db'}"


def run(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def printed(*words: str) -> str:
    done = run(*words)
    assert done.exception is None, done.exception
    return done.stdout


def refused(*words: str) -> CondenseryError:
    error = run(*words).exception
    assert isinstance(error, CondenseryError), error
    return error


def test_compare_prints_the_best_of_each_the_front_of_all_and_who_is_left_out(storage: str, tmp_path: Path) -> None:
    words = ("compare", "first", "second", "others", "--storage", storage, "--max-latency-ms", "0.2")
    text = " ".join(printed(*words).split())
    engine = made(tmp_path, "another", {}).engine
    found = compare([read_columns(engine, name) for name in ("first", "second", "others")], limit=0.2)
    assert found.sentences(0.2)[0] in text
    assert "others: its images are others" in text
    assert "second 1 95.00 %" in text
    assert "first * 0 90.00 %" in text
    document = json.loads(printed(*words, "--json"))
    assert [study["on_combined"] for study in document["studies"]] == [study.on_combined for study in found.studies]
    assert json.loads(printed(*words[:3], "--storage", storage, "--axis", "macs", "--json"))["axis"] == "macs"


def test_a_report_of_several_studies_says_what_the_page_says_in_one_file(storage: str, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    printed("report", "first", "second", "others", "--storage", storage, "--out", str(out), "--max-latency-ms", "0.2")
    text = out.read_text()
    assert "The best inside 0.2 ms is trial 1 of second, 95.00 % top-1" in text
    assert "others: its images are others" in text
    assert "default-src 'none'" in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    printed("report", "first", "elsewhere", "--storage", storage, "--out", str(out))
    assert "Accuracy against multiply-adds." in out.read_text()  # their latencies can't be compared


def test_what_cant_be_a_choice_of_studies_is_refused_in_a_line(storage: str) -> None:
    named = ("--storage", storage)
    assert isinstance(refused("compare", "first", "first", *named), InvalidSettings)
    assert "at most 4" in str(refused("report", "a", "b", "c", "d", "e", *named))
    assert isinstance(refused("compare", "first", "nothing", *named), StudyNotFound)
    limits = ("--max-latency-ms", "1", "--max-latency-ms", "host=2")
    assert json.loads(printed("compare", "first", "second", *limits, *named, "--json"))["limit"] == 2  # one device
    assert "upper ends" in str(refused("report", "first", "second", "--latency-statistic", "median", *named))
    assert run("compare", "first", *named).exit_code == 2


def test_status_says_in_which_state_each_study_is(storage: str) -> None:
    text = printed("status", "--storage", storage)
    assert "first stopped 97.00 %" in " ".join(text.split())
    document = json.loads(printed("status", "--storage", storage, "--json"))
    states = {study["name"]: study["state"] for study in document["studies"]}
    assert states["first"] == "stopped"
    assert json.loads(printed("status", "first", "--storage", storage, "--json"))["state"] == "stopped"
    assert "stopped: no one runs it" in printed("status", "first", "--storage", storage)


def test_stop_waits_for_a_study_that_is_only_just_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "LOOK_S", 0.01)
    looked = threading.Event()
    say = running.say

    def noted(text: str) -> None:
        say(text)
        looked.set()

    monkeypatch.setattr(running, "say", noted)
    storage = f"sqlite:///{tmp_path / 'study.db'}"

    def launch() -> None:
        looked.wait()
        made(tmp_path, "late", {}).engine.dispose()

    thread = threading.Thread(target=launch)
    thread.start()
    done = run("stop", "late", "--storage", storage)
    thread.join()
    assert done.exception is None
    assert "in case it is just starting" in done.stderr
    assert "is not running" in done.stderr


def test_stop_of_a_study_that_isnt_there_says_what_to_do_if_it_is_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "STARTING_S", 0.0)
    error = refused("stop", "--storage", f"sqlite:///{tmp_path / 'study.db'}")
    assert isinstance(error, DatabaseUnavailable)
    assert "If its launch has only just begun" in str(error)
