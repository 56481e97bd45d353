"""Leases: who holds a job, for how long, and what an answer is worth that comes late, twice or from nowhere."""

from __future__ import annotations

import time

import pytest
import sqlalchemy as sa

from search.devices import agents, jobs, leases, model_store, registry
from search.devices.agents import Enrolment
from search.devices.jobs import MeasurementRequest
from search.devices.leases import Heartbeat, JobUnknown, LeaseLost, LeaseRequest, LeaseTerms, NotEnrolled, Ticket
from search.devices.transitions import TROUBLES_MOST
from search.store.connection.database import open_for_writing
from search.store.device_tables import event
from tests.search.tiny_devices import FACTS, LEASE_S, POLICY, Desk, instance_of, wall_report
from workers.clock import SimulatedClock


def test_jobs_go_out_by_priority_then_in_the_order_they_came(desk: Desk):
    agent = desk.agent("pi")
    late = desk.submit("calibration", priority=2)
    soon = desk.submit("a", "b")
    assert [agent.lease()[0].id for _ in range(3)] == [*soon, *late]


def test_joining_with_more_urgency_makes_a_job_more_urgent(desk: Desk):
    agent = desk.agent("pi")
    desk.submit("a", priority=1)
    (urgent,) = desk.submit("b", priority=2)
    desk.submit("b", priority=0)
    assert agent.lease()[0].id == urgent


def test_the_jobs_of_one_lease_share_everything_but_the_model(desk: Desk):
    agent = desk.agent("pi")
    desk.submit("a", "b")
    desk.submit("c", policy={**POLICY, "runs": 40})
    desk.submit("d", anchor_sha256=model_store.put_model(desk.engine, b"another anchor", desk.clock))
    desk.submit("e")
    sizes = [len(agent.lease(16)) for _ in range(4)]
    assert sizes == [3, 1, 1, 0]


def test_a_device_gets_jobs_of_its_queue_its_kind_and_its_runtimes_alone(desk: Desk):
    real, soft = desk.agent("pi"), desk.agent("soft", "counted", profile="pi")
    desk.submit("a", queue="elsewhere")
    desk.submit("b", runtime="ncnn")
    desk.submit("c", mode="counts", anchor_sha256=None)
    desk.submit("d", queue="counted")
    assert real.lease(16) == []
    assert soft.lease(16) == []
    real.enrol({**FACTS, "runtimes": {"ncnn": "1.0"}})
    assert len(real.lease(16)) == 1


def test_an_agent_that_is_not_enrolled_gets_nothing(desk: Desk):
    agent = desk.agent("pi", enrol=False)
    desk.submit("net")
    with pytest.raises(NotEnrolled):
        agent.lease()
    agent.enrol()
    agent.leave()
    with pytest.raises(NotEnrolled):
        agent.lease()


def test_a_lease_that_is_renewed_stays_and_one_that_is_not_goes_to_the_next(desk: Desk):
    first, second = desk.agent("one"), desk.agent("two")
    (key,) = desk.submit("net", owner="one")
    (job,) = first.lease()
    for _ in range(5):
        desk.clock.tick(LEASE_S - 1)
        jobs.renew(desk.engine, "one", desk.clock)
        first.heartbeat(job)
        assert second.lease() == []
    desk.clock.tick(LEASE_S)
    (again,) = second.lease()
    assert (again.id, again.attempt) == (key, 2)
    with pytest.raises(LeaseLost):
        first.heartbeat(job)
    assert desk.events(key) == ["submitted", "leased", "measuring", "expired", "leased"]


def test_a_lease_that_ran_out_unnoticed_can_still_be_renewed(desk: Desk):
    agent = desk.agent("pi")
    desk.submit("net")
    (job,) = agent.lease()
    desk.clock.tick(10 * LEASE_S)
    agent.heartbeat(job)
    assert agent.hand_in(job) == "accepted"


