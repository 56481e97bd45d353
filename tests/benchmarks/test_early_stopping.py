"""The benchmark of early stopping: what it counts, on the first networks of the tables that it reads."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.early_stopping.__main__ import Scale, fashion, figures, summary
from benchmarks.early_stopping.digits import digits_curves
from benchmarks.early_stopping.play import Play, by_oracle, in_random_order


def test_an_aggressive_rule_trains_fewer_epochs_than_none_and_what_it_finishes_is_the_same():
    trainings = fashion()[:80]
    scale, full = Scale(trainings), in_random_order(trainings, "none", 0)
    stopped = in_random_order(trainings, "aggressive", 0)
    assert full.epochs.sum() == 8 * 80
    assert not full.stopped.any()
    assert stopped.stopped.any()
    assert (stopped.epochs[stopped.stopped] < 8).all()
    assert (np.sort(stopped.top1) == np.sort(full.top1)).all()  # one that is taken up later stands where it ends
    assert figures(stopped, full, scale)["epochs"] < figures(full, full, scale)["epochs"]


def test_a_member_of_the_front_that_was_stopped_counts_and_its_volume_is_missed():
    trainings = fashion()[:4]
    scale = Scale(trainings)
    costs, top1 = np.array([[1e5, 0.1], [2e5, 0.2], [3e5, 0.3]]), np.array([0.75, 0.8, 0.79])
    full = Play(costs, top1, np.full(3, 8.0), np.zeros(3, dtype=bool))
    missed = Play(costs, top1, np.array([8.0, 2.0, 2.0]), np.array([False, True, True]))
    whole, part = figures(full, full, scale), figures(missed, full, scale)
    assert (whole["epochs_to_goal"], whole["wrongly_stopped"], whole["front"]) == (16, 0, 2)
    assert (part["epochs_to_goal"], part["wrongly_stopped"], part["epochs"]) == (None, 1, 12)
    both = summary([whole, part], [whole, whole])
    assert both["wrongly_stopped_share"] == 1 / 4
    assert both["seeds_that_reach_it"] == 1
    assert both["times_fewer_epochs"] == pytest.approx(0.5)


def test_an_oracle_trains_to_the_end_only_what_gets_onto_the_front_of_those_before_or_of_all():
    costs, top1 = np.array([[3.0], [2.0], [4.0], [1.0]]), np.array([0.7, 0.8, 0.75, 0.6])
    full = Play(costs, top1, np.full(4, 8.0), np.zeros(4, dtype=bool))
    before, of_all = by_oracle(full, ahead=False), by_oracle(full, ahead=True)
    assert before.epochs.tolist() == [8, 8, 1, 8]
    assert before.stopped.tolist() == [False, False, True, False]
    assert of_all.epochs.tolist() == [1, 8, 1, 8]


def test_the_curves_of_the_digits_are_whole_trainings_of_distinct_networks():
    trainings = digits_curves()
    assert len({training.config for training in trainings}) == len(trainings) >= 40
    assert {len(training.curve) for training in trainings} == {12}
