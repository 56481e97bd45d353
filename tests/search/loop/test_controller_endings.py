"""The controller when trainings fail, someone stops or cancels, and when files are cleared away."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from search.engines.events import Done, EngineEvent, Failed
from search.engines.fake import FakeEngine, instant_result
from search.loop.times import LoopTimes
from search.store import reader
from search.store.store import StudyStore
from search.store.tables import trial
from search.store.vocabulary import TrialState
from space.errors import (
    CondenseryError,
    DatabaseUnavailable,
    DiskFull,
    InvalidSettings,
    MeasurementFailed,
    SearchFailed,
    TrainingFailed,
)
from tests.search.tiny_studies import (
    SMALLEST,
    Bench,
    CountingProbe,
    assert_consistent,
    by_macs,
    config_of,
    optuna_trials,
    tiny_settings,
)
from workers.training.job import TrialJob

# -- failures --


def failing(*numbers: int, error: Exception | None = None):
    def outcome(job: TrialJob):
        if job.number in numbers:
            raise error or TrainingFailed("the loss became nan")
        return instant_result(job)

    return outcome


def test_a_failed_training_is_recorded_with_its_reason_and_the_search_goes_on(make_bench):
    bench = make_bench()
    bench.engine = FakeEngine(outcome=failing(0, 2))
    assert bench.run() == "finished"
    failed = [row for row in bench.rows if row.state == "failed"]
    assert [(row.number, row.reason) for row in failed] == [(0, "the loss became nan"), (2, "the loss became nan")]
    assert len(bench.done()) == 4
    assert_consistent(bench)


def test_the_engine_forgets_every_trial_that_it_ran_once_its_end_is_recorded(make_bench):
    bench = make_bench(search__sampler="tpe", budget__max_macs=40_000)
    bench.engine = FakeEngine(outcome=failing(0, 2))
    assert bench.run() == "finished"
    ran = [row.number for row in bench.rows if row.attempt]
    assert {"done", "failed", "infeasible"} <= set(bench.states())
    assert sorted(bench.engine.forgotten) == ran


def test_failures_in_a_row_end_the_search_with_the_last_reason(make_bench):
    bench = make_bench(limits__failures_in_a_row=3, study__trainings=9)
    bench.engine = FakeEngine(outcome=failing(*range(2, 99)))
    with pytest.raises(SearchFailed, match=r"[34] trials in a row failed, the last because: the loss became nan"):
        bench.run()
    assert bench.states()[:2] == ["done", "done"]
    assert Counter(bench.states())["failed"] in (3, 4)  # the other slot's trial fails meanwhile
    assert "running" not in bench.states()  # what was being priced stays asked, for when the study goes on
    bench.engine = FakeEngine()
    assert bench.run(resume=True) == "finished"  # once whatever was wrong is mended
    assert_consistent(bench)


def test_failures_between_successes_never_end_a_search(make_bench):
    bench = make_bench(limits__failures_in_a_row=2, study__trainings=6)
    bench.engine = FakeEngine(slots=1, outcome=failing(1, 3, 5, 7))
    assert bench.run() == "finished"


def test_a_network_that_cannot_be_measured_is_recorded_and_the_search_goes_on(make_bench):
    def refusing(path: Path) -> float:
        if config_of(path).groups == 4:
            raise MeasurementFailed("the runtime refused it")
        return by_macs(path)

    bench = make_bench(limits__failures_in_a_row=99)
    bench.probe = CountingProbe(refusing)
    bench.open()
    bench.study.store.enqueue(SMALLEST, bench.settings.training)
    assert bench.run(resume=True) == "finished"
    assert bench.rows[0].state == "failed"
    assert bench.rows[0].reason == "latency could not be measured: the runtime refused it"
    assert_consistent(bench)


@pytest.mark.parametrize("error", [DiskFull("no space is left"), InvalidSettings("torch sees no CUDA device")])
def test_what_every_trial_would_meet_stops_the_search_and_keeps_the_trial(make_bench, error: CondenseryError):
    bench = make_bench()
    bench.engine = FakeEngine(slots=1, outcome=failing(1, error=error))
    with pytest.raises(type(error), match=str(error)):
        bench.run()
    assert bench.rows[1].state == "queued"
    bench.engine = FakeEngine()
    assert bench.run(resume=True) == "finished"
    assert bench.rows[1].state == "done"
    assert len(bench.done()) == 4
    assert_consistent(bench)


# -- stopping and cancelling --


class PatientEngine(FakeEngine):
    """A fake engine whose trainings last until `finish_all`; `at_poll` is called before each poll."""

    def __init__(self, at_poll) -> None:
        super().__init__()
        self.at_poll, self.polls, self.finish_all = at_poll, 0, False

    def poll(self, timeout_s: float) -> list[EngineEvent]:
        self.polls += 1
        self.at_poll(self)
        if self.finish_all or self._stopped:
            return super().poll(timeout_s)
        gone = [job for job in self._running if job.number in self._cancelled]
        for job in gone:
            self._running.remove(job)
        return [event for job in gone for event in self._events(job)]


def once_all_are_begun_or_priced(bench: Bench, act: Callable[[], object]) -> PatientEngine:
    """An engine that acts when two trials run and two wait: how many polls that takes is the pricing's matter."""
    return PatientEngine(lambda engine: Counter(bench.states()) == {"running": 2, "queued": 2} and act())