def test_a_clock_set_back_far_ends_leases_and_one_that_is_less_than_a_lease_behind_does_not(desk: Desk):
    first, second = desk.agent("one"), desk.agent("two")
    desk.submit("net", owner="one")
    first.lease()
    desk.clock.tick(1 - LEASE_S)
    assert second.lease() == []
    desk.clock.tick(-3_600.0)
    jobs.renew(desk.engine, "one", desk.clock)
    assert len(second.lease()) == 1


def test_however_often_the_clock_is_set_back_no_job_has_failed_for_it(desk: Desk):
    agent = desk.agent("pi")
    (key,) = desk.submit("net", owner="one")
    for _ in range(2 * TROUBLES_MOST):
        (job,) = agent.lease()
        agent.heartbeat(job)
        desk.clock.tick(-3_600.0)
        jobs.renew(desk.engine, "one", desk.clock)
        leases.expire(desk.engine, "pi5", desk.terms)
        assert desk.job(key).state == "waiting"


def test_a_search_whose_machine_is_behind_takes_no_lease_away(desk: Desk):
    agent = desk.agent("pi")
    (key,) = desk.submit("net")
    (job,) = agent.lease()
    agent.heartbeat(job)
    leases.expire(desk.engine, "pi5", LeaseTerms(LEASE_S, SimulatedClock(desk.clock.now() - 1.5)))
    assert desk.job(key).state == "leased"
    agent.heartbeat(job)


def test_where_there_is_a_server_its_clock_counts_on_every_machine(postgres_url: str, monkeypatch: pytest.MonkeyPatch):
    engine = open_for_writing(postgres_url)
    caller = registry.device_by_token(engine, registry.add_device(engine, "clock", "clock"))
    assert caller is not None
    request = MeasurementRequest(
        "clock", model_store.put_model(engine, b"net"), None, "wall", "onnxruntime", 1, {}, "quick"
    )
    with monkeypatch.context() as hub:
        hub.setattr(time, "time", lambda: 4e9)  # the hub's machine is far ahead
        agents.enrol(engine, caller, Enrolment("a" * 32, FACTS, {}))
        (key,) = jobs.submit(engine, [request], "me")
        (job,) = leases.lease_jobs(engine, caller, LeaseRequest("a" * 32), LeaseTerms())
        leases.record_heartbeat(
            engine, caller, Ticket(key, job.attempt, "a" * 32), Heartbeat("measuring"), LeaseTerms()
        )
    leases.expire(engine, "clock")
    assert [row.state for row in jobs.states(engine, [key])] == ["leased"]
    assert [row.state for row in registry.list_devices(engine) if row.name == "clock"] == ["online"]
    engine.dispose()


def test_a_restarted_agent_gets_what_it_held_at_once(desk: Desk):
    agent = desk.agent("pi")
    (key,) = desk.submit("net")
    agent.lease()
    assert agent.lease() == []
    agent.enrol()
    assert [(job.id, job.attempt) for job in agent.lease()] == [(key, 2)]


def test_a_leaving_agents_jobs_go_to_the_next_at_once_and_count_as_no_trouble(desk: Desk):
    first, second = desk.agent("one"), desk.agent("two")
    (key,) = desk.submit("net")
    for _ in range(10):
        first.enrol()
        assert len(first.lease()) == 1
        first.leave()
    assert [job.id for job in second.lease()] == [key]


def test_a_job_that_takes_its_device_down_goes_out_alone_and_has_failed_in_the_end(desk: Desk):
    agent = desk.agent("pi")
    bad, *good = desk.submit("bad", "a", "b")
    for job in agent.lease(16):
        agent.heartbeat(job)
    for _ in range(30):  # the device dies of `bad`, and of no other
        agent.enrol()
        held = agent.lease(16)
        for job in held:
            agent.heartbeat(job)
            if job.id != bad:
                agent.hand_in(job)
        if bad in [job.id for job in held]:
            assert len(held) == 1
    assert desk.job(bad).state == "failed"
    assert desk.job(bad).reason == "devices gave it up 5 times, the last: its agent was restarted"
    assert [desk.job(key).state for key in good] == ["done", "done"]


