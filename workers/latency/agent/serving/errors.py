"""What ends a call, a job, a batch or the agent, each as one exception."""

from __future__ import annotations


class Ended(BaseException):
    """A signal asked the agent to end (no Exception: nothing that handles a failure may swallow it)."""


class Unreachable(Exception):
    """No answer, or none that a hub gives: the same call may do later."""

    def __init__(self, why: str, is_hub_error: bool = False) -> None:
        super().__init__(why)
        self.is_hub_error = is_hub_error  # it did answer, and that it failed


class ReportNotTaken(Exception):
    """The hub fails whenever it is handed this report."""


class HubRefuses(Exception):
    """The hub understood and says no; the same call will not do."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status


class TokenRefused(Exception):
    """The hub knows no such token, or not any more."""


class DeviceFault(Exception):
    """This device can't do a job that another one of the queue may do."""


class LeaseLost(Exception):
    """Nobody waits for what is being done any more."""


class WrongUse(Exception):
    """The agent can't start like this; the message says what to change."""
