"""Fixtures of the devices' tests: the tables on each kind of database, and a hub and an agent as processes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.search.hub_process import Pair
from tests.search.tiny_devices import Desk


@pytest.fixture
def pair(tmp_path: Path, empty_database: Path) -> Iterator[Pair]:
    """A hub and an agent of the test's own; neither is started."""
    shutil.copy(empty_database, tmp_path)
    pair = Pair(tmp_path)
    yield pair
    pair.close()


@pytest.fixture
def desk_at_present(tmp_path: Path, empty_database: Path) -> Iterator[Desk]:
    """A database of the test's own with devices and jobs; its clock shows the present time."""
    shutil.copy(empty_database, tmp_path)
    desk = Desk.at(tmp_path)
    desk.clock.set_now(time.time())
    yield desk
    desk.engine.dispose()
