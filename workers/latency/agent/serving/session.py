"""What the parts of a running agent share, and whether its work is still wanted."""

from __future__ import annotations

from dataclasses import dataclass

from workers.latency.agent.serving.errors import Ended, LeaseLost, TokenRefused
from workers.latency.agent.serving.hub_client import HubClient
from workers.latency.agent.serving.journal import Journal
from workers.latency.agent.serving.leases import HeldLeases
from workers.latency.agent.serving.settings import HubSettings
from workers.latency.agent.serving.waiting import Termination


@dataclass(frozen=True)
class Session:
    """One run of the agent: how it was started, its hub, its leases, its log and the signals to end it."""

    settings: HubSettings
    hub: HubClient
    leases: HeldLeases
    termination: Termination
    journal: Journal

    def is_stopped(self) -> bool:
        """Return whether the batch at hand must end: the agent was told to, or no lease of the batch is held."""
        return self.termination.asked or not self.leases.held()

    def check_stopped(self) -> None:
        """Raise Ended, TokenRefused or LeaseLost when the batch at hand must end."""
        if self.termination.asked:
            raise Ended
        if self.leases.token_refused:
            raise TokenRefused
        if not self.leases.held():
            raise LeaseLost
