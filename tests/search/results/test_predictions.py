"""Intervals of predictions are as wide as predictions have turned out to be wrong."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from search.results.predictions import REMEMBERED, read_believed, read_predictions, widening
from search.store import reader
from search.store.rows import BeliefRow, Believed, Proposal
from search.store.vocabulary import ProposalReason
from tests.dashboards.studies import Study


def predicted(top1: float, deviation: float = 0.01) -> Proposal:
    return Proposal(ProposalReason.GAIN, top1, deviation, 0.1)


def test_a_study_begins_with_what_was_seen_in_others_and_right_predictions_narrow_it():
    assert widening([]) == pytest.approx(math.sqrt(2))
    assert widening([0.1] * 20) == 1.0
    assert widening([3.0] * 20) == pytest.approx(math.sqrt((10 + 180) / 25))


def test_only_the_newest_errors_count_and_none_for_ever():
    assert widening([100.0] + [0.0] * REMEMBERED) == 1.0
    assert widening([1e9]) == widening([10.0])


def test_nine_of_ten_intervals_hold_whatever_the_predictions_are_worth():
    rng = np.random.default_rng(0)
    for scale in (0.5, 1.0, 2.0, 3.0):
        errors, inside = [], 0
        for error in scale * rng.standard_normal(2_000):
            inside += abs(error) <= 1.96 * widening(errors[-REMEMBERED:])
            errors.append(float(error))
        assert inside / 2_000 >= 0.9


def test_each_interval_is_widened_by_the_errors_before_it_and_the_belief_by_all(tmp_path: Path):
    made = Study(tmp_path)
    for _ in range(6):
        made.done(0.2, 0.90, proposal=predicted(0.86))  # four deviations off
    made.asked()
    made.store.set_belief(BeliefRow(6, 1.8e9, (Believed("next", 1.0, 1.0, {}, predicted(0.9)),), ()))
    recorded = reader.read_proposals(made.engine, made.id)
    found = read_predictions(made.engine, made.id)
    widths = [found[number].deviation / recorded[number].deviation for number in sorted(found)]
    assert widths == pytest.approx([widening([4.0] * before) for before in range(6)])
    belief = read_believed(made.engine, made.id)
    assert belief is not None
    assert belief.front[0].proposal.deviation == pytest.approx(0.01 * widening([4.0] * 6))
    assert read_predictions(made.engine, made.id, newest=1, up_to=3) == {3: found[3]}


def test_a_study_without_predictions_has_none(tmp_path: Path):
    made = Study(tmp_path)
    made.done(0.2, 0.9)
    assert read_predictions(made.engine, made.id) == {}
    assert read_believed(made.engine, made.id) is None
