"""Whatever shows a figure of a replayed study says that it was replayed, and from which table."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from condensery import app
from dashboards.data.column_reader import read_columns
from dashboards.data.study_settings import instead_of_pick
from dashboards.page import make_app
from dashboards.page.heading import head
from dashboards.page.study_cache import CachedStudy, Studies
from dashboards.panels.notebook import PLOTS, StudyFigures
from dashboards.report.trials_data import trials_data
from dashboards.studies.documents import summary_document
from dashboards.studies.fronts import compare
from dashboards.studies.overview import Overview
from dashboards.terminal import answers, documents, study_tables
from dashboards.terminal.live_view import _LiveView
from search.event_files import SCALARS
from search.store.connection.database import open_for_reading
from search.store.replayed import LONGEST_NAME, replayed_folder, replayed_from, replayed_words
from search.store.rows import TrialRow
from search.study_file import load_replay
from search.time_estimate import outline_study
from tests.dashboards.browser import Visit, in_browser
from tests.dashboards.pages import opened, served, silent
from tests.search.replay.replays import Replays, command_here
from tests.search.replay.tiny_tables import rewritten

pytestmark = pytest.mark.slow(seconds=1)

SHOWING = {  # a command line of every command that shows a figure of a study; "NUMBER" is a trial's
    "status": ["status"],
    "trials": ["trials"],
    "pareto": ["pareto"],
    "show": ["show", "NUMBER"],
    "note": ["note"],
    "pick": ["pick", "--preview"],
}
TESTED_BELOW = {"compare", "launch", "check", "plot", "tensorboard", "report", "dashboard"}
NO_FIGURES = {
    "init",
    "enqueue",
    "queue",
    "withdraw",
    "stop",
    "cancel",
    "logs",
    "export",
    "crossvalidate",
    "doctor",
    "delete",
    "archive",
    "restore",
    "reprice",  # what it says is measured here
    "verify",
    "baselines",
    "quantize",
    "mlflow",
    "wandb",
}


@pytest.fixture
def words(shown: Replays) -> str:
    """What every surface must say."""
    return f"replayed from {shown_name(shown)}"


def shown_name(shown: Replays) -> str:
    return str(replayed_from({"replay": {"table": str(shown.table)}}))


def says(text: str, words: str) -> bool:
    """Whether a text holds the words, however it is wrapped."""
    return "".join(words.split()) in "".join(text.split())


def a_done_trial(shown: Replays) -> TrialRow:
    return next(row for row in shown.rows() if row.state == "done")


def test_no_command_is_forgotten_here():
    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert names == {*SHOWING, *TESTED_BELOW, *NO_FIGURES}


@pytest.mark.parametrize("name", SHOWING)
def test_a_command_says_it_as_text_and_as_json(name: str, shown: Replays, words: str):
    line = [str(a_done_trial(shown).number) if word == "NUMBER" else word for word in SHOWING[name]]
    printed = command_here(shown, *line)
    assert says(printed.stdout, words), printed.stderr
    unwrapped = " ".join(printed.stdout.split())
    assert "measured" not in unwrapped.replace("latencies that are called replayed were not measured here", "")
    document = json.loads(command_here(shown, *line, "--json").stdout)
    assert document["replayed_from"] == shown_name(shown)
    if name != "status":
        assert "estimated, replayed" in " ".join(printed.stdout.split())


def test_several_studies_say_it_as_text_and_as_json(shown: Replays, words: str):
    engine = open_for_reading(shown.url)
    studies = Overview(engine).read()
    columns = read_columns(engine, "replay")
    engine.dispose()
    assert documents.studies_document(studies)["studies"][0]["replayed_from"] == shown_name(shown)
    assert words in summary_document(studies[0])["data"]
    assert f"replay was {words}." in compare([columns, columns]).sentences(None)
    console = Console(file=io.StringIO(), width=400)
    console.print(study_tables.studies_table(studies))
    assert words in console.file.getvalue()


def test_every_line_of_a_launch_that_has_a_figure_says_it(shown: Replays, words: str):
    lines = (shown.folder / "launch.txt").read_text().splitlines()
    with_figures = [line for line in lines if re.search(r"\btop-1\b|\d ms\b|trainings? done|of \d+ trainings", line)]
    assert len(with_figures) > 10
    assert [line for line in with_figures if words not in line] == []


def test_the_live_table_of_a_launch_says_it(shown: Replays, words: str):
    view = _LiveView(Console(file=io.StringIO(), width=300, height=30, record=True), wanted=6)
    view.replayed = shown_name(shown)
    for row in shown.rows():
        view.trial(row)
    view.console.print(view.draw())
    assert words in view.console.export_text()


def test_check_says_it(shown: Replays, words: str):
    outline = outline_study(load_replay(str(shown.table)))
    assert answers.outline_document(outline, None)["replayed_from"] == shown_name(shown)
    console = Console(file=io.StringIO(), width=300)
    console.print(answers.outline_panel(outline))
    assert words in console.file.getvalue()


@pytest.mark.parametrize("plot", [plot for plot in PLOTS if plot not in ("importance", "contour", "slice")])
def test_a_plot_says_it_above_the_figure(plot: str, shown: Replays, words: str):
    engine = open_for_reading(shown.url)
    figure = StudyFigures(engine, "replay").plot(plot)
    engine.dispose()
    assert words in figure.layout.title.text
    assert figure.layout.margin.t >= 22


def test_event_files_say_it_in_the_name_of_each_run_and_of_its_latency(shown: Replays, tmp_path: Path):
    from tests.search.test_event_files import read_run

    out = tmp_path / "runs"
    assert command_here(shown, "tensorboard", "--out", out).returncode == 0
    folder = out / "replay" / "replayed-from-condensebench-digits.csv.gz"
    number = a_done_trial(shown).number
    tags = read_run(folder / f"trial-{number:05d}").Tags()["scalars"]
    assert "final/latency_ms/virtual:raspberry-pi-5/estimated-replayed" in tags
    unrecorded = {"training/images_per_s", "balanced_accuracy/validation", "macro_f1/validation"}  # in a table
    assert {*SCALARS} - unrecorded <= {*tags}


def test_event_files_that_a_launch_writes_say_it_too(replays: Replays):
    replays.launch("study.trainings=2", "study.tensorboard=true")
    runs = list((replays.folder / "files").rglob("events.*"))
    assert runs
    assert all(run.parent.parent.name == "replayed-from-condensebench-digits.csv.gz" for run in runs)


def test_the_page_says_it_and_so_does_every_csv(shown: Replays, words: str):
    client = make_app(shown.url).server.test_client()
    rows = list(csv.DictReader(io.StringIO(client.get("/trials.csv").get_data(as_text=True))))
    assert rows
    assert {row["replayed_from"] for row in rows} == {shown_name(shown)}
    kinds = {row[name] for row in rows for name in row if name.startswith("latency_kind")}
    assert kinds - {""} == {"estimated, replayed"}
    studies = Studies(shown.url)
    study = studies.get("replay")
    payload = head(study, None, "", studies)
    assert words in payload["subtitle"]
    assert all("replayed" in group["text"] for group in payload["groups"])
    columns = {column["name"]: column for column in trials_data(study.columns, budget_of(study))["columns"]}
    assert columns["replayed_from"]["texts"] == [shown_name(shown)]


def budget_of(study: CachedStudy):
    from dashboards.data.study_settings import budget_of

    return budget_of(study.columns.study.settings)


def test_the_command_that_is_offered_in_place_of_pick_works(shown: Replays):
    instead = instead_of_pick(shown.study(), f"--storage {shown.url}")
    assert instead is not None
    number = str(a_done_trial(shown).number)
    init, _, launch = instead["command"].replace("{trial}", number).partition(" && ")
    (shown.folder / "train.toml").unlink(missing_ok=True)
    done = command_here(shown, *init.split()[1:7])
    assert (done.returncode, launch) == (0, "condensery launch train.toml"), done.stderr
    (shown.folder / "train.toml").unlink()


@pytest.mark.browser
@pytest.mark.slow(seconds=10)
@in_browser
def test_page_and_report_offer_the_training_of_a_network_instead_of_picking_it(
    browser: Any, shown: Replays, words: str
):
    report = shown.folder / "report.html"
    assert command_here(shown, "report", "--out", report).returncode == 0
    assert words in report.read_text()
    instead = instead_of_pick(shown.study())
    assert instead is not None

    def offers_the_training(visit: Visit) -> None:
        visit.wait("document.getElementById('command').textContent.startsWith('condensery init train.toml --trial ')")
        text = visit.page.inner_text("body")
        assert "condensery pick" not in text
        assert instead["note"] in text
        assert visit.page.get_by_role("button", name="Copy training command").is_visible()

    with Visit(browser) as visit:
        offers_the_training(visit.open(report.as_uri(), "performance.getEntriesByName('condensery-ready').length"))
        assert visit.complaints == []
    with served(shown.url) as page, Visit(browser) as visit:
        offers_the_training(opened(visit, page))
        assert visit.page.locator("#bundle").is_hidden()
        assert visit.page.locator("#front-graph .gtitle").text_content() == words
        silent(visit, page)


# -- the words themselves --


@pytest.mark.parametrize("settings", [{}, {"replay": {}}, {"replay": {"table": None}}, {"replay": "edited"}])
def test_a_study_that_was_trained_says_nothing(settings: dict):
    assert replayed_from(settings) is None
    assert replayed_words(None) == replayed_folder(None) == ""


def test_a_table_of_ones_own_is_never_shown_as_the_shipped_one(table_path: Path, tmp_path: Path):
    mine = rewritten(table_path, tmp_path)
    mine = mine.rename(tmp_path / "condensebench-fashion-mnist.csv.gz")
    name = replayed_from({"replay": {"table": str(mine)}})
    shipped = replayed_from({"replay": {"table": "condensebench-fashion-mnist"}})
    assert shipped == "condensebench-fashion-mnist"
    assert name == str(mine)[-LONGEST_NAME:] or str(name)[1:] == str(mine)[1 - LONGEST_NAME :]
    assert replayed_folder(name) != replayed_folder(shipped)


def test_a_long_path_keeps_its_end_and_control_characters_are_left_out():
    table = "/" + "deep/" * 40 + "mine\x1b[31m.csv.gz"
    name = replayed_from({"replay": {"table": table}})
    assert name is not None
    assert len(name) == LONGEST_NAME
    assert name.endswith("deep/mine[31m.csv.gz")
