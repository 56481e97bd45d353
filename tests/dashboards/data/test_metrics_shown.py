"""A network's figures wherever people look: show, JSON, tables and CSV, the budget's answer, the comparison."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console, RenderableType

from dashboards import panels
from dashboards.budget.recorded import Recorded, read_recorded
from dashboards.budget.table import BudgetTable
from dashboards.data.column_reader import read_columns
from dashboards.data.columns import StudyColumns, View
from dashboards.data.study_settings import study_subtitle
from dashboards.data.trial_detail import TrialDetail, read_trial_detail
from dashboards.page.table import Question, as_csv, table_columns
from dashboards.panels.trial.compare import compare_info
from dashboards.panels.trial.confusion import confusion_figure, confusion_info
from dashboards.panels.trial.tables import trial_tables
from dashboards.report.trials_data import trial_columns
from dashboards.terminal import documents
from dashboards.terminal import trial_tables as terminal_tables
from dashboards.terminal.study_tables import status_panel
from dashboards.terminal.trial_panel import trial_panel
from search.budget import Budget
from search.results.paired import as_good_and_cheaper, paired_test
from search.results.ranking import rank
from search.results.remarks import seen_by
from search.store import reader
from tests.dashboards.studies import SETTINGS, Study
from workers.metrics import METRICS, Objective, Predictions

IMAGES = 120  # of two classes, and a third with few


def flawed(errors: int, seed: int) -> Predictions:
    """A network that takes so many images of the first class, chosen at random, for the second."""
    labels = np.repeat([0, 1, 2], (IMAGES, IMAGES, 12))
    predicted = labels.copy()
    predicted[np.random.default_rng(seed).choice(IMAGES, errors, replace=False)] = 1
    return Predictions.of(np.eye(3)[predicted], labels)


def trained(made: Study, latency_ms: float, said: Predictions | None) -> int:
    """A trial that is done, with the figures that follow from its predictions."""
    number = made.priced(latency_ms)
    made.store.set_running(number, 1)
    figures = {"top1": 0.5} if said is None else said.metrics()
    made.add_curve(number, figures["top1"] or 0.0)
    if said is not None:
        made.store.add_predictions(number, "validation", said.to_bytes())
    made.store.finish(number, "done", val_loss=0.1, train_seconds=1.0, **figures)
    return number


def study(folder: Path, objective: Objective = "top1") -> Study:
    """Four networks: the best, one as good within noise at half the latency, a worse one, and one from before."""
    settings = {**SETTINGS, "study": {**SETTINGS["study"], "objective": objective}}
    made = Study(folder, settings=settings)
    info = {"dataset": "Birds", "validation_images": 252, "class_names": ["cat", "dog", "owl"]}
    made.store.set_data_info({**info, "validation_counts": [IMAGES, IMAGES, 12]})
    for latency_ms, said in ((0.30, flawed(5, 0)), (0.15, flawed(8, 1)), (0.10, flawed(60, 2)), (0.05, None)):
        trained(made, latency_ms, said)
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return study(tmp_path_factory.mktemp("figures"))


@pytest.fixture(scope="module")
def rare(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return study(tmp_path_factory.mktemp("macro"), "macro_f1")


def columns_of(made: Study) -> StudyColumns:
    return read_columns(made.engine, made.name)


def detail_of(made: Study, number: int) -> TrialDetail:
    return read_trial_detail(made.engine, reader.find_study(made.engine, made.name), number)


def shown(renderable: RenderableType) -> str:
    file = io.StringIO()
    Console(file=file, width=80).print(renderable)
    return file.getvalue()


# -- show and JSON --


def test_show_has_every_figure_the_classes_and_what_speaks_against_them(made: Study) -> None:
    study_row, row = reader.find_study(made.engine, made.name), made.row(2)
    seen = seen_by(made.engine, study_row, row)
    text = " ".join(shown(trial_panel(row, [], [], {}, seen=seen)).split())
    assert "macro-F1 " in text
    assert "balanced accuracy 83.33 %" in text
    assert "cat 120 50.0 % 100.0 % dog (60)" in text
    assert "1 class has fewer than 20 validation images (owl 12)" in text
    document = documents.trial_detail_document(row, [], [], {}, seen=seen)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["splits"]["validation"]["confusion"] == [[60, 60, 0], [0, 120, 0], [0, 0, 12]]
    assert document["splits"]["validation"]["classes"][0] == {
        "name": "cat",
        "images": 120,
        "recall": 0.5,
        "precision": 1.0,
    }
    assert document["remarks"] == list(seen.remarks)
    assert (document["objective"], document["score"]) == ("top1", row.top1)


def test_a_trial_from_before_has_top1_and_says_nothing_of_the_rest(made: Study) -> None:
    row = made.row(3)
    seen = seen_by(made.engine, reader.find_study(made.engine, made.name), row)
    text = shown(trial_panel(row, [], [], {}, seen=seen))
    assert "50.00 % of the validation images" in text
    assert "macro-F1" not in text
    assert "Classes" not in text
    document = documents.trial_detail_document(row, [], [], {}, seen=seen)
    assert document["splits"] == {}
    assert document["macro_f1"] is None


def test_tables_of_a_study_are_headed_by_what_it_maximises(rare: Study) -> None:
    assert "macro-F1" in shown(terminal_tables.trials_table(rare.rows()))
    assert "top-1" not in shown(terminal_tables.pareto_table(rare.rows()))


# -- page and report --


def test_the_pages_table_and_both_csvs_have_every_figure(made: Study) -> None:
    columns = columns_of(made)
    table = table_columns(columns, View(0))
    rows = list(csv.DictReader(io.StringIO(as_csv(columns, table, Question()))))
    for row, recorded in zip(rows, made.rows(), strict=True):
        for name in METRICS:
            value = getattr(recorded, name)
            assert row[name] == ("" if value is None else repr(value) if value != int(value) else str(int(value)))
    in_report = {column["name"]: column["values"] for column in trial_columns(columns)}
    for name in METRICS:
        values = [getattr(recorded, name) for recorded in made.rows()]
        assert in_report[name] == [None if value is None else float(f"{value:.6g}") for value in values]


def test_a_study_says_what_it_maximises(made: Study, rare: Study) -> None:
    for one, words in ((made, "top-1"), (rare, "macro-F1")):
        study_row, status = reader.find_study(one.engine, one.name), reader.read_status(one.engine, one.id)
        assert f"maximises {words}" in " ".join(shown(status_panel(study_row, status)).split())
        assert documents.study_document(study_row, status)["objective"] == one.row(0).objective
    assert "maximises macro-F1 · budget" in study_subtitle(reader.find_study(rare.engine, rare.name))
    assert "maximises" not in study_subtitle(reader.find_study(made.engine, made.name))


def test_the_objective_is_the_first_figure_of_the_table_and_what_charts_show(rare: Study) -> None:
    columns = columns_of(rare)
    assert columns.score_name == "macro-F1"
    names = [column.name for column in table_columns(columns, View(0))]
    assert names.index("macro_f1") < min(names.index(other) for other in ("top1", "macs"))
    assert columns.trained.tolist() == [True, True, True, False]  # the last has no macro-F1
    front = panels.front_info(columns, View(0))
    assert front.front.score_pct.tolist() == [100 * rare.row(n).macro_f1 for n in front.front.number.tolist()]
    assert panels.front_figure(front).layout.yaxis.title.text == "macro-F1, %"
    assert "in macro-F1, latency and macs at once" in " ".join(front.notes)
    numbers = panels.curve_numbers(columns, View(0))
    assert numbers[0] == rank(rare.rows(), Budget())[0].number


def test_a_trial_on_the_page_has_its_classes_and_a_confusion_matrix(made: Study) -> None:
    detail = detail_of(made, 2)
    classes = trial_tables(detail)["Classes"]
    assert classes.rows[0] == ("cat", "120", "50.0 %", "100.0 %", "dog (60)")
    info = confusion_info(detail)
    assert info.sentence().endswith("Least recognised: cat, 50.0 % of 120 images.")
    figure = confusion_figure(info)
    assert np.asarray(figure.data[0].customdata).tolist() == [[60, 60, 0], [0, 120, 0], [0, 0, 12]]
    assert np.asarray(figure.data[0].z)[0].tolist() == [50.0, 50.0, 0.0]
    assert list(figure.layout.xaxis.ticktext) == ["cat", "dog", "owl"]
    assert "wasn't recorded" in (confusion_info(detail_of(made, 3)).reason or "")


def test_of_many_classes_the_most_confused_are_drawn(tmp_path: Path) -> None:
    made, labels = Study(tmp_path), np.repeat(np.arange(50), 4)
    predicted = np.where(labels == 7, 31, labels)
    trained(made, 0.1, Predictions.of(np.eye(50)[predicted], labels))
    info = confusion_info(detail_of(made, 0))
    assert len(info.names) == 30
    assert {"class 7", "class 31"} <= set(info.names)
    assert "the 30 that are confused most" in info.sentence()
    assert len(info.table().rows) == 50


def test_compared_trials_say_whether_they_differ_by_more_than_noise(made: Study) -> None:
    info = compare_info([detail_of(made, number) for number in (0, 1, 2, 3)])
    lines = {row.label: row for row in info.rows}
    test = lines["top-1 against trial 0, image by image"]
    near, far = (paired_test(flawed(*other), flawed(5, 0)) for other in ((8, 1), (60, 2)))
    assert test.values == ("-", f"{near}: as good within noise", f"{far}: more than noise", "-")
    assert test.differs
    counts = lines["images that only it, and only trial 0, recognises"].values
    assert counts[1] == f"{near.only_first} and {near.only_second}"


# -- as good within noise --


def test_the_budgets_answer_says_what_is_noise_and_what_speaks_against_the_best(made: Study) -> None:
    columns = columns_of(made)
    read = []

    def recorded_of(numbers: Sequence[int]) -> Recorded:
        read.append(list(numbers))
        return read_recorded(made.engine, columns.study, numbers)

    table = BudgetTable.of(columns, Budget(0.4), recorded_of)
    assert len(read) == 1
    sentence = table.sentence({"host": 0.4})
    assert "Runner-up: trial 1 (" in sentence
    assert "96.83 %, as good within noise at" in sentence
    assert "1 class has fewer than 20 validation images (owl 12)" in sentence
    more = table.sentence({"host": 0.27})  # a fifth more reaches the slowest
    assert "would buy 98.02 %, as good within noise: trial 0" in more
    assert "noise" not in table.sentence({"host": 0.12})  # the runner-up there has no predictions
    assert "noise" not in BudgetTable.of(columns, Budget(0.4)).sentence({"host": 0.4})


def test_picking_names_what_is_cheaper_and_as_good_within_noise(made: Study) -> None:
    ranked = rank(made.rows(), Budget())
    assert [row.number for row in ranked] == [0, 1, 2, 3]
    (text,) = as_good_and_cheaper(made.engine, made.id, ranked)
    test = paired_test(flawed(8, 1), flawed(5, 0))
    assert text == f"trial 1 is as good within noise (top-1 {test}) and takes 50% of its latency"
    assert as_good_and_cheaper(made.engine, made.id, ranked[3:]) == ()  # from before: nothing to compare
    assert as_good_and_cheaper(made.engine, made.id, []) == ()