def test_a_lease_that_was_never_begun_is_no_trouble(desk: Desk):
    agent = desk.agent("pi")
    (key,) = desk.submit("net", owner="one")
    for _ in range(TROUBLES_MOST):
        assert len(agent.lease()) == 1  # and the answer is lost, or the agent restarted
        agent.enrol()
        assert len(agent.lease()) == 1
        desk.clock.tick(LEASE_S)
        jobs.renew(desk.engine, "one", desk.clock)
    (job,) = agent.lease()
    assert agent.hand_in(job) == "accepted"
    assert desk.job(key).state == "done"


@pytest.mark.parametrize("gone", ["restarted", "silent"])
def test_a_lease_that_was_begun_and_lost_is_a_trouble(desk: Desk, gone: str):
    agent = desk.agent("pi")
    (key,) = desk.submit("net", owner="one")
    for _ in range(TROUBLES_MOST):
        agent.heartbeat(agent.lease()[0], "downloading")
        if gone == "restarted":
            agent.enrol()
        else:
            desk.clock.tick(LEASE_S)
            jobs.renew(desk.engine, "one", desk.clock)
    assert agent.lease() == []
    assert "devices gave it up 5 times" in str(desk.job(key).reason)


# -- results and failures --


def test_a_result_sent_twice_counts_once(desk: Desk):
    agent = desk.agent("pi")
    (key,) = desk.submit("net")
    (job,) = agent.lease()
    first = wall_report(job.model_sha256, ms=5.0)
    assert agent.hand_in(job, first) == "accepted"
    assert agent.hand_in(job, wall_report(job.model_sha256, ms=7.0)) == "repeated"
    assert desk.job(key).report == first
    assert desk.verdicts(key) == [("accepted", None)]


def test_a_late_result_is_recorded_and_not_counted(desk: Desk):
    first, second = desk.agent("one"), desk.agent("two")
    (key,) = desk.submit("net")
    (lost,) = first.lease()
    desk.clock.tick(LEASE_S)
    (held,) = second.lease()
    assert first.hand_in(lost) == "late"
    assert desk.job(key).state == "leased"
    assert second.hand_in(held) == "accepted"
    assert desk.job(key).device == "two"
    assert desk.verdicts(key) == [("late", None), ("accepted", None)]


def test_a_result_after_another_was_accepted_is_late(desk: Desk):
    first, second = desk.agent("one"), desk.agent("two")
    (key,) = desk.submit("net")
    (lost,) = first.lease()
    desk.clock.tick(LEASE_S)
    second.hand_in(second.lease()[0])
    assert first.hand_in(lost) == "late"
    assert desk.job(key).device == "two"


def test_a_result_of_a_lost_lease_counts_while_no_other_device_has_begun(desk: Desk):
    agent = desk.agent("pi")
    (key,) = desk.submit("net")
    (job,) = agent.lease()
    agent.enrol()  # its restart gave the job back
    assert desk.job(key).state == "waiting"
    assert agent.hand_in(job) == "accepted"
    assert (desk.job(key).state, desk.job(key).device) == ("done", "pi")
    assert agent.lease() == []


def test_a_result_in_quarantine_is_kept_and_its_job_is_tried_three_times(desk: Desk):
    agent = desk.agent("pi")
    (key,) = desk.submit("net")
    for attempt in (1, 2, 3):
        (job,) = agent.lease()
        assert job.attempt == attempt
        assert agent.hand_in(job, wall_report(job.model_sha256, ms=float("nan"))) == "quarantined"
        assert agent.hand_in(job) == "repeated"
    assert desk.job(key).state == "failed"
    assert desk.job(key).report is None
    assert desk.job(key).reason == (
        "3 results are in quarantine, the last: a sample is nan ms; a time is finite and at least 1e-06 ms"
    )
    assert desk.verdicts(key) == [("quarantined", "a sample is nan ms; a time is finite and at least 1e-06 ms")] * 3
    assert desk.submit("net") != [key]  # a result in quarantine answers no request


