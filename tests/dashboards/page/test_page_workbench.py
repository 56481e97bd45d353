"""The live page as a workbench: one selection for charts, table and drawer; comparing; the trials table; a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmarks.dashboard_fill import fill
from tests.dashboards.browser import Visit, in_browser
from tests.dashboards.pages import FRONT, TABLE, in_page, opened, served, silent

pytestmark = [pytest.mark.browser, in_browser]

RINGS = "[...document.querySelectorAll('#CHART .selected-marks g')].map((one) => Number(one.dataset.trial))"
FACTS = "document.getElementById('facts-body')"
ROW = '#trials-grid .ag-center-cols-container .ag-row[row-index="PLACE"] .ag-cell[col-id=top1]'
ROWS_SHOWN = "document.getElementById('rows-shown').textContent"


@pytest.fixture(scope="module")
def kept_visit(browser: Any) -> Iterator[Visit]:
    with Visit(browser, 1400, 900) as visit:
        yield visit


@pytest.fixture
def visit(kept_visit: Visit) -> Visit:
    """A visit whose browser has the page's scripts already; what a reader sets is in the address alone."""
    return kept_visit.fresh()


def point_of(visit: Visit, number: int) -> tuple[float, float]:
    """Return where the front shows a trial."""
    x, y = in_page(
        visit,
        f"""{{
        const graph = {FRONT}, {{ xaxis, yaxis }} = graph._fullLayout, box = graph.getBoundingClientRect();
        for (const trace of graph._fullData) {{
          const i = [...(trace.customdata || [])].findIndex((carried) => carried[0] === {number});
          if (i >= 0) {{
            return [box.x + xaxis._offset + xaxis.d2p(trace.x[i]), box.y + yaxis._offset + yaxis.d2p(trace.y[i])];
          }}
        }} }}""",
    )
    return x, y


def click_point(visit: Visit, number: int, *modifiers: str) -> None:
    x, y = point_of(visit, number)
    visit.page.mouse.move(x, y)
    for key in modifiers:
        visit.page.keyboard.down(key)
    visit.page.mouse.click(x, y)
    for key in modifiers:
        visit.page.keyboard.up(key)


def selected(visit: Visit, *numbers: int) -> None:
    """Wait until these trials are selected in the address, marked in the front and in the drawer."""
    wanted = list(numbers)
    visit.wait(f"JSON.stringify({RINGS.replace('CHART', 'front')}) === '{wanted}'.replaceAll(' ', '')")
    words = f"trials={'%2C'.join(map(str, numbers))}(&|$)" if numbers else "^(?!.*trials=)"
    visit.wait(f"/{words}/.test(location.search)")
    if numbers:
        shown = ",".join(map(str, numbers))
        visit.wait(f"{FACTS}.firstElementChild?.dataset.trials === '{shown}'")
        visit.wait(f"document.querySelector('#comparison-body > [data-trials=\"{shown}\"] .part')")


# ---- one selection --------------------------------------------------------------------------------------


def test_one_selection_is_marked_everywhere_undone_by_back_and_closed_by_escape(visit: Visit, page: str) -> None:
    opened(visit, page, TABLE)
    in_page(visit, "document.getElementById('front').scrollIntoView()")
    before = in_page(visit, "window.scrollY")
    assert before > 0
    click_point(visit, 11)
    selected(visit, 11)
    assert visit.text("#drawer-title") == "Trial 11"
    assert "98.96 %" in visit.text("#trial-11")
    for chart in ("macs-latency", "parallel", "curves"):
        visit.wait(f"{RINGS.replace('CHART', chart)}[0] === 11")
    visit.wait("document.querySelector('#trials-grid .ag-row-selected')?.getAttribute('row-id') === '11'")
    headings = "[...document.querySelectorAll('#comparison-body h3')].map((one) => one.textContent)"
    assert [name.split()[-1] for name in in_page(visit, headings)] == [
        *("curve", "network", "kept", "confuses", "measurements", "Files", "recorded")
    ]
    assert in_page(visit, "window.scrollY") == before
    click_point(visit, 20)  # alone
    selected(visit, 20)
    click_point(visit, 3, "Control")  # beside it
    selected(visit, 20, 3)
    assert "What is the same" not in visit.text("#facts-body")
    visit.page.go_back()
    selected(visit, 20)
    visit.page.go_back()
    selected(visit, 11)
    assert in_page(visit, "window.scrollY") == before
    visit.page.keyboard.press("Escape")
    selected(visit)
    assert visit.text("#drawer-title") == "No trial selected"
    assert in_page(visit, "document.activeElement.id") == "front-box"
    visit.page.go_back()
    selected(visit, 11)
    silent(visit, page)


