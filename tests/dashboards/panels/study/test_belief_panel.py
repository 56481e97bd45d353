"""What the search believes: the predicted front beside the trained one, and how right predictions were."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dashboards import panels
from dashboards.data.beliefs import read_study_belief
from dashboards.data.columns import View
from dashboards.panels.study.belief import BeliefInfo
from search.store.rows import Proposal
from search.store.vocabulary import ProposalReason
from tests.dashboards.panels.panel_studies import KINDS, awkward, columns_of, default_view, drawn_or_refused, is_sound
from tests.dashboards.studies import SETTINGS, SMALL, Study, lively


def info_of(made: Study, axis: Any = "latency") -> BeliefInfo:
    columns = columns_of(made)
    return panels.belief_info(columns, View(columns.default_group, axis), read_study_belief(made.engine, made.id))


@pytest.mark.parametrize("axis", ["latency", "macs", "params"])
def test_the_predicted_front_and_the_next_candidates_stand_beside_what_was_trained(tmp_path: Path, axis: str) -> None:
    info = info_of(lively(tmp_path), axis)
    assert info.reason is None
    assert len(info.front) == (6 if axis == "params" else 9)  # those that rise along the axis
    assert (np.diff(info.front.cost) > 0).all()
    assert (info.front.low_pct < info.front.score_pct).all()
    assert (info.front.score_pct < info.front.high_pct).all()
    assert len(info.ahead) == 3
    figure = panels.belief_figure(info)
    is_sound(figure)
    names = {trace.name for trace in figure.data if trace.name}
    assert names == {
        "predicted, 95 % interval", "predicted front", "trained front", "next candidates (predicted)"
    }  # fmt: skip
    assert info.table().rows[0][:3] == ("next", "expected to add 2 % to the front", "92.0 % [89.3, 94.7]")


def test_predictions_are_compared_with_what_was_reached(tmp_path: Path) -> None:
    made = Study(tmp_path)
    for top1 in (0.9, 0.915, 0.95):
        made.done(0.2, top1, SMALL, proposal=Proposal(ProposalReason.GAIN, 0.91, 0.01, 0.05))
    made.done(0.2, 0.9, SMALL, proposal=Proposal(ProposalReason.SPREAD))
    info = info_of(made)
    words = "2 of 3 trainings ended inside the 95 % interval predicted for it; the median error was 1 points"
    assert dict(info.facts) == {"how right it was": words}
    table = dict(info.tables)["Predicted, then reached"]
    assert [row[0] for row in table.rows] == ["2", "1", "0"]
    why, predicted = (
        "expected to add 5 % to the front",
        "91.0 % [88.5, 93.5]",
    )  # widened by 1.3: the first was 1 deviation off, the second 0.5
    assert table.rows[0] == ("2", why, predicted, "95.00 %", "+4.00", "outside")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_study_says_why_nothing_is_predicted(tmp_path: Path, kind: str) -> None:
    info = info_of(awkward(tmp_path, kind))
    assert (info.reason or "").startswith("Nothing is predicted yet: the first 6 trainings are spread")
    drawn_or_refused(panels.belief_figure, info)


def test_another_sampler_has_no_belief_and_says_so(tmp_path: Path) -> None:
    settings = copy.deepcopy(SETTINGS)
    settings["search"]["sampler"] = "tpe"
    made = Study(tmp_path, settings=settings)
    made.done(0.2, 0.9)
    assert (info_of(made).reason or "").startswith(
        "This study's sampler (tpe) gives no reasons: it has no belief to show."
    )


def test_a_space_that_is_used_up_and_a_device_without_latencies_are_told_apart(tmp_path: Path) -> None:
    made = lively(tmp_path)
    columns, believed = columns_of(made), read_study_belief(made.engine, made.id)
    assert believed.belief is not None
    used_up = replace(believed, belief=replace(believed.belief, front=(), ahead=()))
    assert "nothing is left" in (panels.belief_info(columns, default_view(columns), used_up).reason or "")
    elsewhere = tuple(replace(one, latencies_ms={}) for one in believed.belief.front)
    unpriced = replace(believed, belief=replace(believed.belief, front=elsewhere, ahead=elsewhere))
    assert "look at macs" in (panels.belief_info(columns, default_view(columns), unpriced).reason or "")
    assert panels.belief_info(columns, View(columns.default_group, "macs"), unpriced).reason is None
