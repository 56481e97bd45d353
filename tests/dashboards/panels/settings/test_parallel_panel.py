"""Parallel coordinates: which dimensions there are, where values stand, and what a brush chooses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards import panels
from dashboards.data.columns import View
from dashboards.panels.settings.dimensions import round_values
from dashboards.panels.settings.parallel import inside
from tests.dashboards.panels.panel_studies import (
    KINDS,
    LARGE,
    awkward,
    columns_of,
    default_view,
    drawn_or_refused,
    is_sound,
    many,
)
from tests.dashboards.studies import Study, lively


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_study_is_shown_or_says_why_not(tmp_path: Path, kind: str) -> None:
    columns = columns_of(awkward(tmp_path, kind))
    info = panels.parallel_info(columns, default_view(columns))
    drawn_or_refused(panels.parallel_figure, info)
    assert info.reason is not None  # none has two networks that differ
    assert info.table().rows == ()


def test_only_what_varies_among_the_trained_is_a_dimension(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(0.1, 0.9)
    made.done(0.2, 0.95, LARGE)  # more layers, growth 16-16 in place of 8-16; G, C and bottleneck the same
    columns = columns_of(made)
    info = panels.parallel_info(columns, default_view(columns))
    keys = [one.key for one in info.dimensions]
    assert keys == ["layers", "growth_1", "macs", "latency", "score"]
    assert info.number.tolist() == [0, 1]
    assert info.table().headers[0] == "trial"
    assert info.table().rows[0][:2] == ("1", "8")  # the most accurate first


def test_training_settings_that_vary_are_dimensions_and_what_always_goes_along_is_not() -> None:
    columns = many(200)
    rates = np.geomspace(0.01, 0.5, 200)
    columns = replace(
        columns,
        training=tuple({"epochs": 12, "learning_rate": float(rate), "kind": "sgd"} for rate in rates),
        growth=columns.growth[:, :1] * np.array([1.0, 2.0, 4.0]),
    )
    keys = [one.key for one in panels.parallel_info(columns, View(0)).dimensions]
    assert "training.learning_rate" in keys
    assert not {"training.epochs", "training.kind", "growth_2", "growth_3", "groups_3x3"} & set(keys)
    assert keys[-3:] == ["macs", "latency", "score"]


def test_more_dimensions_than_a_screen_holds_are_named() -> None:
    columns = many(200)
    wide = replace(columns, stages=np.tile(columns.stages, 2), growth=np.tile(columns.growth, 2))
    rng = np.random.default_rng(1)
    wide = replace(wide, stages=rng.permuted(wide.stages, axis=0), growth=rng.permuted(wide.growth, axis=0))
    info = panels.parallel_info(wide, View(0))
    assert len(info.dimensions) == 13
    assert "layers 6" in info.left_out
    assert any("layers 6" in words for words in info.notes)


def test_the_values_of_all_trials_stand_where_the_charts_do(tmp_path: Path) -> None:
    columns = columns_of(lively(tmp_path))
    view = default_view(columns)
    info = panels.parallel_info(columns, view)
    everywhere = panels.dimension_values(columns, view)
    places = np.searchsorted(columns.number, info.number)
    for one in info.dimensions:
        assert np.allclose(everywhere[one.key][places], one.plotted, equal_nan=True)
        assert len(everywhere[one.key]) == len(columns)
    assert np.isnan(everywhere["score"][~columns.trained]).all()


def test_every_network_has_a_place_on_every_axis_or_is_counted_as_left_out(tmp_path: Path) -> None:
    made = lively(tmp_path)  # networks of two and of three stages
    columns = columns_of(made)
    info = panels.parallel_info(columns, default_view(columns))
    assert len(info.number) == columns.trained.sum()
    assert all(np.isfinite(one.plotted).all() for one in info.dimensions)
    third = next(one for one in info.dimensions if one.key == "growth_3")
    assert set(third.values) > {0.0}
    elsewhere = made.done(3.0, 0.9, kind="estimated")
    columns = columns_of(made)
    info = panels.parallel_info(columns, default_view(columns))
    assert elsewhere not in info.number
    assert any(words.startswith("1 more has no latency") for words in info.notes)


@given(
    st.lists(st.integers(0, 9).map(float), min_size=1, max_size=20),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted), max_size=3),
)
def test_a_brush_chooses_what_lies_in_one_of_its_ranges(values: list[float], ranges: list[list[int]]) -> None:
    spans = [(float(low), float(high)) for low, high in ranges]
    mask = inside({"a": np.array(values)}, {"a": spans, "unknown": [(0.0, 1.0)]}, len(values))
    wanted = [not spans or any(low <= value <= high for low, high in spans) for value in values]
    assert mask.tolist() == wanted


def test_brushes_of_several_dimensions_all_hold(tmp_path: Path) -> None:
    columns = columns_of(lively(tmp_path))
    info = panels.parallel_info(columns, default_view(columns))
    assert panels.brushed(info, {}).all()
    found = panels.brushed(info, {"G": [(np.log10(2), np.log10(4))], "score": [(95.0, 100.0)]})
    places = np.searchsorted(columns.number, info.number)
    wanted = (columns.groups_1x1[places] >= 2) & (columns.top1[places] >= 0.95)
    assert found.tolist() == wanted.tolist()
    assert 0 < found.sum() < len(found)


def test_the_axes_have_their_keys_ticks_and_the_lines_their_accuracy(tmp_path: Path) -> None:
    columns = columns_of(lively(tmp_path))
    info = panels.parallel_info(columns, default_view(columns))
    figure = panels.parallel_figure(info)
    is_sound(figure)
    (trace,) = figure.data
    assert [one.name for one in trace.dimensions] == [one.key for one in info.dimensions]
    first = trace.dimensions[0]
    assert first.label == "G"
    assert list(first.ticktext) == ["1", "2", "4"]
    assert np.allclose(first.tickvals, np.log10([1, 2, 4]))
    assert all(low <= tick <= high for one in trace.dimensions for low, high in [one.range] for tick in one.tickvals)
    assert np.allclose(trace.line.color, info.dimensions[-1].values)
    assert figure.layout.meta["min_width_px"] == 63 * len(info.dimensions) + 60
    assert trace.line.colorbar.title.text == "top-1, %"
    on_front = columns.front(0)[np.searchsorted(columns.number, info.number)]
    assert figure.layout.meta["front"] == np.flatnonzero(on_front).tolist()
    alone = panels.parallel_info(columns, default_view(columns), front_only=True)
    assert set(alone.number) == set(info.number[on_front])


@given(st.floats(1e-3, 1e9), st.floats(1.0001, 1e4), st.booleans())
def test_ticks_are_some_round_values_inside(low: float, ratio: float, log: bool) -> None:
    found = round_values(low, low * ratio, log)
    assert 1 <= len(found) <= 16
    assert all(low * (1 - 1e-6) <= value <= low * ratio * (1 + 1e-6) for value in found)
    assert found == sorted(set(found))
