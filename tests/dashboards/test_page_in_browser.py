"""The live page in a real browser: every kind of study, growing and gone databases, keyboard, colours, ten thousand."""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from waitress import create_server

from benchmarks.dashboard_fill import fill
from dashboards.app import Access, make_app
from dashboards.budget import BudgetTable
from dashboards.formats import budget_of
from dashboards.queries import read_columns
from search.store.tables import curve, trial
from tests.dashboards.browser import Visit, contrast, in_browser
from tests.dashboards.studies import Study, lively

pytestmark = [pytest.mark.browser, in_browser]

CHARTS = ("front", "macs-latency", "parallel", "importance", "curves", "progress")
# Everything is there, or says why it isn't.
READY = (
    "document.getElementById('name').textContent && document.getElementById('sentence').textContent && "
    f"{json.dumps(CHARTS)}.every((name) => document.getElementById(`${{name}}-state`).hidden"
    " ? document.querySelector(`#${name}-graph .main-svg`)"
    " : !document.getElementById(`${name}-state`).textContent.startsWith('Loading'))"
)
TABLE = f"{READY} && document.querySelector('#trials-grid .ag-row .ag-cell[col-id=number]')?.textContent"
SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"


@contextmanager
def served(url: str, access: Access | None = None) -> Iterator[str]:
    """The page of a database, served by waitress in a thread; its address."""
    server = create_server(make_app(url, None, access).server, host="127.0.0.1", port=0, threads=8, ident=None)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.effective_port}/"
    finally:
        server.close()
        thread.join(timeout=5)


def url_of(made: Study) -> str:
    return f"sqlite:///{made.folder / 'study.db'}"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return lively(tmp_path_factory.mktemp("lively"))


@pytest.fixture(scope="module")
def page(study: Study) -> Iterator[str]:
    with served(url_of(study)) as address:
        yield address


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    with Visit(browser) as made:
        yield made


def opened(visit: Visit, address: str, ready: str = READY) -> Visit:
    return visit.open(address, ready, timeout_s=120)


def silent(visit: Visit, address: str) -> None:
    assert visit.complaints == []
    assert visit.outside(address) == []


def in_page(visit: Visit, script: str) -> Any:
    return visit.page.evaluate(f"() => {script}")


FRONT = "document.querySelector('#front-graph .js-plotly-plot')"


def zoom_of(visit: Visit) -> list[float]:
    found: list[float] = in_page(visit, f"[...{FRONT}.layout.xaxis.range]")
    return found


def hidden(visit: Visit, name: str) -> bool:
    return bool(in_page(visit, f"document.getElementById('{name}').hidden"))


