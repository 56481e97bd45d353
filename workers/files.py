"""Writing files atomically: a reader sees the old file or the new one, and errors become clear messages.

Only a regular file is ever replaced. A symbolic link stays, and the file it leads to is replaced; a device, a pipe or a
socket of the system's (/dev/null, /dev/stdout, a named pipe) is written into.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from space.errors import DiskFull, FileInTheWay, ReadOnlyFolder

HALF_WRITTEN = re.compile(r"\..+\.\d+")  # .NAME.PID: what `write_atomically` leaves when it is killed
STDOUT = Path("-")  # what a user names to have a file's content on standard output

SOCKET_BYTES_MOST = 107  # of the path of a Unix socket

UNWRITABLE = (
    errno.ELOOP,
    errno.ENXIO,
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


@contextlib.contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; if the block raises, remove those that weren't there and are empty again.

    Raises:
        DiskFull, ReadOnlyFolder: it can't be made.
    """
    made = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    try:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # one has files in it: so have those above
            for path in made:
                path.rmdir()
        raise


def user_path(text: str) -> Path:
    """Return a path as a user wrote it, with ~ for the home folder.

    Raises:
        ReadOnlyFolder: it begins with ~, and there is no such home folder.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no HOME and no entry of the system's, or no such user
        raise ReadOnlyFolder(f"{text} begins with ~, but there is no such home folder; write the whole path.") from None


def write_atomically(path: Path, content: bytes, retry: str = "run it again with --resume") -> str:
    """Write `content` to `path` by way of a temporary file in the same folder; return its SHA-256.

    What can't be replaced is written into: see the module. Raises what `disk_errors` raises, with its `retry`.
    """
    with disk_errors(path, retry):
        if path == STDOUT:
            sys.stdout.flush()
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
        elif is_replaceable(path):
            target = Path(os.path.realpath(path))
            if path.is_symlink() and not target.parent.is_dir():  # a link may lead anywhere: no folders are made there
                raise FileInTheWay(f"{path} is a link to {target}, but there is no folder {target.parent}; remove it.")
            _replace(target, content)
        else:
            with path.open("wb") as file:
                file.write(content)
    return hashlib.sha256(content).hexdigest()


def is_replaceable(path: Path) -> bool:
    """Whether what is written to `path` is a file of its own afterwards, rather than gone through something else."""
    if path == STDOUT or path.absolute().parts[1:2] in (("dev",), ("proc",)):
        return path.absolute().parts[1:3] == ("dev", "shm")  # the rest of /dev and /proc stands for something open
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:  # nothing is there, or a link whose target is yet to be written
        return True
    return stat.S_ISREG(mode)


def _replace(path: Path, content: bytes) -> None:
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


def folder_for_sockets(room: int, choices: Sequence[str] | None = None) -> Path | None:
    """Return the first folder that can be written and in which a socket's path may go on for `room` bytes.

    `choices` are the folders; None for the usual ones, the system's folder of temporary files last. None: there is no
    such folder.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    for place in filter(None, choices or ("/tmp", runtime, "/dev/shm", "/var/tmp", tempfile.gettempdir())):
        fits = len(os.fsencode(place)) + room <= SOCKET_BYTES_MOST
        if fits and Path(place).is_dir() and os.access(place, os.W_OK | os.X_OK):
            return Path(place)
    return None


@contextlib.contextmanager
def short_temporary_files(room: int) -> Iterator[None]:
    """Have programs of the block make temporary files where a socket's path may go on for `room` bytes.

    TMPDIR is changed only where it names a longer folder, and there is a shorter one.
    """
    before, here = os.environ.get("TMPDIR"), tempfile.gettempdir()
    place = None if len(os.fsencode(here)) + room <= SOCKET_BYTES_MOST else folder_for_sockets(room)
    if place is None:
        yield
        return
    os.environ["TMPDIR"] = tempfile.tempdir = str(place)
    try:
        yield
    finally:
        tempfile.tempdir = here
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before


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
