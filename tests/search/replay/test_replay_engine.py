"""The replaying engine keeps the contract of engines, on the real clock and on a simulated one."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.condensebench.journal import read_rows
from benchmarks.condensebench.training import TRAININGS
from search.engines.events import Done, EpochEnded, Failed, Started, Stopped
from search.replay.columns import RecordedEpoch
from search.replay.engine import ReplayEngine, ReplayPace
from search.replay.table import ReplayTable
from space.config import CondenseNetConfig
from space.errors import DataNotFound, TrainingFailed
from tests.search.engines.engine_contract import EngineContract, MakeJob
from tests.search.replay.tiny_tables import TINY
from tests.workers.tiny import job
from workers.clock import Clock, SimulatedClock, SystemClock
from workers.training.job import TrialJob

CONFIG = TINY.configs()[0]
PACES = {
    "at once": ReplayPace(2, takes_time=False),
    "at once, by epoch": ReplayPace(2, takes_time=False, by_epoch=True),
    "simulated": ReplayPace(2),
    "simulated, by epoch": ReplayPace(2, by_epoch=True),
}


def lasting(table: ReplayTable, epochs: int) -> ReplayTable:
    """The table as if its trainings had so many epochs."""
    trainings = {
        key: replace(training, curve=(RecordedEpoch(0.1, 2.0, 2.0),) * (epochs - 1) + training.curve[-1:])
        for key, training in table.trainings.items()
    }
    return replace(table, trainings=trainings, training=table.training.model_copy(update={"epochs": epochs}))


class AnyLength(ReplayEngine):
    """Replays trainings of whatever length a job asks for: the contract's tests have trainings of many lengths."""

    def submit(self, job: TrialJob) -> None:
        recorded, self._table = self._table, lasting(self._table, job.training.epochs)
        super().submit(job)
        self._table = recorded


def replay_job(folder: Path, number: int = 0, **values) -> TrialJob:
    defaults = {"number": number, "config": CONFIG, "training": TINY.training, "data": TINY.data, "seed": 0}
    return job(folder, folder, **{**defaults, **values})


class TestReplayEngine(EngineContract):
    hash_length = 0  # no file is written

    @pytest.fixture(params=PACES)
    def engine(self, request: pytest.FixtureRequest, table: ReplayTable) -> ReplayEngine:
        pace = PACES[request.param]
        clock: Clock = SimulatedClock() if pace.takes_time else SystemClock()
        return AnyLength(table, clock, pace)

    @pytest.fixture
    def make_job(self, tmp_path: Path) -> MakeJob:
        def make(number: int, attempt: int = 1, epochs: int = 1, broken: bool = False) -> TrialJob:
            data = TINY.data.model_copy(update={"split_seed": 9}) if broken else TINY.data
            training = TINY.training.model_copy(update={"epochs": epochs})
            return replay_job(tmp_path, number, attempt=attempt, training=training, data=data)

        return make


def recorded_row(table_path: Path, config: CondenseNetConfig, seed: int = 0) -> dict:
    rows = read_rows(table_path.parent / TRAININGS)
    return next(row for row in rows if CondenseNetConfig.from_dict(row["config"]) == config and row["seed"] == seed)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("config", TINY.configs()[:2], ids=str)
def test_the_epochs_are_those_that_the_training_loop_reported(config, seed, table, table_path, tmp_path):
    engine = ReplayEngine(table, SystemClock(), PACES["at once"])
    engine.submit(replay_job(tmp_path, config=config, seed=seed))
    started, *epochs, done = engine.poll(0.0)
    recorded = recorded_row(table_path, config, seed)
    assert isinstance(started, Started)
    exact = ("epoch", "progress", "val_top1", "condensing_stage", "form")
    for event, row in zip(epochs, recorded["curve"], strict=True):
        assert [event.epoch[name] for name in exact] == [row[name] for name in exact]
        for name in ("learning_rate", "val_loss", "train_loss"):
            assert event.epoch[name] == pytest.approx(row[name], rel=1e-5)
    assert (done.result.top1, done.result.macs) == (recorded["top1"], recorded_macs(config))
    assert done.result.train_seconds == epochs[-1].epoch["seconds"]
    assert done.result.train_seconds == pytest.approx(recorded["train_seconds"], abs=0.01)


