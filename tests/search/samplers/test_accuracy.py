"""What is believed of accuracies: as they are, or by their ranks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, IntDistribution
from scipy.special import ndtri
from scipy.stats import rankdata, spearmanr

from search.samplers.price_aware.accuracy import AccuracyModel, Believed, Curve
from search.samplers.price_aware.encoding import Encoding

GROUPS = np.arange(3)


def trainings(count, collapses):
    """Return features and accuracies that differ by little; some networks may collapse to chance."""
    rng = np.random.default_rng(0)
    features = rng.integers(0, 4, (count, 3)) / 3
    accuracies = 0.9 + 0.05 * features[:, 0] + 0.02 * features[:, 1] + rng.normal(0, 0.001, count)
    collapsed = features[:, 2] == 0.0
    return features, np.where(collapsed, 0.1 + 0.01 * rng.random(count), accuracies) if collapses else accuracies


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.integers(3, 9))
def test_what_a_score_adds_over_a_level_is_the_mean_over_its_outcomes(seed, count):
    rng = np.random.default_rng(seed)
    accuracies = rng.random(count).round(1) if seed % 2 else rng.random(count)
    if len(np.unique(accuracies)) < 2:
        accuracies[0] = 1.5
    curve = Curve.of(ndtri((rankdata(accuracies) - 0.5) / count), accuracies)
    mean, deviation = rng.normal(0, 1, 2), rng.uniform(0.05, 1.5, 2)
    levels = np.sort(np.append(accuracies, [accuracies.min() - 0.3, accuracies.max() + 0.2, rng.random()]))
    outcomes = curve(mean + deviation * ndtri((np.arange(40_000) + 0.5) / 40_000)[:, None])
    sampled = np.maximum(outcomes[..., None] - levels, 0.0).mean(axis=0)
    assert curve.improvement(mean, deviation, levels) == pytest.approx(sampled, abs=2e-3)


def test_a_curve_gives_back_the_accuracies_that_it_goes_through_and_goes_on_above_them():
    accuracies = np.array([0.5, 0.1, 0.9, 0.9, 0.7])
    scores = ndtri((rankdata(accuracies) - 0.5) / 5)
    curve = Curve.of(scores, accuracies)
    assert curve(scores) == pytest.approx(accuracies)
    assert curve.score_of(np.array([0.7, 0.95])) == pytest.approx(
        [scores[4], scores[2] + 0.05 * (scores[2] - scores[4]) / 0.2]
    )
    assert curve(np.array([-9.0, 9.0]))[0] == 0.1
    assert curve(np.array([9.0]))[0] > 1.0


@pytest.mark.parametrize("collapses", [True, False])
def test_ranks_are_believed_where_some_networks_collapse(collapses):
    features, accuracies = trainings(40, collapses)
    model = AccuracyModel.fitted(features, GROUPS, accuracies)
    assert (model.curve is not None) == collapses
    good = accuracies > 0.5
    believed = model.predict(features)
    assert spearmanr(believed.median[good], accuracies[good]).statistic > 0.9
    assert (believed.spread > 0).all()


def test_equal_accuracies_need_no_ranks():
    features, _ = trainings(8, collapses=False)
    model = AccuracyModel.fitted(features, GROUPS, np.full(8, 0.7))
    assert model.curve is None
    assert model.predict(features).median == pytest.approx(0.7)


def test_trainings_under_way_make_the_ranks_surer_and_move_nothing():
    features, accuracies = trainings(30, collapses=True)
    model = AccuracyModel.fitted(features, GROUPS, accuracies)
    running = np.array([[0.0, 1.0, 1 / 3]])
    before, after = model.predict(running), model.with_believed(running).predict(running)
    assert after.scores == pytest.approx(before.scores, abs=1e-6)
    assert after.deviations[0] < before.deviations[0]


def test_what_is_said_of_a_network_that_may_collapse_lies_where_networks_end():
    curve = Curve(np.array([-1.0, -0.9, 1.0]), np.array([0.1, 0.9, 0.95]), 0.01)
    good, doubtful = Believed(np.array([0.5, -1.2]), np.array([0.3, 0.1]), 0.1, curve).median
    assert 0.9 < good < 0.95
    assert doubtful == 0.1
    sure = Believed(np.array([0.5]), np.array([0.3]), 0.0, curve)
    assert sure.spread[0] == pytest.approx((curve(np.array(0.8)) - curve(np.array(0.2))) / 2)


def test_what_is_believed_of_some_and_of_more_is_believed_of_all():
    features, accuracies = trainings(30, collapses=True)
    model = AccuracyModel.fitted(features, GROUPS, accuracies)
    parts = model.predict(features[:10]) + model.predict(features[10:])
    whole = model.predict(features)
    levels = np.array([0.2, 0.93])
    assert parts.improvement(levels) == pytest.approx(whole.improvement(levels))
    assert parts.of(np.array([3, 17])).median == pytest.approx(whole.median[[3, 17]])


def test_without_ranks_a_training_is_spread_by_what_is_unsure_and_by_noise():
    believed = Believed(np.array([0.6]), np.array([0.03]), 0.04)
    assert believed.spread == pytest.approx([0.05])
    assert believed.median[0] == 0.6


def test_categories_that_share_their_values_are_counted_together():
    operations = CategoricalDistribution(["skip", "conv", "pool"])
    space = {"edge_1": operations, "edge_2": operations, "edge_3": CategoricalDistribution(["pool", "conv", "skip"])}
    encoding = Encoding({**space, "depth": IntDistribution(1, 3)})
    one, other = encoding.features(
        [
            {"edge_1": "conv", "edge_2": "conv", "edge_3": "skip", "depth": 2},
            {"edge_1": "skip", "edge_2": "conv", "edge_3": "conv", "depth": 2},
        ]
    )
    counts = encoding.groups == encoding.groups.max()
    assert one[counts].tolist() == other[counts].tolist() == pytest.approx([2 / 3, 0, 1 / 3, 0])  # conv, pool, skip
    assert np.abs(one - other).sum() > 0
    pair = {name: space[name] for name in ("edge_1", "edge_2")}
    assert Encoding(pair).groups.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]  # two say it all by themselves
