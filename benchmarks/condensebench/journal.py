"""A file of JSON lines that only grows: what was finished is on the disk before anything else happens.

A kill -9 in the middle of a line leaves a line without an end, which readers ignore and the next writer cuts off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from space.errors import InvalidSettings
from workers.files import disk_errors

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """Return the whole lines of a journal, in their order; none if there is no file."""
    if not path.exists():
        return []
    content = path.read_bytes()
    return [json.loads(line) for line in content[: _whole_length(content)].splitlines()]


class Journal:
    """A journal that this process alone writes; see `open_journal`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists():
            content = path.read_bytes()
            os.truncate(path, _whole_length(content))

    def rows(self) -> list[Row]:
        """Return what was written so far."""
        return read_rows(self.path)

    def append(self, row: Row) -> None:
        """Write one row; it is on the disk when this returns. Raises DiskFull or ReadOnlyFolder."""
        with disk_errors(self.path, "run the same command again"), self.path.open("ab") as file:
            file.write(json.dumps(row).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """Open a journal for writing; the system releases it however this process ends.

    Raises:
        InvalidSettings: another process writes it.
    """
    with disk_errors(path.parent, "run the same command again"):
        path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_suffix(".lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InvalidSettings(
            f"one process at a time writes {path}, and another does now; wait for it, or stop it and start this again."
        ) from None
    with lock:
        yield Journal(path)
    lock.release()


def _whole_length(content: bytes) -> int:
    return content.rfind(b"\n") + 1
