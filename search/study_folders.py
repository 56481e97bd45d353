"""The folders of a study: of its networks and logs, and of the decoded images that it shares with other studies.

A study's folder says whose it is, in `OWNER`: which database it belongs to, and where both were. A copy of a database
must not write among the original's files.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import sqlalchemy as sa

from search.settings import StudySettings
from search.store import places
from search.store.connection.database import sqlite_file
from search.store.rows import StudyRow
from space.errors import CheckpointCorrupt, FrozenSettings, ReadOnlyFolder
from workers import file_names
from workers.files import user_path, write_atomically

OWNER = ".owner.json"  # in a study's folder


def files_root(settings: StudySettings, url: str) -> Path:
    """Return where a database's studies keep their files: the setting, or `NAME-files` beside the database NAME.db."""
    return places.files_root(settings.study.files, sa.make_url(url))


def study_files(settings: StudySettings, url: str) -> Path:
    """Return where a study keeps its files."""
    return files_root(settings, url) / settings.study.name


def trial_folder(settings: StudySettings, url: str, number: int) -> Path:
    """Return where a trial keeps its files."""
    return study_files(settings, url) / file_names.trial_folder(number)


def cache_folder(settings: StudySettings, url: str) -> Path:
    """Return where decoded images are, shared by the studies of one database."""
    return files_root(settings, url) / ".images"  # a study's name can't start with a dot


def with_places(settings: StudySettings, url: str, stored: StudyRow | None) -> StudySettings:
    """Return the settings with absolute paths of files and images; a study that exists keeps the folder it has.

    Raises:
        FrozenSettings: the study file names another folder for the study's files, and they aren't there.
        ReadOnlyFolder: a path begins with ~, and there is no such home folder.
    """
    for named in (settings.study.files, settings.data.folder):
        user_path(named or "")
    images = {"folder": places.absolute(settings.data.folder), "dataset": settings.data.dataset}
    kind, colon, path = settings.data.dataset.partition(":")
    if kind + colon in places.OWN_IMAGES:
        images["dataset"] = kind + colon + places.absolute(path)
    root = files_root(settings, url) if stored is None else _root_of(stored, settings, url)
    study = settings.study.model_copy(update={"files": str(root)})
    return settings.model_copy(update={"study": study, "data": settings.data.model_copy(update=images)})


def _root_of(stored: StudyRow, settings: StudySettings, url: str) -> Path:
    """Return where a recorded study's files are: where it keeps them, or where the settings say they were moved."""
    database = sa.make_url(url)
    before, given = places.files_root(stored.settings["study"]["files"], database), settings.study.files
    if given is None or before in (places.files_root(given, database), places.from_database(given, database)):
        return before
    now, name = places.files_root(given, database), stored.name
    if (now / name).is_dir() and not ((before / name).is_dir() and is_owned(before / name, url)):
        return now
    raise FrozenSettings(
        f"study {name!r} keeps its files in {before}, but study.files now means {now}; leave it out, or write the "
        f"absolute path. (To move them: move {before / name} there first.)"
    )


def refuse_absent(files: Path) -> None:
    """Raise CheckpointCorrupt if a study's folder isn't where the study keeps it."""
    if not files.is_dir():
        raise CheckpointCorrupt(
            f"the study's files must be in {files}, but there is no such folder; if it was moved, resume the study "
            f"once with its new place: condensery launch STUDY.toml --resume --set study.files=FOLDER (the folder "
            f"above {files.name})."
        )


def is_owned(files: Path, url: str) -> bool:
    """Whether a study's folder belongs to a database, rather than to another one that is still there.

    A folder that was moved or copied belongs to the database that was moved or copied with it; if there is none, to the
    one that it is used with next. So does a folder whose database was moved.
    """
    database = sqlite_file(url)
    if database is None:
        return True
    try:
        owner = json.loads((files / OWNER).read_text(encoding="utf-8"))
        place, owning = Path(owner["files"]), Path(owner["database"])
    except (OSError, ValueError, KeyError, TypeError):
        return True  # from before folders said so
    here = os.path.realpath(files)
    if str(place) != here:
        with_it = Path(os.path.normpath(os.path.join(here, os.path.relpath(owning, place))))  # noqa: PTH118
        if with_it == owning:  # the files were moved or copied alone
            return True
        owning = with_it
    with contextlib.suppress(OSError):
        return not owning.exists() or not database.exists() or owning.samefile(database)
    return True


def own(files: Path, url: str) -> None:
    """Write into a study's folder that it belongs to a database."""
    database = sqlite_file(url)
    if database is not None:
        owner = {"files": os.path.realpath(files), "database": os.path.realpath(database)}
        write_atomically(files / OWNER, json.dumps(owner).encode())


def refuse_anothers(files: Path, url: str) -> None:
    """Raise ReadOnlyFolder if a study's folder belongs to another database, of which this one is a copy."""
    if not is_owned(files, url):
        raise ReadOnlyFolder(
            f"{files} belongs to the database that this one is a copy of, and stays as it is; copy that folder too, "
            "and name the copy's place with study.files."
        )
