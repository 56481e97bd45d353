"""Putting an archived study into a database: checked as a whole before anything is written where a study is looked for.

An archive may come from anyone. So members are read only up to the sizes that the manifest says, and these must fit the
disk; names are plain paths below the study's folder; rows are values of the types of their columns, and every document
in them is read as this project writes it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from search.loop.mirror import OptunaMirror
from search.settings import StudySettings
from search.store import optuna_mirror, reader
from search.store.connection.database import open_for_writing
from search.store.places import OWN_IMAGES, as_recorded, database_folder
from search.store.rows import StudyRow
from search.store.store import StudyStore
from search.store.studies import delete_study
from search.store.tables import HEAD_REVISION, metadata, study
from search.store.vocabulary import FINAL_STATES
from search.store.whole_studies import Values, insert_rows, tables_of_studies
from search.study import OpenStudy, already_exists, existing_study, objectives, optuna_storage, refuse_foreign_study
from search.study_file import settings_from
from search.study_folders import files_root, own
from search.travel.archive_form import CHUNK, FILES, MANIFEST, ROWS, Manifest, Member
from space.config import CondenseNetConfig
from space.documents import UnreadableDocument, read_json
from space.errors import ArchiveUnreadable, CondenseryError, DiskFull, FileInTheWay, InvalidConfig
from workers.files import disk_errors
from workers.metrics import Predictions
from workers.wording import counted

MOST_RATIO = 300  # bytes for one of the archive: rows deflate to a tenth, and nothing of a study to a three-hundredth
LEAST_BOUND = 16 << 20  # bytes that any archive may hold
MOST_MANIFEST = 64 << 20  # bytes
LONGEST_LINE = 128 << 20  # bytes
MOST_PREDICTIONS = 64 << 20  # bytes of a network's predictions, unpacked: 20 million images
_ARTIFACT = re.compile(r"trial-\d{5,}/[^/\\\0]{1,200}")
RETRY = "restore it again"


@dataclass(frozen=True)
class Restored:
    """A study that was put into a database."""

    name: str
    url: str
    files: Path
    trials: int
    images: str  # the data set, as the study names it now
    is_code: bool  # whether that is a function of the user's own, which `pick` and `launch --resume` call


def restore(path: Path, url: str, name: str | None = None, force: bool = False) -> Restored:
    """Put an archived study into a database, with its files beside it.

    Args:
        path: of the archive.
        url: of the database, which is made if it isn't there.
        name: what the study is called there; None = as it was.
        force: whether a study of this name, and its files, may be replaced.

    Raises:
        ArchiveUnreadable: it is no archive, is damaged or hostile, or from a newer version.
        StudyExists, FileInTheWay: there is a study of this name, or files of one.
        StudyBusy: the study that would be replaced is being run.
        DiskFull, ReadOnlyFolder, DatabaseUnavailable: it can't be written.
    """
    with _opened(path) as packed:
        manifest = _checked_manifest(packed, path)
        settings = _settings(packed, manifest, path, name, url)
        name = settings.study.name
        refuse_foreign_study(url, name)
        before, root = existing_study(url, name), files_root(settings, url)
        if before is not None and not force:
            raise already_exists(name, url)
        if not force and (root / name).exists():
            raise FileInTheWay(
                f"{root / name} exists already and stays as it is; restore the study under another --name, or give "
                "--force."
            )
        made = not root.exists()
        try:
            with disk_errors(root, RETRY):
                root.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(prefix=".restoring-", dir=root) as temporary:
                    _extract(packed, manifest, path, Path(temporary) / "files")
                    _rehearse(packed, manifest, name, Path(temporary) / "rehearsal.db")
                    trials = _put(packed, manifest, settings, url, Path(temporary), before)
        finally:
            if made:
                with contextlib.suppress(OSError):
                    root.rmdir()  # nothing was put there
    is_code = settings.data.dataset.startswith("python:")
    return Restored(name, url, root / name, trials, settings.data.dataset, is_code)


# --- reading the file -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Yield an archive; whatever is wrong with the file becomes one line."""
    try:
        with zipfile.ZipFile(path) as packed:
            yield packed
    except CondenseryError:
        raise
    except (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise _unreadable(path, f"it is no archive, or a damaged one ({error})") from None
    except UnicodeDecodeError:
        raise _unreadable(path, "it is damaged: a name or a row is no text") from None
    except ValueError as error:
        raise _unreadable(path, str(error)) from None
    except FileNotFoundError as error:
        if error.filename is None or Path(error.filename) != path:
            raise
        raise _unreadable(path, "there is no such file; correct its name") from None
    except IsADirectoryError:
        raise _unreadable(path, "it is a folder; name the file that `condensery archive` wrote") from None


def _unreadable(path: Path, reason: str) -> ArchiveUnreadable:
    return ArchiveUnreadable(f"{path} can't be restored: {reason}.")


def _checked_manifest(packed: zipfile.ZipFile, path: Path) -> Manifest:
    """Return an archive's manifest, once its members are known to be those that it names, and to fit in."""
    infos = packed.infolist()
    by_name = {info.filename: info for info in infos}
    if MANIFEST not in by_name:
        raise ValueError(f"it has no {MANIFEST}, so it is no archive of a study")
    if len(by_name) != len(infos):
        raise ValueError("it holds two members of one name")
    try:
        manifest = Manifest.from_dict(read_json(_read(packed, by_name[MANIFEST], MOST_MANIFEST).decode()))
    except UnreadableDocument as error:
        raise ValueError(f"its manifest is damaged ({error})") from None
    named = {member.name: member for member in manifest.members}
    if len(named) != len(manifest.members) or named.keys() != by_name.keys() - {MANIFEST}:
        raise ValueError("its members are not those that its manifest names")
    for member in manifest.members:
        info = by_name[member.name]
        is_link = (info.external_attr >> 16) & 0o170000 == 0o120000
        if info.file_size != member.size or info.flag_bits & 1 or info.is_dir() or is_link:
            raise ValueError(f"its member {member.name!r} is not the file that its manifest names")
    total, most = sum(member.size for member in manifest.members), path.stat().st_size * MOST_RATIO
    if total > max(most, LEAST_BOUND):
        raise ValueError(f"it would unpack to {total:,} bytes, more than a study's files can be packed into so few")
    if manifest.revision > HEAD_REVISION:
        raise ValueError(
            f"it is from a newer version, {manifest.condensery} (tables {manifest.revision}, here {HEAD_REVISION}); "
            "update Condensery"
        )
    return manifest


def _read(packed: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
    with packed.open(info) as member:
        content = member.read(most + 1)
    if len(content) > most:
        raise ValueError(f"its member {info.filename!r} is larger than it may be")
    return content


def _chunks(packed: zipfile.ZipFile, member: Member) -> Iterator[bytes]:
    """Yield a member's content, as much as its manifest says, and check that it has the hash.

    Raises:
        ValueError: it hasn't, or is larger or smaller.
    """
    digest, left = hashlib.sha256(), member.size
    with packed.open(member.name) as opened:
        while chunk := opened.read(CHUNK):
            left -= len(chunk)
            if left < 0:
                break
            digest.update(chunk)
            yield chunk
    if left or digest.hexdigest() != member.sha256:
        raise ValueError(f"its member {member.name!r} is damaged: its SHA-256 is not the one that the manifest says")


def _rows(packed: zipfile.ZipFile, manifest: Manifest, table: sa.Table) -> Iterator[Values]:
    """Yield the rows of a table, every document in them checked."""
    check = _CHECKS.get(table.name)
    for member in manifest.members:
        if member.name != f"{ROWS}{table.name}.jsonl":
            continue
        for line in _lines(_chunks(packed, member)):
            try:
                row = read_json(line.decode())
                if not isinstance(row, dict):
                    raise TypeError
                if check is not None:
                    check(row)
            except (
                UnreadableDocument,
                InvalidConfig,
                KeyError,
                TypeError,
                AttributeError,
                RecursionError,
                OverflowError,
            ) as error:
                raise ValueError(f"a row of {table.name} is none ({type(error).__name__})") from None
            yield row


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        if len(rest) > LONGEST_LINE:
            raise ValueError("one of its rows is longer than any row")
    if rest:
        yield rest


# --- what is in it ----------------------------------------------------------------------------------------------


def _check_trial(row: Mapping[str, Any]) -> None:
    CondenseNetConfig.from_json(row["config"])
    _check_object(row["training"])


def _check_artifact(row: Mapping[str, Any]) -> None:
    if not _ARTIFACT.fullmatch(row["path"]) or row["path"].endswith(("/.", "/..")):
        raise ValueError(f"it names a file {row['path'][:100]!r} of a trial, which is none of a study's")


def _check_predictions(row: Mapping[str, Any]) -> None:
    content = base64.b64decode(row["content"], validate=True)
    with zipfile.ZipFile(io.BytesIO(content)) as arrays:
        if sum(info.file_size for info in arrays.infolist()) > MOST_PREDICTIONS:
            raise ValueError("its predictions are larger than any network's")
    Predictions.from_bytes(content)


def _check_conditions(row: Mapping[str, Any]) -> None:
    _check_object(row["conditions"])


def _check_samples(row: Mapping[str, Any]) -> None:
    for name in ("samples_ms", "cpu_ms"):
        values = [] if row.get(name) is None else json.loads(row[name])
        if not isinstance(values, list) or any(type(value) not in (int, float) for value in values):
            raise TypeError


def _check_belief(row: Mapping[str, Any]) -> None:
    _check_object(row["document"])


def _check_object(text: str) -> None:
    if not isinstance(json.loads(text), dict):
        raise TypeError


_CHECKS: dict[str, Callable[[Mapping[str, Any]], None]] = {
    "condensery_trial": _check_trial,
    "condensery_request": _check_trial,
    "condensery_artifact": _check_artifact,
    "condensery_predictions": _check_predictions,
    "condensery_file_predictions": _check_predictions,
    "condensery_latency": _check_conditions,
    "condensery_point": _check_conditions,
    "condensery_latency_samples": _check_samples,
    "condensery_belief": _check_belief,
}


def _settings(packed: zipfile.ZipFile, manifest: Manifest, path: Path, name: str | None, url: str) -> StudySettings:
    """Return the settings that the study gets: with its name, its files and its images where they are here."""
    rows = list(_rows(packed, manifest, study))
    if len(rows) != 1:
        raise ValueError(f"it must hold one study, but holds {len(rows)}")
    try:
        document = json.loads(rows[0]["settings"])
        document["study"]["name"] = manifest.study if name is None else name
        document["study"] |= {"files": None, "storage": None}
    except (KeyError, TypeError, ValueError):
        raise ValueError("its study has no settings") from None
    settings = settings_from(document, f"the settings in {path.name}")
    folder, root = database_folder(sa.make_url(url)), files_root(settings, url)
    data = settings.data
    for prefix in OWN_IMAGES:
        if data.dataset.startswith(prefix) and manifest.images is not None and folder is not None:
            images = Path(os.path.normpath(folder / manifest.images))
            if images.exists():
                data = data.model_copy(update={"dataset": f"{prefix}{images}"})
    return settings.model_copy(update={"study": settings.study.model_copy(update={"files": str(root)}), "data": data})


# --- writing ----------------------------------------------------------------------------------------------------


def _extract(packed: zipfile.ZipFile, manifest: Manifest, path: Path, folder: Path) -> None:
    """Write an archive's files into a new folder."""
    files = manifest.below(FILES)
    room = sum(member.size for member in files)
    folder.mkdir()
    if shutil.disk_usage(folder).free < room:
        raise DiskFull(
            f"{path} needs {room:,} bytes for {counted(len(files), 'file')} in {folder.parent.parent}; free some."
        )
    for member in files:
        place = folder.joinpath(*member.name.removeprefix(FILES).split("/"))
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("xb") as file:
            for chunk in _chunks(packed, member):
                file.write(chunk)


def _rehearse(packed: zipfile.ZipFile, manifest: Manifest, name: str, file: Path) -> None:
    """Put an archive's rows into an empty database of their own, which finds whatever is wrong with them."""
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(file)))
    try:
        metadata.create_all(engine, tables_of_studies())
        with engine.begin() as connection:
            own_values = {"name": name, "optuna_study_id": 0, "settings": "{}"}
            insert_rows(connection, lambda table: _rows(packed, manifest, table), own_values)
    except exc.IntegrityError as error:
        raise ValueError(f"its rows contradict each other ({str(error.orig)[:100]})") from None
    finally:
        engine.dispose()
        file.unlink(missing_ok=True)


