"""An agent at work: enrol, then lease jobs, measure them and send the results, over and over."""

from __future__ import annotations

import hashlib
import os
import platform
import random
from typing import Any

from workers.latency.agent.runtimes import RUNTIMES, installed_runtimes
from workers.latency.agent.sensors import conditions, cpu_model, identity, usable_cores
from workers.latency.agent.serving.delivery import Delivery, call_until_answered
from workers.latency.agent.serving.errors import (
    DeviceFault,
    Ended,
    HubRefuses,
    LeaseLost,
    TokenRefused,
    Unreachable,
    WrongUse,
)
from workers.latency.agent.serving.folder import identity_in, locked
from workers.latency.agent.serving.hub_client import WRONG_ADDRESS, HubClient
from workers.latency.agent.serving.journal import Journal, plain
from workers.latency.agent.serving.leases import HeldLeases
from workers.latency.agent.serving.measuring import Measuring
from workers.latency.agent.serving.protocol import PROTOCOL, Job, read_job, read_ticket, require
from workers.latency.agent.serving.session import Session
from workers.latency.agent.serving.settings import HubSettings, is_this_machine
from workers.latency.agent.serving.spool import Spool
from workers.latency.agent.serving.waiting import Backoff, Termination


def serve_hub(settings: HubSettings) -> int:
    """Serve a hub until a signal ends it; return the exit code: 0 ended, 2 can't start like this, 3 token refused.

    One agent works in a folder at a time. The folder keeps who the agent is (so that it takes its own leases over
    when it starts again), the models it fetched, and what it could not send.
    """
    journal, termination = Journal(), Termination()
    try:
        if not installed_runtimes():
            raise WrongUse(f"one of {sorted(RUNTIMES)} must be installed here, but none is; pip install one")
        with locked(settings.folder):
            instance = identity_in(settings.folder)
            hub = HubClient(settings, instance, journal)
            termination.install()
            leases = HeldLeases(hub, settings.core, journal)
            return Agent(Session(settings, hub, leases, termination, journal)).serve()
    except WrongUse as error:
        journal.say(str(error))
        return 2


