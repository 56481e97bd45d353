"""The contract that every engine keeps; a subclass supplies `engine` (two slots, nothing running) and `make_job`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from search.engines.base import Engine
from search.engines.events import AttemptEnd, Done, EngineEvent, EpochEnded, Failed, Resumed, Started, Stopped, UnderWay
from space.errors import DataNotFound
from workers.training.job import TrialJob

MakeJob = Callable[..., TrialJob]  # of (number, attempt=1, epochs=1, broken=False); a broken one finds no images
LONG = 3000  # epochs: longer than any test waits
PATIENCE_S = 180.0  # none waits so long on a machine that is not crowded


def collect(engine: Engine, numbers: set[int], kinds: Any = AttemptEnd) -> list[EngineEvent]:
    """Poll until each of the trials has had an event of these kinds; return everything that came."""
    events: list[EngineEvent] = []
    deadline = time.monotonic() + PATIENCE_S
    while not numbers <= {event.number for event in events if isinstance(event, kinds)}:
        assert time.monotonic() < deadline, f"still waiting for {numbers} after {events}"
        events += [event for event in engine.poll(0.1) if not isinstance(event, Started | UnderWay)]
    return events


class EngineContract:
    """Every engine passes these."""

    hash_length = 64  # of a file's SHA-256; 0 for an engine that writes no files

    def test_every_job_ends_once_after_all_of_its_curve(self, engine: Engine, make_job: MakeJob):
        for number, epochs in ((0, 1), (1, 2)):
            engine.submit(make_job(number, epochs=epochs))
        assert engine.free_slots() == 0
        assert set(engine.alive()) <= {0, 1}
        events = collect(engine, {0, 1})
        for number in (0, 1):
            kinds = [type(event) for event in events if event.number == number]
            assert kinds == [EpochEnded] * (len(kinds) - 1) + [Done]
            assert len(kinds) >= 2
        assert engine.poll(0.3) == []
        assert engine.free_slots() == 2
        assert set(engine.alive()) == set()

    def test_a_job_starts_once_and_before_anything_else(self, engine: Engine, make_job: MakeJob):
        engine.submit(make_job(0, attempt=3))
        events: list[EngineEvent] = []
        deadline = time.monotonic() + PATIENCE_S
        while not any(isinstance(event, AttemptEnd) for event in events):
            assert time.monotonic() < deadline
            events += engine.poll(0.1)
        kinds = [type(event) for event in events]
        assert Started not in kinds[1:]
        assert {event.attempt for event in events} == {3}
        if isinstance(events[0], Started):
            assert events[0].worker

    def test_a_result_and_a_curve_row_carry_the_columns_that_are_stored(self, engine: Engine, make_job: MakeJob):
        engine.submit(make_job(0, attempt=4))
        curve, done = collect(engine, {0})
        assert (curve.attempt, done.attempt) == (4, 4)
        assert len(done.result.network_sha256) == len(done.result.onnx_sha256) == self.hash_length
        assert {"epoch", "progress", "val_top1", "train_loss", "form", "seconds", "images_per_s"} <= curve.epoch.keys()
        assert curve.epoch["val_top1"] == done.result.top1

    def test_a_job_that_cannot_run_fails_with_its_reason_and_exit_code(self, engine: Engine, make_job: MakeJob):
        engine.submit(make_job(0, broken=True))
        engine.submit(make_job(1))
        events = {event.number: event for event in collect(engine, {0, 1}) if isinstance(event, AttemptEnd)}
        failure = events[0]
        assert isinstance(failure, Failed)
        assert failure.exit_code == DataNotFound.exit_code
        assert failure.reason
        assert "\n" not in failure.reason
        assert isinstance(events[1], Done)

    def test_a_cancelled_job_fails_and_the_other_is_not_touched(self, engine: Engine, make_job: MakeJob):
        engine.submit(make_job(0, epochs=LONG))
        engine.submit(make_job(1))
        engine.cancel(0)
        events = {event.number: event for event in collect(engine, {0, 1}) if isinstance(event, AttemptEnd)}
        assert isinstance(events[0], Failed)
        assert "cancelled" in events[0].reason
        assert isinstance(events[1], Done)

    def test_cancelling_what_does_not_run_does_nothing(self, engine: Engine, make_job: MakeJob):
        engine.cancel(0)
        engine.submit(make_job(0))
        engine.cancel(7)
        assert type(collect(engine, {0})[-1]) is Done

    def test_stopped_jobs_end_as_stopped_and_finish_when_submitted_again(self, engine: Engine, make_job: MakeJob):
        for number in (0, 1):
            engine.submit(make_job(number, epochs=20))
        engine.stop()
        ended = {event.number: type(event) for event in collect(engine, {0, 1}) if isinstance(event, AttemptEnd)}
        assert ended == {0: Stopped, 1: Stopped}
        assert engine.free_slots() == 2
        for number in (0, 1):
            engine.submit(make_job(number, attempt=2, epochs=20))
        events = collect(engine, {0, 1})
        for number in (0, 1):
            kinds = [type(event) for event in events if event.number == number]
            assert Resumed not in kinds[1:]
        again = [event for event in events if isinstance(event, AttemptEnd)]
        assert all(isinstance(event, Done) for event in again)
        assert sorted((event.number, event.attempt) for event in again) == [(0, 2), (1, 2)]

    def test_one_job_is_stopped_while_the_other_goes_on(self, engine: Engine, make_job: MakeJob):
        for number in (0, 1):
            engine.submit(make_job(number, epochs=30 if number == 0 else 2))
        engine.stop(0)
        ended = {event.number: type(event) for event in collect(engine, {0, 1}) if isinstance(event, AttemptEnd)}
        assert ended == {0: Stopped, 1: Done}
        engine.stop(0)
        engine.submit(make_job(0, attempt=2, epochs=2))
        assert type(collect(engine, {0})[-1]) is Done

    def test_stopping_when_nothing_runs_does_not_stop_what_comes_after(self, engine: Engine, make_job: MakeJob):
        engine.stop()
        engine.submit(make_job(0))
        assert type(collect(engine, {0})[-1]) is Done

    def test_forgetting_what_nothing_is_kept_of_does_nothing(self, engine: Engine, make_job: MakeJob):
        engine.submit(make_job(0))
        engine.forget("tiny", 7)
        assert type(collect(engine, {0})[-1]) is Done
        engine.forget("tiny", 0)

    def test_jobs_go_on_after_a_quiet_while(self, engine: Engine, make_job: MakeJob):
        engine.submit(make_job(0, epochs=2))
        with engine.paused({0}):
            assert engine.free_slots() == 1
        assert type(collect(engine, {0})[-1]) is Done


class TrainingEngineContract(EngineContract):
    """Every engine that really trains passes these too."""

    def test_a_running_job_says_how_far_it_is_between_its_epochs(self, engine: Engine, make_job: MakeJob):
        engine.submit(make_job(0, attempt=2, epochs=LONG))
        reports: list[UnderWay] = []
        deadline = time.monotonic() + PATIENCE_S
        while len(reports) < 2:
            assert time.monotonic() < deadline
            reports += [event for event in engine.poll(0.1) if isinstance(event, UnderWay)]
        engine.cancel(0)
        collect(engine, {0})
        first, second = (event.report for event in reports[:2])
        assert {event.attempt for event in reports} == {2}
        assert 0 < first.progress < second.progress < 1
        assert second.seconds - first.seconds >= 1.0
        assert min(first.images_per_s, second.images_per_s) > 0