def test_a_wish_to_stop_leaves_running_trials_queued_and_resuming_finishes_them(make_bench):
    bench = make_bench()
    bench.engine = once_all_are_begun_or_priced(
        bench, lambda: StudyStore(bench.study.engine, bench.study.store.study_id).request_stop()
    )
    assert bench.run() == "stopped"
    assert bench.states() == ["queued"] * 4  # two were running, two were priced in advance
    assert optuna_trials(bench) == []  # it is told of what has ended
    bench.engine = FakeEngine()
    assert bench.run(resume=True) == "finished"
    assert [job.attempt for job in bench.engine.submitted] == [2, 2, 1, 1]
    assert sorted(row.number for row in bench.done()) == [0, 1, 2, 3]
    assert_consistent(bench)


def test_resuming_with_fewer_trainings_leaves_the_rest_queued_but_serves_a_wish(make_bench):
    bench = make_bench()
    bench.engine = once_all_are_begun_or_priced(bench, bench.stop.set)
    assert bench.run() == "stopped"
    assert bench.states() == ["queued"] * 4
    bench.stop.clear()
    bench.settings = tiny_settings(study__trainings=1)
    bench.engine = FakeEngine()
    study = bench.open(resume=True)
    study.store.enqueue(SMALLEST, bench.settings.training)
    assert bench.run(resume=True) == "finished"
    done = bench.done()
    assert len(done) == 2  # the one that is wanted, and the wish
    assert [row.config for row in done if row.origin == "enqueued"] == [SMALLEST]
    assert bench.states().count("queued") == 3


def test_a_wish_that_repeats_a_trial_of_a_finished_study_brings_nothing_else_with_it(make_bench):
    bench = make_bench()
    assert bench.run() == "finished"
    first = bench.done()[0]
    before = len(bench.rows)
    bench.open(resume=True).store.enqueue(first.config, first.training)
    assert bench.run(resume=True) == "finished"
    assert [row.state for row in bench.rows[before:]] == ["duplicate"]
    assert_consistent(bench)


def test_a_wish_is_trained_before_what_was_sampled(make_bench):
    bench = make_bench(study__trainings=6)
    bench.open().store.enqueue(SMALLEST, bench.settings.training)
    bench.run(resume=True)
    assert bench.engine.submitted[0].config == SMALLEST


def test_an_interrupt_before_anything_ran_stops_at_once(make_bench):
    bench = make_bench()
    bench.stop.set()
    assert bench.run() == "stopped"
    assert bench.rows == []


def test_an_interrupt_while_training_stops_with_checkpoints(make_bench):
    bench = make_bench()
    bench.engine = once_all_are_begun_or_priced(bench, bench.stop.set)
    assert bench.run() == "stopped"
    assert bench.states() == ["queued"] * 4
    assert [row.attempt for row in bench.rows] == [1, 1, 0, 0]


def test_a_running_trial_is_cancelled_on_request(make_bench):
    bench = make_bench()
    bench.times = LoopTimes(look_s=0.0)

    def cancel_the_first(engine: PatientEngine) -> None:
        states = bench.states()
        if states[:1] == ["running"]:
            bench.study.store.request_cancel(0)
        engine.finish_all = "cancelled" in states or engine.polls > 10_000

    bench.engine = PatientEngine(cancel_the_first)
    assert bench.run() == "finished"
    assert (bench.rows[0].state, bench.rows[0].reason) == ("cancelled", "cancelled by the user")
    assert len(bench.done()) == 4
    assert_consistent(bench)


def test_a_waiting_trial_is_cancelled_without_being_run(make_bench):
    bench = make_bench()
    bench.engine = once_all_are_begun_or_priced(bench, bench.stop.set)
    bench.run()
    bench.stop.clear()
    bench.study.store.request_cancel(1)
    bench.engine = FakeEngine()
    assert bench.run(resume=True) == "finished"
    assert bench.rows[1].state == "cancelled"
    assert 1 not in [job.number for job in bench.engine.submitted]
    assert_consistent(bench)


