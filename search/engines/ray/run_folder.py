"""The folder of one start of Ray: its sockets and logs, its token, the workers' pauses.

The supervisor removes it. Where the supervisor was killed the controller does, and where both were, the next start of
Ray by the same user: a folder is in use as long as a process holds its lock.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

# In /tmp, where Ray itself would put it: the path of a socket may have 107 bytes.
ABOVE = Path("/tmp" if sys.platform != "win32" else tempfile.gettempdir())
PREFIX = "condensery-ray-"
LOCK = "held"
TOKEN = "token"  # file: what a Ray of ours asks of everyone
PAUSES = "pauses"  # folder of one file for each worker on this machine, named by its process id
OUTPUT = "output.txt"  # what Ray and Tune say


class RayFolder:
    """A new folder, held until it is removed or this process ends."""

    def __init__(self, above: Path = ABOVE) -> None:
        """Make it, and remove the folders that no process holds any more."""
        for left in _left_behind(above):
            shutil.rmtree(left, ignore_errors=True)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=above))
        self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        _try_lock(self._lock)
        (self.path / PAUSES).mkdir()
        (self.path / TOKEN).touch(mode=0o600)  # of a Ray of ours: who can't read it can't run code there
        (self.path / TOKEN).write_text(secrets.token_hex(32))

    def remove(self) -> None:
        """Remove what remains of it."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self._lock)


def _left_behind(above: Path) -> Iterator[Path]:
    for folder in above.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another process removes it, or it is another user's
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                if not folder.is_symlink() and folder.stat().st_uid == os.getuid() and _try_lock(lock):
                    yield folder
            finally:
                os.close(lock)


def _try_lock(file: int) -> bool:
    """Lock an open file without waiting, until this process ends; return whether that was possible."""
    try:
        import fcntl
    except ImportError:  # no such locks on Windows: nothing is ever taken for left behind
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
