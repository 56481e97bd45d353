"""The live page while the database comes and goes, and a trial that is open goes on: what the reader sees stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.dashboards.browser import Visit, in_browser
from tests.dashboards.pages import CHARTS, TABLE, hidden, in_page, opened, served, silent, url_of
from tests.dashboards.studies import lively

pytestmark = [pytest.mark.browser, in_browser, pytest.mark.usefixtures("quick_clocks")]

LIVE = "document.getElementById('badge').textContent === 'Live'"
STALE = r"/^Stale: .* since \d\d:\d\d:\d\d$/.test(document.getElementById('badge').textContent)"
AWAY_S = 3.0  # longer than the pulse, at which a page asks for what no revision shows


def test_what_is_shown_stays_while_the_database_is_away_and_what_is_asked_then_comes_later(
    browser: Any, tmp_path: Path
) -> None:
    made = lively(tmp_path)
    with served(url_of(made)) as address, Visit(browser) as visit:
        opened(visit, f"{address}?trials=3", TABLE)
        visit.wait("document.getElementById('trial-3')")
        made.engine.dispose()
        (tmp_path / "study.db").rename(tmp_path / "away.db")
        visit.wait(STALE)
        visit.page.wait_for_timeout(1000 * AWAY_S)
        assert [name for name in CHARTS if hidden(visit, f"{name}-box")] == []
        assert "unable to open" in visit.text("#stale-reason")
        assert "trained networks fit" in visit.text("#sentence")
        visit.page.get_by_role("radio", name="Macs").check(force=True)
        visit.wait("document.getElementById('front-state').textContent.startsWith('The database is away')")
        visit.page.get_by_role("button", name="Compare with others").click()
        visit.page.get_by_label("Trial number").fill("4")
        visit.page.get_by_label("Trial number").press("Enter")
        visit.wait("document.getElementById('facts-body').textContent.includes('Trial 4: the database is away')")
        assert in_page(visit, "Boolean(document.getElementById('trial-3'))")
        visit.picture("page-away", full=False)
        (tmp_path / "away.db").rename(tmp_path / "study.db")
        visit.wait(LIVE)
        visit.wait("document.querySelector('#front-graph .js-plotly-plot')?.layout.xaxis.title.text.includes('macs')")
        visit.wait("document.getElementById('front-state').hidden && document.querySelector('table.differences')")
        visit.wait("!document.getElementById('page').innerText.includes('database is away')")
        assert visit.page.locator("#stale-reason").is_hidden()
        silent(visit, address)


def test_an_open_trial_keeps_its_zoom_and_what_is_unfolded_as_it_goes_on(browser: Any, tmp_path: Path) -> None:
    made = lively(tmp_path)
    (running,) = [row.number for row in made.rows() if row.state == "running"]
    graph = f"document.getElementById(JSON.stringify({{of: '{running}/curves', type: 'part-graph'}}))"
    plot = f"{graph}.querySelector('.js-plotly-plot')"
    settings = f"document.querySelector('[data-key=\"{running}/settings\"]')"
    with served(url_of(made)) as address, Visit(browser) as visit:
        opened(visit, f"{address}?trials={running}", TABLE)
        visit.wait(f"{plot}._fullLayout.xaxis.d2p")
        in_page(visit, f"{settings}.querySelector('summary').click()")
        in_page(visit, f"{graph}.scrollIntoView({{block: 'center'}})")
        area = f"{plot}.querySelector('.nsewdrag').getBoundingClientRect()"
        x, y, width, height = in_page(visit, f"['x', 'y', 'width', 'height'].map((name) => {area}[name])")
        visit.page.mouse.move(x + 0.2 * width, y + 0.3 * height)
        visit.page.mouse.down()
        visit.page.mouse.move(x + 0.6 * width, y + 0.7 * height, steps=5)
        visit.page.mouse.up()
        visit.wait(f"{plot}.layout.xaxis.range && {plot}.layout.xaxis.autorange === false")
        ranges = f"JSON.stringify([{plot}.layout.xaxis.range, {plot}.layout.yaxis.range])"
        zoomed = in_page(visit, ranges)
        epochs = f"Math.max(...{plot}._fullData.map((trace) => trace.x.length))"
        before = in_page(visit, epochs)
        row = {"train_loss": 0.5, "val_loss": 0.5, "val_top1": 0.9, "learning_rate": 0.1, "condensing_stage": 3}
        for epoch in (6, 7):
            made.store.add_curve_row(
                running, {**row, "epoch": epoch, "progress": epoch / 12, "form": "condensed", "seconds": 1.0 * epoch}, 1
            )
            visit.wait(f"{epochs} > {before}")
            before = in_page(visit, epochs)
            visit.page.wait_for_timeout(300)
            assert json.loads(in_page(visit, ranges)) == json.loads(zoomed)
            assert in_page(visit, f"{settings}.open")
        silent(visit, address)


def test_the_trials_table_fills_also_after_another_source_took_its_loads(browser: Any, tmp_path: Path) -> None:
    """The component's own source, which a slow page may meet, answers nobody: its loads count as under way for good."""
    made = lively(tmp_path)
    grid = "window.dash_ag_grid.getApi('trials-grid')"
    with served(url_of(made)) as address, Visit(browser) as visit:
        opened(visit, address, TABLE)
        foreign = "{ getRows: () => {} }"
        in_page(visit, f"{{ for (let i = 0; i < 3; i++) {{ {grid}.setGridOption('datasource', {foreign}); }} }}")
        visit.wait(f"{grid}.getCacheBlockState()[0].pageStatus === 'loaded' && {TABLE}")
        silent(visit, address)


