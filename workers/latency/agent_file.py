"""The agent as the one file that reaches a device: agent.pyz, an archive that any Python 3.9 or newer runs.

- Its bytes depend on the sources alone: sorted entries, one fixed time and mode, no compression (whose output differs
  between versions of zlib). So the same version of the project hands out the same SHA-256 everywhere.
- It carries the package under its own full name, so that the same files run from the archive and from the project.
- The host probe, the ARM device in software and every real device run this file.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import io
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from space.errors import DiskFull, ReadOnlyFolder
from workers.files import write_atomically
from workers.latency import agent
from workers.latency.agent.files import user_cache

NAME = "agent.pyz"

_SHEBANG = b"#!/usr/bin/env python3\n"
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first time that a zip can express
_MAIN = """import sys

from workers.latency.agent.streams import open_streams

open_streams()
try:
    from workers.latency.agent.__main__ import main
except ModuleNotFoundError as error:
    if error.name != "numpy":
        raise
    sys.exit("the agent needs numpy, which isn't installed; install it: python3 -m pip install numpy")
sys.exit(main())
"""


@functools.cache
def agent_bytes() -> bytes:
    """Return the file's content."""
    file = io.BytesIO()
    file.write(_SHEBANG)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(_entries().items()):
            entry = zipfile.ZipInfo(name, _EARLIEST)
            entry.create_system = 3  # Unix, on every system: the mode below is read by its rules
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return file.getvalue()


def agent_sha256() -> str:
    """Return the file's SHA-256 in hexadecimal."""
    return hashlib.sha256(agent_bytes()).hexdigest()


def agent_path() -> Path:
    """Return where the file is on this machine, in a folder named after its hash; it is written if it isn't there.

    That is $CONDENSERY_CACHE or ~/.cache/condensery, or where those can't be written, a folder that this process
    removes at its end.
    """
    content = agent_bytes()
    path = cache_folder() / "agent" / agent_sha256()[:16] / NAME
    try:
        if path.read_bytes() == content:
            return path
    except OSError:  # it is not there yet
        pass
    try:
        write_atomically(path, content)
    except (DiskFull, ReadOnlyFolder, OSError):
        path = _folder_of_this_process() / NAME
        path.write_bytes(content)
    return path


def agent_command() -> tuple[str, ...]:
    """Return the command that starts the agent in a fresh process of this Python, without its arguments."""
    return (sys.executable, str(agent_path()))


def cache_folder() -> Path:
    """Return the folder for what can be made again at any time: $CONDENSERY_CACHE, or ~/.cache/condensery."""
    folder = os.environ.get("CONDENSERY_CACHE")
    return Path(folder) if folder else user_cache()


@functools.cache
def _folder_of_this_process() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="condensery-agent-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _entries() -> dict[str, bytes]:
    """Return the archive's files by name: the package under its full name, below packages that hold nothing else."""
    package = Path(agent.__file__).parent
    entries = {"__main__.py": _MAIN.encode(), "workers/__init__.py": b"", "workers/latency/__init__.py": b""}
    for path in [*package.rglob("*.py"), *package.rglob("*.c")]:
        entries[f"workers/latency/agent/{path.relative_to(package).as_posix()}"] = path.read_bytes()
    return entries
