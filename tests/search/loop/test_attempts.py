"""The attempts of a trial: who trains it, how each ended, and what a controller makes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.engines.events import Done, EngineEvent, EpochEnded, Lost, Resumed, Started, UnderWay
from search.engines.fake import FakeEngine, instant_result
from search.loop.callbacks import SilentCallback
from search.loop.times import LoopTimes
from search.store import reader
from search.store.connection.database import open_for_writing
from search.store.rows import AttemptRow, EventRow, NewTrial
from search.store.store import StudyStore
from search.store.studies import create_study
from space.cost import cost_of
from space.errors import OutOfMemory
from tests.search.tiny_studies import CURVE_ROW, INSIDE, Bench, assert_consistent, tiny_settings
from workers.training.job import TrialJob
from workers.training.reporting import ProgressReport

# -- what is recorded --


@pytest.fixture
def store(database: str):
    """A study with trials 0 and 1."""
    engine = open_for_writing(database)
    plain = tiny_settings().model_dump(mode="json")
    store = StudyStore(engine, create_study(engine, "one", 1, plain, ("a" * 64, "b" * 64)))
    for number in (0, 1):
        new = NewTrial(number, "sampled", INSIDE, {"epochs": 1}, 3, f"identity-{number}", cost_of(INSIDE))
        store.add_trial(new)
    yield store
    engine.dispose()


def attempts(store: StudyStore) -> list[AttemptRow]:
    return reader.read_attempts(store.engine, store.study_id)


def test_every_attempt_is_counted_and_the_first_start_is_kept(store: StudyStore):
    store.set_running(0, 1)
    started = store.trial(0).started_at
    store.set_queued(0)
    assert store.trial(0).state == "queued"
    store.set_running(0, 2)
    row = store.trial(0)
    assert (row.state, row.attempt, row.started_at) == ("running", 2, started)
    first, second = attempts(store)
    assert (first.number, first.attempt, second.attempt) == (0, 1, 2)
    assert first.started_at == pytest.approx(started, abs=1)
    assert second.started_at > first.started_at
    assert (second.owner, second.worker, second.epochs, second.outcome) == (store.me, None, 0, None)


def test_a_start_recorded_again_is_the_same_attempt(store: StudyStore):
    store.set_running(0, 1)
    store.set_running(0, 1)
    assert [(one.number, one.attempt) for one in attempts(store)] == [(0, 1)]


def test_the_worker_of_an_attempt_is_recorded(store: StudyStore):
    for number in (0, 1):
        store.set_running(number, 1)
    store.set_worker(1, 1, "desk:4711")
    assert [one.worker for one in attempts(store)] == [None, "desk:4711"]


def test_a_sign_of_life_renews_the_open_attempts_of_the_trials_named(store: StudyStore):
    for number in (0, 1):
        store.set_running(number, 1)
    store.end_attempt(0, 1, "lost", "why")
    store.set_running(0, 2)
    before = attempts(store)
    store.renew_attempts([0])
    after = attempts(store)
    renewed = [(b.number, b.attempt) for a, b in zip(before, after, strict=True) if b.heartbeat_at > a.heartbeat_at]
    assert renewed == [(0, 2)]


def test_how_far_a_trial_is_belongs_to_its_attempt_and_replaces_what_was_said_before(store: StudyStore):
    for number in (0, 1):
        store.set_running(number, 1)
    store.end_attempt(0, 1, "lost", "why")
    store.set_running(0, 2)
    store.set_reports({(0, 2): ProgressReport(0.25, 10.0, 800.0), (1, 1): ProgressReport(0.5, 3.0, None)})
    store.set_reports({(0, 2): ProgressReport(0.5, 20.0, 900.0)})
    store.set_reports({})
    assert [one.report for one in attempts(store)] == [
        None,
        ProgressReport(0.5, 20.0, 900.0),
        ProgressReport(0.5, 3.0, None),
    ]
    assert [one.schedule_epochs for one in attempts(store)] == [1, 1, 1]
    store.add_curve_row(0, {**CURVE_ROW, "progress": 0.75, "seconds": 30.0, "images_per_s": 700.0}, 2)
    assert attempts(store)[1].report == ProgressReport(0.75, 30.0, 700.0)  # an epoch says how far it is, too


def test_an_attempt_ends_once(store: StudyStore):
    store.set_running(0, 1)
    store.end_attempt(0, 1, "lost", "it died")
    (first,) = attempts(store)
    assert (first.outcome, first.reason) == ("lost", "it died")
    store.end_attempt(0, 1, "done")
    assert attempts(store) == [first]
    assert reader.read_attempts(store.engine, store.study_id, only_open=True) == []


def test_epochs_are_counted_for_the_attempt_that_reports_them_first(store: StudyStore):
    store.set_running(0, 1)
    store.add_curve_row(0, CURVE_ROW, 1)
    store.add_curve_row(0, {**CURVE_ROW, "epoch": 2}, 1)
    store.set_running(0, 2)
    store.add_curve_row(0, {**CURVE_ROW, "epoch": 2}, 2)  # again since its checkpoint
    store.add_curve_row(0, {**CURVE_ROW, "epoch": 3}, 2)
    assert [one.epochs for one in attempts(store)] == [2, 1]
    assert [row["epoch"] for row in reader.read_curve(store.engine, store.trial(0).id)] == [1, 2, 3]


def test_a_checkpoints_curve_fills_gaps_and_changes_nothing_that_is_recorded(store: StudyStore):
    store.set_running(0, 1)
    store.add_curve_row(0, CURVE_ROW, 1)
    store.add_curve_row(0, {**CURVE_ROW, "epoch": 3}, 1)
    store.set_running(0, 2)
    store.fill_curve(0, [{**CURVE_ROW, "epoch": epoch, "val_loss": 9.0} for epoch in (1, 2, 3)])
    found = [(row["epoch"], row["val_loss"]) for row in reader.read_curve(store.engine, store.trial(0).id)]
    assert found == [(1, CURVE_ROW["val_loss"]), (2, 9.0), (3, CURVE_ROW["val_loss"])]
    assert [one.epochs for one in attempts(store)] == [2, 0]


def test_a_smaller_batch_begins_a_curve_of_its_own(store: StudyStore):
    store.set_running(0, 1)
    store.add_curve_row(0, CURVE_ROW, 1)
    store.retry_smaller(0, {"epochs": 2}, "other")
    assert reader.read_curve(store.engine, store.trial(0).id) == []


@pytest.mark.parametrize(
    ("endings", "losses"),
    [
        ([], 0),
        ([("lost", 0)], 1),
        ([("lost", 0), ("lost", 0)], 2),
        ([("lost", 0), ("lost", 1)], 0),
        ([("lost", 3), ("lost", 0)], 1),
        ([("lost", 0), ("stopped", 0)], 0),
        ([("lost", 0), ("failed", 0), ("lost", 0)], 1),
        ([("stopped", 0), ("lost", 0), ("lost", 0)], 2),
    ],
)
def test_losses_are_counted_in_a_row_until_one_that_reported_an_epoch(store: StudyStore, endings, losses: int):
    for of, (outcome, epochs) in enumerate(endings, 1):
        store.set_running(0, of)
        for epoch in range(epochs):
            store.add_curve_row(0, {**CURVE_ROW, "epoch": epoch + 1}, of)
        store.end_attempt(0, of, outcome)
    store.set_running(1, 1)
    store.end_attempt(1, 1, "done")  # another trial's
    now = len(endings) + 1
    store.set_running(0, now)
    assert store.losses_in_a_row(0, now) == losses + 1  # this attempt is lost too
    store.add_curve_row(0, {**CURVE_ROW, "epoch": 9}, now)
    store.add_curve_row(0, {**CURVE_ROW, "epoch": 9}, now)  # repeated, because the answer to its commit was lost
    assert store.losses_in_a_row(0, now) == 0


def test_events_are_read_newest_first_and_by_kind(store: StudyStore):
    store.note_event("late", "first", 0, 1)
    store.note_event("lost", "second")
    store.note_event("late", "third", 1, 2)
    newest = reader.newest_events(store.engine, store.study_id, 2)
    assert [(one.kind, one.number, one.attempt, one.detail) for one in newest] == [
        ("late", 1, 2, "third"),
        ("lost", None, None, "second"),
    ]
    assert store.numbers_of_event("late") == {0, 1}
    assert store.numbers_of_event("lost") == set()


# -- what the controller makes of it --


class Scripted(FakeEngine):
    """Each attempt at a trial gives the events of `script(job)`; None: it does what a fake engine does.

    A trial whose script is empty is with a worker that says nothing, until it is cancelled or stopped.
    """

    def __init__(self, script: Callable[[TrialJob], list[EngineEvent] | None], slots: int = 1) -> None:
        super().__init__(slots)
        self._script, self.silent = script, dict[int, TrialJob]()

    def free_slots(self) -> int:
        return super().free_slots() - len(self.silent)

    def poll(self, timeout_s: float) -> list[EngineEvent]:
        events = []
        while self._running:
            job = self._running.popleft()
            told = self._script(job)
            if told == []:
                self.silent[job.number] = job
            events += self._events(job) if told is None else told
        return events

    def cancel(self, number: int) -> None:
        self.silent.pop(number, None)


def lost(job: TrialJob, why: str = "it was killed") -> EngineEvent:
    return Lost(job.number, job.attempt, why)


def epoch(job: TrialJob, number: int) -> EngineEvent:
    return EpochEnded(job.number, job.attempt, {**CURVE_ROW, "epoch": number})


def done(job: TrialJob) -> EngineEvent:
    return Done(job.number, job.attempt, instant_result(job))


def attempts_of(bench: Bench, number: int) -> list[tuple[int, str | None, str | None, int]]:
    assert bench.study is not None
    found = reader.read_attempts(bench.study.engine, bench.study.store.study_id)
    return [(one.attempt, one.outcome, one.reason, one.epochs) for one in found if one.number == number]


def events_of(bench: Bench, kind: str) -> list[EventRow]:
    assert bench.study is not None
    newest = reader.newest_events(bench.study.engine, bench.study.store.study_id, 1000)
    return [one for one in reversed(newest) if one.kind == kind]


class Watching(SilentCallback):
    """Keeps how far trials were said to be."""

    def __init__(self) -> None:
        self.told: list[tuple[int, float]] = []

    def under_way(self, number: int, report: ProgressReport) -> None:
        self.told.append((number, report.progress))


class Slow(Scripted):
    """Its one trial says how far it is, and is done once that is in the database."""

    def poll(self, timeout_s: float) -> list[EngineEvent]:
        (report,) = [one.report for one in reader.read_attempts(self.database, 1)] or [None]
        if report is not None:
            return [done(self.submitted.pop())] if self.submitted else []
        return super().poll(timeout_s)


def test_how_far_a_trial_is_within_an_epoch_is_shown_at_once_and_recorded_with_its_lease(make_bench):
    def script(job: TrialJob) -> list[EngineEvent]:
        late = UnderWay(job.number, job.attempt + 7, ProgressReport(0.9, 1.0, None))  # of another attempt
        return [
            late,
            *(UnderWay(job.number, job.attempt, ProgressReport(part, 10 * part, 500.0)) for part in (0.125, 0.25)),
        ]

    bench = make_bench(study__trainings=1, engine__workers=1)
    bench.callback = watching = Watching()
    bench.times = LoopTimes(renew_s=0.0, reports_s=0.0, poll_s=0.0)
    bench.engine = Slow(script)
    controller = bench.controller()
    bench.engine.database = bench.study.engine
    controller.run()
    assert watching.told == [(0, 0.125), (0, 0.25)]
    (row,) = reader.read_attempts(bench.study.engine, bench.study.store.study_id)
    assert (row.outcome, row.report) == ("done", ProgressReport(0.25, 2.5, 500.0))
    assert reader.read_curve(bench.study.engine, bench.rows[0].id) == []  # no epoch has ended


def test_a_trial_whose_worker_died_goes_on_with_another(database_bench):
    bench = database_bench()
    bench.engine = Scripted(lambda job: [lost(job)] if (job.number, job.attempt) == (1, 1) else None, slots=2)
    assert bench.run() == "finished"
    assert bench.rows[1].state == "done"
    assert attempts_of(bench, 1) == [(1, "lost", "it was killed", 0), (2, "done", None, 1)]
    assert [(one.number, one.attempt, one.detail) for one in events_of(bench, "lost")] == [(1, 1, "it was killed")]
    assert_consistent(bench)


def test_attempts_lost_in_a_row_without_an_epoch_fail_the_trial_with_the_reason(database_bench):
    bench = database_bench(limits__lost_attempts=3)
    bench.engine = Scripted(lambda job: [lost(job, f"reason {job.attempt}")] if job.number == 1 else None)
    assert bench.run() == "finished"
    row = bench.rows[1]
    assert (row.state, row.attempt) == ("failed", 3)
    assert row.reason == "3 attempts in a row were lost, the last because reason 3"
    assert [outcome for _, outcome, _, _ in attempts_of(bench, 1)] == ["lost"] * 3
    assert len(bench.done()) == 4
    assert_consistent(bench)


def test_losses_are_counted_over_a_restart(make_bench):
    bench = make_bench(limits__lost_attempts=3)

    def script(job: TrialJob) -> list[EngineEvent] | None:
        if job.number != 0:
            return None
        if job.attempt == 2:
            bench.stop.set()
        return [lost(job)]

    bench.engine = Scripted(script)
    assert bench.run() == "stopped"
    assert bench.rows[0].state == "queued"
    bench.stop.clear()
    assert bench.run(resume=True) == "finished"
    assert (bench.rows[0].state, bench.rows[0].attempt) == ("failed", 3)
    assert_consistent(bench)


def test_what_a_killed_worker_left_half_written_goes_when_its_trial_has_ended(make_bench):
    bench = make_bench()

    def script(job: TrialJob) -> list[EngineEvent] | None:
        if (job.number, job.attempt) != (0, 1):
            return None
        Path(job.folder).mkdir(parents=True)
        (Path(job.folder) / ".network.safetensors.4711").write_bytes(b"half")
        return [lost(job)]

    bench.engine = Scripted(script)
    assert bench.run() == "finished"
    assert bench.rows[0].state == "done"
    assert list(bench.folder.rglob("*.4711")) == []


def test_attempts_that_only_repeat_what_was_reported_get_no_further(make_bench):
    bench = make_bench(limits__lost_attempts=3)
    bench.engine = Scripted(lambda job: [epoch(job, 1), lost(job)] if job.number == 0 else None)
    assert bench.run() == "finished"
    assert (bench.rows[0].state, bench.rows[0].attempt) == ("failed", 4)
    assert [epochs for _, _, _, epochs in attempts_of(bench, 0)] == [1, 0, 0, 0]
    assert_consistent(bench)


def test_an_epoch_that_no_controller_lived_to_record_comes_with_the_checkpoint(make_bench):
    bench = make_bench()

    def script(job: TrialJob) -> list[EngineEvent] | None:
        if job.number != 0:
            return None
        if job.attempt == 1:
            return [epoch(job, 1), lost(job)]  # epoch 2 is in its checkpoint, but never came
        earlier = Resumed(job.number, job.attempt, [{**CURVE_ROW, "epoch": at} for at in (1, 2)])
        return [earlier, epoch(job, 3), done(job)]

    bench.engine = Scripted(script)
    assert bench.run() == "finished"
    curve = reader.read_curve(bench.study.engine, bench.rows[0].id)
    assert [row["epoch"] for row in curve] == [1, 2, 3]
    assert_consistent(bench)


def test_a_trial_that_reports_an_epoch_in_each_attempt_may_be_lost_any_number_of_times(make_bench):
    bench = make_bench(limits__lost_attempts=2)

    def script(job: TrialJob) -> list[EngineEvent] | None:
        if job.number != 0 or job.attempt > 8:
            return None
        return [epoch(job, job.attempt), lost(job)]

    bench.engine = Scripted(script)
    assert bench.run() == "finished"
    assert (bench.rows[0].state, bench.rows[0].attempt) == ("done", 9)
    assert len(events_of(bench, "lost")) == 8
    assert_consistent(bench)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_an_epoch_between_losses_starts_the_count_anew(database_bench):
    bench = database_bench(limits__lost_attempts=3)

    def script(job: TrialJob) -> list[EngineEvent] | None:
        if job.number != 0 or job.attempt == 6:
            return None
        return [epoch(job, 1), lost(job)] if job.attempt == 3 else [lost(job)]

    bench.engine = Scripted(script)
    assert bench.run() == "finished"
    assert (bench.rows[0].state, bench.rows[0].attempt) == ("done", 6)


def out_of_memory(*numbers: int, always: bool = False) -> Callable[[TrialJob], Any]:
    def outcome(job: TrialJob):
        if job.number in numbers and (always or job.training.batch_size > 16):
            raise OutOfMemory(f"no memory for {job.training.batch_size} images")
        return instant_result(job)

    return outcome


def test_a_trial_without_memory_is_tried_once_more_with_half_the_batch_and_half_the_rate(database_bench):
    bench = database_bench(training__batch_size=32, training__learning_rate=0.2)
    bench.engine = FakeEngine(outcome=out_of_memory(1))
    assert bench.run() == "finished"
    first, second = (job for job in bench.engine.submitted if job.number == 1)
    assert (first.training.batch_size, first.training.learning_rate) == (32, 0.2)
    assert (second.training.batch_size, second.training.learning_rate) == (16, 0.1)
    row = bench.rows[1]
    assert (row.state, row.attempt, row.training["batch_size"], row.training["learning_rate"]) == ("done", 2, 16, 0.1)
    assert row.identity == second.identity != first.identity
    assert attempts_of(bench, 1) == [(1, "failed", "no memory for 32 images", 0), (2, "done", None, 1)]
    (noted,) = events_of(bench, "smaller batch")
    assert (noted.number, noted.attempt) == (1, 1)
    assert noted.detail == "no memory for 32 images: tried again with batch size 16"
    assert_consistent(bench)


def test_without_memory_for_half_the_batch_either_it_fails_with_the_reason(make_bench):
    bench = make_bench(training__batch_size=32)
    bench.engine = FakeEngine(outcome=out_of_memory(1, always=True))
    assert bench.run() == "finished"
    row = bench.rows[1]
    assert (row.state, row.attempt, row.reason) == ("failed", 2, "no memory for 16 images")
    assert len(events_of(bench, "smaller batch")) == 1
    assert len(bench.done()) == 4
    assert_consistent(bench)


@pytest.mark.parametrize("batch_size", [2, 3])
def test_a_batch_is_never_halved_to_one_image_which_batch_norm_cannot_train_on(make_bench, batch_size: int):
    bench = make_bench(training__batch_size=batch_size, study__trainings=2)

    def outcome(job: TrialJob):
        if job.number == 0:
            raise OutOfMemory("no memory")
        return instant_result(job)

    bench.engine = FakeEngine(outcome=outcome)
    assert bench.run() == "finished"
    assert (bench.rows[0].state, bench.rows[0].attempt, bench.rows[0].reason) == ("failed", 1, "no memory")


def test_the_batch_is_not_halved_again_after_a_restart(make_bench):
    bench = make_bench(training__batch_size=32)

    def outcome(job: TrialJob):
        if job.number == 0:
            bench.stop.set()
        return out_of_memory(0, always=True)(job)

    bench.engine = FakeEngine(slots=1, outcome=outcome)
    assert bench.run() == "stopped"
    assert (bench.rows[0].state, bench.rows[0].training["batch_size"]) == ("queued", 16)
    bench.stop.clear()
    bench.engine = FakeEngine(outcome=out_of_memory(0, always=True))
    assert bench.run(resume=True) == "finished"
    assert (bench.rows[0].state, bench.rows[0].reason) == ("failed", "no memory for 16 images")
    assert [job.training.batch_size for job in bench.engine.submitted if job.number == 0] == [16]
    assert_consistent(bench)


def test_a_silent_worker_is_given_up_and_what_it_says_late_is_refused_and_recorded(database_bench):
    bench = database_bench()
    bench.times = LoopTimes(silent_s=0.05, renew_s=0.0)
    silent: list[TrialJob] = []

    def script(job: TrialJob) -> list[EngineEvent] | None:
        if job.number == 0 and job.attempt == 1:
            silent.append(job)
            return []
        if job.number == 0:  # the first wakes up once another is at it
            (old,) = silent
            return [epoch(old, 1), epoch(old, 2), done(old), epoch(job, 1), done(job)]
        return None

    bench.engine = Scripted(script, slots=2)
    assert bench.run() == "finished"
    silence = "nothing was heard of its worker for 0 s"
    assert attempts_of(bench, 0) == [(1, "lost", silence, 0), (2, "done", None, 1)]
    late = [(one.number, one.attempt, one.detail) for one in events_of(bench, "late")]
    text = "of an attempt that had been given up: refused"
    assert late == [(0, 1, f"an epoch {text}"), (0, 1, f"a result {text}")]
    assert [row["epoch"] for row in reader.read_curve(bench.study.engine, bench.rows[0].id)] == [1]
    assert bench.rows[0].state == "done"
    assert_consistent(bench)


def test_a_worker_that_the_engine_knows_to_live_is_not_given_up_for_its_silence(make_bench):
    bench, polls = make_bench(study__trainings=1), []
    bench.times = LoopTimes(silent_s=0.0, renew_s=0.0)

    class Slow(FakeEngine):
        def poll(self, timeout_s: float) -> list[EngineEvent]:
            polls.append(1)
            return super().poll(timeout_s) if len(polls) > 20 else []

    bench.engine = Slow()
    assert bench.run() == "finished"
    assert attempts_of(bench, 0) == [(1, "done", None, 1)]
    assert events_of(bench, "lost") == []


def test_news_of_several_trials_and_attempts_in_one_batch_are_all_taken(database_bench):
    bench = database_bench(study__trainings=3, search__batch=3)

    def script(job: TrialJob) -> list[EngineEvent] | None:
        started = Started(job.number, job.attempt, f"desk:{job.number}{job.attempt}")
        if job.number == 0 and job.attempt == 1:
            return [started, epoch(job, 1), lost(job), epoch(job, 2), done(job)]  # more than the contract allows
        return [started, epoch(job, 1), epoch(job, 2), epoch(job, 2), done(job)]

    bench.engine = Scripted(script, slots=3)
    assert bench.run() == "finished"
    assert attempts_of(bench, 0)[0] == (1, "lost", "it was killed", 1)
    workers = {
        (one.number, one.attempt): one.worker
        for one in reader.read_attempts(bench.study.engine, bench.study.store.study_id)
    }
    assert workers == {(0, 1): "desk:01", (0, 2): "desk:02", (1, 1): "desk:11", (2, 1): "desk:21"}
    for row in bench.done():
        assert [one["epoch"] for one in reader.read_curve(bench.study.engine, row.id)] == [1, 2]
    assert [one.detail.split()[1] for one in events_of(bench, "late")] == ["epoch", "result"]
    assert len(bench.done()) == 3
    assert_consistent(bench)


def test_a_lost_trial_that_was_to_be_cancelled_is_cancelled(make_bench):
    bench, waiting, asked = make_bench(), [], []
    bench.times = LoopTimes(look_s=0.0)

    class Dying(Scripted):
        def poll(self, timeout_s: float) -> list[EngineEvent]:
            events = super().poll(timeout_s)
            return [*events, lost(waiting.pop())] if asked and waiting else events

        def cancel(self, number: int) -> None:
            asked.append(number)
            super().cancel(number)

    def script(job: TrialJob) -> list[EngineEvent] | None:
        if job.number != 0:
            return None
        waiting.append(job)
        StudyStore(bench.study.engine, bench.study.store.study_id).request_cancel(0)
        return []

    bench.engine = Dying(script)
    assert bench.run() == "finished"
    assert (bench.rows[0].state, bench.rows[0].reason) == ("cancelled", "cancelled by the user")
    assert [outcome for _, outcome, _, _ in attempts_of(bench, 0)] == ["cancelled"]
    assert_consistent(bench)
