"""The controller on a real database, with trainings and latencies made up: from proposals to the last training."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from search.engines.fake import FakeEngine, instant_result
from search.loop.callbacks import SilentCallback
from search.samplers import proposer
from search.samplers.optuna_samplers import make_sampler
from search.store import reader
from search.store.rows import NewTrial
from search.store.vocabulary import TrialOrigin
from space.cost import cost_of
from tests.search.tiny_studies import (
    INSIDE,
    OUTSIDE,
    SMALLEST,
    SPACE,
    assert_consistent,
    optuna_study,
    optuna_trials,
)

CONSTRAINTS = {"latency_ms", "macs", "params"}


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
    assert all(Path(entry["path"]).parent == bench.files / "trial-00000" for entry in files.values())


def test_every_proposal_says_why_and_what_is_believed_in_the_end_is_what_comes_next(make_bench):
    bench = make_bench(study__trainings=8)
    bench.run()
    engine, key = bench.study.engine, bench.study.store.study_id
    proposals, belief = reader.read_proposals(engine, key), reader.read_belief(engine, key)
    begun = [proposals[number].reason for number in range(8)].index("gain")  # a batch was asked before any had ended
    assert 3 <= begun <= 5
    assert [proposals[number].reason for number in range(8)] == ["spread"] * begun + ["gain"] * (8 - begun)
    assert all(0 < proposals[number].score < 1 and proposals[number].deviation > 0 for number in range(begun, 8))
    assert belief.trainings == 8
    bench.settings = bench.settings.model_copy(
        update={"study": bench.settings.study.model_copy(update={"trainings": 9})}
    )
    bench.run(resume=True)
    asked, foreseen = bench.rows[8], belief.ahead[0]
    assert (str(asked.config), asked.macs, asked.params) == (foreseen.text, foreseen.macs, foreseen.params)
    assert 1 / 4 < foreseen.latencies_ms["host"] / asked.latency.median_ms < 4  # predicted from eight
    assert reader.read_proposals(engine, key, up_to=8)[8].score == pytest.approx(foreseen.proposal.score)


def test_what_the_sampler_finds_wrong_is_noted_once(make_bench):
    bench, notes = make_bench(study__trainings=9), []
    bench.engine = FakeEngine(outcome=lambda job: replace(instant_result(job), top1=0.1))
    bench.callback = SilentCallback()
    bench.callback.note = notes.append
    assert bench.run() == "finished"
    (note,) = (note for note in notes if note.startswith("sampler: "))
    assert "trainings reached the same 0.1: nothing tells candidates apart but their costs" in note


def test_many_enqueued_configs_are_looked_at_a_few_at_a_time_and_all_tried(make_bench, monkeypatch):
    bench = make_bench(study__trainings=1, engine__workers=8, search__batch=8)
    store = bench.open().store
    for _ in range(210):  # all but the first are duplicates, refused without being trained
        store.enqueue(INSIDE, bench.settings.training)
    assert len(store.pending_requests()) == 200  # at a time
    assert bench.run(resume=True) == "finished"
    assert bench.study.store.pending_requests() == []
    assert Counter(row.state for row in bench.rows if row.origin == "enqueued") == {"done": 1, "duplicate": 209}


def test_a_sampler_of_optunas_gives_no_reasons(make_bench):
    bench = make_bench(search__sampler="tpe")
    bench.run()
    engine, key = bench.study.engine, bench.study.store.study_id
    assert (reader.read_proposals(engine, key), reader.read_belief(engine, key)) == ({}, None)


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
    bench = make_bench(search__sampler="tpe", budget__max_macs=20_000, study__trainings=3)
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
    assert replace(first.latency, measured_at=row.latency.measured_at) == row.latency
    assert "measured" in first.reason
    assert first.config not in [job.config for job in strict.engine.submitted]
    assert all(row.latency.interval_high_ms <= between for row in strict.done())


def test_every_priced_or_refused_trial_carries_all_three_constraints(make_bench):
    bench = make_bench(search__sampler="tpe", budget__max_macs=30_000, budget__max_latency_ms=2.0, study__trainings=4)
    bench.run()
    states = {row.number: row.state for row in bench.rows}
    assert {"done", "infeasible"} <= set(states.values())
    for trial in optuna_trials(bench):
        if states[trial.number] in ("done", "infeasible"):
            assert trial.constraints.keys() == CONSTRAINTS
            assert (max(trial.constraints.values()) > 0) == (states[trial.number] == "infeasible")
    assert_consistent(bench)


# -- duplicates and wishes --


@pytest.mark.parametrize("sampler", ["tpe", "price-aware"])
def test_no_identity_is_ever_submitted_twice(make_bench, sampler):
    tiny = {**SPACE, "groups": [1, 2], "condense_factor": [1, 2], "num_stages": [1]}
    bench = make_bench(space=tiny, study__trainings=14, search__give_up_after=500, search__sampler=sampler)
    bench.run()
    submitted = Counter(job.identity for job in bench.engine.submitted)
    assert len(submitted) == 14
    assert set(submitted.values()) == {1}
    duplicates = [row for row in bench.rows if row.state == "duplicate"]
    assert bool(duplicates) == (sampler == "tpe")  # the other one asks for nothing twice
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
    assert bench.study.store.pending_requests() == []
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
    with optuna_study(bench) as study:
        space = optuna.search_space.IntersectionSearchSpace(include_pruned=True).calculate(study)
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


def test_the_proposal_after_a_repeat_is_drawn_at_random(make_bench, monkeypatch):
    drawn_at_random = []

    def watched(settings, study_seed: int, number: int, at_random: bool, common):
        drawn_at_random.append(at_random)
        return make_sampler(settings, study_seed, number, at_random, common)

    monkeypatch.setattr(proposer, "make_sampler", watched)
    bench = make_bench(search__sampler="tpe")
    bench.open()
    for _ in range(2):
        bench.study.store.enqueue(INSIDE, bench.settings.training)
    bench.run(resume=True)
    assert bench.rows[1].state == "duplicate"
    repeated = [row.state == "duplicate" for row in bench.rows]
    assert drawn_at_random == [False, *repeated[:-1]]


def test_the_sampler_itself_knows_by_how_much_a_refused_trial_exceeds_the_budget(make_bench):
    """In this process's memory, without a restart: TPE learns from it."""
    bench = make_bench(search__sampler="tpe", budget__max_macs=30_000, budget__max_latency_ms=2.0, study__trainings=4)
    controller = bench.controller()
    controller.run()
    refused = [trial for trial in controller.proposer._study.trials if trial.state == optuna.trial.TrialState.PRUNED]
    assert refused
    assert all(max(trial.constraints.values()) > 0 for trial in refused)
    mirrored = {trial.number: trial.constraints for trial in optuna_trials(bench)}
    assert {trial.number: trial.constraints for trial in refused}.items() <= mirrored.items()


def test_a_controller_keeps_nothing_of_the_trials_that_have_ended_but_their_identities(make_bench):
    bench = make_bench(study__trainings=12)
    controller = bench.controller()
    assert controller.run() == "finished"
    state, candidates = controller.state, controller.candidates
    kept = (state.running, state.queue, state.late_news, candidates.unpriced, candidates.pricing)
    assert not any(kept)
    assert not controller.proposer._open
    assert not controller.mirror._unwritten


def test_a_users_config_that_was_taken_up_and_never_priced_is_trained_though_the_study_has_its_trainings(make_bench):
    bench = make_bench(study__trainings=1)
    bench.run()
    (first,) = bench.rows
    sampled = NewTrial(1, TrialOrigin.SAMPLED, SMALLEST, first.training, 0, "a", cost_of(SMALLEST))
    wanted = NewTrial(2, TrialOrigin.ENQUEUED, INSIDE, first.training, 0, "b", cost_of(INSIDE))
    for new in (sampled, wanted):
        bench.study.store.transact(lambda new=new: bench.study.store.add_trial(new, None, 0.0))
    assert bench.run(resume=True) == "finished"
    assert bench.states() == ["done", "cancelled", "done"]
