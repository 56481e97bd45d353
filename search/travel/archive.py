"""Writing a study into one file: all of its rows and all of its files, so that it can be restored anywhere.

What belongs to a database or a machine stays behind: devices and what was measured for their fits, decoded images
(they follow from the images), and the images themselves.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import sqlalchemy as sa

from search.doctor.file_checks import ORPHANS
from search.settings import StudySettings
from search.store import reader
from search.store.connection.printed_commands import printed_command
from search.store.places import OWN_IMAGES, database_folder
from search.store.rows import StudyRow
from search.store.store import StudyStore
from search.store.studies import library_versions
from search.store.tables import HEAD_REVISION, study
from search.store.whole_studies import Values, read_rows, tables_of_studies
from search.study_folders import OWNER, refuse_absent, study_files
from search.travel.archive_form import CHUNK, FILES, MANIFEST, ROWS, Manifest, Member
from space.errors import FileInTheWay, StudyBusy
from workers.files import HALF_WRITTEN, disk_errors
from workers.wording import counted, listed

PACKED_BEFORE = (".safetensors", ".onnx", ".zip", ".npz", ".png", ".jpg")  # deflating them again gains nothing
STAMP = (1980, 1, 1, 0, 0, 0)  # so that the same study gives the same archive
RETRY = "archive the study again"


@dataclass(frozen=True)
class Archived:
    """A study that was written into a file."""

    path: Path
    trials: int
    files: int
    size: int  # bytes of the archive


def archive(
    engine: sa.Engine,
    row: StudyRow,
    settings: StudySettings,
    url: str,
    out: Path,
    force: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> Archived:
    """Write a study's rows and files into one file, completely or not at all.

    Args:
        engine: of the study's database, to read.
        row: the study.
        settings: as it is stored.
        url: of the database.
        out: the file to write.
        force: whether a file that is there may be replaced.
        note: is told what was left out.

    Raises:
        FileInTheWay: there is such a file.
        StudyBusy: a process runs the study, so that rows and files change meanwhile.
        CheckpointCorrupt: the study's folder isn't where the study keeps it.
        DiskFull, ReadOnlyFolder: the file can't be written.
    """
    if StudyStore(engine, row.id).is_running():
        stop = printed_command(["condensery", "stop", row.name], url)
        raise StudyBusy(f"study {row.name!r} is being run, and an archive needs it at rest; stop it first: {stop}")
    if out.is_dir() or (out.exists() and not force):
        raise FileInTheWay(f"{out} exists already and stays as it is; choose another name, or give --force.")
    folder = study_files(settings, url)
    if settings.replay.table is None:
        refuse_absent(folder)
    members: list[Member] = []
    with disk_errors(out, RETRY):
        out.parent.mkdir(parents=True, exist_ok=True)
    with disk_errors(out, RETRY), _replacing(out) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        with _snapshot(engine) as connection:
            for table in tables_of_studies():
                rows = read_rows(connection, table, row.id)
                if table is study:
                    rows = ({**values, "settings": json.dumps(row.settings)} for values in rows)
                members.append(_add(packed, f"{ROWS}{table.name}.jsonl", map(_line, rows)))
        for path in _files_of(folder, note):
            with path.open("rb") as opened:
                name = f"{FILES}{path.relative_to(folder).as_posix()}"
                members.append(_add(packed, name, iter(partial(opened.read, CHUNK), b"")))
        manifest = Manifest(
            row.name, HEAD_REVISION, library_versions()["condensery"], _images(row, engine), tuple(members)
        )
        packed.writestr(_info(MANIFEST), json.dumps(manifest.to_dict(), indent=1))
    trials = sum(reader.count_states(engine, row.id).values())
    return Archived(out, trials, len(manifest.below(FILES)), out.stat().st_size)


@contextmanager
def _replacing(out: Path) -> Iterator[IO[bytes]]:
    """Yield a file beside `out` that takes its place once the block has ended well."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _snapshot(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Yield a connection that sees the database as it is now, whatever others write meanwhile."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")
        else:
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection
        connection.rollback()


def _line(values: Values) -> bytes:
    return json.dumps(values).encode() + b"\n"


def _add(packed: zipfile.ZipFile, name: str, chunks: Iterable[bytes]) -> Member:
    """Write a member, and return what the manifest says of it."""
    digest, size = hashlib.sha256(), 0
    with packed.open(_info(name), "w", force_zip64=True) as member:
        for chunk in chunks:
            member.write(chunk)
            digest.update(chunk)
            size += len(chunk)
    return Member(name, size, digest.hexdigest())


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, STAMP)
    info.compress_type = zipfile.ZIP_STORED if name.endswith(PACKED_BEFORE) else zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    return info


def _files_of(folder: Path, note: Callable[[str], None]) -> list[Path]:
    """Return a study's files, without what is temporary or of no trial; links are not followed, and said."""
    found, links = [], []
    for at, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("pricing-") and name != ORPHANS)
        links += [name for name in folders if Path(at, name).is_symlink()]
        for name in sorted(names):
            path = Path(at, name)
            if path.is_symlink():
                links.append(name)
            elif path.is_file() and name != OWNER and not HALF_WRITTEN.fullmatch(name):
                found.append(path)
    if links:
        note(f"left out: {counted(len(links), 'symbolic link')} ({listed(links)})")
    return found


def _images(row: StudyRow, engine: sa.Engine) -> str | None:
    """Return where a study's images are, as seen from its database's folder; None where they are no path."""
    folder = database_folder(engine.url)
    dataset = str((row.settings.get("data") or {}).get("dataset", ""))
    for prefix in OWN_IMAGES:
        if folder is not None and dataset.startswith(prefix):
            return os.path.relpath(dataset.removeprefix(prefix), folder)
    return None