# ---- how it looks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [("page-light", 1280, "light"), ("page-dark", 1280, "dark"), ("page-narrow", 390, "light")],
)
def test_the_page_draws_without_a_word_or_a_foreign_request(
    browser: Any, page: str, name: str, width: int, scheme: str
) -> None:
    with Visit(browser, width, 900, scheme) as visit:
        opened(visit, f"{page}?trials=3", TABLE)
        visit.wait("document.querySelectorAll('#compared-body .main-svg').length >= 3")
        visit.picture(name)
        assert in_page(visit, "document.documentElement.scrollWidth") <= width
        assert [visit.text(f"#{chart}-state") for chart in CHARTS if not hidden(visit, f"{chart}-state")] == []
        silent(visit, page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_marks_keep_their_contrast(browser: Any, page: str, scheme: str) -> None:
    with Visit(browser, scheme=scheme) as visit:
        visit.open(page)
        grounds = visit.colours("--ground", "--surface", "--raised")
        for ink in visit.colours("--ink", "--muted", "--accent", "--star", "--good", "--warn", "--bad"):
            assert min(contrast(ink, ground) for ground in grounds) >= 4.5, ink
        (accent, on_accent, control) = visit.colours("--accent", "--on-accent", "--control")
        assert contrast(accent, on_accent) >= 4.5
        assert min(contrast(control, ground) for ground in grounds) >= 3


def test_the_reader_chooses_the_colours_and_the_address_remembers_them(visit: Visit, page: str) -> None:
    opened(visit, page, READY)
    ground = "getComputedStyle(document.body).backgroundColor"
    light = in_page(visit, ground)
    for wanted in ("light", "dark"):
        visit.page.get_by_role("button", name=re.compile("^Colours")).click()
        visit.wait(f"location.search.includes('theme={wanted}')")
    assert in_page(visit, ground) != light
    visit.wait("document.querySelector('#front-graph .js-plotly-plot').layout.font.color === '#e8eaed'")
    opened(visit, visit.page.url, READY)
    assert in_page(visit, ground) != light
    silent(visit, page)


# ---- unusual studies ------------------------------------------------------------------------------------


def unusual(folder: Path, kind: str) -> Study:
    made = Study(folder, {"hostile": SCRIPT, "long name": "x" * 10_000}.get(kind, kind))
    if kind in ("one trial", "long name"):
        made.done(0.3, 0.97)
    if kind == "all failed":
        made.failed("out of memory")
        made.failed("the loss became nan")
    if kind == "infeasible only":
        made.infeasible(0.9)
        made.infeasible(9.0)
    if kind == "NaN":  # a database may hold infinities, and nothing where a NaN was written
        made.done(0.3, 0.5)
        made.done(0.2, 0.91)
        made.done(0.25, 0.6)
        with made.engine.begin() as connection:
            connection.execute(sa.update(trial).where(trial.c.number == 0).values(top1=math.nan, val_loss=math.inf))
            connection.execute(sa.update(trial).where(trial.c.number == 2).values(top1=math.inf))
            connection.execute(sa.update(curve).values(train_loss=math.inf))
    if kind == "ties":
        for _ in range(4):
            made.done(0.3, 0.95)
    if kind == "hostile":
        made.done(0.3, 0.97, device=SCRIPT, runtime=SCRIPT[:30])
        made.done(0.2, 0.91)
        made.failed(SCRIPT + "y" * 10_000)
        made.store.set_data_info({"dataset": SCRIPT, "validation_images": 288})
    return made


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("empty", "no trials yet"),
        ("one trial", "1 of 1 trained network fits 0.4 ms"),
        ("all failed", "No trial led to a trained network"),
        ("infeasible only", "No candidate was inside the budget"),
        ("NaN", "91.00 %"),
        ("ties", "4 of 4 trained networks fit"),
        ("hostile", "97.00 % top-1"),
        ("long name", "97.00 % top-1"),
    ],
)
def test_unusual_studies_are_shown_safely(browser: Any, tmp_path: Path, kind: str, says: str) -> None:
    made = unusual(tmp_path, kind)
    with served(url_of(made)) as address, Visit(browser) as visit:
        opened(visit, f"{address}?trials=0,1", READY)
        visit.wait("!document.getElementById('compared-state').hidden || document.querySelector('#compared-body > *')")
        assert says in visit.text("#sentence")
        assert visit.text("h1") in made.name + "..."
        visit.picture(f"page-{kind.replace(' ', '-')}")
        assert in_page(visit, "document.documentElement.scrollWidth") <= 1200
        silent(visit, address)


# ---- the budget -----------------------------------------------------------------------------------------


def test_the_budget_is_set_by_keyboard_and_answered_as_python_answers_it(visit: Visit, page: str, study: Study) -> None:
    opened(visit, page, READY)
    columns = read_columns(study.engine, study.name)
    table = BudgetTable.of(columns, budget_of(columns.study.settings))
    slider = visit.page.get_by_role("slider", name=re.compile("Latency limit on host"))
    label = visit.page.locator("#front-box .mark.label")
    before = label.bounding_box()
    slider.focus()
    for key in ["PageDown"] * 4 + ["ArrowLeft"] * 3:
        slider.press(key)
    limit = float(slider.input_value())
    assert limit < 0.4
    number = visit.page.get_by_role("spinbutton", name=re.compile("Latency limit on host"))
    assert float(number.input_value()) == limit
    assert " ".join(visit.text("#sentence").split()) == table.sentence({"host": limit})
    visit.wait(f"location.search.includes('budget.host={limit:g}')")
    assert f"--max-latency-ms {limit:g}" in visit.text("#command")
    after = label.bounding_box()
    assert before is not None
    assert after is not None
    assert after["x"] < before["x"]
    opened(visit, visit.page.url, READY)
    assert float(number.input_value()) == limit
    number.fill("")
    assert " ".join(visit.text("#sentence").split()) == table.sentence({})
    number.fill("0.0001")
    assert " ".join(visit.text("#sentence").split()) == table.sentence({"host": 0.0001})
    assert visit.page.locator("#bundle").is_hidden()
    visit.page.get_by_role("button", name="The study's own limit on host").click()
    assert float(number.input_value()) == 0.4
    visit.page.get_by_role("button", name="Copy pick command").click()
    assert visit.page.evaluate("() => navigator.clipboard.readText()") == visit.text("#command").strip()
    silent(visit, page)


