"""The live page in use: a growing study, a token, ten thousand trials."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dashboards.page import Access
from tests.dashboards.browser import Visit, in_browser
from tests.dashboards.pages import FRONT, TABLE, in_page, opened, served, silent, url_of, zoom_of
from tests.dashboards.studies import Study, lively

pytestmark = [pytest.mark.browser, in_browser]


SELECTION_MS = """async (number) => {
    const begun = performance.now();
    window.CondenseryPage.parts.choose([number]);
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
    return performance.now() - begun; }"""


# ---- live -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_clocks")
def test_a_growing_study_shows_its_new_trials_and_keeps_what_the_reader_has_set(browser: Any, tmp_path: Path) -> None:
    made = lively(tmp_path)
    with served(url_of(made)) as address, Visit(browser) as visit:
        opened(visit, f"{address}?trials=4", TABLE)
        number = visit.page.get_by_role("spinbutton", name=re.compile("Latency limit on host"))
        number.fill("0.25")
        plot = visit.page.locator("#front-graph .nsewdrag").first
        plot.scroll_into_view_if_needed()
        box = plot.bounding_box()
        assert box is not None
        visit.page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.2 * box["height"])
        visit.page.mouse.down()
        visit.page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.8 * box["height"], steps=5)
        visit.page.mouse.up()
        zoomed = zoom_of(visit)
        in_page(visit, "document.querySelector('#trials-grid .ag-body-viewport').scrollTop = 300")
        for top1 in (0.951, 0.952, 0.999):
            made.done(0.2, top1)
        visit.wait("document.getElementById('counts').textContent.includes('35trials')")
        visit.wait("document.getElementById('sentence').textContent.includes('99.90 %')")
        visit.wait(f"{FRONT}.calcdata.flat().some((point) => Math.abs(point.y - 99.9) < 1e-3)")
        assert zoom_of(visit) == zoomed
        assert number.input_value() == "0.25"
        assert in_page(visit, "document.querySelector('#trials-grid .ag-body-viewport').scrollTop") == 300
        assert in_page(visit, "Boolean(document.getElementById('trial-4'))")
        assert visit.text("#badge") == "Live"
        silent(visit, address)


def test_with_a_token_the_page_works_and_the_token_leaves_the_address(browser: Any, study: Study) -> None:
    access = Access("correct-horse-battery")
    with served(url_of(study), access) as address, Visit(browser) as visit:
        opened(visit, f"{address}?token={access.token}&axis=macs", TABLE)
        assert "token" not in visit.page.url
        assert "axis=macs" in visit.page.url
        assert in_page(visit, "document.cookie") == ""
        silent(visit, address)


# ---- ten thousand ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ten_thousand_trials_are_shown_and_answered(browser: Any, ten_thousand: tuple[Path, str]) -> None:
    database, _ = ten_thousand
    with served(f"sqlite:///{database}") as address, Visit(browser) as visit:
        opened(visit, address, TABLE)
        assert in_page(visit, "document.querySelector('#front-graph .js-plotly-plot').data[0].type") == "scattergl"
        visit.picture("page-10000-trials")
        slider = visit.page.get_by_role("slider").first
        slider.focus()
        before = visit.text("#front-box .mark.label")
        for _ in range(5):
            slider.press("PageDown")
        visit.wait(f"document.querySelector('#front-box .mark.label').textContent !== {json.dumps(before)}")
        in_page(visit, "dash_ag_grid.getApi('trials-grid').ensureIndexVisible(9990)")
        visit.wait(
            "[...document.querySelectorAll('.ag-cell[col-id=number]')].some((one) => one.textContent === '9990')"
        )
        number = in_page(visit, f"{FRONT}._fullData.find((one) => one.name === 'on the front').customdata[0][0]")
        took_ms = visit.page.evaluate(SELECTION_MS, number)
        visit.wait(f"document.querySelector('#front .selected-marks g').dataset.trial === '{number}'")
        visit.wait(f"document.getElementById('trial-{number}')")
        assert took_ms < 600  # 150 ms by itself; other tests may run beside
        silent(visit, address)
