"""The folders of a study: of its networks and logs, and of the decoded images that it shares with other studies."""

from __future__ import annotations

from pathlib import Path

from search.settings import StudySettings
from search.store.connection.database import sqlite_file
from search.store.rows import StudyRow
from space.errors import FrozenSettings
from workers import file_names


def files_root(settings: StudySettings, url: str) -> Path:
    """Return where a database's studies keep their files: the setting, or `NAME-files` beside the database NAME.db."""
    if settings.study.files is not None:
        return Path(settings.study.files).expanduser().absolute()
    database = sqlite_file(url)
    if database is None:
        return Path.cwd() / "condensery-files"
    return database.absolute().parent / f"{database.stem}-files"


def study_files(settings: StudySettings, url: str) -> Path:
    """Return where a study keeps its files."""
    return files_root(settings, url) / settings.study.name


def trial_folder(settings: StudySettings, url: str, number: int) -> Path:
    """Return where a trial keeps its files."""
    return study_files(settings, url) / file_names.trial_folder(number)


def cache_folder(settings: StudySettings, url: str) -> Path:
    """Return where decoded images are, shared by the studies of one database."""
    return files_root(settings, url) / ".images"  # a study's name can't start with a dot


def with_files(settings: StudySettings, url: str, stored: StudyRow | None) -> StudySettings:
    """Return the settings with an absolute `study.files`; a study that exists keeps the folder it began with.

    Raises:
        FrozenSettings: the study file names another folder than the study's.
    """
    files = settings.study.files and str(files_root(settings, url))
    if stored is not None:
        stored_files = stored.settings["study"]["files"]
        before = settings.model_copy(update={"study": settings.study.model_copy(update={"files": stored_files})})
        if files is not None and Path(files) != files_root(before, url):
            raise FrozenSettings(
                f"study {settings.study.name!r} keeps its files in {files_root(before, url)}, but study.files now "
                f"means {files}; leave it out, or write the absolute path."
            )
        files = stored_files
    return settings.model_copy(update={"study": settings.study.model_copy(update={"files": files})})
