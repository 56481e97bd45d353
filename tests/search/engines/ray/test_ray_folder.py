"""The folder of a start of Ray: private, and removed by whoever comes next when its processes were killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from search.engines.ray.run_folder import PREFIX, TOKEN, RayFolder

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
