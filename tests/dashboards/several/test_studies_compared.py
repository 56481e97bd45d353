"""What several studies can be compared by, the front of all of them, and the best of each inside one limit."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dashboards.data.column_reader import read_columns
from dashboards.data.columns import StudyColumns
from dashboards.panels.studies.fronts_drawing import drawn, fronts_figure
from dashboards.studies.common_ground import common_ground, why_other_images
from dashboards.studies.documents import point_rows
from dashboards.studies.fronts import Comparison, compare
from search.results.pareto import non_dominated
from tests.dashboards.several.several_studies import IMAGES, ODD, several


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StudyColumns]:
    made = several(tmp_path_factory.mktemp("several"))
    names = ("first", "second", ODD, "elsewhere", "others", "other split")
    return {name: read_columns(made.engine, name) for name in names}


def beside(studies: dict[str, StudyColumns], *names: str, **options: Any) -> Comparison:
    return compare([studies[name] for name in names], **options)


# ---- who can be compared --------------------------------------------------------------------------------


def test_images_are_the_same_by_content_and_split_not_by_name(studies: dict[str, StudyColumns]) -> None:
    first = studies["first"].study

    def why(data: Any = None, **info: Any) -> str:
        settings = {**first.settings, "data": {**first.settings["data"], **(data or {})}}
        return why_other_images(first, replace(first, settings=settings, data_info={**IMAGES, **info}))

    assert why(dataset="the same under another name") == ""
    assert why({"dataset": "imagefolder:/elsewhere", "split_seed": 0, "validation_fraction": 0.2}) == ""  # the defaults
    assert why(fingerprint="0123456789abcdef").startswith(
        "its images are others: Digits (8x8, scikit-learn) (content 0123"
    )
    assert "data.split_seed 7 instead of 0" in why({"split_seed": 7})
    assert "data.images 100 instead of none" in why({"images": 100})
    assert "288" in why(validation_images=300)
    assert why(fingerprint="") == "which images first is trained on isn't known: that isn't recorded."
    assert "has not read them yet" in why_other_images(first, replace(first, name="new", data_info=None))


def test_studies_that_cant_be_compared_are_left_out_and_it_is_said_why(studies: dict[str, StudyColumns]) -> None:
    found = beside(studies, "first", "second", "elsewhere", "others")
    refusals = [study.refusal for study in found.studies]
    assert refusals[:2] == ["", ""]
    assert "no latency measured on host:intel-xeon-8370c" in refusals[2]
    assert "estimated on pi5:a76" in refusals[2]
    assert "images are others" in refusals[3]
    assert found.reason is None
    assert not found.studies[2].front
    alone = beside(studies, "first", "others", "other split")
    assert alone.reason == "These studies can't be compared."
    assert [part.partition(":")[0] for part in alone.sentences(None)] == [alone.reason, "others", "other split"]
    assert beside(studies, "first").reason == "Choose a second study to compare it with."


def test_what_all_share_is_offered_first_and_macs_compare_what_latencies_cant(studies: dict[str, StudyColumns]) -> None:
    ground = common_ground([studies["first"], studies["elsewhere"]])
    assert [view.axis for view in ground.views] == ["macs", "params", "latency", "latency"]
    found = beside(studies, "first", "elsewhere")
    assert found.reason is None
    assert all(study.front and not study.refusal for study in found.studies)
    assert beside(studies, "first", "second").view.axis == "latency"


def test_studies_that_maximise_different_things_are_compared_by_top_1(studies: dict[str, StudyColumns]) -> None:
    settings = {**studies["second"].study.settings}
    settings["study"] = {**settings["study"], "objective": "macro_f1"}
    other = replace(studies["second"], study=replace(studies["second"].study, settings=settings))
    found = compare([studies["first"], other])
    assert found.score_name == "top-1"
    assert "maximise different things (first top-1, second macro-F1)" in found.doubts[0]


# ---- fronts and limits ----------------------------------------------------------------------------------


def test_the_front_of_all_is_the_front_of_all_their_networks(studies: dict[str, StudyColumns]) -> None:
    found = beside(studies, "first", "second", ODD)
    columns = [studies[name] for name in ("first", "second", ODD)]
    everything = np.concatenate(
        [
            np.stack((-one.score, one.latencies["host"].median_ms, one.macs.astype(float)), axis=1)[one.trained]
            for one in columns
        ]
    )
    wanted = {(-score, ms) for score, ms, _ in everything[non_dominated(everything)].tolist()}
    marked = {(one.score, one.cost) for study in found.studies for one in study.front if one.on_combined}
    assert marked == wanted
    assert any(not one.on_combined for study in found.studies for one in study.front)
    for study, one in zip(found.studies, columns, strict=True):
        assert {network.number for network in study.front} == set(one.number[one.front(0)].tolist())
    rows = point_rows(found.studies)
    assert sum(row[5] == "yes" for row in rows) == len(wanted)


@pytest.mark.parametrize(("limit", "bests"), [(0.05, (None, None)), (0.2, (0.93, 0.95)), (None, (0.97, 0.96))])
def test_one_limit_gets_the_best_of_each_by_the_upper_ends_of_intervals(
    studies: dict[str, StudyColumns], limit: float | None, bests: tuple[float | None, ...]
) -> None:
    found = beside(studies, "first", "second")
    for study, columns, wanted in zip(found.studies, (studies["first"], studies["second"]), bests, strict=True):
        inside = columns.trained & (columns.latencies["host"].high_ms <= (limit or np.inf))
        assert wanted == (columns.score[inside].max() if inside.any() else None)
        best = study.best(limit)
        assert (best and best.score) == wanted
    assert found.limit == 0.25  # the smallest that they were searched under


def test_a_limit_is_answered_in_a_sentence_that_says_who_may_be_as_good(studies: dict[str, StudyColumns]) -> None:
    found = beside(studies, "first", "second", ODD)
    assert found.sentences(0.2) == [
        "The best inside 0.2 ms is trial 1 of second, 95.00 % top-1; by their 95 % intervals the best of first may be "
        "as good."
    ]
    assert found.sentences(0.01) == ["No trained network of these studies is inside 0.01 ms."]


def test_the_figure_draws_each_study_in_its_own_look_and_no_name_as_markup(studies: dict[str, StudyColumns]) -> None:
    found = beside(studies, "first", ODD)
    figure = fronts_figure(found)
    marks = {trace.meta["study"]: trace.marker for trace in figure.data if trace.meta and "study" in trace.meta}
    assert marks.keys() == {"first", ODD}
    assert marks["first"].symbol != marks[ODD].symbol
    assert marks["first"].color != marks[ODD].color
    assert "measured latency on host:intel-xeon-8370c" in figure.layout.xaxis.title.text.replace("<br>", " ")
    assert all("<b>" not in (trace.name or "") for trace in figure.data)
    json.dumps(drawn(found), allow_nan=False)
    json.dumps(drawn(beside(studies, "first", "others")), allow_nan=False)
