"""The report in a real browser, from disk: it draws, asks for nothing, complains of nothing, and fits."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from dashboards.report.report import write_report
from search.store.connection.database import open_for_reading
from tests.dashboards.browser import Visit, contrast, in_browser
from tests.dashboards.report.report_visits import READY, mark_of, numbers_shown, scroll_to
from tests.dashboards.studies import Study

pytestmark = [pytest.mark.browser, in_browser, pytest.mark.slow(seconds=4)]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, ten_thousand: tuple[Path, str]) -> Path:
    """The report of 10,000 trials."""
    database, name = ten_thousand
    report = tmp_path_factory.mktemp("large") / "report.html"
    engine = open_for_reading(f"sqlite:///{database}")
    write_report(engine, name, report)
    engine.dispose()
    return report


# ---- looks ----------------------------------------------------------------------------------------------


def test_every_chart_draws_without_a_word_or_a_request(visit: Visit) -> None:
    draws_everything(visit, 1200)
    visit.picture("report-light")
    assert brightness(visit) > 600


def test_every_chart_draws_on_a_phone_in_dark(browser: Any, lively_study: Study) -> None:
    path = lively_study.folder / "report.html"
    with Visit(browser, 400, scheme="dark") as visit:
        visit.open(path, READY)
        draws_everything(visit, 400)
        visit.picture("report-narrow")
        assert brightness(visit) < 100
        assert visit.complaints == []
        assert visit.requests == [path.as_uri()]


def draws_everything(visit: Visit, width: int) -> None:
    for chart in ("front", "macs-latency", "parallel", "curves", "networks", "progress", "belief"):
        scroll_to(visit, chart)
    visit.page.evaluate("() => window.scrollTo(0, 0)")
    assert visit.page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert visit.page.locator("#front-chart .scatterlayer .trace").count() >= 4
    for paper in visit.colours("--ground", "--surface"):
        for ink in visit.colours("--ink", "--muted", "--accent", "--good", "--warn", "--bad"):
            assert contrast(ink, paper) >= 4.5, (ink, paper)
        for mark in visit.colours("--control", "--star"):
            assert contrast(mark, paper) >= 3, (mark, paper)


def brightness(visit: Visit) -> int:
    """Return the sum of red, green and blue of the page's ground."""
    ground = visit.page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    return sum(map(int, re.findall(r"\d+", ground)))


def test_the_charts_follow_a_change_of_the_readers_colours_and_print_in_light_ones(visit: Visit) -> None:
    ink = "document.getElementById('front-chart').layout.font.color"
    light = visit.page.evaluate(f"() => {ink}")
    assert light == visit.colours("--ink")[0]
    visit.page.emulate_media(color_scheme="dark")
    visit.wait(f"{ink} !== '{light}'")
    draws_everything(visit, 1200)
    visit.page.emulate_media(color_scheme="dark", media="print")
    visit.wait(f"{ink} === '{light}'")
    assert visit.page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not visit.page.locator("#copy-pick").is_visible()
    visit.picture("report-print")
    visit.page.emulate_media(color_scheme="light", media="screen")
    visit.wait(f"{ink} === '{light}'")


def test_every_control_has_a_name(visit: Visit) -> None:
    scroll_to(visit, "networks")
    nameless = visit.page.evaluate(
        "() => [...document.querySelectorAll('main button, main input, main select, main [tabindex]')].filter((one) =>"
        " !one.closest('.js-plotly-plot') && !(one.ariaLabel || one.labels?.length || one.textContent.trim()))"
        ".map((one) => one.outerHTML)"
    )
    assert nameless == []


def test_without_scripts_the_answer_and_the_front_can_be_read(browser: Any, lively_study: Study) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((lively_study.folder / "report.html").as_uri())
    assert "trained networks fit 0.4 ms. Best: trial" in page.locator("#sentence").inner_text()
    assert "Without scripts" in page.locator("#answer").inner_text()
    page.locator("#front-data-table summary").click()
    assert page.locator("#front-data-table tbody tr").first.is_visible()
    context.close()


def test_a_browser_that_cannot_unpack_says_so_in_place_of_the_charts(browser: Any, lively_study: Study) -> None:
    with Visit(browser) as visit:
        visit.context.add_init_script("delete window.DecompressionStream;")
        visit.open(lively_study.folder / "report.html", "!document.getElementById('cannot').hidden")
        assert "This browser can't unpack the charts" in visit.text("#front-state")
        assert "Best: trial" in visit.text("#sentence")
        assert visit.complaints == []


