"""The agent's own folder: one agent at a time works in it, and keeps its identity there."""

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
    """Return an open file that locks the folder for this process until it is closed."""
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
    """Return the identity that the agent keeps through restarts; a new one when the folder is new or another board's.

    When a memory card is copied for a second board, the two agents must have two identities. Otherwise each would give
    up what the other one has leased.
    """
    path = folder / "instance"
    board = hashlib.sha256((read_text(root / "proc/device-tree/serial-number") or "").encode()).hexdigest()[:16]
    try:
        identity, _, home = (path.read_text(encoding="ascii") if path.exists() else "").strip().partition(" ")
        if re.fullmatch("[0-9a-f]{32}", identity) and home == board:
            return identity
        identity = os.urandom(16).hex()
        write_whole(path, f"{identity} {board}".encode())
    except (OSError, UnicodeError) as error:
        raise WrongUse(f"--folder must be usable, but {path} is not: {error}") from None
    return identity
