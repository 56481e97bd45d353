"""What a reader does with the page's charts: near the budget or all, axes and scale, front only, brush, tooltips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.dashboards.browser import Visit, in_browser
from tests.dashboards.pages import FRONT, READY, in_page, opened, served, silent, url_of, zoom_of
from tests.dashboards.studies import lively

pytestmark = [pytest.mark.browser, in_browser]
PARALLEL = "document.querySelector('#parallel-graph .js-plotly-plot')"


@pytest.mark.slow(seconds=20)
def test_the_front_opens_near_the_budget_and_is_set_as_the_reader_wants_it(browser: Any, tmp_path: Path) -> None:
    made = lively(tmp_path)
    for latency_ms in (2.0, 9.0):
        made.infeasible(latency_ms)
    with served(url_of(made)) as page, Visit(browser, 1400) as visit:
        opened(visit, page, READY)
        visit.wait(f"Math.abs({FRONT}.layout.xaxis.range[1] - 0.6) < 1e-6")
        beyond = visit.page.locator("#front-box button.beyond")
        assert beyond.inner_text() == "2 more →"
        beyond.click()
        visit.wait(
            f"{FRONT}.layout.xaxis.range[1] > 9 && document.querySelector('#front-box .beyond').textContent[0] === '←'"
        )
        beyond.click()
        visit.wait(f"Math.abs({FRONT}.layout.xaxis.range[1] - 0.6) < 1e-6")
        visit.page.get_by_role("spinbutton", name="Latency limit on host in ms").fill("0.2")
        visit.wait(f"Math.abs({FRONT}.layout.xaxis.range[1] - 0.3) < 1e-6")  # it follows
        assert visit.page.locator("#front-how").is_visible()
        visit.page.get_by_label("Log scale").check()
        visit.wait(f"{FRONT}.layout.xaxis.type === 'log' && Math.abs(10 ** {FRONT}.layout.xaxis.range[1] - 0.3) < 1e-3")
        visit.page.get_by_text("Other axes").click()
        visit.page.get_by_label("Across", exact=True).select_option("params")
        visit.page.get_by_label("Up", exact=True).select_option("time")
        visit.wait(f"{FRONT}.layout.yaxis.title.text === 'training time, s'")
        visit.wait(
            "/x=params/.test(location.search) && /y=time/.test(location.search) && /log=yes/.test(location.search)"
        )
        opened(visit, visit.page.url, READY)
        assert in_page(visit, f"{FRONT}.layout.xaxis.title.text") == "parameters, k params"
        assert len(zoom_of(visit)) == 2
        silent(visit, page)


@pytest.mark.slow(seconds=20)
def test_lines_of_the_front_alone_and_a_brush_are_in_the_address_and_no_mark_covers_a_tooltip(
    visit_page: Visit, page: str
) -> None:
    visit = visit_page
    opened(visit, page, READY)
    # Drawn later lies above: the marks come before the paper with the tooltips.
    marks, tooltips = (f"document.querySelector('#front-box {name}')" for name in (".marks", ".hoverlayer"))
    assert in_page(visit, f"{marks}.compareDocumentPosition({tooltips}) & Node.DOCUMENT_POSITION_FOLLOWING")
    everyone = in_page(visit, f"{PARALLEL}._fullData[0].dimensions[0].values.length")
    visit.page.get_by_label("Front only").check()
    visit.wait(f"{PARALLEL}._fullData[0].dimensions[0].values.length < {everyone}")
    visit.page.get_by_label("Keep").select_option("C")
    visit.page.get_by_label("from", exact=True).select_option(index=1)
    visit.wait("/lines=front/.test(location.search) && /brush=C/.test(location.search)")
    opened(visit, visit.page.url, READY)
    visit.wait(f"({PARALLEL}._fullData[0].dimensions.find((one) => one.name === 'C').constraintrange || []).length")
    assert in_page(visit, f"{PARALLEL}._fullData[0].dimensions[0].values.length") < everyone
    silent(visit, page)


@pytest.fixture
def visit_page(browser: Any) -> Any:
    with Visit(browser, 1400) as opened_visit:
        yield opened_visit
