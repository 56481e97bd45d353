"""What is typed into the live page's budget, and what its address says of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from search.store.studies import create_study
from tests.dashboards.browser import Visit, in_browser
from tests.dashboards.pages import READY, in_page, opened, served, silent, url_of
from tests.dashboards.studies import SETTINGS, lively

pytestmark = [pytest.mark.browser, in_browser]


def test_what_cant_be_a_limit_is_refused_in_a_sentence_and_the_last_one_holds(browser: Any, page: str) -> None:
    with Visit(browser) as visit:
        opened(visit, page, READY)
        number = visit.page.get_by_role("spinbutton", name=re.compile("Latency limit on host"))
        slider = visit.page.get_by_role("slider", name=re.compile("Latency limit on host"))
        own = slider.get_attribute("max")
        number.fill("0.25")
        visit.wait("document.getElementById('sentence').textContent.includes('fit 0.25 ms')")
        answer = visit.text("#sentence")
        for text in ("0", "-5", "1e-7", "1e12"):
            number.fill(text)
            visit.wait("document.getElementById('number-0').getAttribute('aria-invalid') === 'true'")
            assert "0.25 ms still holds" in visit.text("#wrong-0")
            assert visit.text("#sentence") == answer
            assert number.input_value() == text
            number.fill("0.25")
            visit.wait("!document.getElementById('number-0').hasAttribute('aria-invalid')")
            assert visit.text("#wrong-0") == ""
        number.fill("5000")
        visit.wait("document.getElementById('range-0').max === '5000'")
        number.fill("0.25")
        visit.wait(f"document.getElementById('range-0').max === '{own}'")
        opened(visit, f"{page}?budget.host=1e12", READY)
        assert number.input_value() == "0.4"
        silent(visit, page)


@pytest.mark.usefixtures("quick_clocks")
def test_the_address_names_the_study_and_all_studies_are_offered_where_there_are_several(
    browser: Any, tmp_path: Path
) -> None:
    made = lively(tmp_path)
    with served(url_of(made)) as address, Visit(browser) as visit:
        opened(visit, address, READY)
        visit.wait("location.search === '?study=digits-small'")
        assert visit.page.locator("#all-studies").is_hidden()
        create_study(made.engine, "another", 2, SETTINGS, ("a" * 64, "c" * 64))
        made.done(0.2, 0.95)
        visit.wait("!document.getElementById('all-studies').hidden")
        opened(visit, visit.page.url, READY)
        assert in_page(visit, "document.getElementById('name').textContent") == "digits-small"
        silent(visit, address)
