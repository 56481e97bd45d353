"""The scale benchmarks run with tiny numbers, and the simulated cluster keeps its books."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.cluster_simulation import SimulatedClock, SimulatedCluster, closed_queue, most_workers, simulate
from benchmarks.scale.__main__ import main
from benchmarks.scale.fill import fill
from benchmarks.scale.round import Round, run
from search.engines.events import Done, EpochEnded, Failed, Started, Stopped
from search.pricing import pricer
from search.results.pareto import front_of_study, pareto_front
from search.store import reader
from search.store.connection.database import open_for_reading
from search.store.reader import trials
from search.store.vocabulary import FINAL_STATES
from tests.workers.tiny import job
from workers.training.job import TrialJob


@pytest.mark.slow
def test_a_round_of_the_benchmark_finds_a_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pricer, "write_models", pricer.write_models)  # a round has a process of its own otherwise
    url = f"sqlite:///{tmp_path}/round.db"
    figures = run(Round(url, workers=1, sampler="random", seconds=0.5, warm_up_s=0.1))
    assert figures["rate"] > 0
    assert figures["steps_ms"]["ask"] > 0


@pytest.mark.long
@pytest.mark.slow(seconds=35)
def test_every_round_of_the_benchmark_finds_a_rate(capsys):
    result = main(["--quick", "--workers", "2", "--databases", "sqlite", "--samplers", "tpe"])
    row = result["sqlite"]["tpe"][2]
    assert row["rate"] > 0
    assert {"optuna", "optuna_tuned"} <= row.keys()  # in a second of a busy machine the peer may end no trial
    assert row["steps_ms"]["ask"] > 0
    assert result["sqlite"]["tpe"]["full"]["first_trial"] >= result["trials"] == 200
    assert set(result["sqlite"]["commands_s"]) == {"status", "pareto"}
    assert "trials a second" in capsys.readouterr().out


def test_a_simulated_cluster_runs_the_real_controller_and_leaves_no_row_open(tmp_path: Path):
    run = simulate(workers=8, trials=60, mean_s=5.0, sampler="random", folder=tmp_path)
    engine = open_for_reading(f"sqlite:///{tmp_path}/random.db")
    rows = reader.read_trials(engine, 1)
    engine.dispose()
    done = [row for row in rows if row.state == "done"]
    assert len(done) == run["trials"] >= 60
    assert sum(row.attempt for row in rows) == run["attempts"]
    assert all(row.mirrored for row in rows if row.state in FINAL_STATES)
    assert not [row for row in rows if row.state == "running"]
    assert run["simulated_s"] > 60 * 5.0 / 8 / 2
    assert 0.0 <= run["idle_share"] < 1.0


@pytest.mark.parametrize("most", [1000, 1])
def test_the_front_read_by_columns_is_the_front_of_all_rows(tmp_path: Path, monkeypatch, most: int):
    monkeypatch.setattr(trials, "MOST_NUMBERS", most)
    url = f"sqlite:///{tmp_path / 'filled.db'}"
    fill(url, 60)
    engine = open_for_reading(url)
    rows = reader.read_trials(engine, 1)
    assert [row.state for row in rows] == ["done"] * 60
    front = front_of_study(engine, 1)
    assert front == pareto_front(rows)
    assert 1 < len(front) < 60
    engine.dispose()


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., TrialJob]:
    def make(number: int, attempt: int = 1) -> TrialJob:
        return job(tmp_path / f"trial-{number}", tmp_path, number=number, attempt=attempt)

    return make


def test_a_simulated_training_ends_once_after_its_curve_and_at_its_time(make_job):
    clock = SimulatedClock()
    cluster = SimulatedCluster(slots=2, mean_s=100.0, clock=clock, seed=1)
    for number in (0, 1):
        cluster.submit(make_job(number))
    assert cluster.free_slots() == 0
    assert set(cluster.alive()) == {0, 1}
    assert [type(event) for event in cluster.poll(0.25)] == [Started, Started]
    before = clock.monotonic()
    assert cluster.poll(0.25) == []
    assert clock.monotonic() - before >= 0.25  # nothing was due: time was skipped, not waited for
    events = []
    while len(events) < 4:
        events += cluster.poll(50.0)
    for number in (0, 1):
        assert [type(event) for event in events if event.number == number] == [EpochEnded, Done]
    assert cluster.poll(1.0) == []
    assert cluster.free_slots() == 2
    assert cluster.ended == 2


def test_simulated_jobs_are_cancelled_and_stopped_once(make_job):
    cluster = SimulatedCluster(slots=3, mean_s=100.0, clock=SimulatedClock())
    for number in range(3):
        cluster.submit(make_job(number))
    cluster.cancel(0)
    cluster.cancel(7)
    cluster.stop()
    ended = {event.number: type(event) for event in cluster.poll(0.0) if not isinstance(event, Started)}
    assert ended == {0: Failed, 1: Stopped, 2: Stopped}
    cluster.submit(make_job(1, attempt=2))
    events = [event for _ in range(20) for event in cluster.poll(100.0)]
    assert {(event.number, event.attempt) for event in events} == {(1, 2)}  # the first attempts' ends never come


def test_an_idle_share_is_that_of_the_time_without_a_job(make_job):
    clock = SimulatedClock()
    cluster = SimulatedCluster(slots=2, mean_s=1e6, clock=clock)
    for number in range(2):
        cluster.submit(make_job(number))
    clock.skip(100.0)
    assert cluster.idle_share == pytest.approx(0.0, abs=0.01)
    cluster.cancel(0)
    clock.skip(100.0)
    assert cluster.idle_share == pytest.approx(0.25, abs=0.01)  # one of two, half of the time


@pytest.mark.parametrize(("workers", "train_s", "controller_s"), [(1, 9.0, 1.0), (4, 9.0, 1.0), (50, 9.0, 1.0)])
def test_the_model_keeps_the_bounds_of_a_closed_queue(workers: int, train_s: float, controller_s: float):
    used, idle = closed_queue(workers, train_s, controller_s)
    assert used <= min(1.0, workers * controller_s / (train_s + controller_s)) + 1e-9
    assert idle >= max(controller_s / (train_s + controller_s), 1 - train_s / (workers * controller_s)) - 1e-9
    if workers == 1:
        assert (used, idle) == (pytest.approx(0.1), pytest.approx(0.1))


def test_most_workers_is_the_last_number_that_the_controller_keeps_busy():
    most = most_workers(60.0, 0.1)
    assert closed_queue(most, 60.0, 0.1)[1] <= 0.05 < closed_queue(most + 1, 60.0, 0.1)[1]
