"""Two kinds of latency on one device, in page and report: no star among the others, the tile says its own kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dashboards.budget.table import BudgetTable
from dashboards.report.report import write_report
from search.budget import Budget
from tests.dashboards.browser import Visit, in_browser
from tests.dashboards.data.test_latency_kinds import two_kinds
from tests.dashboards.pages import TABLE, in_page, opened, served, url_of
from tests.dashboards.panels.panel_studies import columns_of
from tests.dashboards.report.report_visits import READY, scroll_to
from tests.dashboards.studies import Study

pytestmark = [pytest.mark.browser, in_browser]
AWAY = "recommended: trial 5 (predicted: not shown here)"
SMALL_TILE = "[...document.querySelectorAll('#tiles > div')][1].innerText"


@contextmanager
def visited(browser: Any, made: Study, what: str) -> Iterator[tuple[Visit, str]]:
    """The page or the report of a study, and the JavaScript of a chart's graph, "NAME" standing for the chart."""
    with Visit(browser) as visit:
        if what == "report":
            path = made.folder / "report.html"
            write_report(made.engine, made.name, path)
            visit.open(path, READY)
            scroll_to(visit, "macs-latency")
            yield visit, "document.getElementById('NAME-chart')"
        else:
            with served(url_of(made)) as address:
                opened(visit, address, TABLE)
                yield visit, "document.querySelector('#NAME-graph .js-plotly-plot')"
        assert visit.complaints == []


@pytest.mark.parametrize("what", ["page", "report"])
def test_the_star_is_drawn_only_among_latencies_of_its_own_kind(browser: Any, tmp_path: Path, what: str) -> None:
    made = two_kinds(tmp_path)
    table = BudgetTable.of(columns_of(made), Budget(0.4))
    with visited(browser, made, what) as (visit, graph):
        for chart in ("front", "macs-latency"):
            of_chart = graph.replace("NAME", chart)
            visit.wait(f"{of_chart}.data.at(-1).name === '{AWAY}'")
            assert in_page(visit, f"[...{of_chart}.parentElement.closest('.marked').querySelectorAll('.star')]"
                                  ".every((star) => star.hidden)")  # fmt: skip
        assert "predicted, extrapolated" in in_page(visit, SMALL_TILE)
        assert "measured" not in in_page(visit, SMALL_TILE)
        assert table.offers[0].figures[0]["median"] in in_page(visit, SMALL_TILE)
        assert "extrapolated" in visit.text("#sentence")
        visit.page.get_by_label("Latency limit on host in ms").fill("0.01")
        visit.wait("document.getElementById('sentence').innerText.includes('ms (predicted).')")
        note = visit.text("#table-note" if what == "page" else "#trials-pages")
        assert "† outside the range that the estimate was calibrated on" in note
