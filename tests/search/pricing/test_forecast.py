"""What measurements teach: a forecast for the gate, figures for people; real tables, latencies that are made up."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from search.pricing.device_fit import add_references, fit_device, measure_more
from search.pricing.forecast import FittedForecast
from search.store.connection.database import open_for_writing
from search.store.reader import LatencySource, latencies_of_configs
from search.store.rows import NewTrial
from search.store.store import StudyStore
from search.store.studies import create_study
from search.store.tables import device_fit
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.errors import DeviceNotFound, MeasurementFailed
from space.search_space import SearchSpace
from tests.search.tiny_studies import config_of, sqlite_url
from workers.latency import FakeProbe
from workers.latency.measurement import FailedMeasurement, Measurement
from workers.latency.record import LatencyKind

SPACE = SearchSpace.preset("cifar")
PI5 = LatencySource("pi5", "onnxruntime", 1, LatencyKind.MEASURED)


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


@pytest.fixture(scope="module")
def learned_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database in which 40 networks were measured, to be copied."""
    folder = tmp_path_factory.mktemp("learned")
    engine = open_for_writing(sqlite_url(folder))
    learn(engine, FakeProbe(lambda path: latency_of(config_of(path)), device="pi5"), folder, 40)
    engine.dispose()
    return folder / "study.db"


@pytest.fixture
def learned(learned_database: Path, tmp_path: Path) -> sa.Engine:
    """A database of the test's own in which 40 networks were measured."""
    shutil.copy(learned_database, tmp_path)
    return open_for_writing(sqlite_url(tmp_path))


@pytest.mark.slow
def test_a_forecast_keeps_silent_until_thirty_networks_are_known(engine, probe, tmp_path: Path):
    forecast = FittedForecast(engine, "pi5", "onnxruntime", 1)
    sampled = sorted((SPACE.sample(np.random.default_rng(i)) for i in range(50)), key=latency_of)
    usual = sampled[25]  # inside the range of what is measured, however that is drawn
    assert forecast.over(usual, 1e-3) is None
    learn(engine, probe, tmp_path, 29)
    assert forecast.over(usual, 1e-3) is None
    learn(engine, probe, tmp_path, 3)
    assert forecast.over(usual, 1e-3) is not None


@pytest.mark.slow
def test_a_forecast_refuses_what_is_surely_over_and_is_silent_where_it_is_unsure(learned: sa.Engine):
    forecast = FittedForecast(learned, "pi5", "onnxruntime", 1)
    rng = np.random.default_rng(7)
    decided = 0
    for config in (SPACE.sample(rng) for _ in range(60)):
        truth_ms = latency_of(config)
        assert forecast.over(config, truth_ms * 1.0001) is None  # it fits: must never be refused
        seen = forecast.over(config, truth_ms * 0.5)
        if seen is not None:
            decided += 1
            assert (seen.kind, seen.policy, seen.device, seen.samples_ms) == ("predicted", "model", "pi5", ())
            assert seen.median_ms == pytest.approx(truth_ms, rel=0.1)
    assert decided > 30


@pytest.mark.slow
def test_a_forecast_knows_only_its_own_device_and_kind(learned: sa.Engine):
    config = SPACE.sample(np.random.default_rng(0))
    for device, runtime, threads, kind in (
        ("phone", "onnxruntime", 1, "measured"),
        ("pi5", "ncnn", 1, "measured"),
        ("pi5", "onnxruntime", 2, "measured"),
        ("pi5", "onnxruntime", 1, "estimated"),
    ):
        assert FittedForecast(learned, device, runtime, threads, kind).over(config, 1e-6) is None


@pytest.mark.slow
def test_a_forecast_reads_what_is_known_again_only_when_there_is_more(learned: sa.Engine):
    forecast = FittedForecast(learned, "pi5", "onnxruntime", 1)
    statements: list[str] = []
    sa.event.listen(learned, "before_cursor_execute", lambda *given: statements.append(given[2]))

    def reads(config: CondenseNetConfig) -> int:
        statements.clear()
        forecast.over(config, 1e-3)
        return sum(text.startswith("SELECT") and "count(" not in text for text in statements)

    config = SPACE.sample(np.random.default_rng(0))
    assert [reads(config) for _ in range(3)] == [1, 0, 0]
    add_references(learned, [(config, measured(5.0))])
    assert [reads(config) for _ in range(3)] == [1, 0, 0]