def test_cancelling_does_not_count_as_a_failure(make_bench):
    bench = make_bench(limits__failures_in_a_row=1)

    def cancel_all_of_the_first(engine: PatientEngine) -> None:
        states = bench.states()
        if states[:2] == ["running", "running"]:
            for number in (0, 1):
                bench.study.store.request_cancel(number)
        engine.finish_all = states.count("cancelled") == 2 or engine.polls > 10_000

    bench.engine = PatientEngine(cancel_all_of_the_first)
    assert bench.run() == "finished"


def test_news_of_an_attempt_that_was_given_up_is_ignored(make_bench):
    class LateEngine(FakeEngine):
        """Before each trial's own outcome it delivers one of an earlier attempt, and one of an unknown trial."""

        def _events(self, job: TrialJob) -> list[EngineEvent]:
            wrong = replace(instant_result(job), top1=0.123)
            late = [Done(job.number, job.attempt - 1, wrong), Done(999, 1, wrong)]
            return [*late, Failed(job.number, job.attempt - 1, "late", 75), *super()._events(job)]

    bench = make_bench()
    bench.engine = LateEngine()
    assert bench.run() == "finished"
    assert set(bench.states()) == {"done"}
    assert 0.123 not in [row.top1 for row in bench.rows]


# -- retention --


class Killed(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("killed_at", [None, 0, 1, 3])
def test_retention_front_removes_the_files_of_dominated_trials_only(make_bench, monkeypatch, killed_at: int | None):
    """Also when it is killed before or between the removals: no file is ever missed that is recorded as there."""

    def write_files(job: TrialJob):
        Path(job.folder).mkdir(parents=True, exist_ok=True)
        for name in ("model.onnx", "network.safetensors"):
            (Path(job.folder) / name).write_bytes(b"x")
        return replace(instant_result(job), top1=0.9 if job.number == 0 else 0.1)

    bench = make_bench(retention__networks="front", study__trainings=4)
    bench.engine = FakeEngine(outcome=write_files)
    bench.open()
    bench.study.store.enqueue(SMALLEST, bench.settings.training)  # and most accurate: it beats every other
    with monkeypatch.context() as patched:
        if killed_at is not None:
            calls, unlink = itertools.count(), Path.unlink

            def dying(path: Path, missing_ok: bool = False) -> None:
                if path.name in ("model.onnx", "network.safetensors") and next(calls) == killed_at:
                    raise Killed
                unlink(path, missing_ok)

            patched.setattr(Path, "unlink", dying)
            with pytest.raises(Killed):
                bench.run(resume=True)
            for row in bench.done():
                for entry in reader.read_artifacts(bench.study.engine, row.id).values():
                    assert entry["removed"] or Path(entry["path"]).exists()
    bench.run(resume=True)
    for row in bench.done():
        removed = {entry["removed"] for entry in reader.read_artifacts(bench.study.engine, row.id).values()}
        assert removed == {row.number != 0}
        assert (bench.files / f"trial-{row.number:05d}" / "model.onnx").exists() == (row.number == 0)
    assert len(bench.done()) == 4  # their figures stay


def test_a_candidate_that_was_cancelled_before_it_was_priced_ends_once(make_bench):
    bench = make_bench()
    assert bench.run() == "finished"
    store = bench.study.store
    last = bench.rows[-1].number
    with bench.study.engine.begin() as connection:  # as a controller leaves it that dies right after asking
        connection.execute(
            sa.update(trial)
            .where(trial.c.number == last)
            .values(state=TrialState.ASKED, identity="another", finished_at=None, mirrored=False, top1=None)
        )
        connection.execute(sa.update(trial).where(trial.c.number != last).values(state=TrialState.DONE))
    bench.settings = tiny_settings(study__trainings=len(bench.done()))
    StudyStore(bench.study.engine, store.study_id).request_cancel(last)
    assert bench.run(resume=True) == "finished"
    assert (bench.rows[last].state, bench.rows[last].reason) == ("cancelled", "cancelled by the user")


def test_a_database_that_is_removed_ends_the_search_at_once(make_bench):
    bench = make_bench()

    def remove(job: TrialJob):
        (bench.folder / "study.db").unlink(missing_ok=True)
        return instant_result(job)

    bench.engine = FakeEngine(outcome=remove)
    with pytest.raises(DatabaseUnavailable, match="while it was in use"):
        bench.run()
    assert not (bench.folder / "study.db").exists()
