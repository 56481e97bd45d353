"""The HTML report: what it says for every kind of study, that nothing in it can run or fetch, how it is written."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dashboards.headline import wilson_interval
from dashboards.report import write_report
from space.errors import ReadOnlyFolder, StudyNotFound
from tests.dashboards.studies import SETTINGS, Study, lively


class Page(HTMLParser):
    """A parsed page: its tags with their attributes, and its text outside of scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.inside = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = "" if tag == self.inside else self.inside

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts.append(data)
        elif not self.inside:
            self.words.append(data)


def report(made: Study, max_latency_ms: float | None = None) -> Page:
    path = made.folder / "out" / "report.html"
    write_report(made.engine, made.name, path, max_latency_ms)
    return Page(path)


def test_the_answer_is_a_sentence(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(0.2, 0.90)
    made.done(0.3, 0.95)
    made.done(0.5, 0.99)
    text = report(made).text
    assert "Trial 1 (2-2 growth 8-16 G=4 C=4 B=4) is the most accurate of 2 trained networks inside 0.4 ms" in text
    assert "95.00 % top-1 at 0.300 ms (measured, quick)" in text
    assert "Trial 2 (" in report(made, 0.6).text


def test_the_studys_own_limits_on_macs_hold_for_the_answer(tmp_path: Path) -> None:
    made = Study(tmp_path, settings={**SETTINGS, "budget": {"max_latency_ms": None, "max_macs": 1000}})
    made.done(0.2, 0.90)
    page = report(made)
    assert "No trained network is inside 1,000 macs" in page.text
    assert "recommended" not in page.source.split("<script>")[0]


def test_an_empty_study_gets_a_sensible_page(tmp_path: Path) -> None:
    text = report(Study(tmp_path)).text
    assert "This study has no trials yet." in text
    assert "None yet." in text


def test_an_all_failed_study_names_the_usual_reason(tmp_path: Path) -> None:
    made = Study(tmp_path)
    for reason in ("out of memory", "out of memory", "the loss became nan"):
        made.failed(reason)
    text = report(made).text
    assert "No trial led to a trained network: 3 failed. Most frequent reason: out of memory" in text


def test_an_all_refused_study_names_its_budget(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.infeasible(0.9)
    assert "No candidate was inside the budget (latency 0.400 ms), so none was trained." in report(made).text


def test_a_young_study_says_what_it_is_doing(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.running(0.2)
    made.asked()
    text = report(made).text
    assert "No network has finished its training yet: 1 asked, 1 running." in text
    assert "Learning curves" in text


def test_a_budget_nothing_fits_gives_the_smallest_reached(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(0.2, 0.9)
    assert re.search(
        r"No trained network is inside 0.1 ms; the smallest feasible latency is 0\.2\d* ms", report(made, 0.1).text
    )


def test_every_trial_is_in_the_table(tmp_path: Path) -> None:
    made = lively(tmp_path)
    page = report(made)
    body = page.source.split('aria-label="All trials"')[1].split("</table>")[0]
    numbers = [int(n) for n in re.findall(r'<tr(?: class="pick")?><td class="n" data-v="(\d+)\.0">', body)]
    assert numbers == [row.number for row in made.rows()]
    for row in made.rows():
        assert html.escape(str(row.config)) in body


@pytest.mark.parametrize(
    "name",
    ["<script>alert(1)</script>", "\"><img src=x onerror='alert(1)'>", "</title></style><b>&amp;", "\u2028${x}`\\"]
)  # fmt: skip
def test_hostile_names_stay_text(tmp_path: Path, name: str) -> None:
    made = Study(tmp_path, name, {**SETTINGS, "data": {"dataset": f"imagefolder:{name}"}})
    made.done(0.2, 0.9, device=name)
    made.done(0.2, 0.95, device="other")
    made.failed(name)
    page = report(made)
    assert [attributes for tag, attributes in page.tags if any(key.startswith("on") for key in attributes)] == []
    assert not {"img", "b", "iframe"} & {tag for tag, _ in page.tags}
    assert sum(tag == "script" for tag, _ in page.tags) == 6  # three charts, their settings, plotly.js and ours
    figures = [json.loads(text) for text in page.scripts if text.startswith('{"data"')]
    assert len(figures) == 3
    shown = json.dumps(figures)
    assert "<script>alert" not in shown
    assert "<img" not in shown


def test_the_page_may_fetch_nothing(tmp_path: Path) -> None:
    page = report(lively(tmp_path))
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "srcset"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert page.source.count("plotly.js v") == 1


def test_a_database_password_stays_out(tmp_path: Path) -> None:
    storage = "postgresql+psycopg://me:hunter2@db/studies"
    made = Study(tmp_path, settings={**SETTINGS, "study": {"name": "x", "trainings": 2, "storage": storage}})
    assert "hunter2" not in report(made).source


def test_a_report_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    made = Study(tmp_path)
    report(made)
    made.done(0.2, 0.9)
    assert "Trial 0" in report(made).text
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["report.html"]


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    made = Study(tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ReadOnlyFolder, match="choose a file in a folder you may write"):
        write_report(made.engine, made.name, tmp_path / "file" / "report.html")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ReadOnlyFolder):
        write_report(made.engine, made.name, tmp_path / "folder")
    assert not list(tmp_path.glob(".folder.*"))


def test_an_unknown_study_writes_nothing(tmp_path: Path) -> None:
    made = Study(tmp_path)
    with pytest.raises(StudyNotFound):
        write_report(made.engine, "other", tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_the_accuracys_interval_is_wilsons() -> None:
    assert wilson_interval(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    low, high = wilson_interval(1.0, 100)
    assert low == pytest.approx(0.9630, abs=1e-4)
    assert high == pytest.approx(1.0)
