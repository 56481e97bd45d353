"""One trial's measurements and tables, and trials side by side, from real databases."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from dashboards.data.trial_detail import TrialDetail, read_trial_detail
from dashboards.panels.trial.compare import compare_figure, compare_info
from dashboards.panels.trial.measurements import MOST_SAMPLES, measurements_figure, measurements_info
from dashboards.panels.trial.tables import settings_json, trial_tables
from search.store import reader
from space.config import CondenseNetConfig
from tests.dashboards.studies import SMALL, Study
from tests.workers.latencies import without_samples

HOSTILE = "<script>alert(1)</script>\n" + "x" * 10_000
LARGER = CondenseNetConfig(**{**SMALL.to_dict(), "growth": [8, 32]})


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Study]:
    made = Study(tmp_path)
    yield made
    made.engine.dispose()


def detail_of(made: Study, number: int) -> TrialDetail:
    return read_trial_detail(made.engine, reader.find_study(made.engine, made.name), number)


# ---- measurements ----------------------------------------------------------------------------------------


def priced_everywhere(made: Study) -> TrialDetail:
    number = made.done(0.3, 0.95, policy="standard")
    made.store.add_latency(number, made.measurement(number, 0.31, policy="standard", steady=False, purpose="verify"))
    made.store.add_latency(number, made.measurement(number, 2.4, device="pi5", target="garden", purpose="verify"))
    summary = without_samples(4.2, 3.1, 5.6)
    estimate = made.measurement(number, 4.2, kind="estimated", **summary, policy="counts")
    made.store.add_latency(
        number, dataclasses.replace(estimate, extrapolates=True, target="virtual:x", purpose="verify")
    )
    return detail_of(made, number)


def test_latencies_that_cant_be_compared_never_share_an_axis(made: Study):
    info = measurements_info(priced_everywhere(made))
    assert [len(strip.rows) for strip in info.strips] == [2, 1, 1]
    figure = measurements_figure(info)
    for number, strip in enumerate(info.strips, 1):
        axis = "x" if number == 1 else f"x{number}"
        seen = np.concatenate([np.asarray(trace.x) for trace in figure.data if trace.xaxis == axis])
        timed = [sample for row in strip.rows for process in row.measurement.samples_ms for sample in process]
        medians = [row.measurement.median_ms for row in strip.rows]
        assert sorted(seen.tolist()) == pytest.approx(sorted([*timed, *medians]), rel=1e-6)
    domains = [figure.layout[f"yaxis{suffix}"].domain for suffix in ("", "2", "3")]
    assert all(below[1] < above[0] for above, below in pairwise(domains))


def test_the_table_says_what_each_latency_is_worth(made: Study):
    rows = measurements_info(priced_everywhere(made)).table().rows
    assert [row[1] for row in rows] == [
        "before training, standard",
        "trained file, standard",
        "trained file, quick",
        "trained file, counts",
    ]
    assert rows[0][-1] == "the trial is judged by it"
    assert rows[1][-1] == "the machine was not steady"
    assert rows[3][6] == "none: nothing was timed"
    assert rows[3][-1] == "outside the calibrated range"


def test_many_samples_are_thinned_and_the_table_says_so(made: Study):
    samples = tuple(tuple(1 + i / 1e6 for i in range(5000)) for _ in range(3))
    number = made.priced(1.0, samples_ms=samples)
    info = measurements_info(detail_of(made, number))
    (row,) = info.strips[0].rows
    assert [len(process) for process in row.processes] == [MOST_SAMPLES] * 3
    assert {process[0] for process in row.processes} == {1.0}
    assert {process[-1] for process in row.processes} == {samples[0][-1]}
    assert info.table().rows[0][6] == f"15,000 ({3 * MOST_SAMPLES} drawn)"


def test_a_trial_without_a_latency_says_so(made: Study):
    info = measurements_info(detail_of(made, made.asked()))
    assert info.reason == "Trial 0 is asked and has no latency yet."
    assert len(measurements_figure(info).layout.annotations) == 1
    assert "No trial is chosen" in (measurements_info(None).reason or "")


# ---- side by side ----------------------------------------------------------------------------------------


def marks(info) -> dict[str, str]:
    return {row[2]: row[0] for row in info.table().rows}


def test_what_differs_is_marked_and_what_is_equal_too(made: Study):
    pair = [detail_of(made, made.done(0.2, 0.9)), detail_of(made, made.done(0.4, 0.95, LARGER))]
    info = compare_info(pair)
    assert info.names == ("trial 0", "trial 1")
    found = marks(info)
    for label in ("growth", "macs", "params", "top-1, validation", "ms on host"):
        assert found[label] == "≠"
    for label in ("stages", "groups", "groups 3x3", "state", "epochs", "seed"):
        assert found[label] == "="
    assert info.differences == list(found.values()).count("≠")
    assert f"{info.differences} of {len(info.rows)} lines differ" in info.sentence()


def test_values_that_only_look_equal_are_marked_as_different(made: Study):
    details = [detail_of(made, made.done(0.2, top1)) for top1 in (0.9, 0.9 + 1e-7)]
    row = next(row for row in compare_info(details).rows if row.label == "top-1, validation")
    assert (row.values[0] == row.values[1], row.differs) == (True, True)


@pytest.mark.parametrize(("count", "sentence"), [(0, "Choose two to four"), (1, "Choose two to four"), (5, "untick 1")])
def test_too_few_and_too_many_are_refused_in_a_sentence(made: Study, count: int, sentence: str):
    info = compare_info([detail_of(made, made.done(0.2, 0.9)) for _ in range(count)])
    assert sentence in (info.reason or "")
    assert info.rows == ()
    assert sentence in compare_figure(info).layout.annotations[0].text.replace("<br>", " ")


def test_the_same_trial_twice_is_one(made: Study):
    detail = detail_of(made, made.done(0.2, 0.9))
    assert "Choose two to four" in (compare_info([detail, detail]).reason or "")


def test_ratios_are_over_the_first_trial_and_of_like_latencies_only(made: Study):
    details = [
        detail_of(made, made.done(0.2, 0.9)),
        detail_of(made, made.done(0.4, 0.95, LARGER)),
        detail_of(made, made.done(9.0, 0.8, kind="estimated")),
    ]
    ratios = {row.label: row.ratios for row in compare_info(details).ratios}
    assert ratios["errors (1 - top-1)"] == pytest.approx((1, 0.5, 2))
    assert ratios["measured latency on host"][1] == pytest.approx(2, rel=0.02)
    assert np.isnan(ratios["measured latency on host"][2])
    figure = compare_figure(compare_info(details))
    assert [trace.name for trace in figure.data] == ["trial 0", "trial 1", "trial 2"]
    assert len({trace.marker.symbol for trace in figure.data}) == 3


@pytest.mark.parametrize(("latency_ms", "close"), [(0.22, True), (0.9, False)])
def test_ratios_near_one_stand_on_an_axis_of_differences_in_percent(made: Study, latency_ms: float, close: bool):
    details = [detail_of(made, made.done(0.2, 0.9)), detail_of(made, made.done(latency_ms, 0.91))]
    info = compare_info(details)
    figure = compare_figure(info)
    ratios = np.array([row.ratios[1] for row in info.ratios])
    shown = 100 * (ratios - 1) if close else ratios
    assert figure.data[1].x == pytest.approx(shown, rel=1e-5, abs=1e-5)
    assert figure.data[1].customdata == pytest.approx(ratios)
    axis = figure.layout.xaxis
    if close:
        assert axis.type is None  # linear
        assert axis.title.text == "difference to trial 0, %"
        assert axis.range[0] < shown.min() <= shown.max() < axis.range[1]
    else:
        assert (axis.type, axis.title.text) == ("log", "times as much as trial 0")


def test_trials_that_were_never_trained_are_compared_by_their_costs(made: Study):
    info = compare_info([detail_of(made, made.asked()), detail_of(made, made.failed("nan"))])
    assert [row.label for row in info.ratios] == ["macs", "params"]
    assert marks(info)["state"] == "≠"


# ---- tables ----------------------------------------------------------------------------------------------


def test_the_tables_tell_the_whole_trial(made: Study):
    number = made.done(0.2, 0.9)
    made.store.add_artifacts(number, {"model.onnx": ("/there/model.onnx", "c" * 64)})
    detail = detail_of(made, number)
    tables = trial_tables(detail)
    assert list(tables) == ["Outcome", "Classes", "Settings", "Learning curve", "Files", "Attempts", "Events"]
    outcome = dict(tables["Outcome"].rows)
    assert outcome["state"] == "done"
    assert outcome["macs"].startswith(f"{detail.row.macs:,} ")
    assert outcome["top-1, test"] == "not tested"
    assert "measured, quick" in outcome["latency on host"]
    assert len(tables["Learning curve"].rows) == 12
    assert tables["Files"].rows == (("model.onnx", "/there/model.onnx", "c" * 64, "kept"),)
    assert len(tables["Attempts"].rows) == 1


def test_the_exact_settings_can_be_copied_and_read_back(made: Study):
    detail = detail_of(made, made.done(0.2, 0.9))
    exact = json.loads(settings_json(detail))
    assert CondenseNetConfig.from_dict(exact["config"]) == SMALL
    assert (exact["training"], exact["data"], exact["seed"]) == ({"epochs": 12}, {"dataset": "digits"}, 0)


def test_every_row_is_as_wide_as_its_headers(made: Study):
    for table in trial_tables(detail_of(made, made.running(0.2))).values():
        assert {len(row) for row in table.rows} <= {len(table.headers)}


def test_hostile_texts_are_one_line_and_stay_text(made: Study):
    number = made.priced(0.2, device=HOSTILE[:150])
    made.store.set_running(number, 1)
    made.store.finish(number, "failed", reason=HOSTILE)
    made.store.add_artifacts(number, {HOSTILE[:90]: (HOSTILE, "c" * 64)})
    details = [detail_of(made, number), detail_of(made, made.priced(0.3, device="<b>other</b>"))]
    figures = measurements_figure(measurements_info(details[0])), compare_figure(compare_info(details))
    for figure in figures:
        assert "<script" not in figure.to_json()
        assert "<b>other" not in figure.to_json()
    tables = [*trial_tables(details[0]).values(), compare_info(details).table(), measurements_info(details[0]).table()]
    cells = [cell for table in tables for row in table.rows for cell in row]
    assert max(map(len, cells)) <= 400
    assert not any("\n" in cell for cell in cells)
