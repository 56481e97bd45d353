"""An actor of Ray on the controller's machine. Nothing heavy is imported: a process of its own runs nothing else."""

from __future__ import annotations

MAILBOX = "condensery-switchboard"  # its name in the run's namespace


class Mailbox:
    """The controller's words ("stop", "cancel") for jobs, by serial number."""

    def __init__(self) -> None:
        self._words: dict[int, str] = {}

    def say(self, words: dict[int, str]) -> None:
        """Replace all words."""
        self._words = words

    def word(self, serial: int) -> str | None:
        """Return the word for one job."""
        return self._words.get(serial)
