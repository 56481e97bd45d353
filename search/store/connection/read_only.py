"""Opening an SQLite file to read it, also where this user may write neither it nor beside it.

With WAL a reader too writes: it makes the log (-wal) and its index (-shm) where they are missing. On read-only media it
can't. In another user's folder it could, but its owner couldn't write to such files and would be shut out. So:

- Where this user may write, or a writer's log and index are there, SQLite does as it always does.
- Otherwise no writer of ours is at work. A log without an index was left by a crash or copied while a search ran: it is
  read with an index in memory. Without a log the file alone is all there is.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

READ_TIMEOUT_S = 10.0


def connect_read_only(file: Path) -> sqlite3.Connection:
    """Return a connection that only reads; the file is opened at its first statement."""
    log, index = Path(f"{os.path.realpath(file)}-wal"), Path(f"{os.path.realpath(file)}-shm")
    if _may_write(file) or (log.exists() and index.exists()):
        return _connect(file)
    if not log.exists() or log.stat().st_size == 0:
        return _connect(file, "&immutable=1")
    connection = _connect(file, "&vfs=unix-none")  # without locks, which a file that can't be written doesn't give
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # this is what has the index in memory
    return connection


def _may_write(file: Path) -> bool:
    place = Path(os.path.realpath(file))
    return os.access(place, os.W_OK) and os.access(place.parent, os.W_OK)


def _connect(file: Path, how: str = "") -> sqlite3.Connection:
    # Percent signs and question marks in a path would be read as URI syntax.
    address = f"{file.absolute().as_uri()}?mode=ro{how}"
    return sqlite3.connect(address, uri=True, timeout=READ_TIMEOUT_S, check_same_thread=False)
