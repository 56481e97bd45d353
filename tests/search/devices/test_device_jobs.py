"""Requests and the jobs they become: equal ones are one job, a result is used again, needed models stay."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from search.devices import jobs, model_store, registry
from search.devices.leases import model_of_lease
from search.devices.transitions import CANCELLED, REQUEST_S
from search.store.device_tables import model
from tests.search.tiny_devices import ANCHOR, FACTS, LEASE_S, POLICY, Desk, counts_report, wall_report


def stored_models(desk: Desk) -> set[bytes]:
    with desk.engine.connect() as connection:
        return set(connection.scalars(sa.select(model.c.content)))


# -- requests --


def test_a_job_is_requested_leased_and_answered(desk: Desk):
    agent = desk.agent("pi")
    (key,) = desk.submit("net")
    assert desk.job(key).state == "waiting"
    (job,) = agent.lease()
    assert (job.id, job.attempt, job.mode, job.policy) == (key, 1, "wall", POLICY)
    assert (job.model_size, job.anchor_size) == (len(b"net"), len(ANCHOR))
    assert (desk.job(key).state, desk.job(key).device) == ("leased", "pi")
    agent.heartbeat(job, "downloading")
    agent.heartbeat(job)
    agent.heartbeat(job)
    assert agent.hand_in(job) == "accepted"
    row = desk.job(key)
    assert (row.state, row.device, row.reason, row.runtime_version) == ("done", "pi", None, "1.23.0")
    assert row.report == wall_report(job.model_sha256)
    assert desk.events(key) == ["submitted", "leased", "downloading", "measuring", "accepted"]


def test_reports_are_left_out_on_request(desk: Desk):
    agent = desk.agent("pi")
    (key,) = desk.submit("net")
    agent.hand_in(agent.lease()[0])
    (row,) = jobs.states(desk.engine, [key], reports=False)
    assert (row.state, row.report, row.device) == ("done", None, "pi")


@pytest.mark.slow
def test_states_come_in_the_order_asked_for_however_many_there_are(desk: Desk):
    desk.agent("pi")
    keys = desk.submit(*(f"net {number}" for number in range(jobs.IDS_MOST + 100)))
    assert [row.id for row in jobs.states(desk.engine, keys[::-1])] == keys[::-1]


def test_an_equal_request_joins_the_open_job(desk: Desk):
    agent = desk.agent("pi")
    (key,) = desk.submit("net")
    assert desk.submit("net", "net") == [key, key]
    agent.lease()
    assert desk.submit("net") == [key]


@pytest.mark.parametrize(
    "changes",
    [
        {"queue": "other"},
        {"runtime": "ncnn"},
        {"threads": 2},
        {"policy": {**POLICY, "runs": 40}},
        {"mode": "counts", "anchor_sha256": None},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_request_for_anything_else_is_a_job_of_its_own(desk: Desk, changes):
    assert desk.submit("net", **changes) != desk.submit("net")


def test_an_equal_request_gets_the_finished_job_of_another_study(desk: Desk):
    agent = desk.agent("pi")
    (key,) = desk.submit("net")
    agent.hand_in(agent.lease()[0])
    assert desk.submit("net") == [key]
    assert agent.lease() == []


def test_a_count_answers_requests_of_any_policy(desk: Desk):
    agent = desk.agent("soft", "counted", profile="pi")
    request = {"queue": "counted", "mode": "counts", "anchor_sha256": None}
    (key,) = desk.submit("net", **request)
    (job,) = agent.lease()
    assert agent.hand_in(job, counts_report(job.model_sha256)) == "accepted"
    assert desk.submit("net", **request, policy={**POLICY, "runs": 40}) == [key]


def test_a_result_of_another_version_of_the_runtime_is_not_used_again(desk: Desk):
    agent = desk.agent("pi")
    (key,) = desk.submit("net")
    agent.hand_in(agent.lease()[0])
    agent.enrol({**FACTS, "runtimes": {"onnxruntime": "1.24.0"}})
    (new,) = desk.submit("net")
    assert new != key
    (job,) = agent.lease()
    assert agent.hand_in(job, wall_report(job.model_sha256, runtime_version="1.24.0")) == "accepted"
    assert desk.submit("net") == [new]


def test_a_result_of_another_board_under_the_same_name_is_not_used_again(desk: Desk):
    agent = desk.agent("pi")
    (key,) = desk.submit("net")
    agent.hand_in(agent.lease()[0])
    registry.revoke_device(desk.engine, "pi")
    other = desk.agent("pi", enrol=False)
    assert other.enrol({**FACTS, "cpu_model": "Raspberry Pi 3 Model B (Cortex-A53)"})
    assert desk.submit("net") != [key]


def test_a_result_of_another_revision_of_the_same_board_is_used_again(desk: Desk):
    agent = desk.agent("pi", enrol=False)
    agent.enrol({**FACTS, "cpu_model": "Raspberry Pi 5 Model B Rev 1.0 (Cortex-A76)"})
    (key,) = desk.submit("net")
    (job,) = agent.lease()
    agent.hand_in(job, wall_report(job.model_sha256, cpu_model="Raspberry Pi 5 Model B Rev 1.0 (Cortex-A76)"))
    other = desk.agent("pi-b", enrol=False)
    assert other.enrol({**FACTS, "cpu_model": "Raspberry Pi 5 Model B Rev 1.1 (Cortex-A76)"})
    registry.revoke_device(desk.engine, "pi")
    assert desk.submit("net") == [key]


def test_an_unsteady_result_answers_the_request_it_was_made_for_and_no_later_one(desk: Desk):
    agent = desk.agent("pi")
    (steady,) = desk.submit("net")
    agent.hand_in(agent.lease()[0])
    (shaky,) = desk.submit("net", nonce="again")
    (job,) = agent.lease()
    assert agent.hand_in(job, wall_report(job.model_sha256, steady=False)) == "accepted"
    assert desk.job(shaky).state == "done"
    assert desk.submit("net") == [steady]
    (again,) = desk.submit("net", nonce="again")
    assert again != shaky
    (job,) = agent.lease()
    agent.hand_in(job)
    assert desk.submit("net", nonce="again") == [again]


def test_a_request_that_equals_a_failed_job_is_a_new_job(desk: Desk):
    agent = desk.agent("pi")
    (key,) = desk.submit("net")
    agent.fail(agent.lease()[0], "model", "no kernel for Foo")
    assert (desk.job(key).state, desk.job(key).reason) == ("failed", "no kernel for Foo")
    assert desk.submit("net") != [key]


def test_a_request_whose_model_is_not_stored_is_refused_with_all_others(desk: Desk):
    requests = [desk.request("net"), desk.request("other", model_sha256="0" * 64)]
    with pytest.raises(ValueError, match="0000 is not stored"):
        jobs.submit(desk.engine, requests, "test")
    agent = desk.agent("pi")
    assert agent.lease() == []


def test_cancelling_takes_one_request_back_and_ends_the_job_with_the_last(desk: Desk):
    (key,) = desk.submit("net", owner="one")
    desk.submit("net", owner="two")
    jobs.cancel(desk.engine, "one")
    jobs.cancel(desk.engine, "one")
    assert desk.job(key).state == "waiting"
    jobs.cancel(desk.engine, "two")
    assert (desk.job(key).state, desk.job(key).reason) == ("failed", "cancelled: no one waits for it any more")
    jobs.cancel(desk.engine, "no one")


def test_a_cancelled_job_that_is_leased_may_end_but_is_not_begun_again(desk: Desk):
    agent = desk.agent("pi")
    done, lost = desk.submit("a", "b", owner="one")
    held = agent.lease(2)
    jobs.cancel(desk.engine, "one")
    assert agent.hand_in(held[0]) == "accepted"
    agent.fail(held[1])
    assert desk.job(done).state == "done"
    assert desk.job(lost).state == "failed"


def test_a_job_that_no_owner_renews_is_not_begun(desk: Desk):
    agent = desk.agent("pi")
    (mine,) = desk.submit("a", owner="killed")
    (ours,) = desk.submit("b", owner="killed")
    desk.submit("b", owner="alive")
    for _ in range(3):
        desk.clock.tick(REQUEST_S / 3)
        jobs.renew(desk.engine, "alive", desk.clock)
        agent.enrol()
    assert [job.id for job in agent.lease(16)] == [ours]
    assert (desk.job(mine).state, desk.job(mine).reason) == ("failed", CANCELLED)
    assert desk.requests() == {(ours, "alive")}


def test_a_leased_job_whose_owner_is_gone_may_end_but_is_not_begun_again(desk: Desk):
    agent = desk.agent("pi")
    done, lost = desk.submit("a", "b")
    held = agent.lease(2)
    for _ in range(3):
        desk.clock.tick(LEASE_S - 1)
        for job in held:
            agent.heartbeat(job)
    assert agent.lease() == []
    assert desk.requests() == set()
    assert agent.hand_in(held[0]) == "accepted"
    agent.fail(held[1])
    assert (desk.job(done).state, desk.job(lost).state) == ("done", "failed")
    assert desk.job(lost).reason == CANCELLED


def test_an_owner_that_comes_back_requests_again(desk: Desk):
    agent = desk.agent("pi")
    (lost,) = desk.submit("net")
    desk.clock.tick(REQUEST_S)
    assert agent.lease() == []
    (key,) = desk.submit("net")
    assert key != lost
    assert [job.id for job in agent.lease()] == [key]


def test_a_request_from_the_future_lasts_no_longer_than_one_from_the_past(desk: Desk):
    agent = desk.agent("pi")
    desk.submit("a")
    desk.clock.tick(-REQUEST_S / 2)  # set back a little
    agent.enrol()
    assert len(agent.lease()) == 1
    desk.submit("b")
    desk.clock.tick(-REQUEST_S)
    agent.enrol()
    assert agent.lease() == []


def test_the_requests_of_ended_jobs_are_gone(desk: Desk):
    agent = desk.agent("pi")
    desk.submit("a", "b", owner="one")
    first, second = agent.lease(2)
    agent.hand_in(first)
    agent.fail(second, "model")
    assert desk.requests() == set()
    jobs.renew(desk.engine, "one", desk.clock)
    assert desk.requests() == set()


def test_an_owner_that_requests_a_model_twice_waits_for_it_once(desk: Desk):
    (key,) = desk.submit("net", owner="one")
    desk.submit("net", owner="one")
    assert desk.requests() == {(key, "one")}


def test_a_request_with_a_nonce_is_measured_again(desk: Desk):
    agent = desk.agent("pi")
    (first,) = desk.submit("net")
    agent.hand_in(agent.lease()[0])
    (second,) = desk.submit("net", nonce="one")
    (third,) = desk.submit("net", nonce="two")
    assert len({first, second, third}) == 3
    assert [job.id for job in agent.lease(2)] == [second, third]
    assert desk.submit("net") == [first]


# -- models --


def test_models_are_kept_while_an_open_job_needs_them_and_for_a_while_for_the_request_to_come(desk: Desk):
    agent = desk.agent("pi")
    desk.submit("a", "b")
    model_store.put_model(desk.engine, b"requested soon", desk.clock)
    agent.hand_in(agent.lease()[0])
    model_store.drop_models_of_finished(desk.engine, desk.clock)
    assert stored_models(desk) == {b"a", b"b", ANCHOR, b"requested soon"}
    desk.clock.tick(model_store.MODEL_GRACE_S + 1)
    model_store.put_model(desk.engine, b"requested soon", desk.clock)
    model_store.drop_models_of_finished(desk.engine, desk.clock)
    assert stored_models(desk) == {b"b", ANCHOR, b"requested soon"}


def test_a_device_reads_the_models_of_what_it_holds_and_no_others(desk: Desk):
    first, second = desk.agent("one"), desk.agent("two")
    desk.submit("a", "b")
    (mine,), (others,) = first.lease(), second.lease()
    assert model_of_lease(desk.engine, first.device, mine.model_sha256) == b"a"
    assert model_of_lease(desk.engine, first.device, str(mine.anchor_sha256)) == ANCHOR
    assert model_of_lease(desk.engine, first.device, others.model_sha256) is None
    assert model_of_lease(desk.engine, first.device, "0" * 64) is None
    first.hand_in(mine)
    assert model_of_lease(desk.engine, first.device, mine.model_sha256) is None
