"""Shares of a network's latency by part, from fits of real counted latencies (benchmarks/results)."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given

from search.pricing.device_fit import add_references, fit_device
from search.pricing.layer_shares import DeviceShares
from search.store.connection.database import open_for_writing
from space.config import CondenseNetConfig
from space.cost import parts_of
from space.errors import DeviceNotFound
from space.presets import PUBLISHED
from tests.search.tiny_studies import sqlite_url
from tests.space.strategies import configs
from workers.latency import FakeProbe, Measurement
from workers.latency.features import features, part_matrix
from workers.latency.predictor import Predictor
from workers.latency.record import LatencyKind, LatencyRecord

ROWS = json.loads((Path(__file__).parents[3] / "benchmarks/results/predictor_counts_cifar.json").read_text())["rows"]
NETWORK = PUBLISHED["condensenet-86"].config
PROBE = FakeProbe(lambda _: 1.0, "pi5")


@given(configs())
def test_the_amounts_of_the_parts_add_up_to_those_of_the_network(config):
    assert len(part_matrix(config)) == len(parts_of(config)) + 1
    np.testing.assert_array_equal(part_matrix(config).sum(axis=0), features(config))


def latency(**changed) -> LatencyRecord:
    values = {"kind": "measured", "policy": "standard", "device": "pi5", "runtime": PROBE.runtime, "threads": 1}
    numbers = {"median_ms": 5.0, "p90_ms": 6.0, "interval_low_ms": 4.0, "interval_high_ms": 6.0}
    return LatencyRecord(**{**values, **numbers, "runtime_version": "1", "steady": True, "target": "garden", **changed})


def measured(rows) -> list[tuple[CondenseNetConfig, Measurement]]:
    found = []
    for row in rows:
        ms = row["estimated_ms"]
        place = ("standard", "pi5", PROBE.runtime, "1", 1)
        times_ms = (ms, None, 0.9 * ms, 1.1 * ms)
        one = Measurement(LatencyKind.MEASURED, *place, *times_ms, True, samples_ms=(), stride=1, conditions={})
        found.append((CondenseNetConfig.from_dict(row["config"]), one))
    return found


@pytest.fixture
def engine(tmp_path: Path):
    engine = open_for_writing(sqlite_url(tmp_path))
    yield engine
    engine.dispose()


def test_shares_are_fractions_of_one_whole_and_the_fit_is_named(engine: sa.Engine):
    add_references(engine, measured(ROWS[:40]))
    recorded = fit_device(engine, PROBE, 1, "measured")
    shares = DeviceShares(engine).of(NETWORK, latency())
    assert len(shares.of_parts) == len(parts_of(NETWORK))
    assert sum(shares.of_parts) + shares.of_run == pytest.approx(1)
    assert min(shares.of_parts) >= 0
    assert (shares.kind, shares.networks, shares.median_error) == ("measured", 40, recorded.median_error)
    layers = [share for share, part in zip(shares.of_parts, parts_of(NETWORK), strict=True) if part.kind == "layer"]
    assert sum(layers) > 0.5
    assert layers[13] > layers[0]  # the same growth from five times as many channels


def test_without_measurements_the_refusal_names_the_command(engine: sa.Engine):
    with pytest.raises(
        DeviceNotFound,
        match=r"no fit of pi5 .* run `condensery devices fit garden --runtime \w+ --threads \d --storage .*`",
    ):
        DeviceShares(engine).of(NETWORK, latency())


def test_a_few_networks_make_a_fit_only_once_somebody_has_seen_its_error(engine: sa.Engine):
    add_references(engine, measured(ROWS[:12]))
    shares = DeviceShares(engine)
    with pytest.raises(DeviceNotFound):
        shares.of(NETWORK, latency())
    fit_device(engine, PROBE, 1, "measured")
    assert shares.of(NETWORK, latency()).networks == 12


def test_enough_networks_make_a_fit_that_says_its_error_is_unknown(engine: sa.Engine):
    add_references(engine, measured(ROWS[:35]))
    shares = DeviceShares(engine).of(NETWORK, latency())
    assert (shares.networks, shares.median_error) == (35, None)


def test_threads_that_ask_at_once_share_one_fit(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch):
    add_references(engine, measured(ROWS[:35]))
    fits, fit, together = [], Predictor.fit, threading.Barrier(4)

    def counted(*given: Any) -> Predictor:
        fits.append(given)
        return fit(*given)

    monkeypatch.setattr(Predictor, "fit", counted)
    shares = DeviceShares(engine)

    def ask(_: int) -> Any:
        together.wait(30)
        return shares.of(NETWORK, latency())

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, range(4)))
    assert len(fits) == 1
    assert found == [found[0]] * 4


def test_a_fit_is_renewed_as_measurements_come_in(engine: sa.Engine):
    add_references(engine, measured(ROWS[:35]))
    shares = DeviceShares(engine)
    assert shares.of(NETWORK, latency()).networks == 35
    add_references(engine, measured(ROWS[35:60]))
    assert shares.of(NETWORK, latency()).networks == 60


def test_estimates_are_never_split_by_the_prices_of_measurements(engine: sa.Engine):
    add_references(engine, measured(ROWS[:40]))
    with pytest.raises(DeviceNotFound):
        DeviceShares(engine).of(NETWORK, latency(kind="estimated"))
    assert DeviceShares(engine).of(NETWORK, latency(kind="predicted", policy="model")).kind == "measured"


def test_a_network_unlike_the_fitted_ones_says_so(engine: sa.Engine):
    add_references(engine, measured(ROWS[:40]))
    assert DeviceShares(engine).of(NETWORK, latency()).extrapolates == ""
    large = PUBLISHED["imagenet-74-g4"].config
    assert "positions" in DeviceShares(engine).of(large, latency()).extrapolates
