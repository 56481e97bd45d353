"""In whatever order agents lease, die, come back and report, also at once: no job is lost, and none ends twice."""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter
from typing import Any

import pytest
import sqlalchemy as sa

from search.devices import jobs
from search.devices.leases import LeasedJob, LeaseLost, NotEnrolled
from search.store.connection.database import open_for_writing
from search.store.device_tables import job, lease, result
from search.store.vocabulary import OPEN_JOB_STATES
from tests.command_line import fork_server
from tests.search.tiny_devices import LEASE_S, Agent, Desk, wall_report
from tests.waiting import PATIENCE_S

NAMES = ("one", "two", "three")


class Story:
    """Two agents of one queue, few models at a time, and a clock that jumps both ways."""

    def __init__(self, desk: Desk, seed: int) -> None:
        self.desk, self.rng = desk, random.Random(seed)
        self.agents = [self.desk.agent(name) for name in NAMES[:2]]
        self.held: list[tuple[Agent, LeasedJob]] = []  # also long after the lease ended
        self.steps: list[str] = []  # so far, for a failure to show
        self.ended: dict[int, tuple[str, str | None]] = {}
        self.attempts: Counter[int] = Counter()
        self.accepted: Counter[int] = Counter()
        self.owners: list[str] = []

    def step(self) -> None:
        steps = [
            self.submit,
            self.cancel,
            self.renew,
            self.lease,
            self.heartbeat,
            self.hand_in,
            self.fail,
            self.come_and_go,
            self.wait,
        ]
        (step,) = self.rng.choices(steps, weights=[3, 1, 3, 6, 2, 5, 2, 1, 3])
        self.steps.append(step.__name__)
        step()
        self.every_job_is_in_order()

    def some_model(self) -> str:
        return f"net {len(self.steps) // 20 + self.rng.randrange(3)}"  # new ones come up, old ones are forgotten

    def submit(self) -> None:
        self.owners.append(f"owner {len(self.steps)}")
        self.desk.submit(self.some_model(), owner=self.owners[-1])

    def cancel(self) -> None:
        if self.owners:
            jobs.cancel(self.desk.engine, self.rng.choice(self.owners[-6:]), self.desk.clock)

    def renew(self) -> None:
        for owner in self.owners[-6:]:
            jobs.renew(self.desk.engine, owner, self.desk.clock)

    def lease(self) -> None:
        agent = self.rng.choice(self.agents)
        with contextlib.suppress(NotEnrolled):
            self.held += [(agent, leased_job) for leased_job in agent.lease(self.rng.choice([1, 3]))]

    def some_lease(self) -> tuple[Agent, LeasedJob] | None:
        return self.rng.choice(self.held[-6:]) if self.held else None

    def heartbeat(self) -> None:
        if (some := self.some_lease()) is not None:
            with contextlib.suppress(LeaseLost):
                some[0].heartbeat(some[1])

    def hand_in(self) -> None:
        if (some := self.some_lease()) is not None:
            agent, leased = some
            true = self.rng.random() < 0.6
            verdict = agent.hand_in(leased, wall_report(leased.model_sha256, ms=5.0 if true else -5.0))
            assert verdict != "accepted" or true
            self.accepted[leased.id] += verdict == "accepted"

    def fail(self) -> None:
        if (some := self.some_lease()) is not None:
            some[0].fail(some[1], self.rng.choice(["device", "device", "model"]))

    def come_and_go(self) -> None:
        agent = self.rng.choice(self.agents)
        self.rng.choice([agent.enrol, agent.leave])()
        agent.enrol()

    def wait(self) -> None:
        self.desk.clock.tick(self.rng.choice([1.0, LEASE_S, LEASE_S, -1e6]))

    def every_job_is_in_order(self) -> None:
        with self.desk.engine.connect() as connection:
            rows = connection.execute(sa.select(job)).all()
            open_leases = Counter(connection.scalars(sa.select(lease.c.job_id).where(lease.c.outcome.is_(None))))
            accepted = Counter(connection.scalars(sa.select(result.c.job_id).where(result.c.verdict == "accepted")))
        wanted = {key for key, _ in self.desk.requests()}
        for row in rows:
            assert row.attempt >= self.attempts[row.id]
            self.attempts[row.id] = row.attempt
            assert open_leases[row.id] == (row.state == "leased")
            assert accepted[row.id] == self.accepted[row.id] == (row.state == "done")
            assert (row.open_identity is None) == (row.state in ("done", "failed"))
            assert (row.reason is not None) == (row.state == "failed")
            assert row.id in wanted or row.state != "waiting"
            assert row.id not in wanted or row.state in OPEN_JOB_STATES
            end = (row.state, row.reason)
            assert self.ended.get(row.id, end) == end  # what ended stays as it is
            if row.state in ("done", "failed"):
                self.ended[row.id] = end
        assert len(rows) == len(self.attempts)  # none is gone

    def finish(self) -> None:
        """One agent that does what it should brings every job to an end."""
        self.desk.clock.tick(1e7)
        agent = self.agents[0]
        agent.enrol()
        while held := agent.lease(16):
            for leased_job in held:
                agent.hand_in(leased_job)
        with self.desk.engine.connect() as connection:
            assert set(connection.scalars(sa.select(job.c.state))) <= {"done", "failed"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))])
