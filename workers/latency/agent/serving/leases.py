"""The leases that the agent holds, renewed by their own thread."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable
from typing import Any

from workers.latency.agent.sensors import conditions, usable_cores
from workers.latency.agent.serving.errors import HubRefuses, TokenRefused, Unreachable
from workers.latency.agent.serving.hub_client import HubClient
from workers.latency.agent.serving.journal import Journal
from workers.latency.agent.serving.protocol import Ticket


class HeldLeases:
    """Holds the leases of a batch. A thread renews them while the main thread waits, downloads and measures."""

    def __init__(self, hub: HubClient, core: int, journal: Journal) -> None:
        self.state = "downloading"
        self.token_refused = False
        self._hub, self._core, self._journal = hub, core, journal
        self._lease_s = 60.0
        self._held: set[Ticket] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._wake = threading.Event()
        threading.Thread(target=self._renew_until_closed, daemon=True).start()

    def set_length(self, lease_s: Any) -> None:
        """Take over how long a lease lasts, as the hub says; anything else than a sensible number is ignored."""
        if type(lease_s) in (int, float) and 0.1 <= lease_s <= 86_400 and lease_s != self._lease_s:
            self._lease_s = lease_s
            self._wake.set()  # the present wait has the old length

    def hold(self, tickets: Iterable[Ticket]) -> None:
        """Begin to renew these leases, at once: the hub counts a job as begun when it hears of it."""
        with self._lock:
            self._held.update(tickets)
        self.state = "downloading"
        self._wake.set()

    def tell(self, state: str) -> None:
        """Set what the device is doing; the hub hears of a change at once, not only at the next heartbeat."""
        if state != self.state:
            self.state = state
            self._wake.set()

    def let_go(self, tickets: Iterable[Ticket]) -> None:
        """Renew these leases no longer."""
        with self._lock:
            self._held.difference_update(tickets)

    def held(self) -> set[Ticket]:
        """Return the leases that are renewed."""
        with self._lock:
            return set(self._held)

    def close(self) -> None:
        """End the thread that renews them."""
        self._closed = True
        self._wake.set()

    def _renew_until_closed(self) -> None:
        if hasattr(os, "sched_setaffinity"):
            others = [core for core in usable_cores() if core != self._core]
            with contextlib.suppress(OSError):  # of this thread only: the core that measures does nothing else
                os.sched_setaffinity(0, others or [self._core])
        while not self._closed:
            if self._wake.wait(self._lease_s / 4):
                self._wake.clear()
            for ticket in sorted(self.held(), key=lambda ticket: ticket.job):
                if not self._closed:
                    self._renew(ticket)

    def _renew(self, ticket: Ticket) -> None:
        body = {"attempt": ticket.attempt, "state": self.state, "conditions": conditions(self._core)}
        try:
            if ticket in self.held():
                # Short, so that one call without an answer doesn't cost the other leases.
                path, call_s = f"/v1/jobs/{ticket.job}/heartbeat", max(1.0, self._lease_s / 12)
                self.set_length(self._hub.call(path, body, call_s).get("lease_s"))
        except HubRefuses as refusal:
            if ticket in self.held():  # otherwise its result was accepted meanwhile
                lost = refusal.status in (404, 409)
                self._journal.say(
                    f"job {ticket.job}: {'its lease is lost' if lost else 'its heartbeat is refused'} ({refusal})"
                )
                self.let_go([ticket] if lost else [])
        except TokenRefused:
            self.token_refused = True
            self.let_go(self.held())
        except Unreachable:
            pass  # the journal has it; the next heartbeat tries again
        except Exception as error:  # whatever it is, the other leases must be renewed
            self._journal.say(f"job {ticket.job}: a heartbeat failed, {type(error).__name__}: {error}")