# ---- charts ---------------------------------------------------------------------------------------------


def test_accuracy_can_be_set_against_macs_and_params(visit: Visit) -> None:
    title = "document.getElementById('front-chart').layout.xaxis.title.text"
    before = visit.text("#front-caption")
    for choice, words in (("multiply-adds", "multiply-adds"), ("parameters", "parameters")):
        visit.page.locator("#view").select_option(choice)
        visit.wait(f"{title}.startsWith('{words}')")
        assert mark_of(visit, "front", "line") is None  # the limit is on latency
    assert visit.text("#front-caption") != before
    visit.page.locator("#view").select_option(index=0)
    visit.wait(f"{title}.includes('latency')")
    assert visit.text("#front-caption") == before
    assert mark_of(visit, "front", "line") is not None


def test_a_range_on_a_parallel_axis_lists_the_networks_it_holds(visit: Visit, lively_study: Study) -> None:
    scroll_to(visit, "parallel")
    low, high = visit.page.evaluate(
        "() => { const chart = document.getElementById('parallel-chart');"
        "const top1 = chart._fullData[0].dimensions.length - 1;"
        "return Plotly.restyle(chart, {[`dimensions[${top1}].constraintrange`]: [[90, 93]]}, [0])"
        ".then(() => chart._fullData[0].dimensions[top1].constraintrange); }"
    )  # what Plotly made of it: it snaps to ticks
    held = [row.number for row in lively_study.rows() if row.top1 is not None and low <= 100 * row.top1 <= high]
    assert 0 < len(held) < 20
    assert numbers_shown(visit) == held
    visit.page.get_by_role("button", name="Clear the chart's selection").click()
    assert len(numbers_shown(visit)) == 32
    visit.wait("!document.getElementById('parallel-chart')._fullData[0].dimensions.some((one) => one.constraintrange)")


def test_another_network_of_the_front_can_be_drawn(visit: Visit) -> None:
    scroll_to(visit, "networks")
    title = "document.getElementById('networks-chart').layout.title.text"
    first = visit.page.evaluate(f"() => {title}")
    best = visit.page.evaluate("() => document.querySelector('tr.pick').dataset.number")
    assert first.startswith(f"trial {best}:")  # it opens with the recommended one
    visit.page.locator("#network").select_option(index=2)
    visit.wait(f"{title} !== {json.dumps(first)}")
    number = visit.page.evaluate(f"() => {title}").partition(":")[0]
    visit.page.locator("#networks-settings summary").click()
    assert '"stages"' in visit.text("#networks-settings pre")
    visit.page.locator("#networks-data-table summary").click()
    assert "whole network" in visit.text("#networks-data-table")
    assert visit.page.locator("#network option:checked").inner_text().startswith(number)
    for summary in ("#networks-settings summary", "#networks-data-table summary"):
        visit.page.locator(summary).click()
    visit.page.locator("#network").select_option(index=0)


# ---- ten thousand trials --------------------------------------------------------------------------------


@pytest.mark.slow(seconds=40)
def test_ten_thousand_trials_fit_into_six_megabytes_and_are_all_there(browser: Any, large: Path) -> None:
    assert large.stat().st_size < 6_000_000
    with Visit(browser) as visit:
        visit.open(large, READY, timeout_s=90)
        assert visit.page.locator("#front-chart .gl-container").count() == 1
        assert visit.page.locator(".no-webgl").count() == 0
        assert visit.text("#trials-note") == "1 to 50 of 10,000"
        visit.page.locator("#trials-table th button", has_text=re.compile("^trial$")).click()
        visit.page.locator("#trials-table th button", has_text=re.compile("^trial$")).click()
        assert numbers_shown(visit) == list(range(9999, 9949, -1))
        visit.page.get_by_role("button", name="Next page").click()
        assert visit.text("#trials-note") == "51 to 100 of 10,000"
        before = visit.text("#sentence")
        visit.page.locator("#range-0").focus()
        visit.page.keyboard.press("PageDown")
        visit.wait(f"document.getElementById('sentence').innerText !== {json.dumps(before)}")
        with visit.page.expect_download() as download:
            visit.page.get_by_role("button", name="Download CSV").click()
        text = Path(download.value.path()).read_text(encoding="utf-8-sig")
        assert len(list(csv.reader(io.StringIO(text)))) == 10_001
        visit.picture("report-10000-trials", full=False)
        assert visit.complaints == []
        assert visit.requests == [large.as_uri()]
