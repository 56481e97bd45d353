"""The agent's own folder: one agent works in it at a time, and keeps its name there."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import IO

from workers.latency.agent.files import write_whole
from workers.latency.agent.sensors import ROOT, read_text
from workers.latency.agent.serving.errors import WrongUse


def locked(folder: Path) -> IO[str]:
    """Return an open file that holds the folder for this process as long as it lives."""
    try:
        import fcntl  # here, so that a system without it gets one line
    except ImportError:
        raise WrongUse("an agent needs flock, which Linux, Android and macOS have; run it on one of those") from None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / "lock").open("a", encoding="ascii")
    except OSError as error:
        raise WrongUse(f"--folder must be writable, but {folder} is not: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        why = "another agent works in it" if isinstance(error, BlockingIOError) else error.strerror
        raise WrongUse(f"the folder {folder} can't be locked: {why}; end that one, or name another --folder") from None
    return lock


def identity_in(folder: Path, root: Path = ROOT) -> str:
    """Return the name this agent keeps through restarts, made up when the folder is new or another board's.

    A card copied for a second board must not make two agents one: each would give up what the other one leased.
    """
    path = folder / "instance"
    board = hashlib.sha256((read_text(root / "proc/device-tree/serial-number") or "").encode()).hexdigest()[:16]
    try:
        known, _, home = (path.read_text(encoding="ascii") if path.exists() else "").strip().partition(" ")
        if re.fullmatch("[0-9a-f]{32}", known) and home in ("", board):
            return known
        made_up = os.urandom(16).hex()
        write_whole(path, f"{made_up} {board}".encode())
    except (OSError, UnicodeError) as error:
        raise WrongUse(f"--folder must be usable, but {path} is not: {error}") from None
    return made_up
