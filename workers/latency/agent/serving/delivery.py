"""Handing results and failures over to the hub: none is lost, and none that the hub can't take is tried forever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workers.latency.agent.serving.errors import HubRefuses, ReportNotTaken, TokenRefused, Unreachable
from workers.latency.agent.serving.journal import plain
from workers.latency.agent.serving.protocol import Ticket
from workers.latency.agent.serving.session import Session
from workers.latency.agent.serving.spool import Spool
from workers.latency.agent.serving.waiting import Backoff

HUB_ERRORS_MOST = 20  # answers of "I failed" to one report, over some six minutes, before the report is dropped
LEAVING_S = 5.0  # that a call may take when the agent ends

Call = Callable[[str, dict[str, Any]], dict[str, Any]]  # (path, body) -> the hub's answer


def call_until_answered(
    session: Session, path: str, body: dict[str, Any], errors_most: float = float("inf")
) -> dict[str, Any]:
    """Call until the hub answers, however long that takes.

    Raises:
        ReportNotTaken: the hub answered more than `errors_most` times that it failed.
        Ended, HubRefuses, TokenRefused: as they come.
    """
    backoff, errors = Backoff(), 0
    while True:
        try:
            with session.termination.cutting():
                return session.hub.call(path, body)
        except Unreachable as trouble:
            errors += trouble.is_hub_error
            if errors > errors_most:
                raise ReportNotTaken(f"{errors} times, {trouble}") from None
            session.termination.sleep(backoff.next_s())


class Delivery:
    """Takes in what came out of each job and sends it; `met_device_fault` says whether one was this device's fault."""

    def __init__(self, session: Session, spool: Spool) -> None:
        self.met_device_fault = False
        self._session = session
        self._spool = spool

    def succeed(self, ticket: Ticket, report: dict[str, Any]) -> None:
        """Store a job's report, to be sent."""
        try:
            self._spool.add(ticket, "result", {"report": report})
        except ValueError as error:  # a number that JSON can't express
            self.fail(ticket, "device", f"the report can't be written: {error}")

    def fail(self, ticket: Ticket, fault: str, reason: str) -> None:
        """Store why a job has no result and whose fault that is, the "model"'s or the "device"'s, to be sent."""
        self.met_device_fault = self.met_device_fault or fault == "device"
        reason = plain(reason) or "no reason is known"
        self._session.journal.say(f"job {ticket.job}: failed, {reason}")
        self._spool.add(ticket, "failure", {"fault": fault, "reason": reason})

    def send_all(self) -> None:
        """Send everything that is stored, waiting for the hub however long it is away."""
        for ticket, kind, body in self._spool.items():
            self._send(ticket, kind, body, self._call_until_taken)
            self._session.leases.let_go([ticket])

    def leave(self) -> None:
        """Send what is stored and give the leases back if the hub answers at once; otherwise both can wait."""
        try:
            for ticket, kind, body in self._spool.items():
                self._send(ticket, kind, body, self._call_once)
            self._call_once("/v1/leave", {})
            self._session.journal.say("left")
        except (Unreachable, HubRefuses, TokenRefused) as error:
            self._session.journal.say(f"ended without telling the hub: {plain(error) or 'it refuses the token'}")

    def _call_until_taken(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return call_until_answered(self._session, path, body, HUB_ERRORS_MOST)

    def _call_once(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._session.hub.call(path, body, LEAVING_S)

    def _send(self, ticket: Ticket, kind: str, body: dict[str, Any], call: Call) -> None:
        """Hand one result or failure over, and keep it no longer; a refused result becomes a failure."""
        journal = self._session.journal
        try:
            answer = call(f"/v1/jobs/{ticket.job}/{kind}", {"attempt": ticket.attempt, **body})
            journal.say(f"job {ticket.job}: {kind} {answer.get('verdict', 'recorded')}")
        except HubRefuses as refusal:
            journal.say(f"job {ticket.job}: the hub refuses the {kind} ({refusal})")
            if kind == "result" and refusal.status in (400, 413, 422):  # the job must not wait for its lease to end
                self.fail(ticket, "device", f"the hub refuses this agent's report ({refusal})")
                return
        except ReportNotTaken as trouble:
            journal.say(f"job {ticket.job}: the hub can't take the {kind} ({trouble}), so it is dropped")
            if kind == "result":
                self.fail(ticket, "device", f"the hub can't take this agent's report ({trouble})")
                return
        self._spool.remove(ticket)