def test_up_to_four_are_compared_and_a_fifth_replaces_none_silently(visit: Visit, page: str) -> None:
    opened(visit, f"{page}?trials=11,20", TABLE)
    selected(visit, 11, 20)
    lines = "[...document.querySelectorAll('table.differences tbody th[scope=row]')].filter((one) => one.offsetParent)"
    labels = in_page(visit, f"{lines}.map((one) => one.innerText)")
    assert labels[0] == "top-1, validation"  # outcomes first
    assert "ms on host" in labels
    assert "epochs" not in labels  # both had twelve
    visit.page.get_by_label("Show what is the same, too").check()
    assert "epochs" in " ".join(in_page(visit, f"{lines}.map((one) => one.innerText)"))
    titles = "[...document.querySelectorAll('#comparison-body h3')].map((one) => one.textContent)"
    assert in_page(visit, titles) == ["The networks", "Learning curves", "Against the first"]
    networks = "document.getElementById(JSON.stringify({of: '11-20/networks', type: 'part-graph'}))"
    visit.wait(f"{networks}.querySelectorAll('.subplot').length === 2")
    grid = visit.page.locator("#trials-grid")
    for number in (24, 21):
        grid.locator(f'.ag-row[row-id="{number}"] input[type=checkbox]').check()
    selected(visit, 11, 20, 24, 21)
    grid.locator('.ag-row[row-id="14"] input[type=checkbox]').click()
    visit.wait("document.getElementById('drawer-said').textContent.startsWith('Trial 14 is not added: at most four')")
    assert not grid.locator('.ag-row[row-id="14"] input[type=checkbox]').is_checked()
    selected(visit, 11, 20, 24, 21)
    visit.picture("page-compared", full=False)
    visit.page.get_by_role("button", name="Close trial 11").click()
    selected(visit, 20, 24, 21)
    visit.page.locator("table.differences").get_by_role("button", name="Trial 24").click()
    selected(visit, 24)
    visit.page.get_by_role("button", name="Compare with others").click()
    visit.page.get_by_label("Trial number").fill("99")
    visit.page.get_by_label("Trial number").press("Enter")
    visit.wait(f"{FACTS}.textContent.includes('has trials 0 to 31')")
    silent(visit, page)


# ---- the table ------------------------------------------------------------------------------------------


