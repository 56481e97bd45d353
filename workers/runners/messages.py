"""The messages of a worker: plain tuples, since those pass through pipes and Ray. Nothing heavy is imported here."""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class MessageKind(StrEnum):
    """What a worker says; see `search.engines.events.event_of` for the content of each."""

    READY = "ready"  # a process's first message: from now on it may be paused
    STARTED = "started"  # with an attempt
    EARLIER = "earlier"  # the epochs of the checkpoint that it goes on from
    CURVE = "curve"  # one epoch
    STEP = "step"  # how far it is within an epoch, about once a second
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"


ENDS = (MessageKind.DONE, MessageKind.FAILED, MessageKind.STOPPED, MessageKind.LOST)  # an attempt ends with one of them
Message = tuple[MessageKind, int, int, Any]  # kind, trial, attempt, content
