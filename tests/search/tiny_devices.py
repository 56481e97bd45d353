"""Devices whose agents are function calls, on a real database, with a clock that tests set."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from search.devices import agents, jobs, leases, model_store, registry, submissions
from search.devices.jobs import JobRow, MeasurementRequest
from search.devices.leases import Heartbeat, LeasedJob, LeaseRequest, LeaseTerms, Ticket
from search.devices.submissions import Fault
from search.store.connection.database import open_for_writing
from search.store.device_tables import event, request, result
from tests.search.tiny_studies import sqlite_url
from workers.clock import SimulatedClock

LEASE_S = 60.0
FACTS: dict[str, Any] = {
    "cpu_model": "Raspberry Pi 5 Model B (Cortex-A76)",
    "identity": {"board": "Raspberry Pi 5 Model B", "part": "0x41:0xd0b", "mhz": [1500, 2400], "memory_mb": 8189},
    "machine": "aarch64",
    "cores": 4,
    "python_version": "3.11.2",
    "runtimes": {"onnxruntime": "1.23.0"},
    "pinned": True,
}
CONDITIONS: dict[str, Any] = {"temperature_c": 48.5, "cpu_mhz": 2400.0, "load_average": [0.1, 0.2, 0.3]}
POLICY: dict[str, Any] = {"label": "quick", "runs": 3, "processes": 2, "threads": 1, "pause_above_c": None}
ANCHOR = b"the anchor"


class Clock(SimulatedClock):
    """The time, as a test sets it."""

    def tick(self, seconds: float) -> None:
        """Let time pass, or set the date back."""
        self.advance(seconds)
        self.set_now(self.now() + min(0.0, seconds))


def instance_of(name: str) -> str:
    """An agent's instance, one for each name."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def wall_report(model: str, ms: float = 5.0, anchor_ms: float = 2.0, **changes: Any) -> dict[str, Any]:
    """A report of two processes that timed a model at about `ms`."""
    process = {
        "samples_ms": [ms, ms * 1.01, ms * 0.99],
        "cpu_ms": [ms, ms, ms * 0.99],
        "stride": 1,
        "runs": 3,
        "set_aside": 0,
        "lost": 0.0,
        "switches": 1,
        "waited": 0.0,
        **dict.fromkeys(("quota_stops", "stolen", "siblings_busy", "neighbours_busy", "disturbed")),
        **dict.fromkeys(("peak_memory_mb", "energy_mj")),
        "position": 1,
        "anchor_ms": [anchor_ms, anchor_ms],
        "before": CONDITIONS,
        "after": CONDITIONS,
        "throttled": False,
        "cooled": None,
    }
    return {
        "format": 3,
        "mode": "wall",
        "runtime": "onnxruntime",
        "runtime_version": "1.23.0",
        "python_version": "3.11.2",
        "machine": "aarch64",
        "threads": 1,
        "cpu_model": FACTS["cpu_model"],
        "identity": FACTS["identity"],
        "core": 3,
        "cores": [3],
        "pinned": True,
        "policy": "quick",
        "sha256": model,
        "processes": [process, process],
        "tries": 1,
        "measured": 2,
        "planned_from": 2,
        "anchor_drift": 0.01,
        "steady": True,
        **changes,
    }


def counts_report(model: str, **changes: Any) -> dict[str, Any]:
    """A report of one counted run."""
    return {
        "format": 3,
        "mode": "counts",
        "runtime": "onnxruntime",
        "runtime_version": "1.23.0",
        "python_version": "3.11.2",
        "machine": "aarch64",
        "threads": 1,
        "sha256": model,
        "counts": [{"all": 16_937_000, "branch": 3_041_000, "vfma": 2_800_323}],
        **changes,
    }


