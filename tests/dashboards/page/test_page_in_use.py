"""The live page in use: with a token, and with ten thousand trials."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dashboards.page import Access
from tests.dashboards.browser import Visit, in_browser
from tests.dashboards.pages import FRONT, TABLE, in_page, opened, served, silent, url_of
from tests.dashboards.studies import Study

pytestmark = [pytest.mark.browser, in_browser]


SELECTION_MS = """async (number) => {
    const begun = performance.now();
    window.CondenseryPage.parts.choose([number]);
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
    return performance.now() - begun; }"""


def test_with_a_token_the_page_works_as_the_address_says_and_the_token_leaves_it(browser: Any, study: Study) -> None:
    access = Access("correct-horse-battery")
    with served(url_of(study), access) as address, Visit(browser) as visit:
        opened(visit, f"{address}?token={access.token}&axis=macs&budget.host=1e12", TABLE)
        assert "token" not in visit.page.url
        assert "axis=macs" in visit.page.url
        assert "macs" in in_page(visit, f"{FRONT}.layout.xaxis.title.text")
        limit = visit.page.get_by_role("spinbutton", name="Latency limit on host in ms")
        assert limit.input_value() == "0.4"  # what an address says is no limit changes none
        assert in_page(visit, "document.cookie") == ""
        silent(visit, address)


# ---- ten thousand ---------------------------------------------------------------------------------------


@pytest.mark.slow(seconds=40)
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
        visit.wait("document.querySelector('#trials-grid .ag-row[row-index=\"9990\"] [col-id=number]')?.textContent")
        number = in_page(visit, f"{FRONT}._fullData.find((one) => one.name === 'on the front').customdata[0][0]")
        took_ms = visit.page.evaluate(SELECTION_MS, number)
        visit.wait(f"document.querySelector('#front .selected-marks g').dataset.trial === '{number}'")
        visit.wait(f"document.getElementById('trial-{number}')")
        assert took_ms < 600  # 150 ms by itself; other tests may run beside
        silent(visit, address)