class Agent:
    """Serves one hub until it is told to end."""

    def __init__(self, session: Session) -> None:
        self._session = session
        settings = session.settings
        # Kept apart by hub and device: the same job number means something else elsewhere.
        owner = hashlib.sha256(f"{settings.url}\n{settings.token}".encode()).hexdigest()[:16]
        self._delivery = Delivery(session, Spool(settings.folder / "unsent" / owner, session.journal))
        self._measuring = Measuring(session, self._delivery)
        self._is_enrolled = False
        self._retry_s = 2.0
        self._fault_backoff = Backoff()

    def serve(self) -> int:
        """Return the exit code: 0 when told to end (or nothing is left to do), 3 when the token is refused."""
        journal, settings = self._session.journal, self._session.settings
        try:
            if settings.url.startswith("http:") and not is_this_machine(settings.url):
                journal.say("the token travels unencrypted; serve the hub over https outside your own network")
            self._serve_until_idle()
        except Ended:
            journal.say("told to end")
        except TokenRefused:
            journal.say("the hub refuses the token: it is wrong or revoked; pass the device's present one")
            return 3
        finally:
            self._session.leases.close()
        self._delivery.leave()
        return 0

    def _serve_until_idle(self) -> None:
        """Work for the hub; return when there is no job and the agent was started with --once."""
        settings, termination = self._session.settings, self._session.termination
        backoff = Backoff()
        while True:
            self._delivery.send_all()  # first: an agent that enrols gives up what it had leased before
            if not self._is_enrolled:
                self._enrol()
            raw_jobs = self._lease()
            if raw_jobs is None:
                self._is_enrolled = False  # enrolling gives back what an answer that was lost had leased
                termination.sleep(backoff.next_s())
                continue
            backoff = Backoff()
            if raw_jobs:
                self._work(raw_jobs[: settings.limit])
            elif settings.once:
                return
            else:
                termination.sleep(self._retry_s * random.uniform(0.75, 1.0))

    def _lease(self) -> list[Any] | None:
        """Return the jobs that the hub leases out to this agent, unchecked; None when it gives no answer or refuses."""
        settings, journal = self._session.settings, self._session.journal
        try:
            with self._session.termination.cutting():
                body = {"limit": settings.limit, "conditions": conditions(settings.core)}
                raw_jobs = self._session.hub.call("/v1/leases", body).get("jobs")
        except Unreachable:
            return None
        except HubRefuses as refusal:
            journal.say(f"the hub gives no jobs ({refusal}); enrolling again")
            return None
        if isinstance(raw_jobs, list):
            return raw_jobs
        journal.say("the hub's answer holds no list of jobs")
        return []

    def _enrol(self) -> None:
        """Tell the hub which device this is, waiting while another agent serves it; WrongUse when it is refused."""
        session = self._session
        enrolment, backoff, has_said_why = self._enrolment(), Backoff(), False
        while True:
            try:
                answer = call_until_answered(session, "/v1/enrol", enrolment)
                break
            except HubRefuses as refusal:
                if refusal.status not in (404, 409):
                    rule = f"the hub must take this agent in, but refuses it ({refusal})"
                    raise WrongUse(
                        f"{rule}; correct that, or fetch the agent again from the hub's /agent.pyz"
                    ) from None
                if not has_said_why:
                    reason = f"{refusal}; {WRONG_ADDRESS}" if refusal.status == 404 else str(refusal)
                    session.journal.say(f"waiting: the hub can't enrol this agent now ({reason})")
                    has_said_why = True
                session.termination.sleep(backoff.next_s())
        self._is_enrolled = True
        session.leases.set_length(answer.get("lease_s"))
        if type(answer.get("retry_s")) in (int, float) and 0.01 <= answer["retry_s"] <= 3600:
            self._retry_s = answer["retry_s"]
        session.journal.say(f"enrolled as {answer.get('device')} in the queue {answer.get('queue')}")

    def _enrolment(self) -> dict[str, Any]:
        settings = self._session.settings
        facts = {
            "cpu_model": cpu_model(settings.core),
            "identity": identity(settings.core),
            "machine": platform.machine(),
            "cores": len(usable_cores()),
            "python_version": platform.python_version(),
            "runtimes": installed_runtimes(),
            "pinned": hasattr(os, "sched_setaffinity"),
        }
        return {
            "format": PROTOCOL,
            "virtual": settings.is_virtual,
            "facts": facts,
            "conditions": conditions(settings.core),
        }

    def _work(self, raw_jobs: list[Any]) -> None:
        """Measure the jobs of one lease and send what came out."""
        session = self._session
        self._delivery.met_device_fault = False
        jobs = self._accepted(raw_jobs)
        session.leases.hold(job.ticket for job in jobs)
        try:
            self._delivery.send_all()  # the refused ones' failures, before their leases end
            if jobs:
                self._measuring.measure(jobs)
            self._delivery.send_all()
        except LeaseLost:
            session.journal.say("the batch is stopped: no lease is left")
        finally:
            session.leases.let_go(session.leases.held())
        if self._delivery.met_device_fault:
            session.termination.sleep(self._fault_backoff.next_s())  # whatever it is, it won't be over at once
        else:
            self._fault_backoff = Backoff()

    def _accepted(self, raw_jobs: list[Any]) -> list[Job]:
        """Return the jobs that can be done together; the others are answered with a fault."""
        jobs: list[Job] = []
        for raw in raw_jobs:
            ticket = read_ticket(raw)
            if ticket is None:
                self._session.journal.say(f"the hub sent a job without an id and attempt: {plain(repr(raw), 80)}")
                self._delivery.met_device_fault = True
                continue
            try:
                job = read_job(raw, ticket, self._session.settings.is_virtual)
                require(not jobs or job.task == jobs[0].task, "settings", "those of the whole batch", "others")
                jobs.append(job)
            except DeviceFault as fault:
                self._delivery.fail(ticket, "device", str(fault))
        return jobs