def _put(
    packed: zipfile.ZipFile,
    manifest: Manifest,
    settings: StudySettings,
    url: str,
    temporary: Path,
    before: StudyRow | None,
) -> int:
    """Write a study's rows and put its folder in its place, both or neither; return how many trials it has."""
    name, place = settings.study.name, files_root(settings, url) / settings.study.name
    engine = open_for_writing(url)
    with contextlib.ExitStack() as closing:
        closing.callback(engine.dispose)
        optuna_storage(url).engine.dispose()  # makes its tables
        if before is not None:
            StudyStore(engine, before.id).claim()
        with _moved(temporary, place), engine.begin() as connection:
            if before is not None:
                optuna_mirror.delete_study(connection, before.optuna_study_id, name)
                delete_study(connection, before.id)
            theirs = optuna_mirror.insert_study(connection, name, objectives(settings))
            recorded = as_recorded(settings.model_dump(mode="json"), engine.url)
            own_values = {"name": name, "optuna_study_id": theirs, "settings": json.dumps(recorded)}
            key = insert_rows(connection, lambda table: _rows(packed, manifest, table), own_values)
        own(place, url)
        opened = OpenStudy(settings, url, engine, StudyStore(engine, key), theirs)
        mirror = OptunaMirror.of(opened)
        rows = reader.read_trials(engine, key)
        for row in rows:
            if row.state in FINAL_STATES:
                mirror.add(replace(row, mirrored=False))
        mirror.write()
        return len(rows)


@contextlib.contextmanager
def _moved(temporary: Path, place: Path) -> Iterator[None]:
    """Have the folder that was extracted in its place once the block has ended well; else whatever was there."""
    new, old = temporary / "files", temporary / "before"
    if os.path.lexists(place):
        place.rename(old)
    try:
        new.rename(place)
        yield
    except BaseException:
        if place.exists() and not new.exists():
            place.rename(new)
        if os.path.lexists(old):
            old.rename(place)
        raise
