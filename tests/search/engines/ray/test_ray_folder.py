"""The folder of a start of Ray: private, and removed by whoever comes next when its processes were killed."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from search.engines.ray.run_folder import BELOW, PREFIX, TOKEN, RayFolder, short_folder
from space.errors import EngineUnavailable
from workers.files import SOCKET_BYTES_MOST

HOLDER = """
import sys
from pathlib import Path
from search.engines.ray.run_folder import RayFolder
folder = RayFolder(Path(sys.argv[1]))
print(folder.path, flush=True)
sys.stdin.read()
"""


def test_a_folder_is_private_and_its_token_is_a_new_one(tmp_path: Path):
    one, other = RayFolder(tmp_path), RayFolder(tmp_path)
    assert one.path.stat().st_mode & 0o077 == 0
    assert (one.path / TOKEN).stat().st_mode & 0o777 == 0o600
    assert len({(folder.path / TOKEN).read_text() for folder in (one, other)}) == 2
    one.remove()
    other.remove()
    other.remove()  # or its supervisor did
    assert not list(tmp_path.iterdir())


def test_a_killed_processs_folder_is_removed_by_the_next_start_and_a_live_ones_is_not(tmp_path: Path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    held = Path(holder.stdout.readline().strip())
    RayFolder(tmp_path).remove()
    assert held.exists()
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    RayFolder(tmp_path).remove()
    assert not held.exists()


def test_what_is_no_folder_of_ours_is_left_alone(tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "held").touch()
    above = tmp_path / "above"
    above.mkdir()
    (above / f"{PREFIX}link").symlink_to(elsewhere)
    (above / f"{PREFIX}new").mkdir()  # made a moment ago, not held yet
    (above / "condensery-other").mkdir()
    RayFolder(above).remove()
    assert sorted(path.name for path in above.iterdir()) == ["condensery-other", f"{PREFIX}link", f"{PREFIX}new"]
    assert (elsewhere / "held").exists()


def test_a_long_folder_of_temporary_files_is_not_where_rays_sockets_are(tmp_path: Path, monkeypatch):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr(tempfile, "tempdir", None)  # it is asked once
    assert tempfile.gettempdir() == str(long)
    assert short_folder([str(long), "/tmp"]) == Path("/tmp")
    folder = RayFolder()
    assert folder.path.parent == Path("/tmp")
    assert len(str(folder.path)) == len("/tmp" + BELOW.partition("/r/")[0])
    folder.remove()


def test_where_no_folder_is_short_enough_the_reason_is_said(tmp_path: Path):
    with pytest.raises(EngineUnavailable, match="at most 17 bytes, because a socket's path ends at 107"):
        short_folder(["/" + "x" * 100, "/nowhere"])


def test_the_longest_path_of_a_socket_is_what_the_system_says(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for extra, fits in ((0, True), (1, False)):
        with socket.socket(socket.AF_UNIX) as server:
            name = "s" * (SOCKET_BYTES_MOST + extra)
            if fits:
                server.bind(name)
            else:
                with pytest.raises(OSError, match="too long"):
                    server.bind(name)
    assert [path.name for path in Path().iterdir()] == ["s" * SOCKET_BYTES_MOST]
