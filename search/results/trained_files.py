"""A finished trial's recorded files: located, read and checked against their hashes."""

from __future__ import annotations

import contextlib
import hashlib
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from search.results.replayed import refuse_if_replayed
from search.store import reader
from search.store.rows import StudyRow, TrialRow
from search.store.tables import attempt
from search.store.vocabulary import TrialState
from space.errors import CheckpointCorrupt, TrialNotReady
from workers.file_names import NETWORK_FILE, ONNX_FILE
from workers.files import file_hash

TRAINED = (ONNX_FILE, NETWORK_FILE)


def trained_files(engine: sa.Engine, row: TrialRow) -> tuple[Path, Path]:
    """Return a finished trial's (ONNX, safetensors) files, both checked against their recorded hashes.

    Raises:
        TrialNotReady: it has not finished. CheckpointCorrupt: a file is gone or was replaced.
    """
    recorded = recorded_files(engine, row)
    return _checked(recorded[ONNX_FILE], row), _checked(recorded[NETWORK_FILE], row)


def trained_file(engine: sa.Engine, row: TrialRow, name: str) -> Path:
    """Return one of a finished trial's `TRAINED` files, as `trained_files` does."""
    return _checked(recorded_files(engine, row, (name,))[name], row)


def _checked(recorded: Mapping[str, Any], row: TrialRow) -> Path:
    path = Path(recorded["path"])
    with _readable(path, row):
        if file_hash(path) != recorded["sha256"]:
            raise _replaced(path)
    return path


def read_trained(engine: sa.Engine, row: TrialRow, name: str) -> bytes:
    """Return the content of one of a finished trial's `TRAINED` files, which has the recorded hash.

    Raises:
        TrialNotReady: it has not finished. CheckpointCorrupt: the file is gone, can't be read or was replaced.
    """
    recorded = recorded_files(engine, row, (name,))[name]
    path = Path(recorded["path"])
    with _readable(path, row):
        content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != recorded["sha256"]:
        raise _replaced(path)
    return content


def recorded_files(
    engine: sa.Engine, row: TrialRow, names: tuple[str, ...] = TRAINED
) -> Mapping[str, Mapping[str, Any]]:
    """Return path and SHA-256 of a finished trial's files, all of which exist.

    Raises:
        TrialNotReady: it has not finished. NothingTrained: its study was replayed. CheckpointCorrupt: a file is gone;
            the message says why.
    """
    if row.state == TrialState.DUPLICATE and row.duplicate_of is not None:
        raise TrialNotReady(f"trial {row.number} repeats trial {row.duplicate_of}, which has the network.")
    if row.state != TrialState.DONE:
        reason = f" ({row.reason})" if row.reason else ""
        raise TrialNotReady(f"trial {row.number} is {row.state}{reason}; only a done trial has a network.")
    files = reader.read_artifacts(engine, row.id)
    if not files:
        refuse_if_replayed(engine, row)
    for name in names:
        file = files.get(name)
        if file is None:
            raise CheckpointCorrupt(f"{name} of trial {row.number} was never recorded.")
        if file["removed"]:
            raise CheckpointCorrupt(f"{name} of trial {row.number} is gone: removed by the retention rule.")
        if not Path(file["path"]).is_file():
            raise CheckpointCorrupt(
                f"{file['path']} of trial {row.number} is gone ({_whereabouts(engine, row)}); "
                "put it back from a copy, or take another trial."
            )
    return files


def file_sizes(engine: sa.Engine, study: StudyRow, numbers: Sequence[int]) -> dict[int, int]:
    """Return the bytes of the ONNX files of some trials, by number, as far as they are here."""
    sizes = {}
    for number, path in reader.read_artifact_paths(engine, study, numbers, ONNX_FILE).items():
        with contextlib.suppress(OSError):
            sizes[number] = path.stat().st_size
    return sizes


def _whereabouts(engine: sa.Engine, row: TrialRow) -> str:
    """Return why a recorded file isn't here: the controller may have run on another machine."""
    here = socket.gethostname()
    newest = sa.select(attempt.c.owner).where(attempt.c.trial_id == row.id).order_by(attempt.c.attempt.desc()).limit(1)
    with engine.connect() as connection:
        host = (connection.scalar(newest) or "").rpartition(":")[0]
    if host not in ("", here):
        return f"moved, or on another machine: it was recorded on {host}, this is {here}"
    return "moved or deleted"


@contextlib.contextmanager
def _readable(path: Path, row: TrialRow) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointCorrupt(f"{path} of trial {row.number} can't be read ({error.strerror}).") from error


def _replaced(path: Path) -> CheckpointCorrupt:
    return CheckpointCorrupt(f"{path} is not the file that was recorded (its SHA-256 differs).")
