"""A report of a lively study, written once, and visits to it; the live page of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from benchmarks.dashboard_fill import STUDY, fill
from dashboards.report.report import write_report
from tests.dashboards.browser import KeptVisit, Visit
from tests.dashboards.report.report_visits import LEFT_IN_REPORT, READY
from tests.dashboards.studies import Study, lively


@pytest.fixture(scope="session")
def lively_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    made = lively(tmp_path_factory.mktemp("lively"))
    write_report(made.engine, made.name, made.folder / "report.html")
    return made


@pytest.fixture(scope="session")
def ten_thousand(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The database of a study of 10,000 trials, only to be read, and the study's name.

    Filling it takes longest: where tests run side by side, the first process that asks fills it for all.
    """
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    database = folder / "ten-thousand.db"
    with FileLock(f"{database}.lock"):
        if not database.exists():
            unfinished = folder / "unfinished.db"
            unfinished.unlink(missing_ok=True)
            assert fill(f"sqlite:///{unfinished}", 10_000, epochs=10) == STUDY
            unfinished.rename(database)
    return database, STUDY


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return lively(tmp_path_factory.mktemp("lively"))


@pytest.fixture(scope="module")
def page(study: Study) -> Iterator[str]:
    """The live page of `study`, served; its address."""
    from tests.dashboards.pages import served, url_of  # here: other tests don't wait for Dash

    with served(url_of(study)) as address:
        yield address


@pytest.fixture(scope="module")
def kept_report(browser: Any, lively_study: Study) -> Iterator[KeptVisit]:
    with Visit(browser) as visit:
        yield KeptVisit(visit, lively_study.folder / "report.html", READY, LEFT_IN_REPORT)


@pytest.fixture
def visit(kept_report: KeptVisit, lively_study: Study) -> Iterator[Visit]:
    """The lively study's report, which asks for nothing but itself."""
    visit = kept_report.again()
    yield visit
    assert visit.complaints == []
    assert set(visit.requests) <= {(lively_study.folder / "report.html").as_uri()}
