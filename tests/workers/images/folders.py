"""Folders that no tool makes by hand."""

from __future__ import annotations

import os
from pathlib import Path

LONGEST_PATH = 4096  # bytes, of Linux and macOS or more


def make_folder_that_cannot_be_read(folder: Path) -> None:
    """Make a folder with folders in it whose path becomes longer than paths may be, which even root can't read."""
    folder.mkdir()
    inner = os.open(folder, os.O_RDONLY)
    for _ in range(LONGEST_PATH // 200 + 1):
        os.mkdir(200 * "x", dir_fd=inner)
        outer, inner = inner, os.open(200 * "x", os.O_RDONLY, dir_fd=inner)
        os.close(outer)
    os.close(inner)
