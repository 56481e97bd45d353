"""The live page while its study grows and the database comes and goes: what the reader sees and has set stays.

Opening the page takes longest, so one visit goes on through all tests; the study grows from one to the next.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from dashboards.page import charts, layout, study_cache
from search.store.studies import create_study
from tests.dashboards.browser import KeptVisit, Visit, in_browser
from tests.dashboards.pages import CHARTS, FRONT, TABLE, choose, hidden, in_page, kept, served, silent, url_of, zoom_of
from tests.dashboards.studies import SETTINGS, Study, away
from tests.waiting import until

pytestmark = [pytest.mark.browser, in_browser, pytest.mark.slow(seconds=6)]

LIVE = "document.getElementById('badge').textContent === 'Live'"
STALE = r"/^Stale: .* since \d\d:\d\d:\d\d$/.test(document.getElementById('badge').textContent)"
COUNT = "Number(document.getElementById('counts').textContent.match(/^\\d+/)[0])"
ROWS_SHOWN = "document.getElementById('rows-shown').textContent"
CURVE_ROW = {"train_loss": 0.5, "val_loss": 0.5, "val_top1": 0.9, "learning_rate": 0.1, "condensing_stage": 3}


@pytest.fixture(scope="module")
def address(study: Study) -> Iterator[str]:
    """The page of the study; it asks several times a second, and costly charts follow within one."""
    with pytest.MonkeyPatch.context() as clocks:
        clocks.setattr(layout, "POLL_MS", 300)
        clocks.setattr(charts, "PULSE_S", 1.0)
        clocks.setattr(study_cache, "COSTLY_EVERY_S", 1.0)
        with served(url_of(study)) as address:
            yield address


@pytest.fixture(scope="module")
def kept_visit(browser: Any, address: str) -> Iterator[KeptVisit]:
    with Visit(browser) as visit:
        yield kept(visit, address)


@pytest.fixture
def visit(kept_visit: KeptVisit, study: Study) -> Visit:
    visit = kept_visit.again()
    visit.wait(f"{COUNT} === {len(study.rows())} && {TABLE} && {LIVE}")
    return visit


def grown(visit: Visit, study: Study) -> None:
    """Wait until the page shows all trials."""
    visit.wait(f"{COUNT} === {len(study.rows())}")


def dragged(visit: Visit, area: str, begin: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag over an element that a JavaScript expression gives, between two shares of its width and height."""
    in_page(visit, f"{area}.scrollIntoView({{ block: 'center' }})")
    box = f"{area}.getBoundingClientRect()"
    x, y, width, height = in_page(visit, f"['x', 'y', 'width', 'height'].map((name) => {box}[name])")
    visit.page.mouse.move(x + begin[0] * width, y + begin[1] * height)
    visit.page.mouse.down()
    visit.page.mouse.move(x + end[0] * width, y + end[1] * height, steps=5)
    visit.page.mouse.up()


# ---- a study that grows ---------------------------------------------------------------------------------


def test_a_brush_is_set_by_keyboard_and_kept_as_the_study_grows(visit: Visit, address: str, study: Study) -> None:
    lines = "document.querySelector('#parallel-graph .js-plotly-plot')._fullData[0]"
    brush = f"JSON.stringify({lines}.dimensions.find((one) => one.name === 'score').constraintrange)"
    before, trials = in_page(visit, f"{lines}._length"), len(study.rows())
    visit.page.get_by_label("Keep", exact=True).focus()
    visit.page.keyboard.press("End")  # the last axis: top-1
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.press("End")
    visit.wait("window.CondenseryPage.state.brush?.[0][0] === 'score'")
    least = in_page(visit, "window.CondenseryPage.state.brush[0][1][0][0]")
    visit.wait(f"{brush} !== undefined")
    drawn = json.loads(in_page(visit, brush))
    assert drawn[1] == pytest.approx(100 * max(row.top1 or 0 for row in study.rows()))  # the best is inside
    inside = sum(100 * (row.top1 or 0) >= least for row in study.rows())
    visit.wait(f"{ROWS_SHOWN} === '{inside} of {trials} trials, brushed'")
    study.done(0.2, 0.992)
    visit.wait(f"{ROWS_SHOWN} === '{inside + 1} of {trials + 1} trials, brushed'")
    visit.wait(f"{lines}._length === {before + 1}")
    assert json.loads(in_page(visit, brush)) == pytest.approx([drawn[0], 99.2])
    assert in_page(visit, ROWS_SHOWN) == f"{inside + 1} of {trials + 1} trials, brushed"
    visit.page.get_by_role("button", name="Clear filters").click()
    visit.wait(f"{ROWS_SHOWN} === '' && !location.search.includes('brush')")
    assert in_page(visit, "document.getElementById('brush-from').value") == ""
    silent(visit, address)


