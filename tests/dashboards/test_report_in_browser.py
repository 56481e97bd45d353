"""The report in a real browser, from disk: it draws, answers budgets, asks for nothing, complains of nothing, fits."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.dashboard_fill import fill
from dashboards.budget import BudgetTable
from dashboards.formats import budget_of, count, duration
from dashboards.queries import read_columns
from dashboards.report import write_report
from search.store.database import open_for_reading
from tests.dashboards.browser import Visit, contrast, in_browser
from tests.dashboards.panel_studies import HOSTILE
from tests.dashboards.studies import SETTINGS, Study, lively

pytestmark = [pytest.mark.browser, in_browser]

READY = "performance.getEntriesByName('condensery-ready').length"
DRAWN = "document.querySelector('#{}-chart .main-svg')"
TWO_DEVICES = {
    **SETTINGS,
    "latency": {**SETTINGS["latency"], "devices": ["host", "pi5"]},
    "budget": {"max_latency_ms": {"host": 0.4, "pi5": 30.0}},
}
LIMITS = 300  # drawn for each study


@pytest.fixture(scope="module")
def lively_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    made = lively(tmp_path_factory.mktemp("lively"))
    write_report(made.engine, made.name, made.folder / "report.html")
    return made


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of 10,000 trials."""
    folder = tmp_path_factory.mktemp("large")
    url = f"sqlite:///{folder / 'study.db'}"
    name = fill(url, 10_000, epochs=4)
    engine = open_for_reading(url)
    write_report(engine, name, folder / "report.html")
    engine.dispose()
    return folder / "report.html"


@pytest.fixture
def visit(browser: Any, lively_study: Study) -> Iterator[Visit]:
    with Visit(browser) as opened:
        path = lively_study.folder / "report.html"
        yield opened.open(path, READY)
        assert opened.complaints == []
        assert opened.requests == [path.as_uri()]


def scroll_to(visit: Visit, name: str) -> None:
    visit.page.evaluate(f"() => document.getElementById('{name}').scrollIntoView()")
    visit.wait(DRAWN.format(name))


def mark_of(visit: Visit, chart: str, mark: str) -> list[float] | None:
    """Where a chart's budget line or star stands, in the units of its axes; None: it isn't seen."""
    found: list[float] | None = visit.page.evaluate(
        "([chart, mark]) => { const graph = document.getElementById(`${chart}-chart`);"
        "const one = graph.parentElement.querySelector(`.mark.${mark}`), full = graph._fullLayout;"
        "if (!one || one.hidden || one.closest('[hidden]')) { return null; }"
        "const [, x, y] = one.style.transform.match(/translate\\(([-0-9.e]+)px, ([-0-9.e]+)px/);"
        "const value = (axis, px) => axis.p2d(px - axis._offset);"
        "return [value(full.xaxis, Number(x)), value(full.yaxis, Number(y))]; }",
        [chart, mark],
    )
    return found


# ---- looks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [("report-light", 1200, "light"), ("report-dark", 1200, "dark"), ("report-narrow", 400, "light")],
)
def test_every_chart_draws_without_a_word_or_a_request(
    browser: Any, lively_study: Study, name: str, width: int, scheme: str
) -> None:
    path = lively_study.folder / "report.html"
    with Visit(browser, width, scheme=scheme) as visit:
        visit.open(path, READY)
        for chart in ("front", "macs-latency", "parallel", "curves", "networks", "progress"):
            scroll_to(visit, chart)
        visit.page.evaluate("() => window.scrollTo(0, 0)")
        visit.picture(name)
        assert visit.page.evaluate("() => document.documentElement.scrollWidth") <= width
        assert visit.page.locator("#front-chart .scatterlayer .trace").count() >= 4
        ground = visit.page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        assert sum(map(int, re.findall(r"\d+", ground))) < 100 if scheme == "dark" else 600
        assert visit.complaints == []
        assert visit.requests == [path.as_uri()]


def test_the_charts_follow_a_change_of_the_readers_colours_and_print_in_light_ones(visit: Visit) -> None:
    ink = "document.getElementById('front-chart').layout.font.color"
    light = visit.page.evaluate(f"() => {ink}")
    assert light == visit.colours("--ink")[0]
    visit.page.emulate_media(color_scheme="dark")
    visit.wait(f"{ink} !== '{light}'")
    visit.page.emulate_media(color_scheme="dark", media="print")
    visit.wait(f"{ink} === '{light}'")
    assert visit.page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not visit.page.locator("#copy-pick").is_visible()
    visit.picture("report-print")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_a_contrast_of_at_least_4_5_and_controls_of_3(browser: Any, lively_study: Study, scheme: str) -> None:
    with Visit(browser, scheme=scheme) as visit:
        visit.open(lively_study.folder / "report.html", READY)
        papers = visit.colours("--ground", "--surface")
        for paper in papers:
            for ink in visit.colours("--ink", "--muted", "--accent", "--good", "--warn", "--bad"):
                assert contrast(ink, paper) >= 4.5, (ink, paper)
            for mark in visit.colours("--control", "--star"):
                assert contrast(mark, paper) >= 3, (mark, paper)


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
    page.locator("#front-twin summary").click()
    assert page.locator("#front-twin tbody tr").first.is_visible()
    context.close()


