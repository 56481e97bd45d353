"""What measurements teach: a forecast for the gate, figures for people; real tables, latencies that are made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from search.device_fit import add_references, fit_device, measure_more
from search.forecast import FittedForecast
from search.store.database import open_for_writing
from search.store.reader import latencies_of_configs
from search.store.tables import device_fit
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.errors import DeviceNotFound, MeasurementFailed
from space.search_space import SearchSpace
from tests.search.tiny_studies import config_of, sqlite_url
from workers.latency import FakeProbe
from workers.latency.measurement import FailedMeasurement

SPACE = SearchSpace.preset("cifar")


def latency_of(config: CondenseNetConfig) -> float:
    """0.05 ms a layer and 4 ns for a thousand macs."""
    return 0.05 * sum(config.stages) + cost_of(config).macs * 4e-6 / 1e3


@pytest.fixture
def engine(tmp_path: Path) -> sa.Engine:
    return open_for_writing(sqlite_url(tmp_path))


@pytest.fixture
def probe() -> FakeProbe:
    return FakeProbe(lambda path: latency_of(config_of(path)), device="pi5")


def learn(engine: sa.Engine, probe: FakeProbe, files: Path, count: int) -> None:
    for _ in measure_more(engine, probe, SPACE, count, files):
        pass


def test_a_forecast_keeps_silent_until_thirty_networks_are_known(engine, probe, tmp_path: Path):
    forecast = FittedForecast(engine, "pi5", "onnxruntime", 1)
    sampled = sorted((SPACE.sample(np.random.default_rng(i)) for i in range(50)), key=latency_of)
    usual = sampled[25]  # inside the range of what is measured, however that is drawn
    assert forecast.over(usual, 1e-3) is None
    learn(engine, probe, tmp_path, 29)
    assert forecast.over(usual, 1e-3) is None
    learn(engine, probe, tmp_path, 3)
    assert forecast.over(usual, 1e-3) is not None


def test_a_forecast_refuses_what_is_surely_over_and_is_silent_where_it_is_unsure(engine, probe, tmp_path: Path):
    learn(engine, probe, tmp_path, 40)
    forecast = FittedForecast(engine, "pi5", "onnxruntime", 1)
    rng = np.random.default_rng(7)
    decided = 0
    for config in (SPACE.sample(rng) for _ in range(60)):
        truth_ms = latency_of(config)
        assert forecast.over(config, truth_ms * 1.0001) is None  # it fits: must never be refused
        seen = forecast.over(config, truth_ms * 0.5)
        if seen is not None:
            decided += 1
            assert (seen.kind, seen.policy, seen.device, seen.samples_ms) == ("predicted", "model", "pi5", ())
            assert seen.summary.median_ms == pytest.approx(truth_ms, rel=0.1)
    assert decided > 30


def test_a_forecast_knows_only_its_own_device_and_kind(engine, probe, tmp_path: Path):
    learn(engine, probe, tmp_path, 32)
    config = SPACE.sample(np.random.default_rng(0))
    for device, runtime, threads, kind in (
        ("phone", "onnxruntime", 1, "measured"),
        ("pi5", "ncnn", 1, "measured"),
        ("pi5", "onnxruntime", 2, "measured"),
        ("pi5", "onnxruntime", 1, "estimated"),
    ):
        assert FittedForecast(engine, device, runtime, threads, kind).over(config, 1e-6) is None


def test_a_fit_is_recorded_with_its_errors_and_what_macs_alone_would_give(engine, probe, tmp_path: Path):
    learn(engine, probe, tmp_path, 32)
    fit = fit_device(engine, probe, 1, "measured")
    assert fit.networks == len(latencies_of_configs(engine, "pi5", "onnxruntime", 1, "measured")) <= 32
    assert 0 <= fit.median_error <= 0.05
    assert fit.median_error <= fit.p90_error <= fit.max_error
    assert fit.spearman is not None
    assert fit.spearman > 0.95
    assert fit.macs_spearman is not None
    assert fit.macs_spearman < 1.0
    with engine.connect() as connection:
        (row,) = connection.execute(sa.select(device_fit)).all()
    assert (row.device, row.kind, row.networks) == ("pi5", "measured", fit.networks)
    assert row.median_error == fit.median_error


def test_a_fit_on_too_few_networks_says_how_many_are_known(engine, probe, tmp_path: Path):
    learn(engine, probe, tmp_path, 3)
    with pytest.raises(DeviceNotFound, match=r"at least 8 networks measured on pi5 .* but [23] are known"):
        fit_device(engine, probe, 1, "measured")


def test_measuring_more_ends_when_nothing_can_be_measured(engine, tmp_path: Path):
    class Refusing(FakeProbe):
        def measure(self, models, stop=lambda: False):
            return [FailedMeasurement("", "no such operator") for _ in models]

    with pytest.raises(MeasurementFailed, match="none of 8 networks could be measured on pi5: no such operator"):
        learn(engine, Refusing(lambda path: 1.0, device="pi5"), tmp_path, 9)


def test_references_are_appended_and_the_newest_counts(engine, probe, tmp_path: Path):
    config = SPACE.sample(np.random.default_rng(1))
    path = tmp_path / "any"
    path.write_bytes(b"x")
    for ms in (3.0, 5.0):
        (seen,) = FakeProbe(lambda _, ms=ms: ms, device="pi5").measure([path])
        add_references(engine, [(config, seen)])
    ((known, latency_ms),) = latencies_of_configs(engine, "pi5", "onnxruntime", 1, "measured")
    assert known == config
    assert latency_ms == pytest.approx(5.0, rel=0.01)