def test_a_growing_study_shows_its_new_trials_and_keeps_what_the_reader_has_set(
    visit: Visit, address: str, study: Study
) -> None:
    choose(visit, 4)
    visit.wait("document.getElementById('trial-4')")
    number = visit.page.get_by_role("spinbutton", name=re.compile("Latency limit on host"))
    number.fill("0.25")
    visit.wait("location.search.includes('budget.host=0.25')")
    before = zoom_of(visit)
    dragged(visit, "document.querySelector('#front-graph .nsewdrag')", (0.1, 0.2), (0.5, 0.8))
    zoomed = until(lambda: (found := zoom_of(visit)) != before and found)
    in_page(visit, "document.querySelector('#trials-grid .ag-body-viewport').scrollTop = 300")
    for top1 in (0.951, 0.952, 0.999):
        study.done(0.2, top1)
    grown(visit, study)
    visit.wait("document.getElementById('sentence').textContent.includes('99.90 %')")
    visit.wait(f"{FRONT}.calcdata.flat().some((point) => Math.abs(point.y - 99.9) < 1e-3)")
    assert zoom_of(visit) == zoomed
    assert number.input_value() == "0.25"
    assert in_page(visit, "document.querySelector('#trials-grid .ag-body-viewport').scrollTop") == 300
    assert in_page(visit, "Boolean(document.getElementById('trial-4'))")
    assert visit.text("#badge") == "Live"
    number.fill("0.4")
    choose(visit)
    visit.wait("location.search === '?study=digits-small'")
    silent(visit, address)


def test_an_open_trial_keeps_its_zoom_and_what_is_unfolded_as_it_goes_on(
    visit: Visit, address: str, study: Study
) -> None:
    (running,) = [row.number for row in study.rows() if row.state == "running"]
    graph = f"document.getElementById(JSON.stringify({{of: '{running}/curves', type: 'part-graph'}}))"
    plot = f"{graph}.querySelector('.js-plotly-plot')"
    settings = f"document.querySelector('[data-key=\"{running}/settings\"]')"
    choose(visit, running)
    visit.wait(f"{plot}._fullLayout.xaxis.d2p")
    in_page(visit, f"{settings}.querySelector('summary').click()")
    dragged(visit, f"{plot}.querySelector('.nsewdrag')", (0.2, 0.3), (0.6, 0.7))
    visit.wait(f"{plot}.layout.xaxis.range && {plot}.layout.xaxis.autorange === false")
    ranges = f"JSON.stringify([{plot}.layout.xaxis.range, {plot}.layout.yaxis.range])"
    zoomed = in_page(visit, ranges)
    epochs = f"Math.max(...{plot}._fullData.map((trace) => trace.x.length))"
    for epoch in (6, 7):
        before = in_page(visit, epochs)
        row = {**CURVE_ROW, "epoch": epoch, "progress": epoch / 12, "form": "condensed", "seconds": 1.0 * epoch}
        study.store.add_curve_row(running, row, 1)
        visit.wait(f"{epochs} > {before} && {ranges} === {json.dumps(zoomed)} && {settings}.open")
    choose(visit)
    visit.wait("location.search === '?study=digits-small'")
    silent(visit, address)


# ---- answers that come late -----------------------------------------------------------------------------


def test_the_trials_table_fills_also_after_another_source_took_its_loads(visit: Visit, address: str) -> None:
    """The component's own source, which a slow page may meet, answers nobody: its loads count as under way for good."""
    grid = "window.dash_ag_grid.getApi('trials-grid')"
    foreign = "{ getRows: () => {} }"
    in_page(visit, f"{{ for (let i = 0; i < 3; i++) {{ {grid}.setGridOption('datasource', {foreign}); }} }}")
    visit.wait(f"{grid}.getCacheBlockState()[0].pageStatus === 'loaded' && {TABLE}")
    silent(visit, address)


@pytest.fixture
def slowed(visit: Visit) -> Iterator[Any]:
    """What holds back the answers to what the page asks for under a path, so many seconds; until the test's end."""

    def slow_down(path: str, seconds: float) -> None:
        wait = f"await new Promise((done) => setTimeout(done, {1000 * seconds}))"
        held = f"if (String(asked).startsWith('{path}')) {{ {wait}; }} return window.quickFetch(asked, ...more);"
        in_page(visit, "{ window.quickFetch = window.fetch; }")
        in_page(visit, f"{{ window.fetch = async (asked, ...more) => {{ {held} }}; }}")

    yield slow_down
    in_page(visit, "{ window.fetch = window.quickFetch; }")