def recorded_macs(config: CondenseNetConfig) -> int:
    from space.cost import cost_of

    return cost_of(config).macs


def test_in_simulated_time_trainings_end_in_the_order_of_their_recorded_seconds(table, tmp_path):
    configs, clock = list(table.seeds), SimulatedClock()
    engine = ReplayEngine(table, clock, ReplayPace(len(configs)))
    for number, config in enumerate(configs):
        engine.submit(replay_job(tmp_path, number, config=config))
    ended: list[tuple[float, int]] = []
    while engine.alive():
        events = engine.poll(1000.0)
        ended += [(clock.monotonic(), event.number) for event in events if isinstance(event, Done)]
    seconds = [table.trainings[config, 0].train_seconds for config in configs]
    assert [number for _, number in ended] == sorted(range(len(configs)), key=lambda place: (seconds[place], place))
    assert [at for at, _ in ended] == pytest.approx(sorted(seconds))


def test_a_poll_waits_no_longer_than_it_may_and_not_at_all_for_what_is_due(table, tmp_path):
    clock = SimulatedClock()
    engine = ReplayEngine(table, clock, ReplayPace(1))
    engine.submit(replay_job(tmp_path))
    seconds = table.trainings[CONFIG, 0].train_seconds
    assert engine.poll(0.0) == []
    assert engine.poll(seconds / 2) == []
    assert clock.monotonic() == pytest.approx(seconds / 2)
    assert isinstance(engine.poll(1000.0)[-1], Done)
    assert clock.monotonic() == pytest.approx(seconds)


def test_with_a_stopping_rule_a_poll_gives_one_epoch_so_that_the_rule_can_end_the_training(table, tmp_path):
    for name in ("at once, by epoch", "simulated, by epoch"):
        engine = ReplayEngine(table, SimulatedClock(), PACES[name])
        engine.submit(replay_job(tmp_path))
        kinds = [[type(event) for event in engine.poll(1000.0)] for _ in range(2)]
        assert kinds == [[Started, EpochEnded], [EpochEnded]]
        engine.cancel(0)
        assert [type(event) for event in engine.poll(1000.0)] == [Failed]


def test_stopped_trainings_begin_again_with_the_same_epochs(table, tmp_path):
    engine = ReplayEngine(table, SystemClock(), PACES["at once"])
    engine.submit(replay_job(tmp_path, 0))
    engine.stop()
    assert engine.poll(0.0) == [Stopped(0, 1)]
    outcomes = []
    for attempt in (2, 3):
        engine.submit(replay_job(tmp_path, 0, attempt=attempt))
        outcomes.append([event.epoch for event in engine.poll(0.0) if isinstance(event, EpochEnded)])
    assert outcomes[0] == outcomes[1] != []


@pytest.mark.parametrize(
    "values",
    [
        {"seed": 5},
        {"config": CondenseNetConfig.from_dict({**asdict(CONFIG), "groups": 4, "growth": (4, 4)})},
        {"training": TINY.training.model_copy(update={"weight_decay": 0.0})},
    ],
    ids=["another seed", "another network", "other settings"],
)
def test_what_is_not_recorded_is_never_replaced_by_what_is_near(values, table, tmp_path):
    engine = ReplayEngine(table, SystemClock(), PACES["at once"])
    engine.submit(replay_job(tmp_path, **values))
    _, failure = engine.poll(0.0)
    assert isinstance(failure, Failed)
    assert failure.exit_code == DataNotFound.exit_code
    assert table.name in failure.reason


def test_a_training_that_took_longer_than_its_limit_fails_as_it_would_have(table, tmp_path):
    seconds = table.trainings[CONFIG, 0].train_seconds
    engine = ReplayEngine(table, SystemClock(), PACES["at once"])
    engine.submit(replay_job(tmp_path, time_limit_s=seconds / 2))
    *earlier, failure = engine.poll(0.0)
    assert [type(event) for event in earlier] == [Started, EpochEnded]  # one of three epochs
    assert isinstance(failure, Failed)
    assert failure.exit_code == TrainingFailed.exit_code
    assert "time limit" in failure.reason
