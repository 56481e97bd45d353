"""The folder of one start of Ray: its sockets and logs, its token, the workers' pauses.

The supervisor removes it. If the supervisor was killed, the controller removes it; if both were, the next start of Ray
by the same user does: a folder is in use as long as a process holds its lock.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from space.errors import EngineUnavailable
from workers.files import SOCKET_BYTES_MOST, folder_for_sockets

PREFIX = "condensery-ray-"
BELOW = f"/{PREFIX}12345678/r/session_2026-01-31_12-59-59_123456_1234567/sockets/plasma_store"  # Ray's longest
LOCK = "held"
TOKEN = "token"  # file: the token that a Ray of ours asks every client for
PAUSES = "pauses"  # folder with a file for each worker on this machine, named by its process id
TEMPORARY = "t"  # folder of temporary files; a short name, for there are sockets among them
OUTPUT = "output.txt"  # what Ray and Tune print


def short_folder(choices: Sequence[str] | None = None) -> Path:
    """Return a folder that can be written and in which the paths of Ray's sockets are short enough.

    Ray would put them into the folder of temporary files, whose name TMPDIR may have made long. It would then wait for
    minutes for servers that can't listen. `choices` are the folders; None for the system's own.

    Raises:
        EngineUnavailable: there is none.
    """
    if sys.platform == "win32":  # there, Ray listens on no such paths
        return Path(tempfile.gettempdir())
    place = folder_for_sockets(len(BELOW), choices)
    if place is None:
        raise EngineUnavailable(
            f"Ray's sockets need a folder that can be written and whose name has at most "
            f"{SOCKET_BYTES_MOST - len(BELOW)} bytes, because a socket's path ends at {SOCKET_BYTES_MOST}; make /tmp "
            "writable."
        )
    return place


class RayFolder:
    """A new folder, held until it is removed or this process ends."""

    def __init__(self, above: Path | None = None) -> None:
        """Make the folder, and remove those that no process holds any more.

        Raises:
            EngineUnavailable: there is nowhere to put it; see `short_folder`.
        """
        above = above or short_folder()
        for left in _left_behind(above):
            shutil.rmtree(left, ignore_errors=True)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=above))
        self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        _try_lock(self._lock)
        (self.path / PAUSES).mkdir()
        (self.path / TEMPORARY).mkdir()
        (self.path / TOKEN).touch(mode=0o600)  # for a Ray of ours: a user who can't read it can't run code there
        (self.path / TOKEN).write_text(secrets.token_hex(32))

    def remove(self) -> None:
        """Remove the folder, if it is still there."""
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
    except ImportError:  # Windows has no such locks: every folder counts as in use
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