def test_answers_that_take_longer_than_the_time_between_two_questions_still_count(
    visit: Visit, address: str, study: Study, slowed: Any
) -> None:
    slowed("/news", 1.0)
    study.done(0.2, 0.95)
    grown(visit, study)
    visit.wait(f"{TABLE} && {LIVE}")
    silent(visit, address)


def test_a_page_whose_server_computes_for_longer_than_a_poll_goes_on_while_the_study_grows(
    visit: Visit, address: str, study: Study, slowed: Any
) -> None:
    slowed("/_dash-update-component", 0.8)
    seen: set[int] = set()

    def has_been_seen_growing() -> bool:
        study.done(0.2, 0.9)
        visit.page.wait_for_timeout(300)  # new trials come faster than the page's answers
        seen.add(in_page(visit, COUNT))
        return len(seen) == 3

    until(has_been_seen_growing)
    silent(visit, address)


def test_an_answer_that_comes_after_a_later_one_does_not_say_how_many_trials_there_are(
    visit: Visit, address: str, study: Study
) -> None:
    late: list[Any] = []
    shown = f"1 of {len(study.rows())} trials"

    def hold(route: Any) -> None:
        """Keep the first answer back until the filtered one is there."""
        late.append(route)
        if len(late) > 1:
            route.continue_()

    visit.page.route("**/rows?*", hold)
    in_page(visit, "window.CondenseryPage.parts.refreshRows()")
    until(lambda: visit.page.wait_for_timeout(50) or late)
    visit.page.locator("#trials-grid").get_by_role("textbox", name="state Filter Input").fill("fail")
    visit.wait(f"{ROWS_SHOWN} === '{shown}'")
    with visit.page.expect_event("requestfinished", lambda request: request == late[0].request):
        late[0].continue_()
    visit.page.wait_for_timeout(500)  # the page takes it
    assert in_page(visit, ROWS_SHOWN) == shown
    visit.page.unroute("**/rows?*", hold)
    visit.page.get_by_role("button", name="Clear filters").click()
    visit.wait(f"{ROWS_SHOWN} === ''")
    silent(visit, address)


# ---- a database that comes and goes ---------------------------------------------------------------------


def test_what_is_shown_stays_while_the_database_is_away_and_what_is_asked_then_comes_later(
    visit: Visit, address: str, study: Study
) -> None:
    choose(visit, 3)
    visit.wait("document.getElementById('trial-3')")
    with away(study):
        visit.wait(STALE)
        visit.page.wait_for_timeout(3000)  # longer than the pulse, at which a page asks for what no revision shows
        assert [name for name in CHARTS if hidden(visit, f"{name}-box")] == []
        assert "study.db can't be " in visit.text("#stale-reason")
        assert "trained networks fit" in visit.text("#sentence")
        visit.page.get_by_role("radio", name="Macs").check(force=True)
        visit.wait("document.getElementById('front-state').textContent.startsWith('The database is away')")
        visit.page.get_by_role("button", name="Compare with others").click()
        visit.page.get_by_label("Trial number").fill("7")  # which nobody has looked at yet
        visit.page.get_by_label("Trial number").press("Enter")
        visit.wait("document.getElementById('facts-body').textContent.includes('Trial 7: the database is away')")
        assert in_page(visit, "Boolean(document.getElementById('trial-3'))")
        visit.picture("page-away", full=False)
    visit.wait(LIVE)
    visit.wait("document.querySelector('#front-graph .js-plotly-plot')?.layout.xaxis.title.text.includes('macs')")
    visit.wait("document.getElementById('front-state').hidden && document.querySelector('table.differences')")
    visit.wait("!document.getElementById('page').innerText.includes('database is away')")
    visit.page.locator("#stale-reason").wait_for(state="hidden")
    visit.page.get_by_role("radio", name="Latency").check(force=True)
    choose(visit)
    visit.wait("location.search === '?study=digits-small'")
    silent(visit, address)


def test_the_address_names_the_study_and_all_studies_are_offered_where_there_are_several(
    visit: Visit, address: str, study: Study
) -> None:
    """The last one here: the other study stays."""
    assert in_page(visit, "location.search") == "?study=digits-small"
    assert visit.page.locator("#all-studies").is_hidden()
    create_study(study.engine, "another", 2, SETTINGS, ("a" * 64, "c" * 64))
    study.done(0.2, 0.95)
    visit.wait("!document.getElementById('all-studies').hidden")
    grown(visit, study)
    assert in_page(visit, "document.getElementById('name').textContent") == "digits-small"
    silent(visit, address)
