"""What the sampler believes of candidates' costs: exact macs, latencies learnt from those that were priced."""

from dataclasses import replace

import numpy as np
import pytest

from search.samplers.candidate_prices import LEAST, CandidatePrices
from search.samplers.optuna_samplers import distributions
from search.samplers.price_aware.pool import Pool
from search.store.rows import NewTrial, TrialRow
from search.store.vocabulary import TrialOrigin
from space.cost import cost_of
from tests.search.tiny_studies import tiny_settings
from workers.latency.record import LatencyKind, LatencyRecord

SETTINGS = tiny_settings(budget__max_latency_ms=0.5, budget__max_macs=40_000)
SPACE = SETTINGS.search_space()
DISTRIBUTIONS = distributions(SPACE.domains)
CANDIDATES = Pool(DISTRIBUTIONS).whole()


def latency_ms(config):
    """A device that needs a fixed time for each layer, which macs alone don't tell."""
    return 0.05 + 0.05 * sum(config.stages) + 1e-6 * cost_of(config).macs


def row(number, params, high=1.2):
    config = SPACE.from_params(params)
    new = NewTrial(
        number=number,
        origin=TrialOrigin.SAMPLED,
        config=config,
        training=dict(SETTINGS.training),
        seed=0,
        identity=str(number),
        cost=cost_of(config),
    )
    median_ms = latency_ms(config)
    record = LatencyRecord(
        kind=LatencyKind.MEASURED,
        policy="quick",
        device="host",
        runtime="onnxruntime",
        runtime_version="1",
        threads=1,
        median_ms=median_ms,
        p90_ms=median_ms,
        interval_low_ms=median_ms,
        interval_high_ms=high * median_ms,
        steady=True,
    )
    return replace(TrialRow.of_new(new, number, 0.0), latency=record)


def taught(count, seed=0):
    prices = CandidatePrices(SETTINGS, DISTRIBUTIONS)
    for number, place in enumerate(np.random.default_rng(seed).permutation(len(CANDIDATES))[:count]):
        prices.learn(row(number, CANDIDATES[place]), CANDIDATES[place])
    return prices


def test_macs_are_exact_and_latencies_are_those_of_the_networks_already_priced():
    latencies, macs = taught(40).price(CANDIDATES).T
    configs = [SPACE.from_params(params) for params in CANDIDATES]
    assert list(macs) == [cost_of(config).macs for config in configs]
    expected = np.array([latency_ms(config) for config in configs])
    assert np.abs(np.log(latencies / expected)).max() < 0.1


def test_limits_are_judged_by_macs_and_by_the_upper_end_of_the_latency():
    prices = taught(40)
    configs = [SPACE.from_params(params) for params in CANDIDATES]
    over = np.array([max(1.2 * latency_ms(one) / 0.5, cost_of(one).macs / 40_000) - 1.0 for one in configs])
    believed = prices.excess(CANDIDATES)
    sure = np.abs(over) > 0.1
    assert ((believed > 0) == (over > 0))[sure].all()
    assert 0.1 < np.mean(over > 0) < 0.9


def test_before_enough_is_priced_nothing_is_refused_for_its_latency():
    prices = CandidatePrices(tiny_settings(budget__max_latency_ms=1e-6), DISTRIBUTIONS)
    assert (prices.excess(CANDIDATES) <= 0).all()
    assert np.isfinite(prices.price(CANDIDATES)).all()


@pytest.mark.parametrize("count", [LEAST - 1, LEAST, 23])
def test_what_is_believed_depends_on_the_rows_alone_not_on_when_they_came(count):
    live = CandidatePrices(SETTINGS, DISTRIBUTIONS)
    for number in range(count):
        live.learn(row(number, CANDIDATES[number]), CANDIDATES[number])
        live.price(CANDIDATES[:3])  # models are fitted on the way
    resumed = CandidatePrices(SETTINGS, DISTRIBUTIONS)
    for number in reversed(range(count)):
        resumed.learn(row(number, CANDIDATES[number]), CANDIDATES[number])
    assert np.array_equal(live.price(CANDIDATES), resumed.price(CANDIDATES))


def test_what_would_train_the_same_network_is_one_candidate():
    prices = CandidatePrices(SETTINGS, DISTRIBUTIONS)
    configs = {prices.key(params)[0] for params in CANDIDATES}
    assert len(configs) == len({SPACE.from_params(params) for params in CANDIDATES}) == SPACE.size


def test_settings_may_be_given_in_any_order():
    prices = CandidatePrices(SETTINGS, DISTRIBUTIONS)
    keys = [prices.key(params) for params in CANDIDATES]
    assert [prices.key(dict(reversed(params.items()))) for params in CANDIDATES] == keys


def test_candidates_that_are_looked_at_again_and_again_are_read_once(monkeypatch):
    monkeypatch.setattr("search.samplers.candidate_prices.REMEMBERED", 20)
    prices, read = CandidatePrices(SETTINGS, DISTRIBUTIONS), []
    monkeypatch.setattr(prices, "_as_trained", lambda params: read.append(params))
    for start in range(0, 60, 15):
        for params in (*CANDIDATES[:5], *CANDIDATES[start : start + 15]):
            prices.key(params)
    assert len(read) == 60
