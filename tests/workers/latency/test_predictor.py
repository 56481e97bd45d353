"""Predicted latency, on networks whose instructions were counted on the virtual ARM device (benchmarks/results)."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from space.config import CondenseNetConfig
from space.cost import cost_of
from space.errors import InvalidSettings
from space.presets import PUBLISHED
from space.search_space import SearchSpace
from workers.latency.features import FEATURES, feature_matrix, features
from workers.latency.predictor import Prediction, Predictor
from workers.latency.validation import cross_validate, macs_rank_correlation, validation_of

ROOT = Path(__file__).parents[3]
Data = tuple[list[CondenseNetConfig], list[float]]


def counted(preset: str) -> Data:
    rows = json.loads((ROOT / f"benchmarks/results/predictor_counts_{preset}.json").read_text())["rows"]
    return [CondenseNetConfig.from_dict(row["config"]) for row in rows], [row["estimated_ms"] for row in rows]


@pytest.fixture(scope="module")
def cifar() -> Data:
    return counted("cifar")


def held_out(data: Data, repeats: int) -> tuple[list[Prediction], list[float]]:
    configs, latencies = data
    rng = np.random.default_rng(1)
    predictions, truth = [], []
    for _ in range(repeats):
        order = rng.permutation(len(configs)).tolist()
        predictor = Predictor.fit([configs[i] for i in order[:30]], [latencies[i] for i in order[:30]])
        predictions += predictor.predict([configs[i] for i in order[30:]])
        truth += [latencies[i] for i in order[30:]]
    return predictions, truth


# ---- features --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["digits", "cifar", "imagenet-mobile"])
def test_macs_and_weights_of_the_features_are_those_of_the_cost(preset: str) -> None:
    space, rng = SearchSpace.preset(preset), np.random.default_rng(0)
    for config in (space.sample(rng) for _ in range(20)):
        amount = dict(zip(FEATURES, features(config), strict=True))
        plain = sum(amount[f"macs_{size}_{kind}"] for size in ("1x1", "3x3") for kind in ("dense", "grouped"))
        height, width = config.stem_size
        stem = 9 * config.input_shape[0] * config.stem_channels
        linear = config.classifier_inputs * config.num_classes
        assert plain == cost_of(config).macs - stem * height * width - linear
        assert amount["layers"] == len(config.layer_shapes)
        assert amount["norm"] + amount["middle"] == cost_of(config).relu_elements - (
            config.num_features * config.last_size[0] * config.last_size[1]
        )


def test_features_of_one_layer_are_what_its_shapes_say() -> None:
    config = CondenseNetConfig(stages=(1,), growth=(16,), groups=2, condense_factor=4, bottleneck=4, groups_3x3=1)
    amount = dict(zip(FEATURES, features(config), strict=True))  # 32 channels -> 2 groups of 8 -> 64 -> 16, at 32 x 32
    assert amount["gather"] == amount["norm"] == 16 * 1024
    assert amount["norm_channels"] == 16
    assert amount["macs_1x1_grouped"] == 8 * 64 * 1024
    assert amount["macs_1x1_dense"] == 0
    assert amount["macs_3x3_dense"] == amount["macs_3x3_blocked"] == 9 * 64 * 16 * 1024  # whole blocks of channels
    assert amount["macs_3x3_narrow"] == 0
    assert amount["permuted"] == amount["middle"] == 64 * 1024
    assert amount["reordered"] == (64 + 16) * 1024  # into and out of the blocked 3x3
    assert amount["concat"] == 48 * 1024
    assert amount["spill"] == amount["pooled"] == 0
    assert amount["weights"] == 8 * 64 + 9 * 64 * 16


def test_a_gather_of_all_channels_in_order_moves_nothing() -> None:
    plain = CondenseNetConfig(stages=(2,), growth=(8,), groups=1, condense_factor=1)
    gather = FEATURES.index("gather")
    assert features(plain)[gather] == 0
    assert features(replace(plain, condense_factor=2))[gather] > 0


def test_many_networks_at_once_have_the_features_of_each_alone() -> None:
    configs = [published.config for published in PUBLISHED.values()]
    together = feature_matrix(configs)
    assert together.shape == (len(configs), len(FEATURES))
    for row, config in zip(together, configs, strict=True):
        assert np.array_equal(row, features(config))
    assert feature_matrix([]).shape == (0, len(FEATURES))


# ---- accuracy --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("preset", "median", "p90"), [("cifar", 0.005, 0.02), ("digits", 0.015, 0.05)])
def test_thirty_networks_are_enough_to_predict_the_others(preset: str, median: float, p90: float) -> None:
    seen = validation_of(*held_out(counted(preset), repeats=40))
    assert seen.median_error < median
    assert seen.p90_error < p90
    assert seen.spearman > 0.995
    assert 0.9 <= seen.coverage_95 <= 0.99
    assert seen.median_width < 6 * seen.median_error  # the intervals are earned, not just wide


def test_intervals_cover_noisy_latencies_and_grow_with_the_noise(cifar: Data) -> None:
    configs, latencies = cifar
    rng = np.random.default_rng(0)
    noisy = [value * factor for value, factor in zip(latencies, np.exp(0.05 * rng.standard_normal(100)), strict=True)]
    seen, clean = validation_of(*held_out((configs, noisy), 10)), validation_of(*held_out(cifar, 10))
    assert 0.9 <= seen.coverage_95 <= 0.99
    assert seen.median_width > 5 * clean.median_width


def test_leaving_one_out_agrees_with_random_splits(cifar: Data) -> None:
    configs, latencies = cifar
    seen = cross_validate(configs[:30], latencies[:30])
    assert seen.n == 30
    assert seen.median_error < 0.01
    assert seen.coverage_95 >= 0.9
    assert seen.median_error <= seen.p90_error <= seen.max_error


def test_structure_orders_networks_better_than_macs(cifar: Data) -> None:
    configs, latencies = cifar
    by_macs = macs_rank_correlation(configs, latencies)
    assert by_macs == pytest.approx(0.973, abs=0.005)
    assert cross_validate(configs, latencies, folds=5).spearman > by_macs


def test_prices_of_a_made_up_device_are_found_again() -> None:
    rng = np.random.default_rng(0)
    configs = [SearchSpace.preset("cifar").sample(rng) for _ in range(200)]
    prices = rng.uniform(0.5, 1.5, len(FEATURES)) / feature_matrix(configs).mean(axis=0).clip(1)
    latencies = feature_matrix(configs) @ prices
    predictor = Predictor.fit(configs[:150], latencies[:150].tolist())
    predicted = np.array([prediction.latency_ms for prediction in predictor.predict(configs[150:])])
    assert predicted == pytest.approx(latencies[150:], rel=1e-3)
    assert min(predictor.prices_ms().values()) >= 0


# ---- how sure it is --------------------------------------------------------------------------------------


def test_a_network_unlike_the_fitted_ones_says_so_and_in_what(cifar: Data) -> None:
    predictor = Predictor.fit(*cifar)
    inside = PUBLISHED["condensenet-86"].config
    unlike = {
        "positions": replace(inside, input_shape=(3, 64, 64)),
        "layers": replace(inside, stages=(40, 40, 40)),
        "groups": replace(inside, growth=(16, 16, 16), groups=16, groups_3x3=4),
        "macs": replace(inside, growth=(32, 64, 128)),
    }
    (like,) = predictor.predict([inside])
    assert not like.extrapolates
    assert like.reason == ""
    for what, config in unlike.items():
        (seen,) = predictor.predict([config])
        assert seen.extrapolates
        assert what in seen.reason
        assert seen.interval_high_ms / seen.latency_ms > like.interval_high_ms / like.latency_ms


def test_few_networks_of_the_fitted_space_count_as_unlike(cifar: Data) -> None:
    predictions, _ = held_out(cifar, 10)
    assert sum(one.extrapolates for one in predictions) < 0.12 * len(predictions)


def test_the_latency_lies_inside_its_interval_even_far_away(cifar: Data) -> None:
    predictor = Predictor.fit(cifar[0][:8], cifar[1][:8])
    for published in PUBLISHED.values():
        (seen,) = predictor.predict([published.config])
        assert 0 < seen.interval_low_ms < seen.latency_ms < seen.interval_high_ms < float("inf")


# ---- awkward data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.1, 2.0, 10.0])
def test_a_wrong_row_is_set_aside_and_named_and_changes_little(cifar: Data, factor: float) -> None:
    configs, latencies = cifar[0][:40], list(cifar[1][:40])
    latencies[7] *= factor
    predictor = Predictor.fit(configs, latencies)
    assert predictor.set_aside == (7,)
    seen = validation_of(predictor.predict(cifar[0][40:]), cifar[1][40:])
    assert seen.median_error < 0.01
    assert seen.coverage_95 >= 0.85


def test_no_row_of_a_clean_data_set_is_set_aside(cifar: Data) -> None:
    assert Predictor.fit(*cifar).set_aside == ()
    assert Predictor.fit(*cifar).networks == 100


def test_rows_of_the_same_network_count_once_with_their_median(cifar: Data) -> None:
    configs, latencies = cifar[0][:20], cifar[1][:20]
    repeated = Predictor.fit([*configs, configs[0], configs[0]], [*latencies, latencies[0] * 1.2, latencies[0] * 0.8])
    assert repeated.networks == 20
    assert repeated.predict(cifar[0]) == Predictor.fit(configs, latencies).predict(cifar[0])


def test_a_network_left_out_is_left_out_with_all_its_rows(cifar: Data) -> None:
    configs, latencies = cifar[0][:12], cifar[1][:12]
    once = cross_validate(configs, latencies)
    assert cross_validate([*configs, *configs], [*latencies, *latencies]).median_error == pytest.approx(
        once.median_error
    )


def test_networks_of_one_latency_are_predicted_to_have_it(cifar: Data) -> None:
    predictor = Predictor.fit(cifar[0][:30], [5.0] * 30)
    (seen,) = predictor.predict(cifar[0][:1])
    assert seen.latency_ms == pytest.approx(5.0)
    assert seen.interval_low_ms < 5.0 < seen.interval_high_ms
    validation = cross_validate(cifar[0][:30], [5.0] * 30)
    assert validation.spearman == 0.0
    assert validation.max_error < 1e-6
    assert macs_rank_correlation(cifar[0][:30], [5.0] * 30) == 0.0


def test_networks_of_one_size_can_be_fitted() -> None:
    rng = np.random.default_rng(0)
    space = SearchSpace.preset("cifar")
    configs = [replace(space.sample(rng), stages=(8, 8, 8)) for _ in range(40)]
    latencies = [cost_of(config).macs / 1e7 + 1 for config in configs]
    assert cross_validate(configs, latencies).median_error < 0.1


def test_eight_networks_are_enough_and_seven_are_not(cifar: Data) -> None:
    Predictor.fit(cifar[0][:8], cifar[1][:8])
    assert cross_validate(cifar[0][:8], cifar[1][:8]).n == 8
    with pytest.raises(InvalidSettings, match=r"at least 8 different networks .* got 7 "):
        Predictor.fit(cifar[0][:7], cifar[1][:7])
    with pytest.raises(InvalidSettings, match=r"got 1 \(in 9 rows\)"):
        cross_validate(cifar[0][:1] * 9, cifar[1][:1] * 9)
    with pytest.raises(InvalidSettings, match="got 0 "):
        Predictor.fit([], [])


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_a_latency_that_is_none_is_refused_with_its_row(cifar: Data, wrong: float) -> None:
    with pytest.raises(InvalidSettings, match="row 3"):
        Predictor.fit(cifar[0][:10], [*cifar[1][:3], wrong, *cifar[1][4:10]])


def test_unequal_numbers_of_networks_and_latencies_are_refused(cifar: Data) -> None:
    with pytest.raises(InvalidSettings, match="9 latencies for 10 networks"):
        Predictor.fit(cifar[0][:10], cifar[1][:9])
    with pytest.raises(InvalidSettings, match="at least 2 folds"):
        cross_validate(*cifar, folds=1)


def test_equal_data_and_seed_give_equal_predictions(cifar: Data) -> None:
    first, second = (Predictor.fit(*cifar, seed=3).predict(cifar[0]) for _ in range(2))
    assert first == second
    assert cross_validate(*cifar, folds=5, seed=3) == cross_validate(*cifar, folds=5, seed=3)


def test_the_order_of_the_rows_doesnt_matter(cifar: Data) -> None:
    there = Predictor.fit(*cifar).predict(cifar[0][:5])
    back = Predictor.fit(cifar[0][::-1], cifar[1][::-1]).predict(cifar[0][:5])
    assert [one.latency_ms for one in there] == pytest.approx([one.latency_ms for one in back])


def test_predicting_needs_no_torch() -> None:
    program = "import sys, workers.latency.predictor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