def test_a_brush_is_set_by_keyboard_and_kept_as_the_study_grows(browser: Any, tmp_path: Path) -> None:
    made = lively(tmp_path)
    lines = "document.querySelector('#parallel-graph .js-plotly-plot')._fullData[0]"
    brush = f"JSON.stringify({lines}.dimensions.find((one) => one.name === 'score').constraintrange)"
    with served(url_of(made)) as address, Visit(browser) as visit:
        opened(visit, address, TABLE)
        before = in_page(visit, f"{lines}._length")
        visit.page.get_by_label("Keep", exact=True).focus()
        visit.page.keyboard.press("End")  # the last axis: top-1
        visit.page.keyboard.press("Tab")
        visit.page.keyboard.press("End")
        visit.wait("window.CondenseryPage.state.brush?.[0][0] === 'score'")
        least = in_page(visit, "window.CondenseryPage.state.brush[0][1][0][0]")
        drawn = json.loads(in_page(visit, brush))
        assert drawn[1] == pytest.approx(100 * max(row.top1 or 0 for row in made.rows()))  # the best is inside
        rows = "document.getElementById('rows-shown').textContent"
        inside = sum(100 * (row.top1 or 0) >= least for row in made.rows())
        visit.wait(f"{rows} === '{inside} of 32 trials, brushed'")
        made.done(0.2, 0.998)
        visit.wait(f"{rows} === '{inside + 1} of 33 trials, brushed'")
        visit.wait(f"{lines}._length === {before + 1}")
        assert json.loads(in_page(visit, brush)) == pytest.approx([drawn[0], 99.8])
        assert in_page(visit, rows) == f"{inside + 1} of 33 trials, brushed"
        visit.page.get_by_role("button", name="Clear filters").click()
        visit.wait(f"{rows} === ''")
        assert in_page(visit, "document.getElementById('brush-from').value") == ""
        silent(visit, address)


def slow_down(visit: Visit, path: str, seconds: float) -> None:
    """Hold back what the page asks for under this path from now on."""
    wait = f"await new Promise((done) => setTimeout(done, {1000 * seconds}))"
    held = f"if (String(asked).startsWith('{path}')) {{ {wait}; }} return fetch(asked, ...more);"
    in_page(visit, f"{{ const fetch = window.fetch; window.fetch = async (asked, ...more) => {{ {held} }}; }}")


def test_answers_that_take_longer_than_the_time_between_two_questions_still_count(browser: Any, tmp_path: Path) -> None:
    made = lively(tmp_path)
    with served(url_of(made)) as address, Visit(browser) as visit:
        opened(visit, address, TABLE)
        slow_down(visit, "/news", 1.0)
        made.done(0.2, 0.95)
        visit.wait("document.getElementById('counts').textContent.startsWith('33')")
        visit.wait(f"{TABLE} && {LIVE}")
        silent(visit, address)


def test_a_page_whose_server_computes_for_longer_than_a_poll_goes_on_while_the_study_grows(
    browser: Any, tmp_path: Path
) -> None:
    made = lively(tmp_path)
    number = "Number(document.getElementById('counts').textContent.match(/^\\d+/)[0])"
    with served(url_of(made)) as address, Visit(browser) as visit:
        opened(visit, address, TABLE)
        slow_down(visit, "/_dash-update-component", 0.8)
        seen = set()
        for grown in range(120):
            made.done(0.2, 0.9 + grown / 2000)
            visit.page.wait_for_timeout(300)
            seen.add(in_page(visit, number))
            if len(seen) == 3:
                break
        assert len(seen) == 3
        silent(visit, address)


def test_an_answer_that_comes_after_a_later_one_does_not_say_how_many_trials_there_are(
    browser: Any, tmp_path: Path
) -> None:
    made = lively(tmp_path)
    rows = "document.getElementById('rows-shown').textContent"
    with served(url_of(made)) as address, Visit(browser) as visit:
        opened(visit, address, TABLE)
        late: list[Any] = []

        def hold(route: Any) -> None:
            """Keep the first answer back until the filtered one is there."""
            late.append(route)
            if len(late) > 1:
                route.continue_()

        visit.page.route("**/rows?*", hold)
        in_page(visit, "window.CondenseryPage.parts.refreshRows()")
        for _ in range(600):
            visit.page.wait_for_timeout(50)
            if late:
                break
        visit.page.locator("#trials-grid").get_by_role("textbox", name="state Filter Input").fill("fail")
        visit.wait(f"{rows} === '1 of 32 trials'")
        with visit.page.expect_event("requestfinished", lambda request: request == late[0].request):
            late[0].continue_()
        visit.page.wait_for_timeout(500)  # the page takes it
        assert in_page(visit, rows) == "1 of 32 trials"
        visit.page.unroute("**/rows?*", hold)
        silent(visit, address)
