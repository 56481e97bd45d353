"""The live page as a workbench: one selection for charts, table and drawer; comparing; the trials table; the address.

Opening the page takes longest, so most tests go on with one visit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.dashboards.browser import KeptVisit, Visit, in_browser
from tests.dashboards.pages import FRONT, TABLE, choose, in_page, kept, opened, point_of, silent

pytestmark = [pytest.mark.browser, in_browser, pytest.mark.slow(seconds=9)]

RINGS = "[...document.querySelectorAll('#CHART .selected-marks g')].map((one) => Number(one.dataset.trial))"
FACTS = "document.getElementById('facts-body')"
ROW = '#trials-grid .ag-center-cols-container .ag-row[row-index="PLACE"] .ag-cell[col-id=top1]'
ROWS_SHOWN = "document.getElementById('rows-shown').textContent"
HEADS = "[...document.querySelectorAll('#trials-grid .ag-header-cell-text')].map((one) => one.textContent)"
PARALLEL = "document.querySelector('#parallel-graph .js-plotly-plot')._fullData[0]"
WHERE_THE_FOCUS_IS = """(() => {
    const focus = document.activeElement, bar = document.getElementById("bar");
    const scrolls = focus.closest("main") && !bar.contains(focus) && !focus.closest(".modebar");
    const covered = scrolls && focus.getBoundingClientRect().bottom <= bar.getBoundingClientRect().bottom - 1;
    const inTable = Boolean(focus.closest(".ag-header"));
    return [focus.closest("section")?.id, covered && focus.outerHTML.slice(0, 120), inTable];
})()"""


@pytest.fixture(scope="module")
def kept_visit(browser: Any, page: str) -> Iterator[KeptVisit]:
    with Visit(browser, 1400, 900) as visit:
        yield kept(visit, page)


@pytest.fixture
def visit(kept_visit: KeptVisit) -> Visit:
    return kept_visit.again()


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


# ---- keyboard and names ---------------------------------------------------------------------------------


def test_the_keyboard_alone_leads_through_the_page(visit: Visit, page: str) -> None:
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
        section, covered, is_in_table = in_page(visit, WHERE_THE_FOCUS_IS)
        seen.add(section)
        hidden += [covered] if covered else []
        if is_in_table:
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
    choose(visit, 3)
    selected(visit, 3)
    nameless = """[...document.querySelectorAll('button, input, select, textarea, a[href], summary')]
        .filter((one) => one.offsetParent !== null && !one.closest('.modebar'))
        .filter((one) => !(one.textContent.trim() || one.getAttribute('aria-label') || one.title
            || [...(one.labels || [])].some((label) => label.textContent.trim())
            || document.getElementById(one.getAttribute('aria-labelledby'))))
        .map((one) => one.outerHTML.slice(0, 200))"""
    assert in_page(visit, nameless) == []
    in_page(visit, "{ window.unopened = [...document.querySelectorAll('details:not([open])')]; }")
    in_page(visit, "window.unopened.forEach((one) => { one.open = true; })")
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
    in_page(visit, "window.unopened.forEach((one) => { one.open = false; })")
    choose(visit)
    selected(visit)
    silent(visit, page)


# ---- one selection --------------------------------------------------------------------------------------


def test_one_selection_is_marked_everywhere_undone_by_back_and_closed_by_escape(visit: Visit, page: str) -> None:
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
    x, y = point_of(visit, 20)  # a double click opens its point, and none that comes below the pointer by it
    visit.page.mouse.dblclick(x, y)
    selected(visit, 20)
    visit.wait(f"{FRONT}.layout.xaxis.autorange === true")
    selected(visit, 20)
    visit.page.keyboard.press("Escape")
    selected(visit)
    silent(visit, page)


def test_up_to_four_are_compared_and_a_fifth_replaces_none_silently(visit: Visit, page: str) -> None:
    choose(visit, 11, 20)
    selected(visit, 11, 20)
    lines = "[...document.querySelectorAll('table.differences tbody th[scope=row]')].filter((one) => one.offsetParent)"
    labels = in_page(visit, f"{lines}.map((one) => one.innerText)")
    assert labels[0] == "top-1, validation"  # outcomes first
    assert "ms on host" in labels
    assert "epochs" not in labels  # both had twelve
    visit.page.get_by_label("Show what is the same, too").check()
    assert "epochs" in " ".join(in_page(visit, f"{lines}.map((one) => one.innerText)"))
    visit.page.get_by_label("Show what is the same, too").uncheck()
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
    visit.page.keyboard.press("Escape")
    selected(visit)
    silent(visit, page)


# ---- the table ------------------------------------------------------------------------------------------


def test_the_table_filters_what_is_typed_sorts_and_shows_the_columns_that_fit(visit: Visit, page: str) -> None:
    grid = visit.page.locator("#trials-grid")
    grid.scroll_into_view_if_needed()
    viewport = "document.querySelector('#trials-grid .ag-center-cols-viewport')"
    assert in_page(visit, f"{viewport}.scrollWidth <= {viewport}.clientWidth")
    assert in_page(visit, HEADS)[1:] == ["trial", "state", "top-1", "measured ms on host", "macs", "params", "config"]
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
    longest = """(() => {
        const cell = document.querySelector('#trials-grid .latency-cell'), outer = cell.closest('.ag-cell');
        cell.querySelector('b').textContent = '0.05768';
        cell.querySelector('span').textContent = '[0.04269, 0.07776] *';
        return [outer, ...outer.querySelectorAll('*')].every((one) =>
            one.scrollWidth <= one.clientWidth + 1 || !one.clientWidth);
    })()"""
    assert in_page(visit, longest)
    in_page(visit, "window.dash_ag_grid.getApi('trials-grid').redrawRows()")  # as the server has them
    visit.wait("location.search === '?study=digits-small'")
    silent(visit, page)


def test_a_brush_on_the_parallel_coordinates_filters_the_table(visit: Visit, page: str) -> None:
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
    visit.wait("location.search.includes('brush=')")
    visit.page.get_by_role("button", name="Clear filters").click()
    visit.wait(f"{ROWS_SHOWN} === '' && location.search === '?study=digits-small'")  # or it would come back
    silent(visit, page)


# ---- the address ----------------------------------------------------------------------------------------


def test_what_a_reader_has_set_is_in_the_address_and_comes_back_with_it(visit: Visit, page: str) -> None:
    choose(visit, 11, 20)
    selected(visit, 11, 20)
    everyone = in_page(visit, f"{PARALLEL}.dimensions[0].values.length")
    visit.page.get_by_role("spinbutton", name=re.compile("Latency limit on host")).fill("0.3")
    visit.page.get_by_label("Log scale").check()
    visit.page.get_by_text("Other axes").click()
    visit.page.get_by_label("Across", exact=True).select_option("params")
    visit.page.get_by_label("Up", exact=True).select_option("time")
    visit.wait(f"{FRONT}.layout.yaxis.title.text === 'training time, s'")
    visit.page.get_by_label("Front only").check()
    visit.wait(f"{PARALLEL}.dimensions[0].values.length < {everyone}")
    assert in_page(visit, f"{PARALLEL}.customdata.length === {PARALLEL}.dimensions[0].values.length")  # for the marks
    visit.page.get_by_label("Keep").select_option("C")
    visit.page.get_by_label("from", exact=True).select_option(index=1)
    visit.page.locator("#columns-chooser > summary").click()
    visit.page.get_by_role("checkbox", name="reason").check()
    visit.page.get_by_role("checkbox", name="config").uncheck()
    visit.page.keyboard.press("Escape")
    assert in_page(visit, "document.activeElement.textContent") == "Columns"
    for _ in range(2):  # from the system's to light, to dark
        visit.page.get_by_role("button", name=re.compile("^Colours")).click()
    for word in ("trials=", "budget.host=0.3", "log=yes", "x=params", "y=time", "lines=front", "brush=C", "columns="):
        visit.wait(f"location.search.includes('{word}')")
    visit.wait("location.search.includes('theme=dark')")
    opened(visit, visit.page.url, TABLE)
    selected(visit, 11, 20)
    assert visit.page.get_by_role("spinbutton", name=re.compile("Latency limit on host")).input_value() == "0.3"
    assert in_page(visit, f"{FRONT}.layout.xaxis.title.text") == "parameters, k params"
    assert in_page(visit, f"{FRONT}.layout.yaxis.title.text") == "training time, s"
    assert in_page(visit, f"{FRONT}.layout.xaxis.type") == "log"
    visit.wait(f"({PARALLEL}.dimensions.find((one) => one.name === 'C').constraintrange || []).length")
    assert in_page(visit, f"{PARALLEL}.dimensions[0].values.length") < everyone
    visit.wait(f"JSON.stringify({HEADS}).includes('reason') && !JSON.stringify({HEADS}).includes('config')")
    assert in_page(visit, f"{FRONT}.layout.font.color") == "#e8eaed"
    visit.picture("page-dark")
    silent(visit, page)
