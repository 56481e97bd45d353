"""The charts' plain data, and that each figure draws it: budgets, latency groups, the pick, reasons for emptiness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dashboards import old_panels as panels
from dashboards.queries import load_study_view
from search.store import reader
from space.config import CondenseNetConfig
from tests.dashboards.studies import Study, lively

LARGE = CondenseNetConfig(stages=(4, 4), growth=(16, 16), input_shape=(1, 8, 8))


@pytest.fixture
def made(tmp_path: Path) -> Study:
    return Study(tmp_path)


def front_of(made: Study, budget_ms: float | None = None) -> panels.FrontInfo:
    view = load_study_view(made.engine, made.name)
    return panels.front_info(view.trials, view.front, budget_ms)


def traces(figure: Any) -> dict[str, Any]:
    return {trace.name: trace for trace in figure.data}


def texts(figure: Any) -> str:
    return " | ".join(annotation.text for annotation in figure.layout.annotations)


def test_the_pick_is_the_most_accurate_whose_interval_fits(made: Study) -> None:
    fast = made.done(0.2, 0.90)
    made.done(0.3, 0.95, LARGE)
    assert made.row(1).latency is not None
    high = made.row(1).latency.interval_high_ms  # type: ignore[union-attr]
    assert front_of(made, high).recommended == 1
    assert front_of(made, high - 1e-6).recommended == fast
    assert front_of(made, 0.1).recommended is None
    assert front_of(made).recommended == 1


def test_each_role_gets_its_own_trace_and_the_budget_a_line(made: Study) -> None:
    made.done(0.2, 0.90)
    made.done(0.3, 0.95)
    made.done(0.31, 0.80, LARGE)
    made.infeasible(0.9)
    info = front_of(made, 0.35)
    assert [point.role for point in info.points] == ["front", "front", "done", "infeasible"]
    figure = panels.front_figure(info)
    named = traces(figure)
    assert list(named["other trained"].y) == [80.0]
    assert list(named["on the front"].y) == [90.0, 95.0]
    assert named["most accurate so far"].line.shape == "hv"
    assert named["over a budget, not trained"].yaxis == "y2"
    assert named["recommended: trial 1"].marker.symbol == "star"
    assert figure.layout.shapes[0].x0 == 0.35
    assert "budget 0.350 ms" in texts(figure)
    assert named["on the front"].error_x.array[0] > 0


def test_the_steps_skip_what_stands_on_the_front_for_its_macs(made: Study) -> None:
    made.done(0.2, 0.95, LARGE)
    made.done(0.3, 0.90)  # slower and less accurate, but with fewer macs
    info = front_of(made)
    assert [point.role for point in info.points] == ["front", "front"]
    assert [point.number for point in info.line(0)] == [0]


def test_latencies_of_several_kinds_are_never_in_one_trace(made: Study) -> None:
    made.done(0.2, 0.9)
    made.done(0.3, 0.8, kind="predicted", policy="standard")
    made.done(0.4, 0.7, device="phone <b>")
    info = front_of(made)
    assert len(info.groups) == 3
    figure = panels.front_figure(info)
    marked = [trace for trace in figure.data if trace.mode == "markers" and not trace.name.startswith("recommended")]
    assert [len(trace.x) for trace in marked] == [1, 1, 1]
    assert len({trace.marker.symbol for trace in marked}) == 3
    assert any("predicted" in trace.name for trace in marked)
    assert any("phone &lt;b&gt;" in trace.name for trace in marked)


def test_a_wide_range_of_latencies_gets_a_logarithmic_axis(made: Study) -> None:
    made.done(0.2, 0.9)
    made.done(1.0, 0.95)
    assert panels.front_figure(front_of(made)).layout.xaxis.type is None
    made.done(2.5, 0.97)
    figure = panels.front_figure(front_of(made, 1.0))
    assert figure.layout.xaxis.type == "log"
    budget = next(a for a in figure.layout.annotations if a.text.startswith("budget"))
    assert budget.x == pytest.approx(0.0)  # plotly wants the exponent
    assert figure.layout.shapes[0].x0 == 1.0  # and here the value


def test_only_refused_candidates_still_make_a_chart(made: Study) -> None:
    made.infeasible(0.9)
    info = front_of(made, 0.4)
    assert info.reason is None
    assert "No trained network yet" in texts(panels.front_figure(info))


def test_what_cannot_be_drawn_says_why(made: Study) -> None:
    assert texts(panels.front_figure(front_of(made))) == "No trials yet."
    made.failed("broken")
    info = front_of(made)
    assert info.reason == "No trial has a latency yet."
    assert texts(panels.front_figure(info)) == info.reason
    macs = panels.macs_latency_info(made.rows(), (), None)
    assert texts(panels.macs_latency_figure(macs)) == macs.reason
    curves = panels.curves_info(made.rows(), {}, 8)
    assert texts(panels.curves_figure(curves)) == curves.reason


def test_macs_refusals_are_named_where_nothing_was_measured(made: Study) -> None:
    made.store.finish(made.asked(), "infeasible", reason="200,000 macs > 100,000")
    assert "over a limit on macs or params" in (front_of(made).reason or "")


def test_the_rank_correlation_is_spearmans(made: Study) -> None:
    small, large = CondenseNetConfig((1, 1), (8, 8), input_shape=(1, 8, 8)), LARGE
    middle = CondenseNetConfig((2, 2), (8, 16), input_shape=(1, 8, 8))
    for config, latency_ms in ((small, 0.1), (middle, 0.5), (large, 0.3)):
        made.done(latency_ms, 0.9, config)
    info = panels.macs_latency_info(made.rows(), (), None)
    assert info.rank_correlations == (pytest.approx(0.5),)  # ranks 1 2 3 against 1 3 2
    assert len(traces(panels.macs_latency_figure(info))["other trained"].x) == 3


def test_two_points_have_no_rank_correlation(made: Study) -> None:
    made.done(0.1, 0.9)
    made.done(0.2, 0.9, LARGE)
    assert panels.macs_latency_info(made.rows(), (), None).rank_correlations == (None,)


def test_condensing_stages_and_the_deployed_form_change_the_marker(made: Study) -> None:
    number = made.done(0.2, 0.9)
    curves = {number: reader.read_curve(made.engine, made.row(number).id)}
    figure = panels.curves_figure(panels.curves_info(made.rows(), curves))
    symbols = list(figure.data[0].marker.symbol)
    assert symbols[:4] == ["circle", "circle", "square", "square"]
    assert symbols[-1] == "star"
    assert "deployed form" in figure.data[0].text[-1]
    assert {"trial 0", "before condensing", "stage 1", "stage 3", "deployed"} <= set(traces(figure))


def test_more_curves_than_can_be_told_apart_are_counted(tmp_path: Path) -> None:
    made = lively(tmp_path / "..")
    rows = [row for row in made.rows() if row.state == "done"]
    curves = {row.number: reader.read_curve(made.engine, row.id) for row in rows}
    info = panels.curves_info(rows, curves, most=5)
    assert len(info.curves) == 5
    assert info.left_out == len(rows) - 5
