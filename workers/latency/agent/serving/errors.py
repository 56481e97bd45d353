"""The exceptions that end a call, a job, a batch or the agent."""

from __future__ import annotations


class Ended(BaseException):
    """A signal asked the agent to end. It is no Exception, so that no handler of failures catches it."""


class Unreachable(Exception):
    """The hub gave no answer, or something that isn't one; the same call may succeed later."""

    def __init__(self, reason: str, is_hub_error: bool = False) -> None:
        super().__init__(reason)
        self.is_hub_error = is_hub_error  # it answered, but that it failed


class ReportNotTaken(Exception):
    """The hub fails each time it is sent this report."""


class HubRefuses(Exception):
    """The hub understood the call and refuses it; the same call will not succeed later."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status


class TokenRefused(Exception):
    """The hub doesn't know the token, or knows it no longer."""


class DeviceFault(Exception):
    """This device can't do a job that another device of the queue may be able to do."""


class LeaseLost(Exception):
    """No lease of the batch is held any more, so no one waits for its results."""


class WrongUse(Exception):
    """The agent can't start as it was told to; the message says what to change."""
