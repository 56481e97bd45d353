"""The agent's log: one plain line per event on standard error."""

from __future__ import annotations

import contextlib
import sys
import threading
import time


def plain(text: object, most: int = 300) -> str:
    """Return printable text on one line, because what a hub or a runtime says goes to logs and terminals."""
    return " ".join("".join(char if char.isprintable() else " " for char in str(text)).split())[:most]


class Journal:
    """Writes one line per event; an outage of the hub is two lines, one when it begins and one when it is over."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outage = ""

    def say(self, text: str) -> None:
        """Write one line: the time, and the text without what a terminal would take for a command."""
        line = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {plain(text, 600)}\n"
        with contextlib.suppress(OSError, ValueError):  # measuring goes on when the terminal is closed
            sys.stderr.write(line)
            sys.stderr.flush()

    def unreachable(self, reason: str) -> None:
        """Note that a call got no answer, and write so unless this reason was the last one written."""
        with self._lock:
            is_new, self._outage = reason != self._outage, reason
        if is_new:
            self.say(f"no answer from the hub: {reason}; trying again")

    def reached(self) -> None:
        """Note that a call got an answer, and write so after an outage."""
        with self._lock:
            outage, self._outage = self._outage, ""
        if outage:
            self.say("the hub answers again")