def test_the_table_filters_what_is_typed_sorts_and_shows_the_columns_that_fit_or_are_chosen(
    visit: Visit, page: str
) -> None:
    opened(visit, page, TABLE)
    grid = visit.page.locator("#trials-grid")
    grid.scroll_into_view_if_needed()
    viewport = "document.querySelector('#trials-grid .ag-center-cols-viewport')"
    assert in_page(visit, f"{viewport}.scrollWidth <= {viewport}.clientWidth")
    heads = "[...document.querySelectorAll('#trials-grid .ag-header-cell-text')].map((one) => one.textContent)"
    assert in_page(visit, heads)[1:] == ["trial", "state", "top-1", "measured ms on host", "macs", "params", "config"]
    first = grid.locator('.ag-row[row-index="0"]')
    assert "★" in first.first.inner_text()
    assert "recommended" in (first.first.get_attribute("class") or "")
    assert "Best top-1 within the budget first" in visit.text("#rows-order")
    accuracy = grid.get_by_role("textbox", name="top-1 Filter Input")
    assert accuracy.get_attribute("placeholder") == "≥ 94.5"
    accuracy.fill("97.9")
    visit.wait(f"{ROWS_SHOWN} === '4 of 32 trials'")
    grid.get_by_role("textbox", name="measured ms on host Filter Input").fill("0.2")
    visit.wait(f"{ROWS_SHOWN} === '2 of 32 trials'")
    assert "97.9" in in_page(visit, "document.getElementById('csv').href")
    accuracy.fill("9x")
    visit.wait("document.getElementById('rows-wrong').textContent.startsWith('top-1: “9x” can')")
    visit.wait("document.querySelector('#trials-grid input[aria-label=\"top-1 Filter Input\"][aria-invalid]')")
    visit.page.get_by_role("button", name="Clear filters").click()
    visit.wait(f"{ROWS_SHOWN} === ''")
    number = "document.querySelector('#trials-grid .ag-row[row-index=\"0\"] .ag-cell[col-id=number]').textContent"
    limit = visit.page.get_by_role("spinbutton", name=re.compile("Latency limit on host"))
    limit.fill("0.15")
    visit.wait(f"{number} === '★19'")
    limit.fill("0.4")
    visit.wait(f"{number} === '★11'")
    grid.get_by_role("columnheader", name="macs").click()
    visit.wait(f"{number} !== '★11'")
    visit.page.get_by_role("button", name="Best within the budget first").click()
    visit.wait(f"{number} === '★11'")
    visit.page.locator("#columns-chooser > summary").click()
    visit.page.get_by_role("checkbox", name="reason").check()
    visit.page.get_by_role("checkbox", name="config").uncheck()
    visit.wait("location.search.includes('columns=')")
    visit.page.keyboard.press("Escape")
    assert in_page(visit, "document.activeElement.textContent") == "Columns"
    longest = """(() => {
        const cell = document.querySelector('#trials-grid .latency-cell'), outer = cell.closest('.ag-cell');
        cell.querySelector('b').textContent = '0.05768';
        cell.querySelector('span').textContent = '[0.04269, 0.07776] *';
        return [outer, ...outer.querySelectorAll('*')].every((one) =>
            one.scrollWidth <= one.clientWidth + 1 || !one.clientWidth);
    })()"""
    assert in_page(visit, longest)
    opened(visit, visit.page.url, TABLE)
    visit.wait(f"JSON.stringify({heads}).includes('reason') && !JSON.stringify({heads}).includes('config')")
    silent(visit, page)


def test_a_brush_on_the_parallel_coordinates_filters_the_table(visit: Visit, page: str) -> None:
    opened(visit, page, TABLE)
    axis = visit.page.locator("#parallel-graph .axis-brush").last
    in_page(visit, "document.getElementById('parallel-graph').scrollIntoView({ block: 'center', inline: 'end' })")
    box = axis.bounding_box()
    assert box is not None
    x = box["x"] + box["width"] / 2
    visit.page.mouse.move(x, box["y"] + 0.1 * box["height"])
    visit.page.mouse.down()
    visit.page.mouse.move(x, box["y"] + 0.45 * box["height"], steps=6)
    visit.page.mouse.up()
    visit.wait(f"/^\\d+ of 32 trials, brushed$/.test({ROWS_SHOWN})")
    visit.page.get_by_role("button", name="Clear filters").click()
    visit.wait(f"{ROWS_SHOWN} === ''")
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
    seen, hidden = set(), []
    for _ in range(160):
        visit.page.keyboard.press("Tab")
        seen.add(in_page(visit, f"{focus}.closest('section')?.id"))
        covered = "document.getElementById('bar').getBoundingClientRect().bottom"
        if in_page(visit, f"Boolean({focus}.closest('main') && !{focus}.closest('#bar'))") and in_page(
            visit, f"{focus}.getBoundingClientRect().bottom <= {covered} - 1 && !{focus}.closest('.modebar')"
        ):
            hidden.append(in_page(visit, f"{focus}.outerHTML.slice(0, 120)"))
        if in_page(visit, f"Boolean({focus}.closest('.ag-header'))"):
            break
    assert {"answer", "front", "macs-latency", "parallel", "importance", "curves", "trials"} <= seen
    assert hidden == []  # nothing that has the focus is below the answer
    visit.page.locator('.ag-row[row-index="2"] .ag-cell[col-id=top1]').focus()
    visit.page.keyboard.press("ArrowDown")
    visit.page.keyboard.press("Space")
    selected(visit, 21)
    visit.page.keyboard.press("ArrowDown")
    visit.page.keyboard.press("Enter")
    selected(visit, 14)
    assert in_page(visit, f"{focus}.id") == "drawer-title"
    visit.page.keyboard.press("Escape")
    selected(visit)
    assert in_page(visit, f"{focus}.getAttribute('col-id')") == "top1"
    silent(visit, page)


