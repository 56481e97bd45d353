"""The controller on a real database, with trainings and latencies made up."""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from search.engines.base import EngineEvent
from search.engines.fake import FakeEngine, instant_result
from search.store import reader
from search.store.database import open_for_writing
from search.store.store import StudyStore
from search.store.tables import FINAL_STATES
from search.study import optuna_storage
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.errors import BudgetUnreachable, DiskFull, MeasurementFailed, SearchFailed, TrainingFailed
from tests.search.tiny_studies import SPACE, Bench, CountingProbe, by_macs, config_of, sqlite_url
from workers.trial import TrialJob

INSIDE = CondenseNetConfig(stages=(1,), growth=(4,), groups=2, condense_factor=2, bottleneck=1, input_shape=(1, 8, 8))
OUTSIDE = CondenseNetConfig(stages=(1,), growth=(16,), groups=2, condense_factor=2, bottleneck=1, input_shape=(1, 8, 8))
SMALLEST = CondenseNetConfig(**{**INSIDE.to_dict(), "groups": 4})  # of its space
CONSTRAINTS = {"latency_ms", "macs", "params"}


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all tables and no study: making the tables takes longer than a whole search."""
    folder = tmp_path_factory.mktemp("database")
    open_for_writing(sqlite_url(folder)).dispose()
    optuna_storage(sqlite_url(folder)).engine.dispose()
    return folder / "study.db"


@pytest.fixture
def make_bench(tmp_path: Path, empty_database: Path):
    benches = []

    def make(**changes: Any) -> Bench:
        folder = tmp_path / str(len(benches))
        folder.mkdir()
        shutil.copy(empty_database, folder)
        benches.append(Bench(folder, **changes))
        return benches[-1]

    yield make
    for bench in benches:
        bench.close()


def optuna_trials(bench: Bench) -> list[optuna.trial.FrozenTrial]:
    assert bench.study is not None
    return bench.study.optuna_study.get_trials(deepcopy=False)


def assert_consistent(bench: Bench) -> None:
    """What must hold of every study whose controller has ended by itself."""
    rows, trials = bench.rows, {trial.number: trial for trial in optuna_trials(bench)}
    assert all(trial.state.is_finished() for trial in trials.values())
    assert all(row.state in FINAL_STATES and row.told for row in rows)
    results = Counter(row.identity for row in rows if row.state == "done")
    assert all(count == 1 for count in results.values()), "an identity was trained twice"
    for row in rows:
        trial = trials[row.number]
        assert trial._trial_id == row.optuna_trial_id
        if row.state == "done":
            assert trial.values == [row.top1, row.latency.median_ms, float(row.macs)]
        expected = {"done": TrialState.COMPLETE, "infeasible": TrialState.PRUNED}.get(row.state, TrialState.FAIL)
        assert trial.state == expected
    for number in trials.keys() - {row.number for row in rows}:
        assert trials[number].state == TrialState.FAIL


# -- reaching the end --


def test_a_search_ends_with_the_number_of_trainings_asked_for(make_bench):
    bench = make_bench()
    assert bench.run() == "finished"
    assert len(bench.done()) == 4
    assert len(bench.engine.submitted) == 4
    assert_consistent(bench)


def test_a_finished_trial_has_its_price_curve_files_and_accuracy(make_bench):
    bench = make_bench(study__trainings=1)
    bench.run()
    (row,) = bench.done()
    cost = cost_of(row.config)
    assert (row.macs, row.params, row.paper_flops) == (cost.macs, cost.params, cost.paper_flops)
    assert row.latency.median_ms == pytest.approx(cost.macs / 1e4, rel=0.01)
    assert row.top1 == instant_result(bench.engine.submitted[0]).top1
    assert len(reader.read_curve(bench.study.engine, row.id)) == 1
    files = reader.read_artifacts(bench.study.engine, row.id)
    assert files.keys() == {"network.safetensors", "model.onnx"}
    assert all(Path(entry["path"]).parent == bench.folder / "files" / "trial-00000" for entry in files.values())


def test_resuming_with_a_larger_number_goes_on_from_there(make_bench):
    bench = make_bench(study__trainings=2)
    bench.run()
    first = bench.rows
    bench.settings = bench.settings.model_copy(
        update={"study": bench.settings.study.model_copy(update={"trainings": 5})}
    )
    assert bench.run(resume=True) == "finished"
    assert bench.rows[: len(first)] == first
    assert len(bench.done()) == 5
    assert_consistent(bench)


def test_resuming_a_finished_search_does_nothing(make_bench):
    bench = make_bench()
    bench.run()
    before, measured = bench.rows, len(bench.probe.measured)
    assert bench.run(resume=True) == "finished"
    assert (bench.rows, len(bench.probe.measured), len(bench.engine.submitted)) == (before, measured, 4)


def test_candidates_are_priced_in_batches(make_bench):
    bench = make_bench(study__trainings=6, search__batch=3)
    bench.run()
    assert sum(bench.probe.batches) == len(set(bench.probe.measured)) == 6
    assert max(bench.probe.batches) == 3


def test_a_space_that_is_used_up_ends_the_search(make_bench):
    tiny = {**SPACE, "groups": [1, 2], "condense_factor": [1], "bottleneck": [1], "num_stages": [1]}
    bench = make_bench(space=tiny, study__trainings=50)
    assert bench.run() == "exhausted"
    assert len(bench.done()) == 4 == bench.settings.search_space().size
    assert_consistent(bench)
    assert bench.run(resume=True) == "exhausted"
    assert len(bench.engine.submitted) == 4


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "gp", "random"])
def test_every_sampler_fills_a_tight_budget(make_bench, sampler: str):
    """Of the 72 configs 10 have at most 12,000 macs; no sampler may get stuck proposing the others."""
    bench = make_bench(study__trainings=6, search__sampler=sampler, budget__max_macs=12_000, search__give_up_after=300)
    assert bench.run() == "finished"
    assert len({row.identity for row in bench.done()}) == 6
    assert all(row.macs <= 12_000 for row in bench.done())
    assert_consistent(bench)


# -- the gate --


def test_a_candidate_over_a_known_cost_is_refused_without_measuring(make_bench):
    bench = make_bench(budget__max_macs=20_000, study__trainings=3)
    bench.run()
    refused = [row for row in bench.rows if row.state == "infeasible"]
    assert refused
    for row in refused:
        assert row.macs > 20_000
        assert row.latency is None
        assert row.reason == f"{row.macs:,} macs > 20,000"
    assert all(cost_of(config).macs <= 20_000 for config in bench.probe.measured)
    assert_consistent(bench)


def test_a_latency_is_judged_by_the_upper_end_of_its_interval(make_bench):
    bench = make_bench(study__trainings=1)
    bench.run()
    (row,) = bench.done()
    assert row.latency.median_ms < row.latency.interval_high_ms
    between = (row.latency.median_ms + row.latency.interval_high_ms) / 2
    strict = make_bench(study__trainings=1, budget__max_latency_ms=between)
    strict.study = strict.open()
    strict.study.store.enqueue(row.config, row.training)
    strict.run(resume=True)
    first = strict.rows[0]
    assert (first.config, first.state) == (row.config, "infeasible")
    assert first.latency == row.latency
    assert "measured" in first.reason
    assert first.config not in [job.config for job in strict.engine.submitted]
    assert all(row.latency.interval_high_ms <= between for row in strict.done())


def test_every_priced_or_refused_trial_carries_all_three_constraints(make_bench):
    bench = make_bench(budget__max_macs=30_000, budget__max_latency_ms=2.0, study__trainings=4)
    bench.run()
    states = {row.number: row.state for row in bench.rows}
    assert {"done", "infeasible"} <= set(states.values())
    for trial in optuna_trials(bench):
        if states[trial.number] in ("done", "infeasible"):
            assert trial.constraints.keys() == CONSTRAINTS
            assert (max(trial.constraints.values()) > 0) == (states[trial.number] == "infeasible")
    assert_consistent(bench)


def test_a_budget_below_everything_ends_with_the_smallest_cost_seen(make_bench):
    bench = make_bench(budget__max_macs=10, search__give_up_after=20)
    with pytest.raises(BudgetUnreachable, match=r"budget 10 macs; smallest macs seen [\d,]+\); widen the space"):
        bench.run()
    assert bench.engine.submitted == []
    assert bench.probe.measured == []
    assert_consistent(bench)


def test_a_latency_nothing_reaches_is_named_with_the_smallest_latency_seen(make_bench):
    bench = make_bench(budget__max_latency_ms=0.001, search__give_up_after=5)
    with pytest.raises(BudgetUnreachable, match=r"smallest latency seen [\d.]+ ms"):
        bench.run()


def test_running_dry_after_some_trainings_is_a_failed_search(make_bench):
    bench = make_bench(study__trainings=50, budget__max_macs=cost_of(SMALLEST).macs, search__give_up_after=10)
    bench.open()
    bench.study.store.enqueue(SMALLEST, bench.settings.training)
    with pytest.raises(SearchFailed, match=r"\d\d proposals in a row were refused or repeated"):
        bench.run(resume=True)
    assert [row.config for row in bench.done()] == [SMALLEST]
    assert_consistent(bench)


# -- duplicates and wishes --


def test_no_identity_is_ever_submitted_twice(make_bench):
    tiny = {**SPACE, "groups": [1, 2], "condense_factor": [1, 2], "num_stages": [1]}
    bench = make_bench(space=tiny, study__trainings=14, search__give_up_after=500)
    bench.run()
    submitted = Counter(job.identity for job in bench.engine.submitted)
    assert len(submitted) == 14
    assert set(submitted.values()) == {1}
    duplicates = [row for row in bench.rows if row.state == "duplicate"]
    assert duplicates
    for row in duplicates:
        original = bench.study.store.trial(row.duplicate_of)
        assert original.identity == row.identity
        assert original.number < row.number
        assert row.reason == f"same as trial {row.duplicate_of}"
    assert_consistent(bench)


def test_an_enqueued_config_of_the_space_is_tried_first_with_its_parameters(make_bench):
    bench = make_bench()
    bench.open()
    bench.study.store.enqueue(INSIDE, bench.settings.training)
    bench.run(resume=True)
    first = bench.rows[0]
    assert (first.config, first.origin, first.state) == (INSIDE, "enqueued", "done")
    params = optuna_trials(bench)[0].params
    assert (params["groups"], params["layers_1"], params["bottleneck"]) == (2, 1, 1)
    assert bench.study.store.waiting_wishes() == []
    assert_consistent(bench)


def test_an_enqueued_config_from_outside_the_space_is_trained_too(make_bench):
    bench = make_bench()
    bench.open()
    bench.study.store.enqueue(OUTSIDE, bench.settings.training)
    bench.run(resume=True)
    first = bench.rows[0]
    assert (first.config, first.origin, first.state) == (OUTSIDE, "enqueued", "done")
    assert first.latency is not None
    assert len(bench.done()) == 4


def test_a_trial_from_outside_the_space_leaves_the_samplers_their_search_space(make_bench):
    """Samplers model the parameters that all their trials have in common; one without any would leave none."""
    bench = make_bench()
    bench.open()
    bench.study.store.enqueue(OUTSIDE, bench.settings.training)
    bench.run(resume=True)
    space = optuna.search_space.IntersectionSearchSpace(include_pruned=True).calculate(bench.study.optuna_study)
    assert {"groups", "condense_factor", "bottleneck"} <= space.keys()


@pytest.mark.parametrize("training", [{"epochs": 7}, {"learning_rate": 0.9}, {"momentum": 0.5}])
def test_enqueued_training_settings_from_outside_are_used_as_they_are(make_bench, training: dict):
    bench = make_bench(training__learning_rate=[0.1, 0.2, 0.4], study__trainings=2)
    bench.open()
    bench.study.store.enqueue(INSIDE, training)
    assert bench.run(resume=True) == "finished"
    job = bench.engine.submitted[0]
    assert job.config == INSIDE
    assert training.items() <= job.training.model_dump().items()
    assert optuna_trials(bench)[0].params == {}


def test_what_is_enqueued_from_outside_does_not_use_up_the_space(make_bench):
    tiny = {**SPACE, "groups": [1, 2], "condense_factor": [1], "bottleneck": [1], "num_stages": [1]}
    bench = make_bench(space=tiny, study__trainings=50)
    bench.open()
    bench.study.store.enqueue(OUTSIDE, bench.settings.training)
    assert bench.run(resume=True) == "exhausted"
    assert len(bench.done()) == 4 + 1
    assert bench.run(resume=True) == "exhausted"
    assert len(bench.done()) == 4 + 1


def test_enqueueing_the_same_config_again_gives_a_duplicate(make_bench):
    bench = make_bench()
    bench.open()
    for _ in range(2):
        bench.study.store.enqueue(INSIDE, bench.settings.training)
    bench.run(resume=True)
    assert [row.state for row in bench.rows[:2]] == ["done", "duplicate"]
    assert bench.rows[1].duplicate_of == 0
    assert_consistent(bench)


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


def test_failures_in_a_row_end_the_search_with_the_last_reason(make_bench):
    bench = make_bench(limits__failures_in_a_row=3, study__trainings=9)
    bench.engine = FakeEngine(outcome=failing(*range(2, 99)))
    with pytest.raises(SearchFailed, match=r"[34] trials in a row failed, the last because: the loss became nan"):
        bench.run()
    assert bench.states()[:2] == ["done", "done"]
    assert Counter(bench.states())["failed"] in (3, 4)  # the other slot's trial fails meanwhile
    assert not {"asked", "running"} & set(bench.states())
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


def test_what_every_trial_would_meet_stops_the_search_and_keeps_the_trial(make_bench):
    bench = make_bench()
    bench.engine = FakeEngine(slots=1, outcome=failing(1, error=DiskFull("no space is left")))
    with pytest.raises(DiskFull, match="no space is left"):
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


def test_a_wish_to_stop_leaves_running_trials_queued_and_resuming_finishes_them(make_bench):
    bench = make_bench()

    def ask_to_stop(engine: PatientEngine) -> None:
        if engine.polls == 3:
            StudyStore(bench.study.engine, bench.study.store.study_id).request_stop()

    bench.engine = PatientEngine(ask_to_stop)
    assert bench.run() == "stopped"
    assert bench.states() == ["queued"] * 4  # two were running, two were priced in advance
    assert [trial.state for trial in optuna_trials(bench)] == [TrialState.RUNNING] * 4
    bench.engine = FakeEngine()
    assert bench.run(resume=True) == "finished"
    assert [job.attempt for job in bench.engine.submitted] == [2, 2, 1, 1]
    assert sorted(row.number for row in bench.done()) == [0, 1, 2, 3]
    assert_consistent(bench)


def test_an_interrupt_before_anything_ran_stops_at_once(make_bench):
    bench = make_bench()
    bench.stop.set()
    assert bench.run() == "stopped"
    assert bench.rows == []


def test_an_interrupt_while_training_stops_with_checkpoints(make_bench):
    bench = make_bench()
    bench.engine = PatientEngine(lambda engine: bench.stop.set() if engine.polls == 3 else None)
    assert bench.run() == "stopped"
    assert bench.states() == ["queued"] * 4
    assert [row.attempt for row in bench.rows] == [1, 1, 0, 0]


def test_a_running_trial_is_cancelled_on_request(make_bench):
    bench = make_bench()

    def cancel_the_first(engine: PatientEngine) -> None:
        if engine.polls == 3:
            bench.study.store.request_cancel(0)
        engine.finish_all = engine.polls > 6

    bench.engine = PatientEngine(cancel_the_first)
    assert bench.run() == "finished"
    assert (bench.rows[0].state, bench.rows[0].reason) == ("cancelled", "cancelled by the user")
    assert len(bench.done()) == 4
    assert_consistent(bench)


def test_a_waiting_trial_is_cancelled_without_being_run(make_bench):
    bench = make_bench()
    bench.engine = PatientEngine(lambda engine: bench.stop.set() if engine.polls == 3 else None)
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
        if engine.polls == 3:
            for number in (0, 1):
                bench.study.store.request_cancel(number)
        engine.finish_all = engine.polls > 6

    bench.engine = PatientEngine(cancel_all_of_the_first)
    assert bench.run() == "finished"


# -- retention --


def test_retention_front_removes_the_files_of_dominated_trials_only(make_bench):
    def write_files(job: TrialJob):
        Path(job.folder).mkdir(parents=True, exist_ok=True)
        (Path(job.folder) / "model.onnx").write_bytes(b"x")
        return replace(instant_result(job), top1=0.9 if job.number == 0 else 0.1)

    bench = make_bench(retention__networks="front", study__trainings=4)
    bench.engine = FakeEngine(outcome=write_files)
    bench.open()
    bench.study.store.enqueue(SMALLEST, bench.settings.training)  # and most accurate: it beats every other
    bench.run(resume=True)
    for row in bench.done():
        removed = {entry["removed"] for entry in reader.read_artifacts(bench.study.engine, row.id).values()}
        assert removed == {row.number != 0}
        assert (bench.folder / "files" / f"trial-{row.number:05d}").exists() == (row.number == 0)
    assert len(bench.done()) == 4  # their figures stay


# -- crashes --


class Crash(BaseException):
    """The process dies here."""


STEPS = ["add_trial", "add_latency", "set_queued", "set_running", "add_curve_row", "add_artifacts", "finish"]
STEPS += ["mark_told", "heartbeat"]


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


@pytest.mark.slow
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("call", [0, 3])
@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_step_of_the_store_loses_nothing(make_bench, monkeypatch, step: str, call: int, before: bool):
    """The budget refuses some, so that `finish` and `mark_told` meet every kind of ending."""
    bench = make_bench(budget__max_macs=40_000)
    crash_at(monkeypatch, StudyStore, step, call, before)
    survives(bench, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("call", [0, 2])
@pytest.mark.parametrize("step", ["ask", "tell"])
def test_a_crash_at_optunas_steps_loses_nothing(make_bench, monkeypatch, step: str, call: int, before: bool):
    bench = make_bench(budget__max_macs=40_000)
    crash_at(monkeypatch, optuna.Study, step, call, before)
    survives(bench, monkeypatch)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("name", ["quiet", "submit", "poll"])
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
    assert bench.study.store.waiting_wishes() == []