def test_no_order_of_steps_loses_a_job_or_ends_it_twice(desk: Desk, seed: int):
    story = Story(desk, seed)
    for _ in range(300):
        story.step()
    story.finish()
    with story.desk.engine.connect() as connection:
        verdicts = set(connection.scalars(sa.select(result.c.verdict)))
    assert verdicts >= {"accepted", "quarantined", "late"}  # the story was eventful


# -- at the same time --


def lease_until_empty(url: str, name: str, token: str, ready: Any, leased: Any) -> None:
    """Lease and answer in a process of its own until nothing waits; put each (job, attempt) of this agent."""
    desk = Desk(open_for_writing(url))
    agent = Agent(desk, name, token)
    assert agent.enrol()
    ready.wait(PATIENCE_S)
    mine = []
    while held := agent.lease(3):
        for leased_job in held:
            mine.append((leased_job.id, leased_job.attempt))
            assert agent.hand_in(leased_job) == "accepted"
    desk.engine.dispose()
    leased.put(mine)


@pytest.mark.slow
def test_several_processes_that_lease_at_once_get_every_job_once(desk: Desk):
    url = desk.engine.url.render_as_string(hide_password=False)
    keys = desk.submit(*(f"net {number}" for number in range(60)))
    agents = [desk.agent(name, enrol=False) for name in NAMES]
    ready, leased = fork_server().Barrier(len(agents)), fork_server().Queue()
    processes = [
        fork_server().Process(target=lease_until_empty, args=(url, agent.name, agent.token, ready, leased))
        for agent in agents
    ]
    for process in processes:
        process.start()
    attempts = [attempt for _ in processes for attempt in leased.get(timeout=PATIENCE_S)]
    for process in processes:
        process.join(PATIENCE_S)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert sorted(attempts) == [(key, 1) for key in keys]
    assert {desk.job(key).state for key in keys} == {"done"}


def test_threads_that_lease_at_once_get_every_job_once(desk: Desk):
    keys = desk.submit(*(f"net {number}" for number in range(30)))
    agents = [desk.agent(f"device{number}") for number in range(6)]
    leased: list[int] = []
    ready = threading.Barrier(len(agents))

    def work(agent) -> None:
        ready.wait()
        while held := agent.lease(2):
            leased.extend(leased_job.id for leased_job in held)

    threads = [threading.Thread(target=work, args=(agent,)) for agent in agents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(leased) == keys


def test_equal_requests_at_once_are_one_job(desk: Desk):
    found: list[list[int]] = []
    ready = threading.Barrier(4)

    def work(order: list[str]) -> None:
        ready.wait()
        found.append(sorted(desk.submit(*order)))

    names = [f"net {number}" for number in range(5)]
    threads = [threading.Thread(target=work, args=(names[:: (-1) ** turn],)) for turn in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(keys == found[0] for keys in found)
