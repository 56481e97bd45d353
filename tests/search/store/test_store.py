"""The store: every step is one transaction, and repeating a step changes nothing."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search.store import reader, tables
from search.store.connection.database import open_for_writing
from search.store.places import as_read
from search.store.rows import BeliefRow, Believed, NewTrial, Proposal, TrialRow
from search.store.store import StudyStore
from search.store.studies import create_study, delete_study
from search.store.vocabulary import FINAL_STATES, OPEN_STATES, EvaluatedSplit, LatencyPurpose, ProposalReason
from space.config import CondenseNetConfig
from space.cost import Cost, cost_of
from space.deployed import DeployedCondenseNet
from space.errors import StudyDamaged, StudyExists, StudyNotFound, TrialNotFound
from tests.search.tiny_studies import CURVE_ROW, CountingProbe, tiny_settings
from tests.workers.latencies import without_samples
from workers.export.onnx import save_onnx
from workers.latency import Measurement
from workers.metrics import Predictions

CONFIG = CondenseNetConfig(stages=(1, 2), growth=(4, 8), groups=2, condense_factor=2, input_shape=(1, 8, 8))
SPREAD, GAIN = Proposal(ProposalReason.SPREAD), Proposal(ProposalReason.GAIN, 0.9, 0.01, 0.02)
NEXT = Believed("1-2", 1e5, 2e3, {"host": 0.25}, GAIN)
BELIEF = BeliefRow(7, 1000.5, (NEXT, Believed("1-1", 1e4, 1e3, {}, GAIN)), (NEXT,))


@pytest.fixture
def engine(database: str):
    engine = open_for_writing(database)
    yield engine
    engine.dispose()


def new_study(engine: sa.Engine, name: str = "one", **changes: Any) -> StudyStore:
    plain = tiny_settings(**changes).model_dump(mode="json")
    return StudyStore(engine, create_study(engine, name, 1, plain, ("a" * 64, "b" * 64)))


@pytest.fixture
def study(engine: sa.Engine) -> StudyStore:
    return new_study(engine)


def proposal(number: int = 0, **changes) -> NewTrial:
    new = NewTrial(number, "sampled", CONFIG, {"epochs": 1}, 3, f"identity-{number}", cost_of(CONFIG))
    return replace(new, **changes)


@pytest.fixture(scope="module")
def measurement(tmp_path_factory: pytest.TempPathFactory) -> Measurement:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    save_onnx(DeployedCondenseNet.random(CONFIG), path)
    (found,) = CountingProbe().measure([path])
    assert isinstance(found, Measurement)
    return found


def rows_of(engine: sa.Engine) -> dict[str, int]:
    """How many rows each table of studies has; devices, their jobs and what was learned of them belong to no study."""
    with engine.connect() as connection:
        return {
            name: connection.scalar(sa.select(sa.func.count()).select_from(table))
            for name, table in tables.metadata.tables.items()
            if not name.startswith(("condensery_device", "condensery_reference"))
        }


# -- studies --


def test_a_study_is_found_by_its_name_with_everything_that_was_stored(engine: sa.Engine, study: StudyStore):
    before = time.time()
    study.set_data_info({"dataset": "digits"})
    found = reader.find_study(engine, "one")
    assert found.settings == as_read(tiny_settings().model_dump(mode="json"), engine.url)
    assert (found.settings_hash, found.frozen_hash) == ("a" * 64, "b" * 64)
    assert found.data_info == {"dataset": "digits"}
    assert {"python", "torch", "optuna", "sqlalchemy"} <= found.versions.keys()
    assert found.created_at == pytest.approx(before, abs=60)
    assert reader.list_studies(engine) == [found]


def test_a_name_is_taken_once(engine: sa.Engine, study: StudyStore):
    with pytest.raises(StudyExists, match="'one' exists; go on with it by --resume"):
        new_study(engine)


def test_a_misspelt_study_suggests_the_nearest(engine: sa.Engine, study: StudyStore):
    with pytest.raises(StudyNotFound, match="Did you mean 'one'"):
        reader.find_study(engine, "oen")
    with pytest.raises(StudyNotFound, match="There are: 'one'"):
        reader.find_study(engine, "zzz")


def test_a_resumed_study_stores_its_new_settings(engine: sa.Engine, study: StudyStore):
    study.update_settings({"study": {"trainings": 9}}, "c" * 64)
    found = reader.find_study(engine, "one")
    assert (found.settings, found.settings_hash, found.frozen_hash) == ({"study": {"trainings": 9}}, "c" * 64, "b" * 64)


def test_deleting_a_study_removes_every_row_of_it_and_none_of_another(engine: sa.Engine, measurement: Measurement):
    kept, gone = new_study(engine, "kept"), new_study(engine, "gone")
    for one in (kept, gone):
        one.add_trial(proposal(proposal=SPREAD))
        one.add_latency(0, measurement, "price")
        one.add_point(0, measurement, 0.5, 0.5, 1_000, False)
        one.add_curve_row(0, CURVE_ROW)
        one.add_artifacts(0, {"model.onnx": ("/x", "0" * 64)})
        one.add_predictions(0, "validation", b"x")
        one.add_file_predictions(0, "1" * 64, "int8", "validation", b"x")
        one.enqueue(CONFIG, {})
        one.set_running(0, 1)
        one.note_event("late", "a word", 0, 1)
        one.set_belief(BELIEF)
        one.set_star(0, True)
    full = rows_of(engine)
    assert all(count >= 2 for count in full.values())
    with engine.begin() as connection:
        delete_study(connection, gone.study_id)
    assert rows_of(engine) == {name: count // 2 for name, count in full.items()}
    assert [found.name for found in reader.list_studies(engine)] == ["kept"]
    assert kept.trial(0).latency is not None


# -- what the sampler believes --


def test_a_trial_keeps_why_it_was_proposed_and_what_was_predicted(engine: sa.Engine, study: StudyStore):
    for number, said in enumerate((SPREAD, None, GAIN)):
        for _ in range(2):  # the second time changes nothing
            study.add_trial(proposal(number, proposal=said))
    assert reader.read_proposals(engine, study.study_id) == {2: GAIN, 0: SPREAD}
    assert reader.read_proposals(engine, study.study_id, newest=1) == {2: GAIN}
    assert reader.read_proposals(engine, study.study_id, up_to=1) == {0: SPREAD}
    assert reader.read_reached(engine, study.study_id, {0, 2}) == {}


def test_only_the_newest_belief_is_kept(engine: sa.Engine, study: StudyStore):
    assert reader.read_belief(engine, study.study_id) is None
    study.set_belief(BELIEF)
    newer = replace(BELIEF, trainings=8, front=())
    study.set_belief(newer)
    assert reader.read_belief(engine, study.study_id) == newer


# -- trials --

configs = st.builds(
    lambda stages, growth, groups, keep, dropout: CondenseNetConfig(
        stages=tuple(stages), growth=(growth,) * len(stages), groups=groups, classifier_keep=keep, dropout=dropout
    ),
    stages=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    growth=st.sampled_from([4, 8, 16]),
    groups=st.sampled_from([1, 2, 4]),
    keep=st.floats(0.2, 1.0),
    dropout=st.floats(0.0, 0.9),
)
big = st.integers(0, 2**62)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(
    config=configs,
    cost=st.builds(Cost, big, big, big, st.just(0), st.just(0), st.just(0)),
    training=st.dictionaries(st.text(max_size=8), st.floats(allow_nan=False) | st.integers() | st.text(), max_size=4),
    identity=st.text("0123456789abcdef", min_size=64, max_size=64),
    seed=st.integers(0, 2**31 - 1),
)
def test_a_proposal_is_read_back_as_it_was_written(study: StudyStore, config, cost, training, identity, seed):
    number = len(study.trials())
    new = NewTrial(number, "sampled", config, training, seed, identity, cost)
    study.add_trial(new)
    row = study.trial(number)
    assert (row.config, row.training, row.seed, row.identity) == (config, training, seed, identity)
    assert (row.macs, row.params, row.paper_flops) == (cost.macs, cost.params, cost.paper_flops)
    assert (row.state, row.origin, row.optuna_trial_id, row.attempt) == ("asked", "sampled", None, 0)
    assert (row.latency, row.reason, row.top1, row.mirrored, row.cancel_requested) == (None, None, None, False, False)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(
    state=st.sampled_from(FINAL_STATES),
    top1=st.none() | st.floats(0, 1),
    seconds=st.none() | st.floats(0, 1e9),
    reason=st.none() | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])),
)
def test_an_outcome_is_read_back_as_it_was_written(study: StudyStore, state, top1, seconds, reason):
    number = len(study.trials())
    study.add_trial(proposal(number))
    study.finish(number, state, top1=top1, train_seconds=seconds, reason=reason)
    row = study.trial(number)
    assert (row.state, row.top1, row.train_seconds, row.reason) == (state, top1, seconds, reason)
    assert row.finished_at >= row.asked_at


@pytest.mark.parametrize("second", FINAL_STATES)
def test_what_is_final_stays(study: StudyStore, second: str):
    study.add_trial(proposal())
    study.finish(0, "done", top1=0.75)
    first = study.trial(0)
    study.finish(0, second, top1=0.1, reason="too late")
    assert study.trial(0) == first


@pytest.mark.parametrize("state", OPEN_STATES)
def test_an_open_state_is_no_outcome(study: StudyStore, state: str):
    study.add_trial(proposal())
    with pytest.raises(AssertionError):
        study.finish(0, state)


def test_a_proposal_recorded_again_is_the_same_row(study: StudyStore):
    key = study.add_trial(proposal())
    first = study.trial(0)
    assert study.add_trial(proposal(seed=99)) == key == first.id
    assert study.trials() == [first]


def test_a_trial_is_built_in_memory_as_it_is_read_back(study: StudyStore):
    key = study.add_trial(proposal(), at=1000.5)
    assert TrialRow.of_new(proposal(), key, 1000.5) == study.trial(0)


def test_what_is_told_to_optuna_is_marked_with_its_ids(study: StudyStore):
    for number in range(3):
        study.add_trial(proposal(number))
    study.mark_mirrored({0: 70, 2: 72})
    assert [(row.mirrored, row.optuna_trial_id) for row in study.trials()] == [(True, 70), (False, None), (True, 72)]


def test_an_epoch_reported_again_replaces_the_row(study: StudyStore):
    study.add_trial(proposal())
    study.add_curve_row(0, CURVE_ROW)
    study.add_curve_row(0, {**CURVE_ROW, "epoch": 2})
    study.add_curve_row(0, {**CURVE_ROW, "val_top1": 0.625, "form": "deployed"})
    curve = reader.read_curve(study.engine, study.trial(0).id)
    assert curve == [{**CURVE_ROW, "val_top1": 0.625, "form": "deployed"}, {**CURVE_ROW, "epoch": 2}]


def test_what_a_network_said_of_a_split_is_kept_once_and_read_back(study: StudyStore):
    said, other = (Predictions.of(np.eye(3)[[0, 1, last]], np.array([0, 1, 2])) for last in (1, 2))
    study.add_trial(proposal())
    study.add_trial(proposal(1))
    for predictions in (said, other):  # the second time changes nothing
        study.add_predictions(0, "validation", predictions.to_bytes())
    study.add_predictions(0, "test", other.to_bytes())
    row = study.trial(0)
    assert reader.class_predictions_of(study.engine, row) == said
    assert reader.class_predictions_of(study.engine, row, EvaluatedSplit.TEST) == other
    assert reader.read_class_predictions(study.engine, study.study_id, [0, 1, 5]) == {0: said}
    for predictions in (other, said):  # of a file: beside what the network said, and the first stays
        study.add_file_predictions(0, "1" * 64, "int8", "validation", predictions.to_bytes())
    of_file = replace(row, file_hash="1" * 64)
    assert reader.predictions_of_rows(study.engine, study.study_id, [of_file, study.trial(1)]) == {0: other}
    assert reader.class_predictions_of(study.engine, replace(row, file_hash="2" * 64)) is None
    with study.engine.begin() as connection:
        connection.execute(sa.update(tables.predictions).values(content=b"no file"))
    with pytest.raises(StudyDamaged, match="the predictions of trial 0 must be as they were recorded, but these"):
        reader.class_predictions_of(study.engine, row)


def test_a_trials_score_is_what_its_study_maximises(engine: sa.Engine):
    store = new_study(engine, "rare classes", study__objective="macro_f1")
    store.add_trial(proposal())
    store.finish(0, "done", top1=0.9, macro_f1=0.25)
    row = store.trial(0)
    assert (row.objective, row.score, row.top1) == ("macro_f1", 0.25, 0.9)


def test_a_price_becomes_what_a_trial_is_judged_by_and_a_verification_does_not(
    study: StudyStore, measurement: Measurement
):
    study.add_trial(proposal())
    study.add_latency(0, measurement)
    judged = study.trial(0).latency
    assert judged is not None
    assert judged.median_ms == measurement.median_ms
    assert (judged.kind, judged.device, judged.policy) == ("measured", "fake", "quick")
    timed = replace(measurement, cpu_ms=tuple((one,) * 40 for one in (1.0, 2.5, 3.0)))
    study.add_latency(0, replace(timed, device="elsewhere", purpose=LatencyPurpose.VERIFY))
    assert study.trial(0).latency == judged
    both = reader.read_latencies(study.engine, study.trial(0).id)
    assert [(entry.purpose, entry.device) for entry in both] == [("price", "fake"), ("verify", "elsewhere")]
    for entry in both:
        assert [len(samples) for samples in entry.samples_ms] == [40, 40, 40]
        assert entry.samples_ms[0] == pytest.approx(measurement.samples_ms[0], abs=1e-6)
        assert entry.conditions == measurement.conditions
    assert [entry.cpu_ms for entry in both] == [(), timed.cpu_ms]


def test_an_estimate_has_no_p90_and_none_is_made_up(study: StudyStore, measurement: Measurement):
    summary = without_samples(2.0, 1.5, 3.0)
    study.add_trial(proposal())
    study.add_latency(0, replace(measurement, kind="estimated", **summary))
    row = study.trial(0)
    assert row.latency is not None
    assert (row.latency.median_ms, row.latency.p90_ms, row.latency.interval_high_ms) == (2.0, None, 3.0)
    (entry,) = reader.read_latencies(study.engine, row.id)
    assert (entry.p90_ms, entry.samples_ms) == (None, ())


def test_artifacts_of_a_later_attempt_replace_the_earlier(study: StudyStore):
    study.add_trial(proposal())
    study.add_artifacts(0, {"model.onnx": ("/a", "1" * 64), "network.safetensors": ("/b", "2" * 64)})
    study.add_artifacts(0, {"model.onnx": ("/a", "3" * 64)})
    found = reader.read_artifacts(study.engine, study.trial(0).id)
    assert found["model.onnx"] == {"path": "/a", "sha256": "3" * 64, "removed": False}
    assert found["network.safetensors"]["sha256"] == "2" * 64
    study.mark_removed(0)
    assert all(entry["removed"] for entry in reader.read_artifacts(study.engine, study.trial(0).id).values())


def test_the_first_accuracy_on_the_test_split_stays(study: StudyStore):
    study.add_trial(proposal())
    study.set_test_top1(0, 0.5)
    study.set_test_top1(0, 0.9)
    assert study.trial(0).test_top1 == 0.5
    assert reader.count_test_evaluations(study.engine, study.study_id) == 1


def test_another_studys_trials_are_not_seen(engine: sa.Engine):
    one, two = new_study(engine, "one"), new_study(engine, "two")
    one.add_trial(proposal(identity="same"))
    two.add_trial(proposal(identity="same"))
    two.finish(0, "done", top1=0.5)
    assert one.trial(0).state == "asked"
    assert [row.number for row in one.trials()] == [0]
    assert reader.count_states(engine, two.study_id) == {"done": 1}


def test_trials_are_read_by_number_and_by_state(study: StudyStore):
    for number in (2, 0, 1):
        study.add_trial(proposal(number))
    study.finish(1, "done")
    assert [row.number for row in study.trials()] == [0, 1, 2]
    assert [row.number for row in study.trials(("done",))] == [1]
    assert reader.count_states(study.engine, study.study_id) == {"asked": 2, "done": 1}


def test_a_number_the_study_does_not_have_is_named_with_those_it_has(engine: sa.Engine, study: StudyStore):
    found = reader.find_study(engine, "one")
    with pytest.raises(TrialNotFound, match="'one' has no trials yet, but you asked for 3"):
        reader.find_trial(engine, found, 3)
    study.add_trial(proposal())
    with pytest.raises(TrialNotFound, match="has trials 0 to 0, but you asked for 3"):
        reader.find_trial(engine, found, 3)
    assert reader.find_trial(engine, found, 0) == study.trial(0)


# -- wishes --


def test_an_enqueued_config_waits_until_a_trial_takes_it(study: StudyStore):
    study.enqueue(CONFIG, {"epochs": 2})
    study.enqueue(CONFIG, {"epochs": 3})
    first, second = study.pending_requests()
    assert (first.config, first.training, second.training) == (CONFIG, {"epochs": 2}, {"epochs": 3})
    study.add_trial(proposal(origin="enqueued"), first)
    assert study.pending_requests() == [second]
    assert reader.count_waiting_requests(study.engine, study.study_id) == 1


def test_a_proposal_that_is_rolled_back_leaves_its_wish_waiting(study: StudyStore):
    study.enqueue(CONFIG, {})
    (wish,) = study.pending_requests()

    def half() -> None:
        study.add_trial(proposal(), wish)
        raise KeyError("what comes after it fails")

    with pytest.raises(KeyError):
        study.transact(half)
    assert study.pending_requests() == [wish]
    assert study.trials() == []


def test_only_open_trials_are_cancelled(study: StudyStore):
    for number in (0, 1):
        study.add_trial(proposal(number))
        study.request_cancel(number)
    study.finish(0, "done")
    assert study.cancel_requests() == [1]


def test_a_word_that_no_vocabulary_has_is_refused_when_it_is_written_and_named_when_it_is_read(study: StudyStore):
    study.add_trial(proposal())
    with pytest.raises(sa.exc.StatementError, match="rubbish"), study.engine.begin() as connection:
        connection.execute(sa.update(tables.trial).values(state="rubbish"))
    with study.engine.begin() as connection:
        connection.execute(sa.text("UPDATE condensery_trial SET state = 'paused'"))
    with pytest.raises(
        StudyDamaged, match=r"must hold one of asked, queued, .*, but holds 'paused': someone edited it"
    ):
        study.trials()
