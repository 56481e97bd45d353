"""The report in a real browser: it draws, asks for nothing, complains about nothing, and fits a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboards.report import write_report
from tests.dashboards.studies import Study, lively

CHROMIUM = Path("/usr/bin/chromium")
PICTURES = Path(__file__).parents[2] / "test-artifacts"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium at /usr/bin/chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def lively_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = lively(tmp_path_factory.mktemp("lively"))
    path = made.folder / "report.html"
    write_report(made.engine, made.name, path)
    return path


class Visit:
    """One page open in the browser, with what it complained about and asked for."""

    def __init__(self, browser: Any, path: Path, width: int = 1200, scheme: str = "light") -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        for name in ("front", "macs-latency", "curves"):
            self.page.wait_for_selector(f"#{name} .main-svg")
        assert self.complaints == []
        assert self.requests == [path.as_uri()]

    def picture(self, name: str) -> None:
        PICTURES.mkdir(exist_ok=True)
        self.page.screenshot(path=str(PICTURES / f"{name}.png"), full_page=True)


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [("report-light", 1200, "light"), ("report-dark", 1200, "dark"), ("report-narrow", 400, "light")],
)
def test_the_report_draws_without_a_word_or_a_request(
    browser: Any, lively_report: Path, name: str, width: int, scheme: str
) -> None:
    visit = Visit(browser, lively_report, width, scheme)
    visit.picture(name)
    assert visit.page.locator("#front .scatterlayer .trace").count() >= 4
    assert visit.page.locator("#front .annotation").count() == 2
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    ground = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(16, 19, 23)" if scheme == "dark" else "rgb(246, 247, 249)")
    visit.page.close()


def test_the_charts_follow_a_change_of_the_readers_colours(browser: Any, lively_report: Path) -> None:
    visit = Visit(browser, lively_report)
    ink = "document.getElementById('front').layout.font.color"
    assert visit.page.evaluate(ink) == "#1b1f24"
    visit.page.emulate_media(color_scheme="dark")
    # Polled in the page: Playwright's own waiting evaluates text, which the page's policy forbids.
    look = f"const look = () => {ink} === '#e8eaed' ? done() : setTimeout(look, 20); look();"
    visit.page.evaluate(f"() => new Promise((done) => {{ {look} }})")
    assert visit.complaints == []
    visit.page.close()


def test_a_click_on_a_header_sorts_by_number_with_the_unknown_last(browser: Any, lively_report: Path) -> None:
    visit = Visit(browser, lively_report)
    table = visit.page.locator('[aria-label="All trials"] table')
    for direction in ("ascending", "descending"):
        table.locator("th button", has_text=re.compile("^top-1$")).click()
        assert table.locator(f"th[aria-sort={direction}]").inner_text().startswith("top-1")
        cells = table.locator("tbody tr td:nth-child(4)").all_inner_texts()
        known = [float(text.removesuffix(" %")) for text in cells if text != "-"]
        assert known == sorted(known, reverse=direction == "descending")
        assert cells[len(known) :] == ["-"] * (len(cells) - len(known))
    visit.page.close()


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_a_contrast_of_at_least_4_5(browser: Any, lively_report: Path, scheme: str) -> None:
    visit = Visit(browser, lively_report, scheme=scheme)
    read = "(names) => names.map((n) => getComputedStyle(document.documentElement).getPropertyValue(n).trim())"
    names = ["--ground", "--surface", "--ink", "--muted", "--accent", "--good", "--warn", "--bad"]
    ground, surface, *inks = visit.page.evaluate(read, names)
    for ink in inks:
        for paper in (ground, surface):
            light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, paper)
    visit.page.close()


@pytest.mark.parametrize("kind", ["empty", "one trial", "all failed", "refused only", "hostile"])
def test_unusual_studies_draw_too(browser: Any, tmp_path: Path, kind: str) -> None:
    made = Study(
        tmp_path, "</script><script>alert(1)</script><img src=http://example.invalid/x>" * (kind == "hostile") or kind
    )
    if kind in ("one trial", "hostile"):
        made.done(0.3, 0.97, device=made.name)
    if kind == "all failed":
        made.failed("out of memory")
    if kind == "refused only":
        made.infeasible(0.9)
        made.infeasible(9.0)
    path = tmp_path / "report.html"
    write_report(made.engine, made.name, path)
    visit = Visit(browser, path)
    assert visit.page.locator("h1").inner_text() == made.name
    visit.picture(f"report-{kind.replace(' ', '-')}")
    visit.page.close()