@pytest.mark.slow
def test_a_forecast_fitted_on_a_runtime_that_was_replaced_is_silent(learned: sa.Engine):
    sampled = sorted((SPACE.sample(np.random.default_rng(i)) for i in range(50)), key=latency_of)
    forecast = FittedForecast(learned, "pi5", "onnxruntime", 1)
    assert forecast.over(sampled[25], 1e-3) is not None
    add_references(learned, [(sampled[0], measured(5.0, runtime_version="1"))])
    assert forecast.over(sampled[25], 1e-3) is None


@pytest.mark.slow
def test_a_fit_is_recorded_with_its_errors_and_what_macs_alone_would_give(learned: sa.Engine, probe: FakeProbe):
    fit = fit_device(learned, probe, 1, "measured")
    assert fit.networks == len(latencies_of_configs(learned, PI5)) <= 40
    assert 0 <= fit.median_error <= 0.05
    assert fit.median_error <= fit.p90_error <= fit.max_error
    assert fit.spearman is not None
    assert fit.spearman > 0.95
    assert fit.macs_spearman is not None
    assert fit.macs_spearman < 1.0
    with learned.connect() as connection:
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

    with pytest.raises(MeasurementFailed, match="none of the 8 networks could be measured on pi5: no such operator"):
        learn(engine, Refusing(lambda path: 1.0, device="pi5"), tmp_path, 9)


# ---- what is known of a device ---------------------------------------------------------------------------

A, B = (SPACE.sample(np.random.default_rng(seed)) for seed in (1, 2))


def measured(ms: float, **changes: Any) -> Measurement:
    (seen,) = FakeProbe(lambda _: ms, device="pi5").measure([Path(__file__)])
    assert isinstance(seen, Measurement)
    return replace(seen, **changes)


def known(engine: sa.Engine, least: int = 1) -> dict[CondenseNetConfig, float]:
    found = latencies_of_configs(engine, PI5, least)
    return {config: round(ms, 1) for config, ms in found}


def test_references_are_appended_and_the_newest_counts(engine):
    for ms in (3.0, 5.0):
        add_references(engine, [(A, measured(ms))])
    assert known(engine) == {A: 5.0}


def test_the_newest_counts_whether_a_trial_or_a_fit_asked_for_it(engine):
    study = StudyStore(engine, create_study(engine, "one", 1, {}, ("a" * 64, "b" * 64)))
    for number, config in enumerate((A, B)):
        study.add_trial(NewTrial(number, "sampled", config, {}, 0, str(number), cost_of(config)))
    study.add_latency(0, measured(2.0))
    add_references(engine, [(A, measured(3.0)), (B, measured(4.0))])
    study.add_latency(1, measured(5.0))
    assert known(engine) == {A: 3.0, B: 5.0}


def test_what_was_not_steady_does_not_count(engine):
    add_references(engine, [(A, measured(3.0))])
    add_references(engine, [(A, measured(9.0, steady=False)), (B, measured(9.0, steady=False))])
    assert known(engine) == {A: 3.0}


def test_only_the_newest_runtime_version_counts(engine):
    add_references(engine, [(A, measured(3.0, runtime_version="1.9")), (B, measured(4.0, runtime_version="1.9"))])
    add_references(engine, [(A, measured(2.0, runtime_version="1.10"))])
    assert known(engine) == {A: 2.0}
    add_references(engine, [(B, measured(2.5, runtime_version="1.11", steady=False))])
    assert known(engine) == {}


def test_quick_measurements_count_only_while_there_are_too_few_standard_ones(engine):
    add_references(engine, [(A, measured(3.0, policy="standard"))])
    add_references(engine, [(A, measured(3.5)), (B, measured(4.0))])
    assert known(engine, least=2) == {A: 3.5, B: 4.0}
    assert known(engine, least=1) == {A: 3.0}


def test_a_forecast_whose_database_is_away_keeps_silent():
    away = sa.create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    config = SPACE.sample(np.random.default_rng(0))
    assert FittedForecast(away, "host", "onnxruntime", 1).over(config, 1e-9) is None
