"""Files are seen whole or not at all, and the system's errors become the user's words."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from space.errors import DiskFull, ReadOnlyFolder
from workers import files
from workers.files import disk_errors, file_hash, remove_half_written, write_atomically


@given(content=st.binary(max_size=5000))
def test_what_is_written_is_read_back_and_hashed(content: bytes, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("files") / "new" / "folder" / "file.bin"
    assert write_atomically(path, content) == file_hash(path) == hashlib.sha256(content).hexdigest()
    assert path.read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == ["file.bin"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_dies_half_way_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path, monkeypatch, step: str):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(*((files.os, "fsync", die) if step == "fsync" else (Path, "replace", die)))
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new and longer")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path):
    kept = [".hidden", "network.safetensors", "log.txt.4711", ".4711"]
    for name in (*kept, ".network.safetensors.4711", ".trial.json.1"):
        (tmp_path / name).write_bytes(b"half")
    remove_half_written(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
    remove_half_written(tmp_path / "absent")


@pytest.mark.parametrize(
    ("number", "ours"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EROFS, ReadOnlyFolder),
        (errno.EACCES, ReadOnlyFolder),
        (errno.EPERM, ReadOnlyFolder),
    ],
)
def test_a_full_disk_and_a_read_only_folder_are_named_with_the_path(number: int, ours: type[Exception]):
    with pytest.raises(ours, match=r"trial-00007"), disk_errors(Path("trial-00007")):
        raise OSError(number, os.strerror(number))


def test_any_other_error_of_the_system_is_left_as_it_is():
    with pytest.raises(InterruptedError), disk_errors(Path("x")):
        raise OSError(errno.EINTR, "interrupted")
