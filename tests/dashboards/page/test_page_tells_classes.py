"""The live page of a study that maximises macro-F1: its answer, its charts, and a trial's classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.dashboards.browser import Visit, in_browser
from tests.dashboards.data.test_metrics_shown import study
from tests.dashboards.pages import TABLE, in_page, opened, served, silent, url_of

pytestmark = [pytest.mark.browser, in_browser]


def test_the_answer_names_the_objective_and_two_trials_are_compared_image_by_image(
    browser: Any, tmp_path: Path
) -> None:
    made = study(tmp_path, "macro_f1")
    with served(url_of(made)) as address, Visit(browser) as visit:
        opened(visit, f"{address}?trials=0,2", TABLE)
        assert "% macro-F1 (top-1 " in visit.text("#sentence")
        assert "fewer than 20 validation images (owl 12)" in visit.text("#sentence")
        assert "Macro-F1, validation" in visit.text("#tiles")
        assert "maximises macro-F1" in visit.text("#subtitle")
        axis = "document.querySelector('#front-graph .js-plotly-plot').layout.yaxis.title.text"
        assert in_page(visit, axis) == "macro-F1, %"
        star = "document.querySelector('#front .mark.star')"
        assert in_page(visit, f"{star} !== null && !{star}.hidden")
        visit.wait("document.querySelector('table.differences')")
        text = visit.text("#facts-body")
        assert "macro-F1 against trial 0, image by image" in text
        assert "more than noise" in text
        visit.page.locator("table.differences").get_by_role("button", name="Trial 2").click()
        visit.wait("document.querySelector('#comparison-body .heatmaplayer image')")
        assert "Least recognised: cat, 50.0 % of 120 images" in visit.text("#comparison-body")
        visit.picture("page-classes")
        silent(visit, address)
