"""The live page in a real browser: its looks, every kind of study, the budget, the charts.

Opening the page takes longest, so most tests go on with one visit.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dashboards.budget.recorded import read_recorded
from dashboards.budget.table import BudgetTable
from dashboards.data.column_reader import read_columns
from dashboards.data.study_settings import budget_of
from dashboards.formats import one_line
from search.store.tables import curve, trial
from tests.dashboards.browser import KeptVisit, Visit, contrast, in_browser
from tests.dashboards.pages import (
    CHARTS,
    FRONT,
    READY,
    choose,
    hidden,
    in_page,
    kept,
    opened,
    served,
    silent,
    url_of,
)
from tests.dashboards.studies import Study, lively

pytestmark = [pytest.mark.browser, in_browser, pytest.mark.slow(seconds=5)]

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A lively study with two networks that are far over the limit."""
    made = lively(tmp_path_factory.mktemp("lively"))
    for latency_ms in (2.0, 9.0):
        made.infeasible(latency_ms)
    return made


@pytest.fixture(scope="module")
def kept_visit(browser: Any, page: str) -> Iterator[KeptVisit]:
    with Visit(browser) as visit:
        yield kept(visit, page)


@pytest.fixture
def visit(kept_visit: KeptVisit) -> Visit:
    return kept_visit.again()


# ---- how it looks ---------------------------------------------------------------------------------------


def test_the_page_draws_in_light_and_dark_without_a_word_or_a_foreign_request(visit: Visit, page: str) -> None:
    choose(visit, 3)
    visit.wait("document.querySelectorAll('#comparison-body .main-svg').length >= 3")
    visit.picture("page-light")
    assert in_page(visit, "document.documentElement.scrollWidth") <= 1200
    assert [visit.text(f"#{chart}-state") for chart in CHARTS if not hidden(visit, f"{chart}-state")] == []
    ground = "getComputedStyle(document.body).backgroundColor"
    light = in_page(visit, ground)
    for wanted in ("light", "dark"):
        visit.page.get_by_role("button", name=re.compile("^Colours")).click()
        visit.wait(f"location.search.includes('theme={wanted}')")
        assert has_contrast(visit)
    assert in_page(visit, ground) != light
    visit.wait("document.querySelector('#front-graph .js-plotly-plot').layout.font.color === '#e8eaed'")
    visit.page.get_by_role("button", name=re.compile("^Colours")).click()
    choose(visit)
    visit.wait("location.search === '?study=digits-small'")
    silent(visit, page)


def has_contrast(visit: Visit) -> bool:
    grounds = visit.colours("--ground", "--surface", "--raised")
    inks = visit.colours("--ink", "--muted", "--accent", "--star", "--good", "--warn", "--bad")
    accent, on_accent, control = visit.colours("--accent", "--on-accent", "--control")
    return (
        all(contrast(ink, ground) >= 4.5 for ink in inks for ground in grounds)
        and contrast(accent, on_accent) >= 4.5
        and all(contrast(control, ground) >= 3 for ground in grounds)
    )


# ---- unusual studies ------------------------------------------------------------------------------------


def hostile(folder: Path) -> Study:
    """A study with all that is unusual: a long name that is a script, such a device and reason, no numbers."""
    made = Study(folder, SCRIPT + "x" * 10_000)
    made.done(0.3, 0.97, device=SCRIPT, runtime=SCRIPT[:30])
    made.done(0.2, 0.91)
    made.done(0.25, 0.6)
    made.done(0.31, 0.5)
    made.failed(SCRIPT + "y" * 10_000)
    made.store.set_data_info({"dataset": SCRIPT, "validation_images": 288})
    with made.engine.begin() as connection:  # infinities, and nothing where a NaN was written
        connection.execute(sa.update(trial).where(trial.c.number == 2).values(top1=math.inf, val_loss=math.inf))
        connection.execute(sa.update(trial).where(trial.c.number == 3).values(top1=math.nan))
        connection.execute(sa.update(curve).values(train_loss=math.inf))
    return made


@pytest.mark.parametrize(("make", "says"), [(Study, "no trials yet"), (hostile, "97.00 % top-1")])
def test_unusual_studies_are_shown_safely(
    browser: Any, tmp_path: Path, make: Callable[[Path], Study], says: str
) -> None:
    made = make(tmp_path)
    with served(url_of(made)) as address, Visit(browser) as visit:
        opened(visit, f"{address}?trials=0,1", READY)
        visit.wait("document.querySelector('#facts-body > *')")
        assert says in visit.text("#sentence")
        assert visit.text("h1") == one_line(made.name, 300)
        assert len(visit.text("h1")) >= min(len(made.name), 300)
        visit.picture(f"page-{make.__name__}")
        assert in_page(visit, "document.documentElement.scrollWidth") <= 1200
        silent(visit, address)


# ---- the budget -----------------------------------------------------------------------------------------


def says(visit: Visit, sentence: str) -> None:
    shown = "document.getElementById('sentence').innerText.split(/\\s+/).join(' ')"
    visit.wait(f"{shown} === {json.dumps(sentence)}")


