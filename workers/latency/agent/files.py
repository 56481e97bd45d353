"""Hashes of files, writing a file whole or not at all, where the agent's own file is, and where a cache may be."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import stat
import tempfile
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal; OSError when it can't be read."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def hash_or_empty(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal; an empty string when it can't be read."""
    try:
        return sha256_of(path)
    except OSError:
        return ""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, whatever ends this process."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def user_cache() -> Path:
    """Return the folder for what this user can make again at any time, ~/.cache/condensery.

    Where there is no home, or none that can be written, it is a folder of this user's own among the temporary files.
    """
    try:
        folder = Path.home() / ".cache" / "condensery"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: no HOME, and a user whom the system doesn't know
        return _among_temporary_files(tempfile.gettempdir())
    return folder


@functools.cache
def _among_temporary_files(parent: str) -> Path:
    """Return a folder that only this user can write to; what is in it is run, and anyone may make folders beside it."""
    folder = Path(parent, f"condensery-{os.geteuid()}")
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022:
        return folder
    return Path(tempfile.mkdtemp(prefix="condensery-", dir=parent))


def own_file() -> Path | None:
    """Return the one file that this agent was started from; None where it was imported from its sources."""
    archive = getattr(__spec__.loader, "archive", None)
    return None if archive is None else Path(archive).resolve()
