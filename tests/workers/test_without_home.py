"""No HOME, and a user whom the system doesn't know, as in many containers: everything has a place all the same."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from space.errors import ReadOnlyFolder
from workers.compiled import library
from workers.files import user_path
from workers.images.datasets import find_source
from workers.latency.agent import files
from workers.latency.agent.__main__ import parser
from workers.latency.agent.runtimes.native import FP32
from workers.latency.agent.serving.errors import WrongUse
from workers.latency.agent.serving.settings import settings_from
from workers.latency.agent_file import cache_folder
from workers.settings import DataSettings


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No user has a home; the folder of temporary files."""

    def unknown(name: object) -> None:
        raise KeyError(name)

    for name in ("HOME", "CONDENSERY_CACHE", "CONDENSERY_KERNELS", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setattr("pwd.getpwnam", unknown)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


def test_caches_are_among_the_temporary_files_where_only_this_user_can_write(homeless):
    folder = homeless / f"condensery-{os.geteuid()}"
    assert files.user_cache() == cache_folder() == FP32.library().parents[1] == folder
    assert library._safe_folder() == folder / "kernels" / "training"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("trap", ["open to all", "a link"])
def test_a_folder_that_others_can_write_to_is_not_used(homeless, trap):
    folder = homeless / f"condensery-{os.geteuid()}"
    (homeless / "elsewhere").mkdir()
    if trap == "a link":
        folder.symlink_to(homeless / "elsewhere")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    used = files.user_cache()
    assert used != folder
    assert stat.S_IMODE(used.stat().st_mode) == 0o700
    assert files.user_cache() == used  # the same for all of this process
    assert list((homeless / "elsewhere").iterdir()) == []


def test_a_home_that_is_not_there_and_can_not_be_made_is_none(homeless, monkeypatch):
    monkeypatch.setenv("HOME", "/proc/nonexistent")
    assert files.user_cache().parent == homeless


@pytest.mark.parametrize("path", ["~/images", "~nobody-of-this-name/images"])
def test_a_path_below_a_home_that_is_not_there_is_refused(homeless, path):
    with pytest.raises(ReadOnlyFolder, match=f"{path} begins with ~, but there is no such home folder"):
        user_path(path)
    with pytest.raises(ReadOnlyFolder, match="write the whole path"):
        find_source(DataSettings(dataset=f"imagefolder:{path}"))


def test_an_agent_is_told_to_name_its_folder(homeless, monkeypatch):
    monkeypatch.setenv("CONDENSERY_TOKEN", "token")
    with pytest.raises(WrongUse, match="--folder must be a whole path where there is no home folder"):
        settings_from(parser().parse_args(["run", "--hub", "http://127.0.0.1:9"]))
