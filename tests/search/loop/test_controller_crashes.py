"""The controller dies at any instruction, and the next one goes on: nothing lost, nothing done twice, no zombie."""

from __future__ import annotations

import itertools
from typing import Any

import optuna
import pytest

from search.engines.fake import FakeEngine
from search.loop.times import LoopTimes
from search.store.store import StudyStore
from space.config import CondenseNetConfig
from tests.search.tiny_studies import (
    INSIDE,
    OUTSIDE,
    Bench,
    assert_consistent,
    attempts_open,
)


class Crash(BaseException):
    """The process dies here."""


STEPS = ["add_trial", "add_latency", "set_queued", "set_running", "add_curve_row", "add_artifacts", "finish"]
STEPS += ["heartbeat", "set_worker", "end_attempt"]


# What the controller does now and then happens at every pass: the crashes meet it more often.
AT_EVERY_PASS = LoopTimes(look_s=0.0, renew_s=0.0, mirror_s=0.0)


@pytest.fixture
def make_bench(make_bench):
    def make(**changes: Any) -> Bench:
        bench = make_bench(**changes)
        bench.times = AT_EVERY_PASS
        return bench

    return make


def crash_at(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, call: int, before: bool) -> None:
    """Make the `call`-th call of a method die before or after its effect."""
    original, calls = getattr(owner, name), itertools.count()

    def dying(self, *args, **kwargs):
        dies = next(calls) == call
        if dies and before:
            raise Crash
        result = original(self, *args, **kwargs)
        if dies:
            raise Crash
        return result

    monkeypatch.setattr(owner, name, dying)


def survives(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run into the crash that was set up, then launch again as a user would."""
    with pytest.raises(Crash):
        bench.run()
    monkeypatch.undo()
    submitted = list(bench.engine.submitted)
    bench.engine = FakeEngine()
    assert bench.run(resume=True) == "finished"
    assert len(bench.done()) == bench.settings.study.trainings
    assert_consistent(bench)
    # What had a result before the crash is not trained again.
    told_before = {job.identity for job in submitted} & {job.identity for job in bench.engine.submitted}
    assert all(bench.study.store.trial(job.number).attempt >= 2 for job in submitted if job.identity in told_before)
    assert bench.run(resume=True) == "finished"
    assert len(bench.done()) == bench.settings.study.trainings


def crossed(steps: list[str], later: int) -> list[Any]:
    """Each step at its first call and at a later one, before it and after it; one of each in every run."""
    return [
        pytest.param(
            step,
            call,
            before,
            id=f"{step}-{call}-{'before' if before else 'after'}",
            marks=() if before == ((place + bool(call)) % 2 == 0) else pytest.mark.long,
        )
        for place, step in enumerate(steps)
        for call in (0, later)
        for before in (True, False)
    ]


@pytest.mark.slow(seconds=2)
@pytest.mark.parametrize(("step", "call", "before"), [*crossed(STEPS, 3), *crossed(["mark_mirrored"], 0)[:2]])
def test_a_crash_at_any_step_of_the_store_loses_nothing(make_bench, monkeypatch, step: str, call: int, before: bool):
    """The budget refuses some, so that `finish` and `mark_mirrored` meet every kind of ending."""
    bench = make_bench(budget__max_macs=40_000)
    crash_at(monkeypatch, StudyStore, step, call, before)
    survives(bench, monkeypatch)


@pytest.mark.slow(seconds=2)
@pytest.mark.parametrize(("step", "call", "before"), crossed(["ask", "tell"], 2))
def test_a_crash_at_optunas_steps_loses_nothing(make_bench, monkeypatch, step: str, call: int, before: bool):
    bench = make_bench(budget__max_macs=40_000)
    crash_at(monkeypatch, optuna.Study, step, call, before)
    survives(bench, monkeypatch)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("name", ["paused", "submit", "poll"])
def test_a_crash_around_the_engine_loses_nothing(make_bench, monkeypatch, name: str, before: bool):
    bench = make_bench()
    crash_at(monkeypatch, FakeEngine, name, 1, before)
    survives(bench, monkeypatch)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_crash_while_reconciling_is_survived_as_well(make_bench, monkeypatch, before: bool):
    bench = make_bench()
    with monkeypatch.context() as first:
        crash_at(first, StudyStore, "add_artifacts", 1, before)
        with pytest.raises(Crash):
            bench.run()
    with monkeypatch.context() as second:
        crash_at(second, StudyStore, "set_queued", 0, before)
        with pytest.raises(Crash):
            bench.run(resume=True)
    bench.engine = FakeEngine()
    assert bench.run(resume=True) == "finished"
    assert len(bench.done()) == 4
    assert_consistent(bench)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(("name", "config"), [("enqueue_trial", INSIDE), ("ask", INSIDE), ("ask", OUTSIDE)])
def test_a_wish_is_fulfilled_once_whenever_the_controller_dies(
    make_bench, monkeypatch, name: str, before: bool, config: CondenseNetConfig
):
    bench = make_bench()
    bench.open()
    bench.study.store.enqueue(config, bench.settings.training)
    with monkeypatch.context() as patched:
        crash_at(patched, optuna.Study, name, 0, before)
        with pytest.raises(Crash):
            bench.run(resume=True)
    assert bench.run(resume=True) == "finished"
    assert [row.state for row in bench.rows if row.config == config].count("done") == 1
    assert bench.study.store.pending_requests() == []


def test_what_is_decided_of_a_trial_is_written_wholly_or_not_at_all(make_bench, monkeypatch):
    bench = make_bench(study__trainings=1)
    crash_at(monkeypatch, StudyStore, "finish", 0, before=True)
    with pytest.raises(Crash):
        bench.run()
    monkeypatch.undo()
    (row,) = bench.rows
    assert row.state == "running"
    assert attempts_open(bench) == [row.number]  # its end was written in the same transaction, and is gone with it
