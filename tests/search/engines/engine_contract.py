"""The contract that every engine keeps; a subclass supplies `engine` (two slots, nothing running) and `make_job`."""

from __future__ import annotations

import time
from collections.abc import Callable

from search.engines.base import Engine, EngineEvent
from space.errors import DataNotFound
from workers.training.job import TrialJob

FINAL = ("done", "failed", "stopped", "lost")
MakeJob = Callable[..., TrialJob]  # of (number, attempt=1, epochs=1, broken=False); a broken one finds no images
LONG = 3000  # epochs: longer than any test waits
PATIENCE_S = 180.0  # none waits so long on a machine that is not crowded


def collect(engine: Engine, numbers: set[int], kinds: tuple[str, ...] = FINAL) -> list[EngineEvent]:
    """Poll until each of the trials has had an event of these kinds; return everything that came."""
    events: list[EngineEvent] = []
    deadline = time.monotonic() + PATIENCE_S
    while not numbers <= {event.number for event in events if event.kind in kinds}:
        assert time.monotonic() < deadline, f"still waiting for {numbers} after {events}"
        events += [event for event in engine.poll(0.1) if event.kind != "started"]
    return events


class EngineContract:
    """Every engine passes these."""

    def test_every_job_ends_once_after_all_of_its_curve(self, engine: Engine, make_job: MakeJob):
        for number, epochs in ((0, 1), (1, 2)):
            engine.submit(make_job(number, epochs=epochs))
        assert engine.free_slots() == 0
        assert set(engine.alive()) <= {0, 1}
        events = collect(engine, {0, 1})
        for number in (0, 1):
            kinds = [event.kind for event in events if event.number == number]
            assert kinds == ["curve"] * (len(kinds) - 1) + ["done"]
            assert len(kinds) >= 2
        assert engine.poll(0.3) == []
        assert engine.free_slots() == 2
        assert set(engine.alive()) == set()

    def test_a_job_starts_once_and_before_anything_else(self, engine: Engine, make_job: MakeJob):
        engine.submit(make_job(0, attempt=3))
        events: list[EngineEvent] = []
        deadline = time.monotonic() + PATIENCE_S
        while not any(event.kind in FINAL for event in events):
            assert time.monotonic() < deadline
            events += engine.poll(0.1)
        kinds = [event.kind for event in events]
        assert "started" not in kinds[1:]
        assert {event.attempt for event in events} == {3}
        if kinds[0] == "started":
            assert events[0].payload

    def test_a_result_and_a_curve_row_carry_the_columns_that_are_stored(self, engine: Engine, make_job: MakeJob):
        engine.submit(make_job(0, attempt=4))
        curve, done = collect(engine, {0})
        assert (curve.attempt, done.attempt) == (4, 4)
        assert {"top1", "val_loss", "macs", "train_seconds", "onnx_sha256", "network_sha256"} <= done.payload.keys()
        assert {"epoch", "progress", "val_top1", "train_loss", "form", "seconds"} <= curve.payload.keys()
        assert curve.payload["val_top1"] == done.payload["top1"]

    def test_a_job_that_cannot_run_fails_with_its_reason_and_exit_code(self, engine: Engine, make_job: MakeJob):
        engine.submit(make_job(0, broken=True))
        engine.submit(make_job(1))
        events = {event.number: event for event in collect(engine, {0, 1}) if event.kind in FINAL}
        reason, exit_code = events[0].payload
        assert (events[0].kind, exit_code) == ("failed", DataNotFound.exit_code)
        assert reason
        assert "\n" not in reason
        assert events[1].kind == "done"

    def test_a_cancelled_job_fails_and_the_other_is_not_touched(self, engine: Engine, make_job: MakeJob):
        engine.submit(make_job(0, epochs=LONG))
        engine.submit(make_job(1))
        engine.cancel(0)
        events = {event.number: event for event in collect(engine, {0, 1}) if event.kind in FINAL}
        assert events[0].kind == "failed"
        assert "cancelled" in events[0].payload[0]
        assert events[1].kind == "done"

    def test_cancelling_what_does_not_run_does_nothing(self, engine: Engine, make_job: MakeJob):
        engine.cancel(0)
        engine.submit(make_job(0))
        engine.cancel(7)
        assert [event.kind for event in collect(engine, {0})][-1] == "done"

    def test_stopped_jobs_end_as_stopped_and_finish_when_submitted_again(self, engine: Engine, make_job: MakeJob):
        for number in (0, 1):
            engine.submit(make_job(number, epochs=30))
        engine.stop()
        ended = {event.number: event.kind for event in collect(engine, {0, 1}) if event.kind in FINAL}
        assert ended == {0: "stopped", 1: "stopped"}
        assert engine.free_slots() == 2
        for number in (0, 1):
            engine.submit(make_job(number, attempt=2, epochs=30))
        events = collect(engine, {0, 1})
        for number in (0, 1):
            kinds = [event.kind for event in events if event.number == number]
            assert "earlier" not in kinds[1:]
        again = [event for event in events if event.kind in FINAL]
        assert sorted((event.number, event.attempt, event.kind) for event in again) == [(0, 2, "done"), (1, 2, "done")]

    def test_stopping_when_nothing_runs_does_not_stop_what_comes_after(self, engine: Engine, make_job: MakeJob):
        engine.stop()
        engine.submit(make_job(0))
        assert [event.kind for event in collect(engine, {0})][-1] == "done"

    def test_forgetting_what_nothing_is_kept_of_does_nothing(self, engine: Engine, make_job: MakeJob):
        engine.submit(make_job(0))
        engine.forget("tiny", 7)
        assert [event.kind for event in collect(engine, {0})][-1] == "done"
        engine.forget("tiny", 0)

    def test_jobs_go_on_after_a_quiet_while(self, engine: Engine, make_job: MakeJob):
        engine.submit(make_job(0, epochs=2))
        with engine.quiet({0}):
            assert engine.free_slots() == 1
        assert [event.kind for event in collect(engine, {0})][-1] == "done"