class Agent:
    """A device and the agent that serves it, without the HTTP between them and the hub."""

    def __init__(self, desk: Desk, name: str, token: str) -> None:
        self.desk, self.name, self.token, self.instance = desk, name, token, instance_of(name)
        device = registry.device_by_token(desk.engine, token)
        assert device is not None
        self.device = device

    def enrol(self, facts: dict[str, Any] = FACTS) -> bool:
        enrolment = agents.Enrolment(self.instance, facts, CONDITIONS)
        return agents.enrol(self.desk.engine, self.device, enrolment, LEASE_S, self.desk.clock)

    def lease(self, limit: int = 1) -> list[LeasedJob]:
        return leases.lease_jobs(
            self.desk.engine, self.device, LeaseRequest(self.instance, limit, CONDITIONS), self.desk.terms
        )

    def ticket(self, job: LeasedJob) -> Ticket:
        return Ticket(job.id, job.attempt, self.instance)

    def heartbeat(self, job: LeasedJob, doing: Any = "measuring") -> None:
        leases.record_heartbeat(
            self.desk.engine, self.device, self.ticket(job), Heartbeat(doing, CONDITIONS), self.desk.terms
        )

    def hand_in(self, job: LeasedJob, report: dict[str, Any] | None = None) -> str:
        report = wall_report(job.model_sha256) if report is None else report
        return submissions.record_result(self.desk.engine, self.device, self.ticket(job), report, self.desk.terms)

    def fail(self, job: LeasedJob, fault: Any = "device", reason: str = "the disk is full") -> None:
        submissions.record_failure(
            self.desk.engine, self.device, self.ticket(job), Fault(fault, reason), self.desk.terms
        )

    def leave(self) -> None:
        agents.leave(self.desk.engine, self.device, self.instance, self.desk.clock)


class Desk:
    """A database with devices and jobs, its clock, and what a hub would do with them."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine, self.clock = engine, Clock()
        self.terms = LeaseTerms(LEASE_S, self.clock)

    @classmethod
    def at(cls, folder: Path) -> Desk:
        return cls(open_for_writing(sqlite_url(folder)))

    def requests(self) -> set[tuple[int, str]]:
        """(job, owner) of every request."""
        with self.engine.connect() as connection:
            return {(row.job_id, row.owner) for row in connection.execute(sa.select(request))}

    def agent(self, name: str, queue: str = "pi5", profile: str | None = None, enrol: bool = True) -> Agent:
        agent = Agent(self, name, registry.add_device(self.engine, name, queue, profile, self.clock))
        assert not enrol or agent.enrol()
        return agent

    def request(self, name: str, **changes: Any) -> MeasurementRequest:
        """A request for a made-up model of this name."""
        model = model_store.put_model(self.engine, name.encode(), self.clock)
        values: dict[str, Any] = {
            "queue": "pi5",
            "model_sha256": model,
            "anchor_sha256": model_store.put_model(self.engine, ANCHOR, self.clock),
            "mode": "wall",
            "runtime": "onnxruntime",
            "threads": 1,
            "policy": POLICY,
            "policy_label": "quick",
        }
        return MeasurementRequest(**{**values, **changes})

    def submit(self, *names: str, owner: str | None = None, **changes: Any) -> list[int]:
        """Submit requests for models; by a new owner if none is named."""
        requests = [self.request(name, **changes) for name in names]
        return jobs.submit(self.engine, requests, owner or secrets.token_hex(16), self.clock)

    def job(self, key: int) -> JobRow:
        (row,) = jobs.states(self.engine, [key])
        return row

    def events(self, key: int) -> list[str]:
        query = sa.select(event.c.kind).where(event.c.job_id == key).order_by(event.c.id)
        with self.engine.connect() as connection:
            return list(connection.scalars(query))

    def verdicts(self, key: int) -> list[tuple[str, str | None]]:
        query = sa.select(result.c.verdict, result.c.reason).where(result.c.job_id == key).order_by(result.c.attempt)
        with self.engine.connect() as connection:
            return [(row.verdict, row.reason) for row in connection.execute(query)]
