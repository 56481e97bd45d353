"""The live page in a real browser: its looks, every kind of study, the budget, the charts."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
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
from tests.dashboards.browser import Visit, contrast, in_browser
from tests.dashboards.pages import CHARTS, READY, TABLE, hidden, in_page, opened, served, silent, url_of
from tests.dashboards.studies import Study

pytestmark = [pytest.mark.browser, in_browser]

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def kept_visit(browser: Any) -> Iterator[Visit]:
    with Visit(browser) as visit:
        yield visit


@pytest.fixture
def visit(kept_visit: Visit) -> Visit:
    """A visit whose browser has the page's scripts already; what a reader sets is in the address alone."""
    return kept_visit.fresh()


# ---- how it looks ---------------------------------------------------------------------------------------


def test_the_page_draws_in_light_and_dark_without_a_word_or_a_foreign_request(visit: Visit, page: str) -> None:
    opened(visit, f"{page}?trials=3", TABLE)
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
    opened(visit, visit.page.url, TABLE)
    assert in_page(visit, ground) != light
    visit.picture("page-dark")
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


def unusual(folder: Path, kind: str) -> Study:
    made = Study(folder, {"hostile": SCRIPT, "long name": "x" * 10_000}.get(kind, kind))
    if kind == "long name":
        made.done(0.3, 0.97)
    if kind == "NaN":  # a database may hold infinities, and nothing where a NaN was written
        made.done(0.3, 0.5)
        made.done(0.2, 0.91)
        made.done(0.25, 0.6)
        with made.engine.begin() as connection:
            connection.execute(sa.update(trial).where(trial.c.number == 0).values(top1=math.nan, val_loss=math.inf))
            connection.execute(sa.update(trial).where(trial.c.number == 2).values(top1=math.inf))
            connection.execute(sa.update(curve).values(train_loss=math.inf))
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
        ("NaN", "91.00 %"),
        ("hostile", "97.00 % top-1"),
        ("long name", "1 of 1 trained network fits 0.4 ms"),
    ],
)
def test_unusual_studies_are_shown_safely(browser: Any, tmp_path: Path, kind: str, says: str) -> None:
    made = unusual(tmp_path, kind)
    with served(url_of(made)) as address, Visit(browser) as visit:
        opened(visit, f"{address}?trials=0,1", READY)
        visit.wait("document.querySelector('#facts-body > *')")
        assert says in visit.text("#sentence")
        assert visit.text("h1") == one_line(made.name, 300)
        assert len(visit.text("h1")) >= min(len(made.name), 300)
        visit.picture(f"page-{kind.replace(' ', '-')}")
        assert in_page(visit, "document.documentElement.scrollWidth") <= 1200
        silent(visit, address)


# ---- the budget -----------------------------------------------------------------------------------------


def says(visit: Visit, sentence: str) -> None:
    shown = "document.getElementById('sentence').innerText.split(/\\s+/).join(' ')"
    visit.wait(f"{shown} === {json.dumps(sentence)}")


def test_the_budget_is_set_by_keyboard_and_answered_as_python_answers_it(visit: Visit, page: str, study: Study) -> None:
    opened(visit, page, READY)
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
    opened(visit, visit.page.url, READY)
    assert float(number.input_value()) == limit
    number.fill("")
    says(visit, table.sentence({}))
    number.fill("0.0001")
    says(visit, table.sentence({"host": 0.0001}))
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
    assert visit.page.locator("#front-box .mark.line.upright").is_hidden()
    visit.page.get_by_role("radio", name="Macs").press("ArrowRight")
    visit.wait(f"{title}.includes('parameters')")
    visit.wait("location.search.includes('axis=params')")
    opened(visit, visit.page.url, READY)
    assert "parameters" in in_page(visit, title)
    silent(visit, page)


def test_every_chart_has_its_table(visit: Visit, page: str) -> None:
    opened(visit, page, READY)
    for chart in CHARTS:
        visit.page.locator(f"#{chart}-data-table > summary").click()
        visit.wait(f"document.querySelectorAll('#{chart}-data-table tbody tr').length > 0")
    silent(visit, page)
