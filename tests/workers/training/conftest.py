"""What tests of trainings share."""

from __future__ import annotations

import pytest

from tests.workers.tiny import digits
from workers.images.batches import ImageData


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    """The digits, few of them and small; a module of tests may have others of its own."""
    return digits(tmp_path_factory.mktemp("images"))
