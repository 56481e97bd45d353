"""Whatever order agents lease, die, come back and answer in: no job is lost, none ends twice. Also at the same time."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from search.devices import jobs
from search.devices.leases import LeaseLost, NotEnrolled
from search.store.database import open_for_writing
from search.store.device_tables import job, lease, result
from tests.search.tiny_devices import LEASE_S, Desk, wall_report
from tests.search.tiny_studies import sqlite_url

ROOT = Path(__file__).parents[2]
NAMES = ("one", "two", "three")
MODELS = "ab"


class DevicesInAnyOrder(RuleBasedStateMachine):
    """Two agents of one queue, few models, and time that jumps both ways: few of each, so that they meet often."""

    template: Path  # a database with all tables
    held = Bundle("held")  # (agent's name, lease), also long after it ended

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        shutil.copy(self.template, self.folder.name)
        self.desk = Desk.at(Path(self.folder.name))
        self.agents = {name: self.desk.agent(name) for name in NAMES[:2]}
        self.desk.submit(*MODELS)
        self.ended: dict[int, tuple[str, str | None]] = {}
        self.attempts: Counter[int] = Counter()
        self.accepted: Counter[int] = Counter()

    def teardown(self) -> None:
        if not hasattr(self, "desk"):
            return
        self._finish_everything()
        self.desk.engine.dispose()
        self.folder.cleanup()

    @rule(model=st.sampled_from(MODELS))
    def submit(self, model: str) -> None:
        self.desk.submit(model)

    @rule(model=st.sampled_from(MODELS))
    def cancel(self, model: str) -> None:
        identity = self.desk.order(model).identity
        with self.desk.engine.connect() as connection:
            keys = list(connection.scalars(sa.select(job.c.id).where(job.c.open_identity == identity)))
        jobs.cancel(self.desk.engine, keys, self.desk.clock)

    @rule(target=held, name=st.sampled_from(NAMES[:2]), limit=st.integers(1, 3))
    def lease(self, name: str, limit: int):
        try:
            taken = self.agents[name].lease(limit)
        except NotEnrolled:
            return multiple()
        return multiple(*((name, one) for one in taken))

    @rule(one=held)
    def heartbeat(self, one) -> None:
        with contextlib.suppress(LeaseLost):
            self.agents[one[0]].heartbeat(one[1])

    @rule(one=held, plausible=st.booleans())
    def answer(self, one, plausible: bool) -> None:
        name, leased = one
        report = wall_report(leased.model_sha256, ms=5.0 if plausible else -5.0)
        verdict = self.agents[name].answer(leased, report)
        assert verdict != "accepted" or plausible
        self.accepted[leased.id] += verdict == "accepted"

    @rule(one=consumes(held), fault=st.sampled_from(["device", "model"]))
    def fail(self, one, fault: str) -> None:
        self.agents[one[0]].fail(one[1], fault)

    @rule(name=st.sampled_from(NAMES[:2]))
    def restart(self, name: str) -> None:
        self.agents[name].enrol()

    @rule(name=st.sampled_from(NAMES[:2]))
    def leave(self, name: str) -> None:
        self.agents[name].leave()

    @rule(seconds=st.sampled_from([LEASE_S, 1.0, -1e6]))
    def let_time_pass(self, seconds: float) -> None:
        self.desk.clock.tick(seconds)

    @invariant()
    def every_job_is_in_order(self) -> None:
        if not hasattr(self, "desk"):
            return
        with self.desk.engine.connect() as connection:
            rows = connection.execute(sa.select(job)).all()
            open_leases = Counter(connection.scalars(sa.select(lease.c.job_id).where(lease.c.outcome.is_(None))))
            accepted = Counter(connection.scalars(sa.select(result.c.job_id).where(result.c.verdict == "accepted")))
        for row in rows:
            assert row.attempt >= self.attempts[row.id]
            self.attempts[row.id] = row.attempt
            assert open_leases[row.id] == (row.state == "leased")
            assert accepted[row.id] == self.accepted[row.id] == (row.state == "done")
            assert (row.open_identity is None) == (row.state in ("done", "failed"))
            assert (row.reason is not None) == (row.state == "failed")
            end = (row.state, row.reason)
            assert self.ended.get(row.id, end) == end  # what ended stays as it is
            if row.state in ("done", "failed"):
                self.ended[row.id] = end
        assert len(rows) >= len(self.attempts)  # none is gone

    def _finish_everything(self) -> None:
        """One agent that does what it should brings every job to an end."""
        self.desk.clock.tick(1e7)
        agent = self.agents["one"]
        agent.enrol()
        for _ in range(100):
            for one in agent.lease(16):
                agent.answer(one)
        with self.desk.engine.connect() as connection:
            assert set(connection.scalars(sa.select(job.c.state))) <= {"done", "failed"}


def test_no_order_of_events_loses_a_job_or_ends_it_twice(empty_database: Path):
    DevicesInAnyOrder.template = empty_database
    machine = DevicesInAnyOrder.TestCase
    machine.settings = settings(
        max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    machine().runTest()


# -- at the same time --


def lease_until_empty(url: str, name: str, token: str) -> list[tuple[int, int]]:
    """Lease and answer until nothing waits; return each (job, attempt) that was this agent's."""
    from tests.search.tiny_devices import Agent

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
from tests.search.test_device_jobs_in_any_order import lease_until_empty
sys.stdin.readline()
print(json.dumps(lease_until_empty(*sys.argv[1:])))
"""


@pytest.mark.slow
def test_several_processes_that_lease_at_once_get_every_job_once(tmp_path: Path, empty_database: Path):
    shutil.copy(empty_database, tmp_path)
    url, desk = sqlite_url(tmp_path), Desk.at(tmp_path)
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
    desk.engine.dispose()


def test_threads_that_lease_at_once_get_every_job_once(tmp_path: Path, empty_database: Path):
    shutil.copy(empty_database, tmp_path)
    desk = Desk.at(tmp_path)
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
    desk.engine.dispose()


def test_equal_orders_at_once_are_one_job(tmp_path: Path, empty_database: Path):
    shutil.copy(empty_database, tmp_path)
    desk = Desk.at(tmp_path)
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
    desk.engine.dispose()
