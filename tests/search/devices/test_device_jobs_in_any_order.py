"""Whatever order agents lease, die, come back and answer in: no job is lost, none ends twice. Also at the same time."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa

from search.devices import jobs
from search.devices.leases import LeasedJob, LeaseLost, NotEnrolled
from search.store.database import open_for_writing
from search.store.device_tables import job, lease, result
from search.store.vocabulary import OPEN_JOB_STATES
from tests.search.tiny_devices import LEASE_S, Agent, Desk, wall_report

ROOT = Path(__file__).parents[3]
NAMES = ("one", "two", "three")


class Story:
    """Two agents of one queue, few models at a time, and a clock that jumps both ways."""

    def __init__(self, desk: Desk, seed: int) -> None:
        self.desk, self.rng = desk, random.Random(seed)
        self.agents = [self.desk.agent(name) for name in NAMES[:2]]
        self.held: list[tuple[Agent, LeasedJob]] = []  # also long after the lease ended
        self.told: list[str] = []  # the steps so far: what a failure shows
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
            self.answer,
            self.fail,
            self.come_and_go,
            self.wait,
        ]
        (step,) = self.rng.choices(steps, weights=[3, 1, 3, 6, 2, 5, 2, 1, 3])
        self.told.append(step.__name__)
        step()
        self.every_job_is_in_order()

    def some_model(self) -> str:
        return f"net {len(self.told) // 20 + self.rng.randrange(3)}"  # new ones come up, old ones are forgotten

    def submit(self) -> None:
        self.owners.append(f"owner {len(self.told)}")
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
            self.held += [(agent, one) for one in agent.lease(self.rng.choice([1, 3]))]

    def some_lease(self) -> tuple[Agent, LeasedJob] | None:
        return self.rng.choice(self.held[-6:]) if self.held else None

    def heartbeat(self) -> None:
        if (some := self.some_lease()) is not None:
            with contextlib.suppress(LeaseLost):
                some[0].heartbeat(some[1])

    def answer(self) -> None:
        if (some := self.some_lease()) is not None:
            agent, leased = some
            true = self.rng.random() < 0.6
            verdict = agent.answer(leased, wall_report(leased.model_sha256, ms=5.0 if true else -5.0))
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
        while taken := agent.lease(16):
            for one in taken:
                agent.answer(one)
        with self.desk.engine.connect() as connection:
            assert set(connection.scalars(sa.select(job.c.state))) <= {"done", "failed"}


@pytest.mark.parametrize("seed", range(3))
def test_no_order_of_steps_loses_a_job_or_ends_it_twice(desk: Desk, seed: int):
    story = Story(desk, seed)
    for _ in range(300):
        story.step()
    story.finish()
    with story.desk.engine.connect() as connection:
        verdicts = set(connection.scalars(sa.select(result.c.verdict)))
    assert verdicts >= {"accepted", "quarantined", "late"}  # the story was eventful


# -- at the same time --


def lease_until_empty(url: str, name: str, token: str) -> list[tuple[int, int]]:
    """Lease and answer until nothing waits; return each (job, attempt) that was this agent's."""
    desk = Desk(open_for_writing(url))
    agent = Agent(desk, name, token)
    assert agent.enrol()
    mine = []
    while taken := agent.lease(3):
        for one in taken:
            mine.append((one.id, one.attempt))
            assert agent.answer(one) == "accepted"
    desk.engine.dispose()
    return mine


LEASING = """
import json, sys
from tests.search.devices.test_device_jobs_in_any_order import lease_until_empty
sys.stdin.readline()
print(json.dumps(lease_until_empty(*sys.argv[1:])))
"""


@pytest.mark.slow
def test_several_processes_that_lease_at_once_get_every_job_once(desk: Desk):
    url = desk.engine.url.render_as_string(hide_password=False)
    keys = desk.submit(*(f"net {number}" for number in range(60)))
    agents = [desk.agent(name, enrol=False) for name in NAMES]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LEASING, url, agent.name, agent.token],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for agent in agents
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    leased = [tuple(one) for output in outputs for one in json.loads(output)]
    assert sorted(leased) == [(key, 1) for key in keys]
    assert {desk.job(key).state for key in keys} == {"done"}


def test_threads_that_lease_at_once_get_every_job_once(desk: Desk):
    keys = desk.submit(*(f"net {number}" for number in range(30)))
    agents = [desk.agent(f"device{number}") for number in range(6)]
    leased: list[int] = []
    ready = threading.Barrier(len(agents))

    def work(agent) -> None:
        ready.wait()
        while taken := agent.lease(2):
            leased.extend(one.id for one in taken)

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
