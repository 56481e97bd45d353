"""The live page on a phone, to a reader without the token: a sheet for the drawer, taps, and what fits."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmarks.dashboard_fill import fill
from dashboards.page import Access
from tests.dashboards.browser import Visit, in_browser
from tests.dashboards.pages import FRONT, TABLE, in_page, opened, point_of, served, silent
from tests.dashboards.studies import Study
from tests.waiting import until

pytestmark = [pytest.mark.browser, in_browser, pytest.mark.slow(seconds=15)]
NOTE = "it's <b>the</b> one"
KEEP_HINTS = """const place = document.getElementById('tap-hint');
    new MutationObserver(() => window.hints.push(place.textContent)).observe(place, { childList: true });"""


def test_on_a_phone_the_drawer_is_a_sheet_and_a_tap_shows_the_tooltip_first(browser: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = Study.existing(tmp_path, fill(url, 400, 0))
    access = Access("correct-horse-battery", shown=True, looking_is_free=True)
    with served(url, access) as address, Visit(browser, 390, 844, touch=True) as visit:
        opened(visit, address, TABLE)
        # What is said for seconds only may be over before a crowded machine looks.
        in_page(visit, f"{{ window.hints = []; {KEEP_HINTS} }}")
        assert in_page(visit, "document.documentElement.scrollWidth") <= 390
        in_page(visit, "document.getElementById('front').scrollIntoView()")
        number = in_page(visit, f"{FRONT}._fullData.find((one) => one.name === 'on the front').customdata[0][0]")
        study.store.set_note(number, NOTE)
        before = in_page(visit, "window.scrollY")
        x, y = point_of(visit, number)
        visit.page.touchscreen.tap(x, y)
        visit.wait(f"window.hints[0] === 'Tap again to open trial {number}.'")
        visit.wait("document.querySelector('#front-graph .hoverlayer .hovertext')")
        assert visit.page.locator("#drawer").is_hidden()
        x, y = point_of(visit, number)
        visit.page.touchscreen.tap(x, y)
        visit.wait(f"document.getElementById('drawer-title').textContent === 'Trial {number}'")
        visit.wait(f"document.getElementById('trial-{number}')")
        sheet = visit.page.locator("#drawer").bounding_box()
        assert sheet is not None
        assert sheet["width"] == 390
        assert 844 / 4 < sheet["y"] < sheet["y"] + sheet["height"] == pytest.approx(844, abs=1)
        assert in_page(visit, "window.scrollY") == before
        visit.wait("document.getElementById('star')?.disabled")
        assert "needs the token" in visit.text("#writes")
        visit.page.get_by_text("Why can't I write here?").tap()
        visit.wait("document.querySelector('#trial-actions details p').checkVisibility()")
        visit.wait(f"document.querySelector('#trial-actions .note').textContent === {json.dumps(NOTE)}")
        visit.picture("page-phone", full=False)
        visit.page.get_by_role("button", name="Close the drawer").tap()
        visit.page.locator("#drawer").wait_for(state="hidden")
        everything_fits(visit)
        silent(visit, address)


def everything_fits(visit: Visit) -> None:
    """The outcome of a trial is in sight, and nothing covers anything else, once all is where it stays."""
    in_page(visit, "document.getElementById('trials').scrollIntoView()")
    shown = """[...document.querySelectorAll('#trials-grid .ag-row[row-index="0"] .ag-cell')]
        .filter((one) => one.getBoundingClientRect().right <= 390).map((one) => one.getAttribute('col-id'))"""
    until(lambda: {"number", "state", "top1", "latency:host"} <= set(in_page(visit, shown)))
    cut = """[...document.querySelectorAll('#trials-grid .latency-cell')].filter((one) =>
        one.getBoundingClientRect().right > one.closest('.ag-cell').getBoundingClientRect().right + 1).length"""
    until(lambda: in_page(visit, cut) == 0)
    rows = "#trials-grid .ag-center-cols-container .ag-row"
    until(lambda: are_apart([(top, bottom) for top, bottom, *_ in boxes(visit, rows)]))
    entries = boxes(visit, "#front-graph .legendtext")
    assert all(right <= 390 for *_, right in entries)
    assert are_apart([(top, bottom) for top, bottom, *_ in entries]), entries
    titles = "#parallel-graph .axis-title"
    visit.wait(f"document.querySelectorAll('{titles}').length > 5")
    assert are_apart([(left, right) for *_, left, right in boxes(visit, titles)], by_px=0.0)
    assert in_page(visit, "document.getElementById('parallel-box').scrollWidth") > 390


def boxes(visit: Visit, selector: str) -> list[tuple[float, float, float, float]]:
    """Return top, bottom, left and right of each element in px."""
    found = f"[...document.querySelectorAll('{selector}')].map((one) => one.getBoundingClientRect())"
    return [tuple(box) for box in in_page(visit, f"{found}.map((box) => [box.top, box.bottom, box.left, box.right])")]


def are_apart(intervals: list[tuple[float, float]], by_px: float = -1.0) -> bool:
    """Whether each begins where the one before has ended."""
    return all(end + by_px <= begin for (_, end), (begin, _) in pairwise(sorted(intervals)))
