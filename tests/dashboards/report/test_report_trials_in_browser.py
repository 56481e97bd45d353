"""The report's table of trials in a real browser: sorted, narrowed, saved; and what hostile names do there: nothing."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from dashboards.data.column_reader import read_columns
from dashboards.formats import count, duration
from dashboards.report.report import write_report
from tests.dashboards.browser import Visit, in_browser
from tests.dashboards.report.report_visits import READY, numbers_shown, scroll_to, study_of, table_of
from tests.dashboards.studies import Study

pytestmark = [pytest.mark.browser, in_browser, pytest.mark.slow(seconds=3)]


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
    words.fill("")
    visit.page.get_by_label("Latency limit on host in ms").fill("0.4")
    visit.wait("location.search === ''")


def test_the_csv_holds_every_value_of_the_trials_listed(visit: Visit, lively_study: Study) -> None:
    visit.page.get_by_label("Show").select_option("done")
    with visit.page.expect_download() as download:
        visit.page.get_by_role("button", name="Download CSV").click()
    visit.page.get_by_label("Show").select_option("all")
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


def test_hostile_names_run_nothing_and_a_csv_holds_no_formula(browser: Any, tmp_path: Path) -> None:
    made = study_of(tmp_path, "hostile")
    path = tmp_path / "report.html"
    write_report(made.engine, made.name, path)
    with Visit(browser) as visit:
        visit.page.on("dialog", lambda dialog: visit.complaints.append(f"dialog: {dialog.message}"))
        visit.open(path, READY)
        table = table_of(made)
        assert " ".join(visit.text("#sentence").split()) == table.sentence(table.limits_ms)
        assert visit.text("h1") == made.name
        for chart in ("front", "macs-latency", "curves", "networks"):
            scroll_to(visit, chart)
        visit.page.locator("#front-chart").hover(position={"x": 500, "y": 200})
        assert visit.page.locator("main script").count() == 0
        assert visit.page.locator("main img").count() == 0
        with visit.page.expect_download() as download:
            visit.page.get_by_role("button", name="Download CSV").click()
        text = Path(download.value.path()).read_text(encoding="utf-8-sig")
        reasons = [line["reason"] for line in csv.DictReader(io.StringIO(text))]
        assert reasons[-1] == "'=HYPERLINK(1)"
        assert visit.complaints == []
        assert visit.requests[0] == path.as_uri()
        assert visit.outside(path.as_uri()) == []
