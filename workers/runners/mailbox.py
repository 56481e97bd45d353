"""An actor of Ray on the controller's machine. Nothing heavy is imported: its process runs nothing else."""

from __future__ import annotations

MAILBOX = "condensery-mailbox"  # its name in the run's namespace


class Mailbox:
    """The controller's commands ("stop", "cancel") for jobs, by serial number."""

    def __init__(self) -> None:
        self._commands: dict[int, str] = {}

    def post(self, commands: dict[int, str]) -> None:
        """Replace all commands."""
        self._commands = commands

    def command(self, serial: int) -> str | None:
        """Return the command for one job; None while there is none."""
        return self._commands.get(serial)
