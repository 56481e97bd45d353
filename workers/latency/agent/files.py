"""Hashes of files, writing a file whole or not at all, and where the agent's own file is."""

from __future__ import annotations

import contextlib
import hashlib
import os
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


def own_file() -> Path | None:
    """Return the one file that this agent was started from; None where it was imported from its sources."""
    archive = getattr(__spec__.loader, "archive", None)
    return None if archive is None else Path(archive).resolve()
