"""The report's budget in a real browser: keys, numbers and addresses move it, and it answers as Python does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dashboards.budget.answers import TAKES
from dashboards.budget.badges import BADGES
from dashboards.budget.table import limit_text
from dashboards.report.report import write_report
from space.config import code_legend
from tests.dashboards.browser import Visit, in_browser
from tests.dashboards.report.report_visits import READY, mark_of, scroll_to, study_of, table_of
from tests.dashboards.studies import Study

pytestmark = [pytest.mark.browser, in_browser, pytest.mark.slow(seconds=3)]

LIMITS = 300  # drawn for each study


def test_keys_alone_move_the_budget_the_answer_the_line_and_the_star(visit: Visit, lively_study: Study) -> None:
    table = table_of(lively_study)
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
        assert star == (None if offer is None else pytest.approx([offer.median_ms[0], 100 * offer.score], rel=1e-3))
        seen.add(star and tuple(star))
    assert len(seen) >= 3
    assert "0 of" in visit.text("#sentence")  # at the lowest limit nothing fits
    assert not visit.page.locator("#copy-pick").is_visible()
    visit.page.get_by_role("button", name="The study's own limit on host").click()
    visit.wait("location.search === ''")


def test_the_command_is_copied_and_a_number_no_limit_and_reset_are_given_and_stay_in_the_address(visit: Visit) -> None:
    visit.page.get_by_role("button", name="Copy pick command").click()
    visit.wait("document.getElementById('copied').textContent === 'Copied.'")
    copied = visit.page.evaluate("() => navigator.clipboard.readText()")
    assert copied == "condensery pick digits-small --max-latency-ms 0.4 --out bundle"
    first = visit.text("#sentence")
    visit.page.get_by_label("Latency limit on host in ms").fill("0.2")
    visit.wait("document.getElementById('sentence').innerText.includes(' fit 0.2 ms')")
    visit.wait("window.location.search === '?budget.host=0.2'")
    visit.page.get_by_role("button", name="No limit on host").click()
    visit.wait("document.getElementById('sentence').innerText.includes(' fit no limit')")
    visit.wait("window.location.search === '?budget.host=none'")
    visit.page.get_by_role("button", name="The study's own limit on host").click()
    visit.wait(f"document.getElementById('sentence').innerText === {json.dumps(first)}")
    visit.wait("window.location.search === ''")


def test_the_card_explains_its_badges_takes_another_network_and_holds_another_figure_to_the_limit(
    visit: Visit, lively_study: Study
) -> None:
    table = table_of(lively_study)
    answer, legend = table.answer({"host": 0.4}), code_legend(offer.code for offer in table.offers)
    assert answer.best is not None
    assert answer.fastest is not None
    best, fastest = table.offers[answer.best], table.offers[answer.fastest]
    assert best.figures[0]["median"] in visit.text("#tiles")
    assert f"{best.interval}" in visit.text("#tiles")
    badge = visit.page.locator(".mark-badge").first
    badge.hover()
    assert visit.text("#tip") == BADGES[badge.inner_text()]
    visit.page.locator("#headline .code").focus()
    assert visit.text("#tip") == legend
    assert visit.page.locator("#headline .code").evaluate(
        "(code) => document.getElementById(code.getAttribute('aria-describedby')).textContent"
    ) == legend  # fmt: skip
    visit.page.keyboard.press("Escape")
    assert visit.page.locator("#tip").is_hidden()
    visit.page.locator("[data-take=fastest]").press("Enter")
    visit.wait(f"document.getElementById('trial').textContent === 'Trial {fastest.number}'")
    assert visit.page.locator("[data-take=fastest]").get_attribute("aria-pressed") == "true"
    assert visit.page.evaluate("() => document.activeElement.dataset.take") == "fastest"
    assert visit.text("#command").endswith(f"--max-latency-ms 0.4 --trial {fastest.number} --out bundle")
    assert mark_of(visit, "front", "star") == pytest.approx([fastest.median_ms[0], 100 * fastest.score], rel=1e-3)
    visit.page.get_by_label("on", exact=True).select_option("p90")
    visit.wait("location.search === '?take=fastest&statistic=p90'")
    assert "fit 0.4 ms by p90" in visit.text("#sentence")
    assert "--latency-statistic p90" in visit.text("#command")
    visit.page.locator("[data-take=best]").click()
    visit.page.get_by_label("on", exact=True).select_option("upper")
    visit.wait("location.search === ''")


def test_what_is_no_limit_is_said_and_the_last_limit_holds(visit: Visit) -> None:
    before = visit.text("#sentence")
    number = visit.page.get_by_label("Latency limit on host in ms")
    for text in ("0", "1e12"):
        number.fill(text)
        visit.wait("document.getElementById('number-0').getAttribute('aria-invalid') === 'true'")
        assert "0.4 ms still holds" in visit.text("#wrong-0")
        assert visit.text("#sentence") == before
        number.fill("0.2")
        visit.wait("document.getElementById('sentence').innerText.includes(' fit 0.2 ms')")
        assert number.get_attribute("aria-invalid") is None
        assert visit.text("#wrong-0") == ""
        number.fill("0.4")
        visit.wait(f"document.getElementById('sentence').innerText === {json.dumps(before)}")


def test_an_address_with_a_budget_opens_with_it(browser: Any, lively_study: Study) -> None:
    with Visit(browser) as visit:
        visit.open(
            (lively_study.folder / "report.html").as_uri() + "?budget.host=0.25&take=fastest&statistic=p90", READY
        )
        expected = table_of(lively_study).sentence({"host": 0.25}, "p90", "fastest")
        assert " ".join(visit.text("#sentence").split()) == expected
        assert "--latency-statistic p90 --trial" in visit.text("#command")
        assert mark_of(visit, "front", "line")[0] == pytest.approx(0.25, rel=1e-3)  # type: ignore[index]


KINDS = ("empty", "one", "ties", "not a number", "infeasible only", "all failed", "hostile", "two devices", "many")
# Opened each time: where there is nothing, no number, or more than one limit. A hostile one is opened with its table.
OPENED = ("empty", "not a number", "two devices")
LONG = [pytest.param(kind, marks=pytest.mark.long) for kind in KINDS if kind not in (*OPENED, "hostile")]


def test_the_page_answers_any_budget_as_python_does(visit: Visit, tmp_path: Path) -> None:
    """The answer is looked up in a table alone, so one page answers for the tables of all kinds of study."""
    for kind in KINDS:
        folder = tmp_path / kind
        folder.mkdir()
        made = study_of(folder, kind)
        table = table_of(made)
        rng, statistics = np.random.default_rng(7), list(table.held_ms)
        drawn = [
            (
                {one.target: _limit(rng, one) for one in table.controls},
                str(rng.choice(statistics)),
                str(rng.choice(TAKES)),
            )
            for _ in range(LIMITS)
        ]
        answers = visit.page.evaluate(
            "([table, drawn]) => drawn.map(([limits, statistic, take]) => { table.asked = { statistic, take };"
            " return [Condensery.answer(table, limits), Condensery.sentence(table, limits)]; })",
            [table.to_dict(), drawn],
        )
        named = set()
        for question, (answer, sentence) in zip(drawn, answers, strict=True):
            expected = vars(table.answer(*question))
            assert answer["more_ms"] == pytest.approx(expected.pop("more_ms"), rel=1e-12), (kind, question)
            lists = {"beyond": list(expected["beyond"]), "unknown": list(expected["unknown"])}
            assert {name: answer[name] for name in expected} == {**expected, **lists}, (kind, question)
            assert sentence == table.sentence(*question), kind
            named |= {name for name, place in expected.items() if place is not None}
        assert kind != "many" or {"fastest", "smallest", "knee", "more", "predicted"} <= named


@pytest.mark.parametrize("kind", [*OPENED, *LONG])
def test_reports_of_unusual_studies_open_with_pythons_answer(browser: Any, tmp_path: Path, kind: str) -> None:
    made = study_of(tmp_path, kind)
    path = tmp_path / "report.html"
    write_report(made.engine, made.name, path)
    table = table_of(made)
    with Visit(browser) as visit:
        visit.open(path, READY)
        assert visit.text("h1") == made.name
        assert " ".join(visit.text("#sentence").split()) == table.sentence(table.limits_ms)
        visit.picture(f"report-{kind.replace(' ', '-')}")
        assert visit.complaints == []
        assert visit.requests == [path.as_uri()]


def _limit(rng: np.random.Generator, control: Any) -> float | None:
    """Draw a limit, in the digits that a control has: none, in its range, or far outside."""
    drawn = rng.random()
    if drawn < 0.1:
        return None
    if drawn < 0.2:
        return float(limit_text(10 ** rng.uniform(-6, 6)))
    return float(limit_text(rng.uniform(0.5 * control.low_ms, 1.2 * control.high_ms)))
