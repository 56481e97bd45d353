"""The live page on a narrow screen: a chart of many axes scrolls sideways, its titles stay apart."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmarks.dashboard_fill import fill
from tests.dashboards.browser import Visit, in_browser
from tests.dashboards.pages import in_page, opened, served

pytestmark = [pytest.mark.browser, in_browser]
ENDS = (
    "[...document.querySelectorAll('#parallel-graph .axis-title')].map((one) => one.getBoundingClientRect())"
    ".map((box) => [box.left, box.right])"
)


def test_the_titles_of_parallel_axes_do_not_overlap_and_the_page_is_not_wider(browser: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    fill(url, 400, 0)
    with served(url) as address, Visit(browser, 400, 900) as visit:
        opened(visit, address)
        visit.wait("document.querySelectorAll('#parallel-graph .axis-title').length > 5")
        ends = in_page(visit, ENDS)
        assert all(right < left for (_, right), (left, _) in pairwise(ends))
        assert in_page(visit, "document.getElementById('parallel-box').scrollWidth") > 400
        assert in_page(visit, "document.documentElement.scrollWidth") <= 400