def test_a_browser_that_cannot_unpack_says_so_in_place_of_the_charts(browser: Any, lively_study: Study) -> None:
    with Visit(browser) as visit:
        visit.context.add_init_script("delete window.DecompressionStream;")
        visit.open(lively_study.folder / "report.html", "!document.getElementById('cannot').hidden")
        assert "This browser can't unpack the charts" in visit.text("#front-state")
        assert "Best: trial" in visit.text("#sentence")
        assert visit.complaints == []


# ---- the budget -----------------------------------------------------------------------------------------


def test_keys_alone_move_the_budget_the_answer_the_line_and_the_star(visit: Visit, lively_study: Study) -> None:
    columns = read_columns(lively_study.engine, lively_study.name)
    table = BudgetTable.of(columns, budget_of(columns.study.settings))
    scroll_to(visit, "macs-latency")
    visit.page.locator("#range-0").focus()
    seen = set()
    for key in ("ArrowLeft", *["PageDown"] * 7, "Home"):
        before = visit.page.evaluate("() => performance.getEntriesByName('condensery-budget').length")
        visit.page.keyboard.press(key)
        visit.wait(f"performance.getEntriesByName('condensery-budget').length > {before}")
        limit = float(visit.page.locator("#number-0").input_value())
        best = table.answer({"host": limit}).best
        assert visit.page.evaluate("() => document.getElementById('sentence').innerText.replaceAll(/\\s+/g, ' ')") == (
            table.sentence({"host": limit})
        )
        line, level = mark_of(visit, "front", "line"), mark_of(visit, "macs-latency", "line")
        assert line is None or line[0] == pytest.approx(limit, rel=1e-3)  # beyond an end only its label is seen
        assert level is None or level[1] == pytest.approx(limit, rel=1e-3)
        assert f"budget {limit:g} ms" in visit.text("#front .mark.label")
        offer, star = None if best is None else table.offers[best], mark_of(visit, "front", "star")
        assert star == (None if offer is None else pytest.approx([offer.median_ms[0], 100 * offer.top1], rel=1e-3))
        seen.add(star and tuple(star))
    assert len(seen) >= 3
    assert "0 of" in visit.text("#sentence")  # at the lowest limit nothing fits
    assert not visit.page.locator("#copy-pick").is_visible()


def test_a_number_no_limit_and_reset_can_be_given_and_stay_in_the_address(visit: Visit) -> None:
    first = visit.text("#sentence")
    visit.page.get_by_label("Latency limit on host in ms").fill("0.2")
    visit.wait("document.getElementById('sentence').innerText.includes(' fit 0.2 ms')")
    visit.wait("window.location.search === '?budget.host=0.2'")
    visit.page.get_by_role("button", name="No limit on host").click()
    visit.wait("document.getElementById('sentence').innerText.includes(' fit no limit')")
    visit.wait("window.location.search === '?budget.host=none'")
    visit.page.get_by_role("button", name="The first limit on host").click()
    visit.wait(f"document.getElementById('sentence').innerText === {json.dumps(first)}")
    visit.wait("window.location.search === ''")


def test_an_address_with_a_budget_opens_with_it(browser: Any, lively_study: Study) -> None:
    with Visit(browser) as visit:
        visit.open((lively_study.folder / "report.html").as_uri() + "?budget.host=0.25", READY)
        assert "fit 0.25 ms" in visit.text("#sentence")
        assert mark_of(visit, "front", "line")[0] == pytest.approx(0.25, rel=1e-3)  # type: ignore[index]


def test_the_pick_command_can_be_copied(visit: Visit) -> None:
    visit.page.get_by_role("button", name="Copy pick command").click()
    visit.wait("document.getElementById('copied').textContent === 'Copied.'")
    copied = visit.page.evaluate("() => navigator.clipboard.readText()")
    assert copied == "condensery pick digits-small --max-latency-ms 0.4 --out bundle"


