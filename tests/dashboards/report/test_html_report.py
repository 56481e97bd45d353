"""The HTML report: what it says for every kind of study, that nothing in it can run or fetch, how it is written."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from dashboards.data.column_reader import read_columns
from dashboards.report import report as report_file
from dashboards.report.markup import SCRIPTS
from dashboards.report.report import write_report
from search.store.tables import trial
from space.errors import ReadOnlyFolder, StudyNotFound
from tests.dashboards.studies import SETTINGS, Study, lively
from workers.metrics import wilson_interval

TWO_DEVICES = {**SETTINGS, "latency": {**SETTINGS["latency"], "devices": ["host", "pi5"]}}


class Page(HTMLParser):
    """A parsed report: its tags with their attributes, its text outside of scripts and styles, what it carries."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: dict[str, str] = {}  # by id, else by order
        self.inside = ""
        self.name = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside, self.name = tag, dict(attrs).get("id") or str(len(self.scripts))

    def handle_endtag(self, tag: str) -> None:
        self.inside = "" if tag == self.inside else self.inside

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts[self.name] = self.scripts.get(self.name, "") + data
        elif not self.inside:
            self.words.append(data)

    def unpacked(self, name: str) -> str:
        return gzip.decompress(base64.b64decode(self.scripts[f"packed-{name}"])).decode()

    def data(self, name: str) -> Any:
        return json.loads(self.unpacked(name))

    @property
    def columns(self) -> dict[str, list[Any]]:
        """The trials by column, texts looked up."""
        found = {}
        for column in self.data("trials")["columns"]:
            texts = column.get("texts")
            found[column["name"]] = [texts[v] if texts else v for v in column["values"]]
        return found


def report(made: Study, **limits_ms: float) -> Page:
    path = made.folder / "out" / "report.html"
    write_report(made.engine, made.name, path, limits_ms)
    return Page(path)


@pytest.fixture(scope="module")
def page(lively_study: Study) -> Page:
    """The report of a lively study."""
    return Page(lively_study.folder / "report.html")


# ---- what it says ---------------------------------------------------------------------------------------


