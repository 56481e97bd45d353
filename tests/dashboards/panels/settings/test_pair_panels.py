"""Contour and slice: any two settings, what was reached, what is predicted, and why nothing can be said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dashboards import panels
from dashboards.data.columns import StudyColumns, View
from space.errors import InvalidSettings
from tests.dashboards.panels.panel_studies import (
    awkward,
    columns_of,
    default_view,
    drawn_or_refused,
    many,
    named,
)


@pytest.fixture(scope="module")
def decided() -> StudyColumns:
    """Networks whose top-1 rises with G and, half as much, with the growth of the first stage, and nothing else."""
    columns = many(240)
    top1 = 0.8 + 0.05 * np.log2(columns.groups_1x1) + 0.0125 * (columns.growth[:, 0] / 4 - 1)
    columns = replace(columns, top1=np.where(columns.trained, top1, np.nan), _fronts={})
    return replace(columns, groups_3x3=np.ones_like(columns.groups_1x1), _fronts={})


def test_the_prediction_follows_both_settings_and_is_called_predicted(decided: StudyColumns) -> None:
    info = panels.contour_info(decided, View(0))
    assert info.pair.keys == ("G", "growth_1")  # those that go along with the score most
    figure = drawn_or_refused(panels.contour_figure, info)
    cells = named(figure)["predicted"]
    assert "predicted" in cells.colorbar.title.text
    assert "predicted" in cells.hovertemplate
    assert np.allclose(info.predicted[:, 2] - info.predicted[:, 0], 10, atol=3)  # from G = 1 to 4: 2 x 5 points
    assert (np.diff(info.predicted.mean(axis=1)) > 0).all()
    assert info.r2 is not None
    assert info.r2 > 0.9
    assert info.notes[0].startswith("Predicted by a random forest from ")
    assert info.table().rows[0][:2] == ("4", "16")  # the best predicted first
    x, y, numbers = info.trained()
    assert numbers.sum() == decided.trained.sum()
    assert len(named(figure)["trained networks"].x) == len(x) == len(y)


def test_a_slice_shows_every_trained_network_at_its_value_and_the_medians(decided: StudyColumns) -> None:
    info = panels.slice_info(decided, View(0), ("C", "layers"), "latency")
    figure = drawn_or_refused(panels.slice_figure, info)
    shown = [trace for trace in figure.data if trace.mode == "markers"]
    assert sum(len(trace.x) for trace in shown) == 2 * decided.trained.sum()
    assert figure.layout.xaxis.ticktext == ("1", "2", "4")
    assert figure.layout.yaxis.title.text == "measured latency on host, ms"
    lines = {row[1]: row for row in info.table().rows if row[0] == "C"}
    for value in (1, 2, 4):
        of = decided.of_group(0).median_ms[decided.trained & (decided.condense_factor == value)]
        assert lines[str(value)][2:4] == (f"{len(of):,}", f"{np.median(of):.4g}")


def test_what_is_asked_for_is_shown_or_refused_in_one_line(decided: StudyColumns) -> None:
    assert panels.slice_info(decided, View(0), (None, "G")).pair.keys == ("growth_1", "G")
    tied = replace(decided, growth=decided.growth[:, :1] * np.array([1.0, 2.0, 4.0]), _fronts={})
    assert panels.slice_info(tied, View(0), ("growth_1", None)).pair.keys == ("growth_1", "G")  # not growth_2
    with pytest.raises(InvalidSettings, match=r"a setting is one of G, C, .* but got 'depth'"):
        panels.slice_info(decided, View(0), ("depth", None))
    with pytest.raises(InvalidSettings, match="two different settings are needed, but got G twice"):
        panels.contour_info(decided, View(0), ("G", "G"))
    with pytest.raises(InvalidSettings, match=r"an axis shows one of score, .* but got 'speed'"):
        panels.contour_info(decided, View(0), outcome="speed")
    same = panels.slice_info(decided, View(0), ("groups_3x3", None))
    assert (same.reason or "").startswith("groups_3x3 is the same in all trained networks; choose one of G, C")


def test_too_few_networks_and_noise_say_what_to_do(tmp_path: Path) -> None:
    columns = columns_of(awkward(tmp_path, "ties"))
    for draw, info in (
        (panels.contour_figure, panels.contour_info(columns, default_view(columns))),
        (panels.slice_figure, panels.slice_info(columns, default_view(columns))),
    ):
        drawn_or_refused(draw, info)
        assert "only 4 trained networks have a top-1: wait for the next trainings" in (info.reason or "")
        assert info.table().rows == ()
    columns = many(100)
    noise = np.where(columns.trained, np.random.default_rng(0).uniform(0.8, 0.9, 100), np.nan)
    noisy = replace(columns, top1=noise, _fronts={})
    info = panels.contour_info(noisy, View(0))
    assert "don't predict top-1" in (info.reason or "")
    assert "train more networks" in (info.reason or "")
    assert panels.slice_info(noisy, View(0)).reason is None  # what was reached can be shown