def on_two_devices(folder: Path) -> Study:
    made = Study(folder, settings=TWO_DEVICES)
    rng = np.random.default_rng(5)
    for _ in range(25):
        latency_ms = round(float(rng.uniform(0.1, 0.5)), 3)
        number = made.done(latency_ms, round(float(rng.uniform(0.9, 0.99)), 2))
        if rng.random() < 0.9:  # the others are not known on the second device
            other = made.measurement(
                number, latency_ms * float(rng.uniform(40, 90)), device="pi5:a76", kind="estimated"
            )
            made.store.add_latency(number, other, "price", "pi5", judged=False)
    return made


def study_of(folder: Path, kind: str) -> Study:
    if kind == "two devices":
        return on_two_devices(folder)
    if kind == "many":
        return lively(folder)
    name = HOSTILE[:90].replace("/", "") if kind == "hostile" else kind
    made = Study(
        folder, name, {**SETTINGS, "data": {"dataset": f"imagefolder:{HOSTILE}"}} if kind == "hostile" else None
    )
    if kind in ("one", "hostile"):
        made.done(0.3, 0.97, device=made.name)
    if kind == "hostile":
        made.failed(HOSTILE)
        made.failed("=HYPERLINK(1)")
    if kind == "ties":
        for _ in range(4):
            made.done(0.2, 0.97)
    if kind == "not a number":
        number = made.priced(0.2)
        made.store.set_running(number, 1)
        made.store.finish(number, "done", top1=math.nan)
        made.done(0.3, 0.95)
    if kind == "infeasible only":
        made.infeasible(0.9)
        made.infeasible(9.0)
    if kind == "all failed":
        made.failed("out of memory")
    return made


@pytest.mark.parametrize(
    "kind",
    ["empty", "one", "ties", "not a number", "infeasible only", "all failed", "hostile", "two devices", "many"],
)
def test_the_page_answers_any_budget_as_python_does(browser: Any, tmp_path: Path, kind: str) -> None:
    made = study_of(tmp_path, kind)
    path = tmp_path / "report.html"
    write_report(made.engine, made.name, path)
    columns = read_columns(made.engine, made.name)
    table = BudgetTable.of(columns, budget_of(columns.study.settings))
    rng = np.random.default_rng(7)
    drawn = [{control.target: _limit(rng, control) for control in table.controls} for _ in range(LIMITS)]
    with Visit(browser) as visit:
        visit.open(path, READY)
        assert visit.text("h1") == made.name
        found = visit.page.evaluate(
            "([table, limits]) => limits.map((one) =>"
            " [Condensery.answer(table, one), Condensery.sentence(table, one)])",
            [table.to_dict(), drawn],
        )
        for limits, (answer, sentence) in zip(drawn, found, strict=True):
            expected = table.answer(limits)
            places = {name: answer[name] for name in ("fits", "best", "runner_up", "more")}
            assert places == {name: getattr(expected, name) for name in places}, limits
            assert answer["more_ms"] == pytest.approx(dict(expected.more_ms), rel=1e-12), limits
            assert sentence == table.sentence(limits)
        visit.picture(f"report-{kind.replace(' ', '-')}")
        assert visit.complaints == []
        assert visit.requests == [path.as_uri()]


def _limit(rng: np.random.Generator, control: Any) -> float | None:
    """Draw a limit: none, on an end of an interval, in the control's range, or far outside."""
    drawn = rng.random()
    if drawn < 0.1:
        return None
    if drawn < 0.2:
        return float(10 ** rng.uniform(-6, 6))
    return float(rng.uniform(0.5 * control.low_ms, 1.2 * control.high_ms))


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
    visit.page.locator("#networks-twin summary").click()
    assert "whole network" in visit.text("#networks-twin")
    assert visit.page.locator("#network option:checked").inner_text().startswith(number)


# ---- trials ---------------------------------------------------------------------------------------------


def numbers_shown(visit: Visit) -> list[int]:
    return [int(text) for text in visit.page.locator("#trials-table tbody tr td:nth-child(1)").all_inner_texts()]


def test_a_click_on_a_header_sorts_by_number_with_the_unknown_last(visit: Visit) -> None:
    table = visit.page.locator("#trials-table table")
    for direction in ("ascending", "descending"):
        table.locator("th button", has_text=re.compile("^top-1$")).click()
        assert table.locator(f"th[aria-sort={direction}]").inner_text().startswith("top-1")
        cells = table.locator("tbody tr td:nth-child(4)").all_inner_texts()
        known = [float(text.removesuffix(" %")) for text in cells if text != "-"]
        assert len(known) > 10
        assert known == sorted(known, reverse=direction == "descending")
        assert cells[len(known) :] == ["-"] * (len(cells) - len(known))