def test_the_budget_is_set_by_keyboard_and_answered_as_python_answers_it(visit: Visit, page: str, study: Study) -> None:
    columns = read_columns(study.engine, study.name)
    read = partial(read_recorded, study.engine, columns.study)
    table = BudgetTable.of(columns, budget_of(columns.study.settings), read)
    slider = visit.page.get_by_role("slider", name=re.compile("Latency limit on host"))
    label = visit.page.locator("#front-box .mark.label.upright")
    before = label.bounding_box()
    slider.focus()
    for key in ["PageDown"] * 4 + ["ArrowLeft"] * 3:
        slider.press(key)
    limit = float(slider.input_value())
    assert limit < 0.4
    number = visit.page.get_by_role("spinbutton", name=re.compile("Latency limit on host"))
    assert float(number.input_value()) == limit
    says(visit, table.sentence({"host": limit}))
    visit.wait(f"location.search.includes('budget.host={limit:g}')")
    assert f"--max-latency-ms {limit:g}" in visit.text("#command")
    after = label.bounding_box()
    assert before is not None
    assert after is not None
    assert after["x"] < before["x"]
    number.fill("")
    says(visit, table.sentence({}))
    number.fill("0.0001")
    says(visit, table.sentence({"host": 0.0001}))
    assert visit.page.locator("#bundle").is_hidden()
    visit.page.get_by_role("button", name="The study's own limit on host").click()
    assert float(number.input_value()) == 0.4
    visit.page.get_by_role("button", name="Copy pick command").click()
    assert visit.page.evaluate("() => navigator.clipboard.readText()") == visit.text("#command").strip()
    visit.wait("location.search === '?study=digits-small'")
    silent(visit, page)


def test_what_cant_be_a_limit_is_refused_in_a_sentence_and_the_last_one_holds(visit: Visit, page: str) -> None:
    number = visit.page.get_by_role("spinbutton", name=re.compile("Latency limit on host"))
    own = visit.page.get_by_role("slider", name=re.compile("Latency limit on host")).get_attribute("max")
    number.fill("0.25")
    visit.wait("document.getElementById('sentence').textContent.includes('fit 0.25 ms')")
    answer = visit.text("#sentence")
    for text in ("0", "-5", "1e-7", "1e12"):
        number.fill(text)
        visit.wait("document.getElementById('number-0').getAttribute('aria-invalid') === 'true'")
        assert "0.25 ms still holds" in visit.text("#wrong-0")
        assert visit.text("#sentence") == answer
        assert number.input_value() == text
        number.fill("0.25")
        visit.wait("!document.getElementById('number-0').hasAttribute('aria-invalid')")
        assert visit.text("#wrong-0") == ""
    number.fill("5000")
    visit.wait("document.getElementById('range-0').max === '5000'")
    number.fill("0.4")
    visit.wait(f"document.getElementById('range-0').max === '{own}' && location.search === '?study=digits-small'")
    silent(visit, page)


def test_a_bundle_that_cant_be_made_says_so_and_the_page_stays(visit: Visit) -> None:
    visit.page.get_by_role("button", name=re.compile("Download bundle")).click()
    visit.wait("document.getElementById('said').textContent.includes('never recorded')")
    assert [text for text in visit.complaints if "404" not in text] == []  # the browser notes the answer itself


# ---- view -----------------------------------------------------------------------------------------------


def test_the_front_is_set_against_macs_and_params_too(visit: Visit, page: str) -> None:
    title = "document.querySelector('#front-graph .js-plotly-plot').layout.xaxis.title.text"
    visit.page.get_by_role("radio", name="Macs").check(force=True)
    visit.wait(f"{title}.includes('macs')")
    assert visit.page.locator("#front-box .mark.line.upright").is_hidden()
    visit.page.get_by_role("radio", name="Macs").press("ArrowRight")
    visit.wait(f"{title}.includes('parameters')")
    visit.wait("location.search.includes('axis=params')")
    visit.page.get_by_role("radio", name="Latency").check(force=True)
    visit.wait(f"{title}.includes('latency') && location.search === '?study=digits-small'")
    silent(visit, page)


def test_every_chart_has_its_table(visit: Visit, page: str) -> None:
    for chart in CHARTS:
        summary = visit.page.locator(f"#{chart}-data-table > summary")
        summary.click()
        visit.wait(f"document.querySelectorAll('#{chart}-data-table tbody tr').length > 0")
        summary.click()
    silent(visit, page)


def test_the_front_opens_near_the_budget_and_is_set_as_the_reader_wants_it(visit: Visit, page: str) -> None:
    end = f"{FRONT}.layout.xaxis.range[1]"
    visit.wait(f"Math.abs({end} - 0.6) < 1e-6")
    beyond = visit.page.locator("#front-box button.beyond")
    assert beyond.inner_text() == "2 more →"
    beyond.click()
    visit.wait(f"{end} > 9 && document.querySelector('#front-box .beyond').textContent[0] === '←'")
    beyond.click()
    visit.wait(f"Math.abs({end} - 0.6) < 1e-6")
    limit = visit.page.get_by_role("spinbutton", name="Latency limit on host in ms")
    limit.fill("0.2")
    visit.wait(f"Math.abs({end} - 0.3) < 1e-6")  # it follows
    assert visit.page.locator("#front-how").is_visible()
    visit.page.get_by_label("Log scale").check()
    visit.wait(f"{FRONT}.layout.xaxis.type === 'log' && Math.abs(10 ** {end} - 0.3) < 1e-3")
    visit.page.get_by_label("Log scale").uncheck()
    visit.wait(f"{FRONT}.layout.xaxis.type !== 'log' && Math.abs({end} - 0.3) < 1e-3")
    # Drawn later lies above: the marks come before the paper with the tooltips.
    marks, tooltips = (f"document.querySelector('#front-box {name}')" for name in (".marks", ".hoverlayer"))
    assert in_page(visit, f"{marks}.compareDocumentPosition({tooltips}) & Node.DOCUMENT_POSITION_FOLLOWING")
    silent(visit, page)
