"""Writing files atomically: a reader sees the old file or the new one, and errors become clear messages."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from space.errors import DiskFull, ReadOnlyFolder

HALF_WRITTEN = re.compile(r"\..+\.\d+")  # .NAME.PID: what `write_atomically` leaves when it is killed

UNWRITABLE = (
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
)


@contextlib.contextmanager
def disk_errors(path: Path, retry: str = "run it again with --resume") -> Iterator[None]:
    """Turn the operating system's word for a full disk or a read-only folder into ours.

    Args:
        path: the file that is written.
        retry: what the message tells the user to do once there is space.

    Raises:
        DiskFull: no space (or quota) is left where `path` is.
        ReadOnlyFolder: `path` can't be written by this user.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFull(f"no space is left to write {path}; free some and {retry}.") from error
        if error.errno in UNWRITABLE:
            raise ReadOnlyFolder(
                f"{path} can't be written ({error.strerror}); choose a folder you may write."
            ) from error
        raise


def write_atomically(path: Path, content: bytes, retry: str = "run it again with --resume") -> str:
    """Write `content` to `path` by way of a temporary file in the same folder; return its SHA-256.

    Raises what `disk_errors` raises, with its `retry`.
    """
    with disk_errors(path, retry):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return hashlib.sha256(content).hexdigest()


def remove_half_written(folder: Path) -> None:
    """Remove the half-written files of killed writers from a folder that no one writes to any more."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if HALF_WRITTEN.fullmatch(path.name):
                path.unlink()


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
