"""What the tests of the report in a browser share: awkward studies, and ways to read the open page."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np

from dashboards.budget.recorded import read_recorded
from dashboards.budget.table import BudgetTable
from dashboards.data.column_reader import read_columns
from dashboards.data.study_settings import budget_of
from tests.dashboards.browser import Visit
from tests.dashboards.panels.panel_studies import HOSTILE
from tests.dashboards.studies import SETTINGS, Study, lively

READY = "performance.getEntriesByName('condensery-ready').length"
LEFT_IN_REPORT = """[location.search, document.getElementById('sentence').innerText,
    document.getElementById('trials-note').textContent, document.querySelectorAll('details[open]').length,
    document.querySelector('[aria-sort]')?.innerText,
    [...document.querySelectorAll('input, select')].map((one) => `${one.value} ${one.checked}`)]"""
DRAWN = "document.querySelector('#{}-chart .main-svg')"
TWO_DEVICES = {
    **SETTINGS,
    "latency": {**SETTINGS["latency"], "devices": ["host", "pi5"]},
    "budget": {"max_latency_ms": {"host": 0.4, "pi5": 30.0}},
}


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


def numbers_shown(visit: Visit) -> list[int]:
    return [int(text) for text in visit.page.locator("#trials-table tbody tr td:nth-child(1)").all_inner_texts()]


def table_of(made: Study) -> BudgetTable:
    columns = read_columns(made.engine, made.name)
    read = partial(read_recorded, made.engine, columns.study)
    return BudgetTable.of(columns, budget_of(columns.study.settings), read)


def on_two_devices(folder: Path) -> Study:
    made = Study(folder, settings=TWO_DEVICES)
    rng = np.random.default_rng(5)
    for _ in range(25):
        latency_ms = round(float(rng.uniform(0.1, 0.5)), 3)
        number = made.done(latency_ms, round(float(rng.uniform(0.9, 0.99)), 2))
        if rng.random() < 0.9:  # the others are not known on the second device
            other = made.measurement(
                number, latency_ms * float(rng.uniform(40, 90)), device="pi5:a76", kind="estimated", target="pi5"
            )
            made.store.add_latency(number, other, judged=False)
    return made


def study_of(folder: Path, kind: str) -> Study:
    """Return a study of an awkward kind."""
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