def test_results_are_compared_with_the_anchor_of_the_same_queue(desk: Desk):
    agent, other = desk.agent("pi"), desk.agent("phone", "phones")
    desk.submit("a", "b")
    desk.submit("a", queue="phones")
    agent.hand_in(agent.lease()[0])
    (job,) = agent.lease()
    assert agent.hand_in(job, wall_report(job.model_sha256, anchor_ms=50.0)) == "quarantined"
    (job,) = other.lease()
    assert other.hand_in(job, wall_report(job.model_sha256, anchor_ms=50.0)) == "accepted"


def test_a_rate_no_core_reaches_is_seen_by_the_requests_macs(desk: Desk):
    agent = desk.agent("pi")
    desk.submit("net", macs=10**10)
    (job,) = agent.lease()
    assert agent.hand_in(job) == "quarantined"


def test_times_of_a_virtual_device_are_no_latencies(desk: Desk):
    agent = desk.agent("soft", "counted", profile="pi")
    desk.submit("net", queue="counted", mode="counts", anchor_sha256=None)
    (job,) = agent.lease()
    assert agent.hand_in(job) == "quarantined"


def test_a_device_that_gives_up_five_times_ends_the_job(desk: Desk):
    agent = desk.agent("pi")
    (key,) = desk.submit("net")
    for _ in range(5):
        (job,) = agent.lease()
        agent.fail(job)
        agent.fail(job)  # a lost answer: it says so again
    assert agent.lease() == []
    assert desk.job(key).state == "failed"
    assert desk.job(key).reason == "devices gave it up 5 times, the last: the disk is full"


def test_a_failure_of_a_lost_lease_is_noted_and_changes_nothing(desk: Desk):
    first, second = desk.agent("one"), desk.agent("two")
    (key,) = desk.submit("net")
    (lost,) = first.lease()
    desk.clock.tick(LEASE_S)
    second.lease()
    first.fail(lost, "model")
    assert desk.job(key).state == "leased"
    assert desk.events(key)[-1] == "late failure"


def test_no_device_or_instance_reports_for_another(desk: Desk):
    first, second = desk.agent("one"), desk.agent("two")
    (key,) = desk.submit("net")
    (job,) = first.lease()
    for act in (second.hand_in, second.fail, second.heartbeat):
        with pytest.raises(JobUnknown):
            act(job)
    first.instance = instance_of("another folder")
    for act in (first.hand_in, first.fail, first.heartbeat):
        with pytest.raises(LeaseLost):
            act(job)
    assert desk.events(key) == ["submitted", "leased"]


def test_a_result_its_state_and_its_event_are_written_together_or_not_at_all(desk: Desk, monkeypatch):
    agent = desk.agent("pi")
    (key,) = desk.submit("net")
    (job,) = agent.lease()

    @sa.event.listens_for(desk.engine, "before_cursor_execute")
    def die_at_the_last_step(connection, cursor, statement, *rest):
        if statement.startswith("UPDATE condensery_device_job"):
            raise KeyboardInterrupt  # as hard as an exception can be

    with pytest.raises(KeyboardInterrupt):
        agent.hand_in(job)
    sa.event.remove(desk.engine, "before_cursor_execute", die_at_the_last_step)
    assert desk.verdicts(key) == []
    assert desk.job(key).state == "leased"
    assert desk.events(key) == ["submitted", "leased"]
    assert agent.hand_in(job) == "accepted"


def test_events_are_numbered_in_the_order_they_happened(desk: Desk):
    agent = desk.agent("pi")
    desk.submit("a", "b")
    desk.clock.tick(1.0)
    agent.hand_in(agent.lease()[0])
    with desk.engine.connect() as connection:
        rows = connection.execute(sa.select(event).order_by(event.c.id)).all()
    assert [row.at for row in rows] == sorted(row.at for row in rows)
    assert [row.kind for row in rows] == ["submitted", "submitted", "leased", "accepted"]
