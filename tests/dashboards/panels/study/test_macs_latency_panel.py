"""Macs against latency: rank correlation, the networks that macs mislead about, the contradiction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from dashboards import panels
from dashboards.data.columns import View
from dashboards.panels.study.macs_latency import rank_correlation
from space.config import CondenseNetConfig
from space.cost import cost_of
from tests.dashboards.panels.panel_studies import (
    KINDS,
    LARGE,
    awkward,
    columns_of,
    default_view,
    drawn_or_refused,
    is_sound,
    many,
    named,
)
from tests.dashboards.studies import SMALL, Study, lively

TINY = CondenseNetConfig((1, 1), (8, 8), input_shape=(1, 8, 8))


def info_of(made: Study, **given: object) -> panels.MacsLatencyInfo:
    columns = columns_of(made)
    return panels.macs_latency_info(columns, default_view(columns), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_study_is_shown_or_says_why_not(tmp_path: Path, kind: str) -> None:
    info = info_of(awkward(tmp_path, kind), budget=0.3)
    drawn_or_refused(panels.macs_latency_figure, info)
    assert all(len(row) == len(info.table().headers) for row in info.table().rows)


@given(st.lists(st.tuples(st.integers(0, 5).map(float), st.integers(0, 5).map(float)), max_size=15))
def test_the_rank_correlation_is_spearmans(pairs: list[tuple[float, float]]) -> None:
    first, second = (np.array([pair[i] for pair in pairs]) for i in (0, 1))
    found = rank_correlation(first, second)
    if len(pairs) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        assert found is None
    else:
        assert found == pytest.approx(spearmanr(first, second).statistic)


def test_the_contradiction_is_fewer_macs_and_surely_slower(tmp_path: Path) -> None:
    made = Study(tmp_path)
    slow = made.done(0.9, 0.9, TINY)
    made.done(0.5, 0.9, SMALL)
    fast = made.done(0.3, 0.9, LARGE)
    found = info_of(made).contradiction
    assert found is not None
    assert (found.fewer, found.more) == (slow, fast)
    assert found.macs == (cost_of(TINY).macs, cost_of(LARGE).macs)
    assert "takes 3.01 times as long" in str(found)


def test_what_could_be_chance_is_no_contradiction(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(0.301, 0.9, TINY)
    made.done(0.3, 0.9, LARGE)
    columns = columns_of(made)
    known = columns.of_group(0)
    overlap = known.low_ms[0] <= known.high_ms[1]
    assert (info_of(made).contradiction is None) == overlap


@given(st.integers(0, 200))
def test_no_pair_contradicts_macs_more_than_the_one_that_is_named(seed: int) -> None:
    columns = many(30, seed)
    known = columns.of_group(0)
    shown = columns.trained | columns.is_state("infeasible")
    ratios = [
        known.low_ms[i] / known.high_ms[j]
        for i in np.flatnonzero(shown)
        for j in np.flatnonzero(shown)
        if columns.macs[i] < columns.macs[j]
    ]
    found = panels.macs_latency_info(columns, View(0)).contradiction
    if max(ratios) <= 1:
        assert found is None
    else:
        assert found is not None
        i, j = columns.index_of(found.fewer), columns.index_of(found.more)
        assert columns.macs[i] < columns.macs[j]
        assert known.low_ms[i] / known.high_ms[j] == pytest.approx(max(ratios))


def test_the_misled_are_those_whose_ranks_differ_most(tmp_path: Path) -> None:
    info = info_of(lively(tmp_path))
    assert len(info.misled) == 6
    apart = np.abs(info.rank_by_macs - info.rank_by_latency)
    assert (np.diff(apart) <= 0).all()
    figure = panels.macs_latency_figure(info)
    assert len(named(figure)["macs mislead most"].x) == 6
    first = info.table().rows[0]
    assert first[1] == str(info.misled.number[0])
    assert first[0] == f"{info.rank_by_macs[0]:g} by macs, {info.rank_by_latency[0]:g} by latency"


def test_few_networks_have_no_one_ringed(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(0.9, 0.9, TINY)
    made.done(0.3, 0.9, LARGE)
    info = info_of(made)
    assert len(info.misled) == 0
    assert info.correlation is None


def test_the_budget_lies_across_the_latency_axis(tmp_path: Path) -> None:
    made = lively(tmp_path)
    figure = panels.macs_latency_figure(info_of(made, budget=0.3, recommended=0))
    (line,) = figure.layout.shapes
    assert (line.name, line.y0, line.y1, line.xref) == ("budget", 0.3, 0.3, "paper")
    assert figure.data[-1].meta == "recommended"


def test_many_points_are_drawn_by_webgl_alone() -> None:
    figure = panels.macs_latency_figure(panels.macs_latency_info(many(3000), View(0)))
    assert {trace.type for trace in figure.data} == {"scattergl"}
    is_sound(figure)


@pytest.mark.parametrize("trials", [200, 10_000])
def test_who_was_refused_and_who_was_trained_differ_in_shape_and_colour(trials: int) -> None:
    columns = many(trials)
    found = named(panels.macs_latency_figure(panels.macs_latency_info(columns, default_view(columns))))
    markers = [found[name].marker for name in ("over a budget", "other trained", "on the front")]
    assert len({marker.color for marker in markers}) == 3
    assert len({marker.symbol for marker in markers}) == 3
    assert not any("thin" in marker.symbol for marker in markers)  # a line of a pixel or two, in a crowd a dot
