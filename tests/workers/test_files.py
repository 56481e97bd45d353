"""Files are seen whole or not at all, and the system's errors become the user's words."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import stat
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from space.errors import DiskFull, FileInTheWay, ReadOnlyFolder
from workers import files
from workers.files import (
    SOCKET_BYTES_MOST,
    STDOUT,
    disk_errors,
    file_hash,
    is_replaceable,
    remove_half_written,
    short_temporary_files,
    write_atomically,
)


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


def test_a_symbolic_link_stays_and_its_target_is_written(tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere/file", tmp_path / "link"
    link.symlink_to(tmp_path / "second")
    (tmp_path / "second").symlink_to("elsewhere/file")  # relative to its own folder
    for content in (b"where nothing was", b"over it"):
        write_atomically(link, content)
        assert target.read_bytes() == content
    assert link.is_symlink()
    assert [path.name for path in target.parent.iterdir()] == ["file"]


def test_a_link_to_a_folder_that_is_not_there_makes_none(tmp_path: Path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "absent/out.json")
    with pytest.raises(FileInTheWay, match=f"there is no folder {tmp_path / 'absent'}; remove it"):
        write_atomically(link, b"new")
    assert not (tmp_path / "absent").exists()


def test_a_circle_of_links_is_refused(tmp_path: Path):
    (tmp_path / "link").symlink_to("link")
    with pytest.raises(ReadOnlyFolder, match="link"):
        write_atomically(tmp_path / "link", b"x")


def test_a_device_is_written_into_and_stays_a_device(tmp_path: Path):
    node = tmp_path / "null"
    try:
        os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:  # not root, who alone could lose the system's own
        node = Path("/dev/null")
    link = tmp_path / "link"
    link.symlink_to(node)
    for path in (node, link):
        write_atomically(path, b"gone")
    assert stat.S_ISCHR(node.stat().st_mode)
    assert link.is_symlink()


def test_a_named_pipe_and_a_socket_are_never_replaced(tmp_path: Path):
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write_atomically(pipe, b"through the pipe")
    reader.join()
    assert got == [b"through the pipe"]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        with pytest.raises(ReadOnlyFolder, match="socket"):
            write_atomically(tmp_path / "socket", b"x")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert stat.S_ISSOCK((tmp_path / "socket").stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pipe", "socket"]


def test_a_dash_is_standard_output_and_so_is_its_device(tmp_path: Path, capfdbinary):
    write_atomically(STDOUT, b"a")
    write_atomically(Path("/dev/stdout"), b"b")
    assert capfdbinary.readouterr().out in (
        b"ab",
        b"b",
    )  # pytest's capture is a file, which opening /dev/stdout empties
    assert not Path("-").exists()


@pytest.mark.parametrize(
    ("path", "replaced"),
    [
        *((path, False) for path in ("-", "/dev/null", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")),
        *((path, True) for path in ("/dev/shm/x", "report.html", "/devices/x")),
    ],
)
def test_what_stands_for_something_open_is_not_replaced(path: str, replaced: bool):
    assert is_replaceable(Path(path)) == replaced


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


@pytest.mark.parametrize(("length", "moved"), [(20, False), (120, True)])
def test_temporary_files_are_moved_only_where_a_sockets_path_would_be_too_long(monkeypatch, length, moved):
    long = "/" + "x" * length
    monkeypatch.setenv("TMPDIR", long)
    monkeypatch.setattr(tempfile, "tempdir", long)
    with short_temporary_files(room=60):
        inside = os.environ["TMPDIR"]
        assert tempfile.gettempdir() == inside
    assert (inside != long) == moved
    assert len(inside) + 60 <= SOCKET_BYTES_MOST
    assert os.environ["TMPDIR"] == tempfile.gettempdir() == long
