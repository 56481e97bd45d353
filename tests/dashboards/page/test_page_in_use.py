"""The live page in use: the table, the keyboard, a growing and a vanished database, a token, ten thousand trials."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboards.page import Access
from tests.dashboards.browser import Visit, in_browser
from tests.dashboards.pages import FRONT, TABLE, in_page, opened, served, silent, url_of, zoom_of
from tests.dashboards.studies import Study, lively

pytestmark = [pytest.mark.browser, in_browser]


@pytest.fixture(scope="module")
def kept_visit(browser: Any) -> Iterator[Visit]:
    with Visit(browser) as visit:
        yield visit


@pytest.fixture
def visit(kept_visit: Visit) -> Visit:
    """A visit whose browser has the page's scripts already; what a reader sets is in the address alone."""
    return kept_visit.fresh()


# ---- trials ---------------------------------------------------------------------------------------------


def test_the_table_sorts_filters_and_opens_trials(visit: Visit, page: str) -> None:
    opened(visit, page, TABLE)
    grid = visit.page.locator("#trials-grid")
    grid.get_by_role("columnheader", name="top-1").click()
    first = "document.querySelector('#trials-grid .ag-row[row-index=\"0\"] .ag-cell[col-id=top1]').textContent"
    visit.wait(f"{first} === '98.96 %'")
    grid.get_by_role("textbox", name="state Filter Input").fill("fail")
    visit.wait("document.getElementById('rows-shown').textContent === '1 of 32 trials'")
    assert "fail" in in_page(visit, "document.getElementById('csv').href")
    visit.page.get_by_role("button", name="Clear filters").click()
    visit.wait("document.getElementById('rows-shown').textContent === ''")
    visit.wait(f"{first} === '98.96 %'")
    grid.locator('.ag-row[row-index="0"] .ag-cell[col-id=top1]').click()
    visit.wait("document.getElementById('trial-11')")
    visit.wait("location.search.includes('trials=11')")
    grid.locator('.ag-row[row-index="1"] input[type=checkbox]').first.check()
    visit.wait("document.querySelectorAll('#comparison-body .trial').length === 2")
    assert "What differs" in visit.text("#comparison-body")
    visit.page.get_by_role("button", name="Close trial 11").click()
    visit.wait("document.querySelectorAll('#comparison-body .trial').length === 1")
    visit.page.get_by_label("Trial number").fill("99")
    visit.page.get_by_label("Trial number").press("Enter")
    visit.wait("document.getElementById('comparison-body').textContent.includes('has trials 0 to 31')")
    silent(visit, page)


def test_a_brush_on_the_parallel_coordinates_filters_the_table(visit: Visit, page: str) -> None:
    opened(visit, page, TABLE)
    axis = visit.page.locator("#parallel-graph .axis-brush").last
    axis.scroll_into_view_if_needed()
    box = axis.bounding_box()
    assert box is not None
    x = box["x"] + box["width"] / 2
    visit.page.mouse.move(x, box["y"] + 0.1 * box["height"])
    visit.page.mouse.down()
    visit.page.mouse.move(x, box["y"] + 0.45 * box["height"], steps=6)
    visit.page.mouse.up()
    visit.wait("/^\\d+ of 32 trials, brushed$/.test(document.getElementById('rows-shown').textContent)")
    visit.page.get_by_role("button", name="Clear filters").click()
    visit.wait("document.getElementById('rows-shown').textContent === ''")
    silent(visit, page)


# ---- keyboard and names ---------------------------------------------------------------------------------


def test_the_keyboard_alone_leads_through_the_page(visit: Visit, page: str) -> None:
    opened(visit, page, TABLE)
    focus = "document.activeElement"
    visit.page.keyboard.press("Tab")
    assert in_page(visit, f"{focus}.textContent") == "Skip to the answer"
    assert in_page(visit, f"{focus}.getBoundingClientRect().top") >= 0
    visit.page.keyboard.press("Enter")
    visit.page.keyboard.press("Tab")
    assert in_page(visit, f"{focus}.type") == "range"
    assert in_page(visit, f"getComputedStyle({focus}).outlineStyle") != "none"
    seen = set()
    for _ in range(60):
        visit.page.keyboard.press("Tab")
        seen.add(in_page(visit, f"{focus}.closest('section')?.id"))
        if in_page(visit, f"Boolean({focus}.closest('.ag-header'))"):
            break
    assert {"answer", "front", "macs-latency", "parallel", "importance", "curves", "trials"} <= seen
    visit.page.locator('.ag-row[row-index="2"] .ag-cell[col-id=number]').focus()
    visit.page.keyboard.press("ArrowDown")
    visit.page.keyboard.press("Space")
    visit.wait("document.getElementById('trial-3')")
    silent(visit, page)


def test_every_control_has_a_name_and_every_landmark_too(visit: Visit, page: str) -> None:
    opened(visit, f"{page}?trials=3", TABLE)
    nameless = """[...document.querySelectorAll('button, input, select, textarea, a[href], summary')]
        .filter((one) => one.offsetParent !== null && !one.closest('.modebar'))
        .filter((one) => !(one.textContent.trim() || one.getAttribute('aria-label') || one.title
            || [...(one.labels || [])].some((label) => label.textContent.trim())
            || document.getElementById(one.getAttribute('aria-labelledby'))))
        .map((one) => one.outerHTML.slice(0, 200))"""
    assert in_page(visit, nameless) == []
    in_page(visit, "document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    unnamed = """[...document.querySelectorAll('[tabindex="0"]')]
        .filter((one) => one.offsetParent !== null && !one.closest('.ag-root-wrapper'))
        .filter((one) => !one.getAttribute('role') || !one.getAttribute('aria-label'))
        .map((one) => one.outerHTML.slice(0, 200))"""
    assert in_page(visit, unnamed) == []
    sections = "[...document.querySelectorAll('section')].map((one) => one.getAttribute('aria-labelledby'))"
    assert all(in_page(visit, f"document.getElementById('{name}').textContent") for name in in_page(visit, sections))
    for role in ("banner", "main", "contentinfo"):
        assert visit.page.get_by_role(role).count() == 1
    assert visit.page.locator("html").get_attribute("lang") == "en"


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
        silent(visit, address)
