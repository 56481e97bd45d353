"""A real search, steered by its page: what is asked for there is in the database, and the search does it."""

from __future__ import annotations

import http.cookiejar
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands.common import INTERRUPTED
from search.store import reader
from search.store.connection.database import open_for_reading
from search.store.rows import TrialRow
from tests.command_line import StartedCommand, run_here
from tests.dashboards.browser import Visit, in_browser
from tests.dashboards.pages import TABLE, opened, served, silent, url_of
from tests.dashboards.studies import launched_settings, lively
from tests.waiting import until

TOKEN = "correct-horse-battery"
SETTINGS = ("study.trainings=50", "training.epochs=60", "engine.workers=1", "search.startup=2")


class Browser:
    """What a browser does on the page: it has opened the printed address, keeps the cookie and sends its origin."""

    def __init__(self, address: str) -> None:
        self.page = address.partition("?")[0]
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self.opener = urllib.request.build_opener(jar)
        self.opener.open(address).close()

    def get(self, path: str) -> Any:
        with self.opener.open(self.page + path) as answer:
            return json.load(answer)

    def write(self, name: str, **body: Any) -> str:
        headers = {"Content-Type": "application/json", "X-Condensery": "write", "Origin": self.page.rstrip("/")}
        request = urllib.request.Request(f"{self.page}do/{name}", json.dumps(body).encode(), headers)
        with self.opener.open(request) as answer:
            return str(json.load(answer)["said"])


@pytest.fixture
def running(tmp_path: Path) -> Any:
    """A folder with a study that is being searched, whose end ends all that it started."""
    assert run_here("init", "study.toml", "--preset", "digits", cwd=tmp_path).returncode == 0
    words = [word for setting in SETTINGS for word in ("--set", setting)]
    launch = StartedCommand("launch", "study.toml", *words, cwd=tmp_path, log=tmp_path / "launch.log")
    log = tmp_path / "dashboard.log"
    page = None
    try:
        until(lambda: "training" in launch.log.read_text() or launch.poll() is not None)
        page = StartedCommand("dashboard", "study.toml", "--port", "0", cwd=tmp_path, log=log)
        address = until(lambda: re.search(r"http://\S+\?token=\S+", log.read_text()))
        yield tmp_path, launch, Browser(address[0])
    finally:
        for process in filter(None, (page, launch)):
            process.kill()
            process.wait()


def rows_in(folder: Path) -> list[TrialRow]:
    engine = open_for_reading(f"sqlite:///{folder / 'condensery.db'}")
    try:
        return reader.read_trials(engine, reader.list_studies(engine)[0].id)
    finally:
        engine.dispose()


def first(folder: Path, wanted: Callable[[TrialRow], bool]) -> TrialRow:
    found: TrialRow = until(lambda: next(filter(wanted, rows_in(folder)), None), every_s=0.2)
    return found


@pytest.mark.slow(seconds=30)
def test_a_running_search_does_what_is_asked_for_on_its_page(running: tuple[Path, StartedCommand, Browser]):
    folder, launch, browser = running
    trial = first(folder, lambda row: row.state == "running")
    assert browser.write("star", trial=trial.number, starred=True) == f"Trial {trial.number} is on the shortlist."
    browser.write("note", trial=trial.number, text="the first one", before="")
    asked = browser.get(f"steering?trial={trial.number}")
    assert (asked["search"]["state"], asked["read_only"], asked["trial"]["note"]) == (
        "searching",
        None,
        "the first one",
    )

    config = {**asked["trial"]["config"], "training": {**asked["trial"]["training"], "epochs": 1}}
    assert "1 epoch, " in browser.write("enqueue", config=config)
    browser.write("cancel", trial=trial.number)
    assert first(folder, lambda row: row.number == trial.number and row.state == "cancelled").starred
    enqueued = first(folder, lambda row: row.origin == "enqueued" and row.state == "done")
    assert (enqueued.config, enqueued.training["epochs"]) == (trial.config, 1)

    assert "to stop study 'digits'" in browser.write("stop")
    assert launch.wait(timeout=120) == INTERRUPTED
    assert re.search(r"stopped with \d+ of 50 trainings", launch.log.read_text())
    search = browser.get("steering")["search"]
    assert (search["state"], search["go_on"]) == ("stopped", "condensery launch study.toml --resume")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(urllib.request.Request(f"{browser.page}do/stop", b"{}", {"X-Condensery": "write"}))


@pytest.mark.browser
@in_browser
@pytest.mark.slow(seconds=20)
def test_the_page_stars_notes_and_plans(browser: Any, tmp_path: Path):
    from dashboards.page import Access

    made = lively(tmp_path)
    made.store.update_settings(launched_settings(), "c" * 64)
    best = max((row for row in made.rows() if row.top1 and row.macs <= 600_000), key=lambda row: row.top1).number
    smaller = (1,) * len(made.row(best).config.stages)
    stages = "-".join(map(str, smaller))
    with (
        served(url_of(made), Access(TOKEN, shown=True, looking_is_free=True)) as address,
        Visit(browser, 1400) as visit,
    ):
        opened(visit, f"{address}?token={TOKEN}&trials={best}", TABLE)
        visit.wait("document.getElementById('star')")
        star = visit.page.get_by_role("button", name="⚐ Star")
        star.focus()
        visit.page.keyboard.press("Enter")
        visit.wait("document.getElementById('star').getAttribute('aria-pressed') === 'true'")
        visit.page.get_by_role("button", name="Note", exact=True).click()
        visit.page.keyboard.type("it's <b>the</b> one")  # the field has the focus
        copied = f"condensery note {best} 'it'\"'\"'s <b>the</b> one' --study digits-small"
        visit.wait(f"document.querySelector('#panel-note code').textContent.startsWith({json.dumps(copied)})")
        visit.page.get_by_role("button", name="Save note").click()
        visit.wait("document.querySelector('#trial-actions .note').textContent === \"it's <b>the</b> one\"")
        assert (made.row(best).starred, made.row(best).note) == (True, "it's <b>the</b> one")
        cells = "[...document.querySelectorAll('#trials-grid .ag-cell[col-id=starred]')]"
        visit.wait(f"{cells}.some((cell) => cell.textContent === '⚑ starred')")
        visit.page.get_by_role("button", name="Try with changes").click()
        visit.page.get_by_label("stages", exact=True).fill(stages)
        visit.wait(f"document.querySelector('#panel-change .plan').textContent.includes('tried: {stages} growth')")
        assert visit.text("#panel-change code").startswith("condensery enqueue '{")
        visit.page.get_by_role("button", name="Enqueue").click()
        visit.wait("document.querySelector('#panel-change .said').textContent.startsWith('Enqueued as 1: ')")
        assert [waiting.config.stages for waiting in made.store.pending_requests()] == [smaller]
        visit.page.locator("#search-actions summary").click()
        visit.wait("document.querySelector('#search-actions').textContent.includes('launch study.toml --resume')")
        visit.page.get_by_role("button", name="Take back").click()
        visit.wait("document.querySelector('#search-actions .said').textContent === '1 is withdrawn.'")
        assert made.store.pending_requests() == []
        assert "stars, notes" in visit.text("#writes")
        visit.picture("steering", full=False)
        silent(visit, address)
