"""Fixtures of the devices' tests: the tables on each kind of database, and a hub and an agent as processes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.search.hub_process import Pair


@pytest.fixture
def pair(tmp_path: Path, empty_database: Path) -> Iterator[Pair]:
    """A hub and an agent of the test's own; neither is started."""
    shutil.copy(empty_database, tmp_path)
    pair = Pair(tmp_path)
    yield pair
    pair.close()
