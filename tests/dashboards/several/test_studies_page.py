"""The page of all studies: what it is made of, and what a reader does with it in a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dashboards.data.column_reader import read_columns
from dashboards.page import make_app
from dashboards.report.several import write_studies_report
from dashboards.studies.fronts import compare, compare_on
from search.store.connection.database import open_for_writing
from search.store.studies import create_study
from tests.dashboards.browser import Visit, contrast, in_browser
from tests.dashboards.pages import in_page, served, silent, url_of
from tests.dashboards.several.several_studies import ODD, made, several
from tests.dashboards.studies import SETTINGS, Study, lively

HOSTILE = "</script><script>alert(1)</script>"
LISTED = (
    "performance.getEntriesByName('condensery-studies').length && document.querySelectorAll('#list-body tr').length"
)
COMPARED = "performance.getEntriesByName('condensery-compared').length"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return several(tmp_path_factory.mktemp("several"))


def client_of(study: Study, only: str | None = None) -> Any:
    client = make_app(url_of(study), only, command_words="--storage sqlite:///study.db").server.test_client()
    client.environ_base["HTTP_HOST"] = "localhost"
    return client


def data_in(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="studies-data">(.*?)</script>', page)
    assert found is not None
    return dict(json.loads(found[1]))


def read_list(client: Any) -> dict[str, Any]:
    """The list as it is once all studies are read: on a busy machine the page begins without their networks."""
    found = data_in(client.get("/").text)
    while not all(row["is_read"] for row in found["studies"]):
        found = client.get("/studies.json").json
    return found


# ---- what the page fetches ------------------------------------------------------------------------------


def test_the_page_opens_on_the_list_of_studies_and_a_name_is_never_markup(tmp_path: Path) -> None:
    study = lively(tmp_path)
    create_study(study.engine, HOSTILE, 2, SETTINGS, ("a" * 64, "c" * 64))
    client = client_of(study)
    assert HOSTILE not in client.get("/").text
    rows = {row["name"]: row for row in read_list(client)["studies"]}
    assert rows.keys() == {"digits-small", HOSTILE}
    assert rows[HOSTILE]["state"] == "not begun"
    assert rows["digits-small"]["state"] == "finished"
    assert rows["digits-small"]["next"] == "condensery pick digits-small --storage sqlite:///study.db --out bundle"
    assert "react-entry-point" in client.get("/", query_string={"study": HOSTILE}).text
    wrong = client.get("/?study=digits-smal")
    assert wrong.status_code == 404
    assert "Did you mean &#x27;digits-small&#x27;?" in wrong.text
    assert client.get("/rows").status_code == 404  # of which?


def test_the_list_is_sent_again_only_when_something_is_new(tmp_path: Path) -> None:
    study = several(tmp_path)
    client = client_of(study)
    known = read_list(client)
    assert client.get("/studies.json", query_string={"stamp": known["stamp"]}).status_code == 204
    study.done(0.1, 0.999)
    newer = client.get("/studies.json", query_string={"stamp": known["stamp"]}).json
    assert newer["studies"][0]["name"] == "first"
    assert newer["studies"][0]["best"]["score_text"] == "99.90 % top-1"


def test_a_comparison_is_fetched_by_names_and_a_wrong_question_is_said(database: Study) -> None:
    client = client_of(database)

    def asked(studies: str, **more: str) -> Any:
        return client.get("/comparison.json", query_string={"studies": studies, **more})

    found = asked("first,odd%2C 100%25 <b>").json
    assert [study["name"] for study in found["studies"]] == ["first", ODD]
    assert asked("first,odd%2C 100%25 <b>", stamp=found["stamp"]).status_code == 204
    assert asked("first,second", view="macs").json["axis"] == "macs"
    assert asked("first,second", view="no-such-view").json["axis"] == "latency"
    assert asked("first,nothing").status_code == 404
    for wrong in ("", ",", "a,b,c,d,e"):
        assert asked(wrong).status_code == 400


def test_a_page_of_one_study_shows_no_other_and_lists_none(database: Study) -> None:
    client = client_of(database, "second")
    assert client.get("/rows?study=first").json["total"] == 3
    assert client.get("/studies.json").status_code == 404
    assert client.get("/comparison.json?studies=first,second").status_code == 404
    assert "react-entry-point" in client.get("/?studies=first,second").text


def test_a_database_without_a_study_waits_for_the_first(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    open_for_writing(url)
    page = make_app(url).server.test_client().get("/", headers={"Host": "localhost"})
    assert data_in(page.text)["studies"] == []


# ---- in a browser ---------------------------------------------------------------------------------------


@pytest.mark.browser
@in_browser
@pytest.mark.slow(seconds=6)
def test_a_reader_sorts_ticks_compares_and_goes_back_by_keyboard(browser: Any, database: Study) -> None:
    with served(url_of(database)) as address, Visit(browser, width=1400) as visit:
        visit.open(f"{address}?axis=macs&budget.host=0.3", LISTED)
        page, names = visit.page, "[...document.querySelectorAll('#list-body th a')].map((one) => one.textContent)"
        visit.wait("!document.querySelector('#list-body').textContent.includes('…')")
        assert "study=first&axis=macs&budget.host=0.3" in in_page(
            visit, "[...document.querySelectorAll('#list-body th a')].find((one) => one.textContent === 'first').href"
        )
        page.get_by_role("button", name="best within budget").press("Enter")
        assert in_page(visit, names)[:3] == ["other split", "others", "first"]
        assert in_page(visit, "document.querySelector('[aria-sort=descending]').textContent") == "best within budget"
        for name in ("second", "first"):
            page.get_by_role("checkbox", name=f"Compare {name}", exact=True).press("Space")
        visit.wait("location.search.includes('choose=second%2Cfirst')")
        page.get_by_role("button", name="Compare", exact=True).press("Enter")
        visit.wait(COMPARED, timeout_s=120)
        assert in_page(visit, "document.activeElement.id") == "compared-title"
        assert "studies=second%2Cfirst" in page.url
        _answers_as_python_does(visit, database)
        page.go_back()
        visit.wait("!document.getElementById('list').hidden")
        assert page.get_by_role("checkbox", name="Compare second", exact=True).is_checked()
        assert "sort=best" in page.url
        for name in ("elsewhere", "others", "other split"):
            page.get_by_role("checkbox", name=f"Compare {name}", exact=True).press("Space")
        assert "the most that can be compared" in visit.text("#chosen-note")
        assert not page.get_by_role("checkbox", name="Compare other split", exact=True).is_checked()
        silent(visit, address)


def _answers_as_python_does(visit: Visit, database: Study) -> None:
    """The limit moves the answer, which is what `compare` says."""
    found = compare([read_columns(database.engine, name) for name in ("second", "first")])
    for limit in (found.limit, 0.16, 0.01, None):
        number = visit.page.get_by_role("spinbutton", name="Limit for all in ms; empty is no limit")
        number.fill("" if limit is None else f"{limit:g}")
        said = json.dumps(found.sentences(limit)[0])
        visit.wait(f"document.querySelector('#compared-sentences p').textContent === {said}")
        rows = "[...document.querySelectorAll('#compared-best tbody tr')].map((row) => row.cells[1].textContent)"
        wanted = []
        for study in found.studies:
            best = study.best(limit)
            wanted.append("none inside" if best is None else f"{100 * best.score:.2f} %, trial {best.number}")
        assert in_page(visit, rows) == wanted
    visit.wait("location.search.includes('limit=none')")


@pytest.mark.browser
@in_browser
@pytest.mark.slow(seconds=15)
def test_a_shared_comparison_opens_says_why_not_and_follows_a_search(browser: Any, tmp_path: Path) -> None:
    study = several(tmp_path)
    for number in range(100):
        create_study(study.engine, f"many-{number}", 10 + number, SETTINGS, ("a" * 64, "c" * 64))
    with served(url_of(study)) as address, Visit(browser, 390, 844, "dark") as visit:
        visit.open(f"{address}?studies=first,odd%252C+100%2525+%3Cb%3E,others&limit=0.3", COMPARED, timeout_s=120)
        assert "others: its images are others" in visit.text("#compared-sentences")
        assert in_page(visit, "document.documentElement.scrollWidth") <= 390
        for text, ground in (("--ink", "--surface"), ("--muted", "--surface"), ("--bad", "--surface")):
            assert contrast(*visit.colours(text, ground)) >= 4.5
        study.done(0.2, 0.999)
        visit.wait("document.querySelector('#compared-sentences').textContent.includes('99.90 %')")
        made(tmp_path, "a new one", {0.1: 0.9})
        visit.page.get_by_role("link", name="All studies").click()
        visit.wait("document.getElementById('list-body').textContent.includes('a new one')")
        visit.page.get_by_role("textbox", name="Filter").fill("a new")
        visit.wait("document.querySelectorAll('#list-body tr').length === 1")
        visit.page.get_by_role("textbox", name="Filter").fill("")
        visit.page.get_by_role("button", name="Show 7 more").press("Enter")
        visit.wait("document.querySelectorAll('#list-body tr').length === 107")
        silent(visit, address)
    _report_shows_the_same(browser, study, tmp_path / "report.html")


def _report_shows_the_same(browser: Any, study: Study, path: Path) -> None:
    columns = [read_columns(study.engine, name) for name in ("first", "second")]
    write_studies_report(columns, compare_on(columns, limit_ms=0.16), path)
    with Visit(browser, 1400) as visit:
        visit.open(path, f"{COMPARED} && performance.getEntriesByName('condensery-ready').length", timeout_s=120)
        said = [visit.text("#compared-sentences")]
        assert said == compare(columns, limit=0.16).sentences(0.16)
        visit.page.get_by_label("Accuracy against").select_option(label="multiply-adds")
        visit.wait("document.querySelector('#compared-sentences').textContent.includes('at any cost')")
        assert visit.complaints == []
        assert visit.requests == [path.as_uri()]