def test_the_answer_is_a_sentence_that_needs_no_script(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(0.2, 0.90)
    made.done(0.3, 0.95)
    made.done(0.5, 0.99)
    text = report(made).text
    assert "2 of 3 trained networks fit 0.4 ms. Best: trial 1 (2-2 growth 8-16 G=4 C=4 B=4), 95.00 % top-1" in text
    assert "Best of what was trained: trial 2 (" in report(made, host=0.6).text


def test_the_studys_own_limits_on_macs_hold_for_the_answer(tmp_path: Path) -> None:
    made = Study(tmp_path, settings={**SETTINGS, "budget": {"max_latency_ms": None, "max_macs": 1000}})
    made.done(0.2, 0.90)
    page = report(made)
    assert "0 of 1 trained network fit at most 1.00 k macs." in page.text
    assert page.data("trials")["trained"] == []


def test_an_empty_study_gets_a_sensible_page(tmp_path: Path) -> None:
    text = report(Study(tmp_path)).text
    assert "This study has no trials yet." in text
    assert "No trials yet: they come as soon as" in text
    assert "None yet." in text


def test_an_all_failed_study_names_the_usual_reason(tmp_path: Path) -> None:
    made = Study(tmp_path)
    for reason in ("out of memory", "out of memory", "the loss became nan"):
        made.failed(reason)
    text = report(made).text
    assert "No trial led to a trained network: 3 failed. Most frequent reason: out of memory." in text
    assert "2 out of memory 1" in text  # the table of failures


def test_an_all_refused_study_names_its_budget(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.infeasible(0.9)
    assert "No candidate was inside the budget (latency 0.400 ms), so none was trained" in report(made).text


def test_a_young_study_says_what_it_is_doing(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.running(0.2)
    made.asked()
    text = report(made).text
    assert "No network has finished its training yet: 1 asked, 1 running." in text
    assert "Importance can't be computed, because" in text


def test_a_budget_nothing_fits_gives_the_smallest_reached(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(0.2, 0.9)
    assert re.search(
        r"0 of 1 trained network fit 0.1 ms. The fastest needs 0\.2\d* ms \(measured\)\.", report(made, host=0.1).text
    )


def test_every_chart_has_its_table_in_the_page(page: Page) -> None:
    shown = (attributes for tag, attributes in page.tags if tag == "details" and "hidden" not in attributes)
    twins = {name for attributes in shown if (name := attributes.get("id") or "").endswith("-data-table")}
    names = {"front", "macs-latency", "parallel", "importance", "curves", "progress", "timeline", "belief"}
    names |= {"contour", "slice"}
    assert twins == {f"{name}-data-table" for name in names}
    assert set(page.data("charts")) == names


def test_what_the_sampler_believed_is_told_with_how_right_it_was(page: Page) -> None:
    assert re.search(r"[0-9]+ of [0-9]+ trainings ended inside the 95 % interval predicted for it", page.text)
    assert "Predicted, then reached" in page.text


def test_nothing_is_said_of_a_belief_that_was_never_recorded(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(0.2, 0.9)
    assert "What the search believes" not in report(made).text


# ---- what it carries ------------------------------------------------------------------------------------


def test_every_trial_is_carried_with_all_its_values(lively_study: Study, page: Page) -> None:
    columns = page.columns
    rows = lively_study.rows()
    assert columns["number"] == [row.number for row in rows]
    assert columns["state"] == [row.state for row in rows]
    assert columns["top1"] == [None if row.top1 is None else float(f"{row.top1:.6g}") for row in rows]
    assert columns["architecture"] == [str(row.config) for row in rows]
    assert [json.loads(text) for text in columns["config"]] == [row.config.to_dict() for row in rows]
    medians = [None if row.latency is None else float(f"{row.latency.median_ms:.6g}") for row in rows]
    assert columns["latency_ms.host"] == medians
    reasons = [f"same as trial {r.duplicate_of}" if r.duplicate_of is not None else r.reason for r in rows]
    assert columns["reason"] == reasons


def test_a_latency_of_another_kind_is_never_without_its_name(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(0.2, 0.9, policy="standard")
    made.done(0.3, 0.9, policy="standard", steady=False)
    made.done(0.1, 0.9, kind="predicted", policy="model", extrapolates=True)
    made.asked()
    column = next(c for c in report(made).data("trials")["columns"] if c["name"] == "latency_ms.host")
    assert column["title"] == "latency, measured, ms"
    marks = column["marks"]
    assert [marks["texts"][place] for place in marks["values"]] == ["", " *", " † predicted", ""]


def test_each_group_of_latencies_is_a_view_of_its_own(tmp_path: Path) -> None:
    made = Study(tmp_path, settings=TWO_DEVICES)
    for latency_ms, top1 in ((0.2, 0.9), (0.3, 0.95)):
        number = made.done(latency_ms, top1)
        other = made.measurement(number, 40 * latency_ms, device="pi5:cortex-a76", kind="estimated", target="pi5")
        made.store.add_latency(number, other, judged=False)
    page = report(made)
    names = page.data("core")["views"]
    assert [name.partition(" (")[0] for name in names] == [
        "latency, measured on host", "multiply-adds", "parameters", "latency, estimated on pi5"
    ]  # fmt: skip
    titles = [page.data("charts"), *(page.data(f"view-{i}") for i in (1, 2, 3))]
    axes = [charts["front"]["figure"]["layout"]["xaxis"]["title"]["text"] for charts in titles]
    assert len(set(axes)) == 4
    assert "pi5" in axes[3]


def test_views_that_would_make_the_file_too_large_are_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = lively(tmp_path)
    monkeypatch.setattr(report_file, "LARGEST_BYTES", report_file.FIXED_BYTES)
    core = report(made).data("core")
    assert len(core["views"]) == 1
    assert core["left_out"] == ["multiply-adds", "parameters"]


def test_the_networks_of_the_front_are_drawn_best_first(lively_study: Study, page: Page) -> None:
    columns = read_columns(lively_study.engine, lively_study.name)
    networks = page.data("networks")
    front = np.flatnonzero(columns.front(columns.default_group))
    assert {one["number"] for one in networks} == set(columns.number[front].tolist())
    accuracies = [columns.top1[columns.index_of(one["number"])] for one in networks]
    assert accuracies == sorted(accuracies, reverse=True)
    for one in networks:
        total = one["chart"]["table"]["rows"][-1]
        assert total[0] == "whole network"
        assert total[4] == f"{columns.macs[columns.index_of(one['number'])]:,}"


def test_a_damaged_row_is_left_out_of_the_drawings(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(0.2, 0.90)
    made.done(0.3, 0.95)
    with made.engine.begin() as connection:
        connection.execute(sa.update(trial).where(trial.c.number == 1).values(config="{broken"))
    page = report(made)
    assert [one["number"] for one in page.data("networks")] == [0]
    assert page.columns["architecture"][1] == "{broken"


# ---- safety ---------------------------------------------------------------------------------------------


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
    assert not {"img", "iframe"} & {tag for tag, _ in page.tags}
    assert sum(tag == "script" and "type" not in attributes for tag, attributes in page.tags) == len(SCRIPTS)
    for part in ("charts", "view-1", "view-2", "view-3"):
        figures = json.dumps([chart["figure"] for chart in page.data(part).values()])
        assert "<script>alert" not in figures
        assert "<img" not in figures


def test_the_page_may_fetch_nothing_and_run_nothing_but_its_own(page: Page) -> None:
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "srcset"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#")), (tag, attributes)
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    assert "script-src 'unsafe-inline'" not in policy
    own = [page.scripts[name] for name in page.scripts if not name.startswith("packed-")]
    hashes = {base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in own}
    assert hashes == allowed - {_hash(page.unpacked("plotly"))}
    assert _hash(page.unpacked("plotly")) in allowed


def _hash(code: str) -> str:
    return base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()


def test_a_database_password_stays_out(tmp_path: Path) -> None:
    storage = "postgresql+psycopg://me:hunter2@db/studies"
    made = Study(tmp_path, settings={**SETTINGS, "study": {"name": "x", "trainings": 2, "storage": storage}})
    page = report(made)
    assert "hunter2" not in page.source
    assert all("hunter2" not in page.unpacked(name) for name in ("core", "charts", "trials", "networks"))


# ---- the file -------------------------------------------------------------------------------------------


def test_a_report_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    made = Study(tmp_path)
    report(made)
    made.done(0.2, 0.9)
    assert "Best: trial 0" in report(made).text
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["report.html"]


def test_the_same_study_gives_the_same_report_but_for_its_date(lively_study: Study, page: Page) -> None:
    dates = re.compile(r"Written by Condensery on [^<]+")
    first, second = (dates.sub("", one.source) for one in (page, report(lively_study)))
    assert first == second


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    made = Study(tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ReadOnlyFolder, match="choose a folder you may write"):
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
