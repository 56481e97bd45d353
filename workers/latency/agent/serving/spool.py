"""Results and failures that the hub has not accepted yet."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from workers.latency.agent.files import write_whole
from workers.latency.agent.serving.journal import Journal
from workers.latency.agent.serving.protocol import Ticket, read_ticket


class Spool:
    """Keeps results and failures until the hub has accepted them: in memory, and on disk if that is possible."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        self._folder, self._journal = folder, journal
        self._items: dict[Ticket, dict[str, Any]] = {}
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            for part in folder.glob("*.part"):  # left by an agent that was killed; its job is done again
                part.unlink()
        for path in sorted(folder.glob("*.json")):
            try:
                item = json.loads(path.read_bytes())
                ticket = read_ticket(item)
                if ticket is None or item["kind"] not in ("result", "failure") or not isinstance(item["body"], dict):
                    raise ValueError("it is no result")
                self._items[ticket] = item
            except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
                self._journal.say(f"an unsent result can't be read and is lost: {path.name}: {error}")
                with contextlib.suppress(OSError):
                    path.unlink()

    def items(self) -> list[tuple[Ticket, str, dict[str, Any]]]:
        """Return (ticket, "result" or "failure", body) of each, oldest job first."""
        ordered = sorted(self._items.items(), key=lambda pair: (pair[0].job, pair[0].attempt))
        return [(ticket, item["kind"], item["body"]) for ticket, item in ordered]

    def add(self, ticket: Ticket, kind: str, body: dict[str, Any]) -> None:
        """Keep what came out of an attempt; it replaces what was kept of the same attempt."""
        item = {"id": ticket.job, "attempt": ticket.attempt, "kind": kind, "body": body}
        content = json.dumps(item, allow_nan=False).encode()
        self._items[ticket] = item
        try:
            write_whole(self._path(ticket), content)
        except OSError as error:
            self._journal.say(f"job {ticket.job}: its {kind} is kept in memory only: {error.strerror or error}")

    def remove(self, ticket: Ticket) -> None:
        """Keep what came out of this attempt no longer."""
        self._items.pop(ticket, None)
        with contextlib.suppress(OSError):
            self._path(ticket).unlink()

    def _path(self, ticket: Ticket) -> Path:
        return self._folder / f"{ticket.job}-{ticket.attempt}.json"
