"""Places in what is recorded: relative to the database's folder where they lie in it, so that both move together.

Whatever reads a study gets absolute paths, whatever writes one hands absolute paths over. A copy of a folder that holds
a database, its files and its images therefore knows nothing of the original. A place outside the database's folder is
recorded in two ways, as it is and as seen from there, since it may stay or move with the database. Of a database server
the folder is nobody's, and paths are recorded as they are.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

OWN_IMAGES = ("imagefolder:", "manifest:")  # what a data set's name begins with when a path follows
_PATHS = (
    ("study", "files", ""),
    ("data", "folder", ""),
    *(("data", "dataset", prefix) for prefix in OWN_IMAGES),
)
_SEEN_FROM = "_from_database"  # ends the name of a setting that says a path outside the database's folder again


def database_folder(url: sa.URL) -> Path | None:
    """Return the folder of a SQLite database's file, behind any symbolic link to the file; None of another database."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        return None
    return Path(os.path.realpath(url.database)).parent


def as_recorded(settings: Mapping[str, Any], url: sa.URL) -> dict[str, Any]:
    """Return a study's settings as they are recorded: paths relative to the database's folder where they lie in it."""
    folder, recorded = database_folder(url), copy.deepcopy(dict(settings))
    if folder is None:
        return recorded
    for section, key, prefix, path in _paths_in(recorded):
        inside = _relative(path, folder)
        recorded[section][key] = prefix + inside
        if inside == path:
            recorded[section][key + _SEEN_FROM] = os.path.relpath(path, folder)
    return recorded


def as_read(settings: Mapping[str, Any], url: sa.URL) -> dict[str, Any]:
    """Return a study's recorded settings with absolute paths."""
    folder, read = database_folder(url), copy.deepcopy(dict(settings))
    if folder is None:
        return read
    for section, key, prefix, path in _paths_in(read):
        seen = read[section].pop(key + _SEEN_FROM, None)
        moved = None if seen is None else Path(os.path.normpath(folder / seen))
        holds = read["study"]["name"] if (section, key) == ("study", "files") else ""
        # Unlike Path.exists, this takes any text, such as the longest name that a study could be given.
        is_there = moved is not None and os.path.exists(moved / holds)  # noqa: PTH110
        there = moved if moved is not None and is_there else folder / path
        read[section][key] = prefix + str(there)
    return read


def study_folder(recorded: Mapping[str, Any], name: str, url: sa.URL) -> Path:
    """Return the folder of a study's files, by its recorded settings."""
    files = (as_read(recorded, url).get("study") or {}).get("files")
    return files_root(files, url) / name


def files_root(files: str | None, url: sa.URL) -> Path:
    """Return where a database's studies keep their files: as set, or `NAME-files` beside the database NAME.db."""
    if files is not None:
        return Path(absolute(files))
    folder = database_folder(url)
    if folder is None:
        return Path.cwd() / "condensery-files"
    return folder / f"{Path(os.path.realpath(url.database or '')).stem}-files"


def from_database(path: str, url: sa.URL) -> Path:
    """Return a path relative to a database's folder as an absolute one."""
    return (database_folder(url) or Path.cwd()) / path


def absolute(path: str) -> str:
    """Return a path that a user gave, relative to the working directory or to a home folder, as an absolute one."""
    with contextlib.suppress(RuntimeError):  # there is no such user, or this one has no home folder
        path = str(Path(path).expanduser())
    return str(Path(path).absolute())


def _paths_in(settings: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return section, setting, what comes before the path, and the path, of each path that the settings hold."""
    found = []
    for section, key, prefix in _PATHS:
        value = (settings.get(section) or {}).get(key)
        if isinstance(value, str) and value.startswith(prefix):
            found.append((section, key, prefix, value.removeprefix(prefix)))
    return found


def _relative(path: str, folder: Path) -> str:
    """Return an absolute path relative to `folder` if it lies in it, by its name or behind symbolic links."""
    for place in (Path(path), Path(os.path.realpath(path.rpartition("/")[0] or "/")) / Path(path).name):
        if place.is_relative_to(folder):
            return place.relative_to(folder).as_posix()
    return path