def test_trials_can_be_narrowed_by_state_front_budget_and_words(visit: Visit, lively_study: Study) -> None:
    rows = lively_study.rows()
    columns = read_columns(lively_study.engine, lively_study.name)
    show, words = visit.page.get_by_label("Show"), visit.page.get_by_label("Filter")
    show.select_option("infeasible")
    assert numbers_shown(visit) == [row.number for row in rows if row.state == "infeasible"]
    show.select_option("on the front")
    assert numbers_shown(visit) == columns.number[columns.front(columns.default_group)].tolist()
    show.select_option("inside the budget")
    visit.page.get_by_label("Latency limit on host in ms").fill("0.2")
    visit.wait("document.getElementById('sentence').innerText.includes(' fit 0.2 ms')")
    highs = {row.number: row.latency.interval_high_ms for row in rows if row.latency and row.state == "done"}
    assert numbers_shown(visit) == [number for number, high in highs.items() if high <= 0.2]
    show.select_option("all")
    words.fill("failed LEARNING")
    assert numbers_shown(visit) == [row.number for row in rows if row.state == "failed"]
    words.fill("nothing like this")
    assert visit.text("#trials-note") == "No trial matches."


def test_the_csv_holds_every_value_of_the_trials_listed(visit: Visit, lively_study: Study) -> None:
    visit.page.get_by_label("Show").select_option("done")
    with visit.page.expect_download() as download:
        visit.page.get_by_role("button", name="Save as CSV").click()
    assert download.value.suggested_filename == "digits-small-trials.csv"
    text = Path(download.value.path()).read_text(encoding="utf-8-sig")
    found = list(csv.DictReader(io.StringIO(text)))
    rows = [row for row in lively_study.rows() if row.state == "done"]
    assert [int(line["number"]) for line in found] == [row.number for row in rows]
    for line, row in zip(found, rows, strict=True):
        assert row.latency is not None
        assert float(line["top1"]) == pytest.approx(row.top1, rel=1e-5)
        assert float(line["latency_ms.host"]) == pytest.approx(row.latency.median_ms, rel=1e-5)
        assert line["latency_is.host"].startswith("measured, quick; measured on host")
        assert json.loads(line["config"]) == row.config.to_dict()


def test_the_table_writes_numbers_as_the_terminal_does(visit: Visit, lively_study: Study) -> None:
    shown = visit.page.evaluate(
        "([counts, seconds]) => [counts.map(CondenseryTable.SHOWN.count), seconds.map(CondenseryTable.SHOWN.seconds)]",
        [[999, 12_345, 917_504, 65_800_000, 1_900_000_000, 9_996_000], [3.21, 59.9, 65.0, 3725.4]],
    )
    assert shown[0] == [count(value) for value in (999, 12_345, 917_504, 65_800_000, 1_900_000_000, 9_996_000)]
    assert shown[1] == [duration(value) for value in (3.21, 59.9, 65.0, 3725.4)]


def test_hostile_names_run_nothing_and_a_csv_holds_no_formula(browser: Any, tmp_path: Path) -> None:
    made = study_of(tmp_path, "hostile")
    path = tmp_path / "report.html"
    write_report(made.engine, made.name, path)
    with Visit(browser) as visit:
        visit.page.on("dialog", lambda dialog: visit.complaints.append(f"dialog: {dialog.message}"))
        visit.open(path, READY)
        for chart in ("front", "macs-latency", "curves", "networks"):
            scroll_to(visit, chart)
        visit.page.locator("#front-chart").hover(position={"x": 500, "y": 200})
        assert visit.page.locator("main script").count() == 0
        assert visit.page.locator("main img").count() == 0
        with visit.page.expect_download() as download:
            visit.page.get_by_role("button", name="Save as CSV").click()
        text = Path(download.value.path()).read_text(encoding="utf-8-sig")
        reasons = [line["reason"] for line in csv.DictReader(io.StringIO(text))]
        assert reasons[-1] == "'=HYPERLINK(1)"
        assert visit.complaints == []
        assert visit.requests[0] == path.as_uri()
        assert visit.outside(path.as_uri()) == []


# ---- ten thousand trials --------------------------------------------------------------------------------


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
            visit.page.get_by_role("button", name="Save as CSV").click()
        text = Path(download.value.path()).read_text(encoding="utf-8-sig")
        assert len(list(csv.reader(io.StringIO(text)))) == 10_001
        visit.picture("report-10000-trials", full=False)
        assert visit.complaints == []
        assert visit.requests == [large.as_uri()]
