"""Learning curves: whose, condensing stages, the deployed form, and where a training stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from dashboards import panels
from dashboards.data.curves import read_curves, read_last_epochs
from tests.dashboards.panels.panel_studies import (
    KINDS,
    LARGE,
    awkward,
    columns_of,
    default_view,
    drawn_or_refused,
    named,
)
from tests.dashboards.studies import Study, lively


def curves_of(made: Study, *chosen: int) -> panels.CurvesInfo:
    columns = columns_of(made)
    numbers = panels.curve_numbers(columns, default_view(columns), chosen)
    return panels.curves_info(columns, read_curves(made.engine, made.id, numbers), numbers)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_study_is_shown_or_says_why_not(tmp_path: Path, kind: str) -> None:
    info = curves_of(awkward(tmp_path, kind))
    drawn_or_refused(panels.curves_figure, info)
    assert (info.reason is None) == bool(info.curves)
    assert all(len(row) == len(info.table().headers) for row in info.table().rows)


def test_the_most_accurate_of_the_front_come_first_and_no_more_than_eight(tmp_path: Path) -> None:
    made = Study(tmp_path)
    for index in range(11):
        made.done(0.1 + index / 100, 0.9 + index / 1000)
    info = curves_of(made)
    assert [curve.number for curve in info.curves] == list(range(10, 2, -1))
    assert info.left_out == 3
    assert any("3 more are not shown" in words for words in info.notes)


def test_chosen_trials_are_shown_in_the_order_they_were_chosen(tmp_path: Path) -> None:
    made = Study(tmp_path)
    beaten, best = made.done(0.3, 0.9, LARGE), made.done(0.2, 0.95)
    waiting = made.priced(0.2)
    info = curves_of(made, beaten, waiting, best, beaten, 999)
    assert [curve.number for curve in info.curves] == [beaten, best]
    assert info.without == (waiting,)


def test_before_the_first_training_has_ended_the_running_ones_are_shown(tmp_path: Path) -> None:
    made = Study(tmp_path)
    number = made.running(0.2)
    assert [curve.number for curve in curves_of(made).curves] == [number]


def test_marks_stand_at_condensing_stages_and_a_dot_at_the_deployed_form(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(0.2, 0.9)  # condenses at epochs 3, 5 and 7 of 12
    info = curves_of(made)
    (curve,) = info.curves
    assert [curve.epochs[place] for place in curve.condensed_at] == [3, 5, 7]
    traces = named(panels.curves_figure(info))
    marker = traces["trial 0"].marker
    assert [epoch for epoch, size in zip(curve.epochs, marker.size, strict=True) if size] == [3, 5, 7, 12]
    assert len({marker.symbol[place] for place in (*curve.condensed_at, -1)}) == 4
    assert marker.symbol[-1] == "circle"
    assert {"condensing stage 1", "condensing stage 3", "deployed"} <= set(traces)
    assert [row[-1] for row in info.table().rows] == ["first epoch", "condensed", "condensed", "condensed", "deployed"]


def test_a_stopped_training_ends_in_a_cross_that_says_why(tmp_path: Path) -> None:
    made = Study(tmp_path)
    number = made.running(0.2)
    made.store.finish(number, "failed", reason="the loss became <nan> & %{y}")
    figure = panels.curves_figure(curves_of(made))
    trace = named(figure)[f"trial {number}"]
    assert trace.marker.symbol[-1] == "x"
    assert "the loss became &lt;nan&gt; &amp; % {y}" in trace.hovertemplate
    assert "stopped" in named(figure)
    assert curves_of(made).table().rows[-1][-1] == "stopped: the loss became <nan> & %{y}"


def test_the_newest_epoch_is_read_of_all_that_are_not_done(tmp_path: Path) -> None:
    made = lively(tmp_path)
    last = read_last_epochs(made.engine, made.id)
    (number,) = last
    assert (last[number].epoch, last[number].progress) == (5, pytest.approx(5 / 12))
    assert made.rows()[number].state == "running"
    assert read_curves(made.engine, made.id, []) == {}