def test_a_bundle_that_cant_be_made_says_so_and_the_page_stays(visit: Visit, page: str) -> None:
    opened(visit, page, READY)
    visit.page.get_by_role("button", name=re.compile("Download bundle")).click()
    visit.wait("document.getElementById('said').textContent.includes('never recorded')")
    assert [text for text in visit.complaints if "404" not in text] == []  # the browser notes the answer itself


# ---- view -----------------------------------------------------------------------------------------------


def test_the_front_is_set_against_macs_and_params_too(visit: Visit, page: str) -> None:
    opened(visit, page, READY)
    title = "document.querySelector('#front-graph .js-plotly-plot').layout.xaxis.title.text"
    visit.page.get_by_role("radio", name="Macs").check(force=True)
    visit.wait(f"{title}.includes('macs')")
    assert visit.page.locator("#front-box .mark.line").is_hidden()
    visit.page.get_by_role("radio", name="Macs").press("ArrowRight")
    visit.wait(f"{title}.includes('parameters')")
    visit.wait("location.search.includes('axis=params')")
    opened(visit, visit.page.url, READY)
    assert "parameters" in in_page(visit, title)
    silent(visit, page)


def test_a_click_on_a_point_opens_its_trial(visit: Visit, page: str) -> None:
    opened(visit, page, READY)
    visit.page.locator("#front").scroll_into_view_if_needed()
    x, y = in_page(
        visit,
        f"""{{
        const graph = {FRONT}, {{ xaxis, yaxis }} = graph._fullLayout, box = graph.getBoundingClientRect();
        const trace = graph._fullData.find((one) => one.name === "on the front");
        return [box.x + xaxis._offset + xaxis.d2p(trace.x[0]), box.y + yaxis._offset + yaxis.d2p(trace.y[0])]; }}""",
    )
    visit.page.mouse.move(x, y)
    visit.page.mouse.click(x, y)
    visit.wait("document.querySelector('#compared-body .trial')")
    visit.wait("/trials=\\d+$/.test(location.search)")
    silent(visit, page)


def test_every_chart_has_its_table(visit: Visit, page: str) -> None:
    opened(visit, page, READY)
    for chart in CHARTS:
        visit.page.locator(f"#{chart}-twin > summary").click()
        visit.wait(f"document.querySelectorAll('#{chart}-twin tbody tr').length > 0")
    silent(visit, page)


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
    visit.wait("document.querySelectorAll('#compared-body .trial').length === 2")
    assert "What differs" in visit.text("#compared-body")
    visit.page.get_by_role("button", name="Close trial 11").click()
    visit.wait("document.querySelectorAll('#compared-body .trial').length === 1")
    visit.page.get_by_label("Trial number").fill("99")
    visit.page.get_by_label("Trial number").press("Enter")
    visit.wait("document.getElementById('compared-body').textContent.includes('has trials 0 to 31')")
    silent(visit, page)


def test_a_brush_on_the_parallel_coordinates_filters_the_table_and_is_kept(visit: Visit, page: str) -> None:
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
    sections = "[...document.querySelectorAll('section')].map((one) => one.getAttribute('aria-labelledby'))"
    assert all(in_page(visit, f"document.getElementById('{name}').textContent") for name in in_page(visit, sections))
    for role in ("banner", "main", "contentinfo"):
        assert visit.page.get_by_role(role).count() == 1
    assert visit.page.locator("html").get_attribute("lang") == "en"


# ---- live -----------------------------------------------------------------------------------------------


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


def test_a_database_that_goes_away_is_said_and_comes_back_by_itself(browser: Any, tmp_path: Path) -> None:
    made = lively(tmp_path)
    with served(url_of(made)) as address, Visit(browser) as visit:
        opened(visit, address, TABLE)
        made.engine.dispose()
        (tmp_path / "study.db").rename(tmp_path / "away.db")
        visit.wait(r"/^Stale: .* since \d\d:\d\d:\d\d$/.test(document.getElementById('badge').textContent)")
        visit.picture("page-stale", full=False)
        assert "trained networks fit" in visit.text("#sentence")
        (tmp_path / "away.db").rename(tmp_path / "study.db")
        visit.wait("document.getElementById('badge').textContent === 'Live'")
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
def test_ten_thousand_trials_are_shown_and_answered(browser: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'big.db'}"
    fill(url, 10_000, 0)
    with served(url) as address, Visit(browser) as visit:
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