def test_every_control_has_a_name_and_every_landmark_too(visit: Visit, page: str) -> None:
    opened(visit, f"{page}?trials=3", TABLE)
    selected(visit, 3)
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
    sections = "[...document.querySelectorAll('section, aside')].map((one) => one.getAttribute('aria-labelledby'))"
    assert all(in_page(visit, f"document.getElementById('{name}').textContent") for name in in_page(visit, sections))
    for role in ("banner", "main", "contentinfo", "complementary"):
        assert visit.page.get_by_role(role).count() == 1
    assert visit.page.locator("html").get_attribute("lang") == "en"
    silent(visit, page)


# ---- a phone --------------------------------------------------------------------------------------------


def test_on_a_phone_the_drawer_is_a_sheet_and_a_tap_shows_the_tooltip_first(browser: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    fill(url, 400, 0)
    with served(url) as address, Visit(browser, 390, 844, touch=True) as visit:
        opened(visit, address, TABLE)
        assert in_page(visit, "document.documentElement.scrollWidth") <= 390
        in_page(visit, "document.getElementById('front').scrollIntoView()")
        number = in_page(visit, f"{FRONT}._fullData.find((one) => one.name === 'on the front').customdata[0][0]")
        before = in_page(visit, "window.scrollY")
        x, y = point_of(visit, number)
        visit.page.touchscreen.tap(x, y)
        visit.wait(f"document.getElementById('tap-hint').textContent === 'Tap again to open trial {number}.'")
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
        visit.picture("page-phone", full=False)
        visit.page.get_by_role("button", name="Close the drawer").tap()
        assert visit.page.locator("#drawer").is_hidden()
        in_page(visit, "document.getElementById('trials').scrollIntoView()")
        shown = """[...document.querySelectorAll('#trials-grid .ag-row[row-index="0"] .ag-cell')]
            .filter((one) => one.getBoundingClientRect().right <= 390).map((one) => one.getAttribute('col-id'))"""
        cells = in_page(visit, shown)
        assert {"number", "state", "top1", "latency:host"} <= set(cells), cells
        cut = """[...document.querySelectorAll('#trials-grid .latency-cell')].filter((one) =>
            one.getBoundingClientRect().right > one.closest('.ag-cell').getBoundingClientRect().right + 1).length"""
        assert in_page(visit, cut) == 0
        rows = "[...document.querySelectorAll('#trials-grid .ag-center-cols-container .ag-row')]"
        places = in_page(visit, f"{rows}.map((row) => row.getBoundingClientRect()).map((box) => [box.top, box.bottom])")
        assert all(bottom <= top + 1 for (_, bottom), (top, _) in pairwise(sorted(places))), places
        legend = "[...document.querySelectorAll('#front-graph .legendtext')].map((one) => one.getBoundingClientRect())"
        entries = in_page(visit, f"{legend}.map((box) => [box.top, box.bottom, box.right])")
        assert all(right <= 390 for *_, right in entries)
        assert all(bottom <= top + 1 for (_, bottom, _), (top, _, _) in pairwise(sorted(entries))), entries
        titles = (
            "[...document.querySelectorAll('#parallel-graph .axis-title')].map((one) => one.getBoundingClientRect())"
        )
        visit.wait(f"{titles}.length > 5")
        ends = in_page(visit, f"{titles}.map((box) => [box.left, box.right])")
        assert all(right < left for (_, right), (left, _) in pairwise(ends))
        assert in_page(visit, "document.getElementById('parallel-box').scrollWidth") > 390
        silent(visit, address)
