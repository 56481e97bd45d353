"""What a good top-1 hides is said: few images of a class, a class never recognised, a network no better than chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from search.budget import Budget
from search.results.class_figures import class_figures, split_document, worst_first
from search.results.remarks import remarks_of_study, remarks_on_best, remarks_on_images, remarks_on_network
from tests.dashboards.studies import Study
from workers.metrics import Predictions

NAMES = ("cat", "dog", "owl")


def saying(*said: tuple[int, ...]) -> Predictions:
    """The predictions of a network: for each class, how many of its images are taken for which class."""
    labels = np.repeat(np.arange(len(said)), [sum(row) for row in said])
    predicted = np.concatenate([np.repeat(np.arange(len(row)), row) for row in said])
    return Predictions.of(np.eye(len(said))[predicted], labels)


def test_classes_with_few_validation_images_are_named_the_rarest_first() -> None:
    assert remarks_on_images((20, 400, 20), NAMES) == []
    (text,) = remarks_on_images((19, 400, 3), NAMES)
    assert text == (
        "2 classes have fewer than 20 validation images (owl 3, cat 19), so that what is said of them is little more "
        "than a guess; add images, or raise data.validation_fraction."
    )
    (text,) = remarks_on_images((5,) * 40, ())
    assert "40 classes have" in text
    assert text.count("class ") == 5


def test_a_class_that_is_never_recognised_is_named_with_its_images() -> None:
    network = saying((90, 10, 0), (5, 95, 0), (20, 10, 0))
    (text,) = remarks_on_network(network, NAMES, "top1", "trial 7")
    assert text == "1 class is never recognised by trial 7: owl (0 of 30)."
    assert remarks_on_network(saying((90, 10, 0), (5, 95, 0), (10, 10, 10)), NAMES, "top1", "trial 7") == []


def test_no_name_of_a_class_can_break_a_line_or_steer_a_terminal() -> None:
    names = ("cat\n\x1b[31m", "dog\u202e", "owl")
    network = saying((0, 30, 0), (30, 0, 0), (9, 10, 11))
    texts = [*remarks_on_images((19, 3, 400), names), *remarks_on_network(network, names, "top1", "trial 7")]
    assert len(texts) == 3
    assert all(text.isprintable() for text in texts)


def test_a_class_without_images_is_not_called_unrecognised() -> None:
    assert remarks_on_network(saying((90, 10, 0), (5, 95, 0), (0, 0, 0)), NAMES, "top1", "trial 7") == []


def test_a_network_that_is_no_better_than_naming_the_most_frequent_class_is_called_that() -> None:
    network = saying((85, 5, 0), (6, 4, 0), (0, 0, 0))
    (text,) = remarks_on_network(network, NAMES, "top1", "trial 7")
    assert text == (
        "trial 7 is not above chance: its top-1 is 89.00%, and naming 'cat' for every image gives 90.00%, as good "
        "within noise; see whether the trainings learn at all."
    )
    assert remarks_on_network(network, NAMES, "macro_f1", "trial 7") == []  # it does tell dogs from cats
    (text,) = remarks_on_network(saying((45, 45, 0), (5, 5, 0), (0, 0, 0)), NAMES, "balanced_accuracy", "trial 7")
    assert "its balanced accuracy is 50.00%, and guessing without looking gives 50.00%" in text


def test_the_remarks_of_a_study_use_what_is_recorded_and_say_nothing_of_what_is_not() -> None:
    assert remarks_of_study(None, None, "top1", "") == []
    assert remarks_of_study({"class_names": NAMES}, None, "top1", "") == []
    few = remarks_of_study({"class_names": NAMES, "validation_counts": [50, 50, 2]}, None, "top1", "")
    assert few == remarks_of_study({"class_names": NAMES}, saying((45, 5, 0), (0, 50, 0), (0, 0, 2)), "top1", "it")
    assert len(few) == 1


def test_a_launch_ends_with_what_speaks_against_its_best_network_inside_the_budget(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.store.set_data_info({"class_names": ["cat", "dog"], "validation_counts": [40, 9]})
    few = "1 class has fewer than 20 validation images (dog 9)"
    (remark,) = remarks_on_best(made.engine, made.name, Budget())
    assert remark.startswith(few)
    for latency_ms, said in ((0.1, saying((40, 0), (9, 0))), (0.3, saying((40, 0), (1, 8)))):
        number = made.done(latency_ms, said.metrics()["top1"] or 0.0)
        made.store.add_predictions(number, "validation", said.to_bytes())
    assert [text[:25] for text in remarks_on_best(made.engine, made.name, Budget())] == [few[:25]]
    small = remarks_on_best(made.engine, made.name, Budget(0.2))
    assert small[1:] == (
        "1 class is never recognised by trial 0: dog (0 of 9).",
        "trial 0 is not above chance: its top-1 is 81.63%, and naming 'cat' for every image gives 81.63%, as good "
        "within noise; see whether the trainings learn at all.",
    )


def test_each_class_has_its_recall_precision_and_what_it_is_taken_for() -> None:
    figures = class_figures(saying((90, 10, 0), (5, 95, 0), (20, 10, 0), (0, 0, 0)), NAMES)
    assert [(one.name, one.images, one.recall, one.confusion) for one in figures] == [
        ("cat", 100, 0.9, "dog (10)"),
        ("dog", 100, 0.95, "cat (5)"),
        ("owl", 30, 0.0, "cat (20)"),
        ("class 3", 0, None, ""),
    ]
    assert [one.precision for one in figures] == [90 / 115, 95 / 115, None, None]
    assert [one.name for one in worst_first(figures)] == ["owl", "cat", "dog"]


def test_a_splits_document_holds_every_figure_and_the_whole_matrix() -> None:
    document = split_document(saying((3, 1), (0, 4)), ("a", "b"))
    assert document == {
        "images": 8,
        "top1": 0.875,
        "balanced_accuracy": 0.875,
        "macro_f1": (6 / 7 + 8 / 9) / 2,
        "top5": None,
        "calibration_error": document["calibration_error"],
        "classes": [
            {"name": "a", "images": 4, "recall": 0.75, "precision": 1.0},
            {"name": "b", "images": 4, "recall": 1.0, "precision": 0.8},
        ],
        "confusion": [[3, 1], [0, 4]],
    }
