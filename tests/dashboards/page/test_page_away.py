"""What the page serves while the database is away or the study deleted: the last known, or why there is nothing."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dashboards.data.columns import View
from dashboards.data.live_study import LiveStudy
from dashboards.page import charts, study_cache
from dashboards.page.charts import CHARTS, chart_table_of, payload_of
from dashboards.page.comparison import Comparison
from dashboards.page.study_cache import AWAY_TEXT, CachedStudy, Studies
from search.store.studies import create_study
from search.store.tables import study as study_table
from tests.dashboards.studies import SETTINGS, Study, away, lively

VIEW = View(0)


def studies_of(made: Study) -> Studies:
    return Studies(f"sqlite:///{made.folder / 'study.db'}")


def texts(section: Any) -> str:
    return json.dumps([part.to_plotly_json() for part in section.content], default=lambda one: one.to_plotly_json())


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_stays_as_it_was_while_the_database_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    made = lively(tmp_path)
    found = studies_of(made).get(None)
    monkeypatch.setattr(charts, "PULSE_S", 1e9)  # chart and table are of one look, however long they take
    before = payload_of(found, name, None)
    rows = chart_table_of(found, name, None)
    monkeypatch.setattr(charts, "PULSE_S", 1e-6)  # from now on every look is at another moment
    with away(made):
        assert payload_of(found, name, None) == before
        assert chart_table_of(found, name, None) == rows


def test_a_view_asked_for_while_the_database_is_away_comes_when_it_is_back(tmp_path: Path) -> None:
    made = lively(tmp_path)
    found = studies_of(made).get(None)
    payload_of(found, "front", None)
    with away(made):
        missing = payload_of(found, "front", {"axis": "macs"})
        assert missing["reason"] == AWAY_TEXT
        assert missing["away"]
        assert "figure" in payload_of(found, "front", None)
    assert "figure" in payload_of(found, "front", {"axis": "macs"})


def test_trials_shown_before_stay_and_one_chosen_meanwhile_comes_later(tmp_path: Path) -> None:
    made = lively(tmp_path)
    drawer = Comparison(studies_of(made).get(None))
    first, drawn = drawer.facts([3], VIEW), drawer.section([3], VIEW)
    assert first is not None
    assert drawn is not None
    with away(made):
        assert drawer.facts([3], VIEW, first.stamp) is None
        assert drawer.section([3], VIEW, drawn.stamp) is None
        both = drawer.facts([3, 4], VIEW, first.stamp)
        assert both is not None
        assert "Trial 4: the database is away; this is shown as soon as it answers." in texts(both)
        assert "trial-3" in texts(both)
        assert drawer.facts([3, 4], VIEW, both.stamp) is None  # said once
    later = drawer.facts([3, 4], VIEW, both.stamp)
    assert later is not None
    assert "lines differ" in texts(later)
    assert "database is away" not in texts(later)
    assert drawer.facts([3, 4], VIEW, later.stamp) is None


def test_an_open_trial_is_shown_anew_when_it_goes_on_and_not_when_another_does(tmp_path: Path) -> None:
    made = lively(tmp_path)
    found = studies_of(made).get(None)
    section = Comparison(found).section
    (running,) = [row.number for row in made.rows() if row.state == "running"]
    first = section([running], VIEW)
    assert first is not None
    made.done(0.2, 0.95)
    assert found.columns is not found.live.refresh()
    assert section([running], VIEW, first.stamp) is None
    made.store.add_curve_row(running, curve_row(6), 1)
    found.refresh()
    second = section([running], VIEW, first.stamp)
    assert second is not None
    assert second.stamp != first.stamp


def curve_row(epoch: int) -> dict[str, Any]:
    numbers = {"train_loss": 0.5, "val_loss": 0.5, "val_top1": 0.9, "learning_rate": 0.1}
    return {
        "epoch": epoch,
        "progress": epoch / 12,
        **numbers,
        "condensing_stage": 3,
        "form": "condensed",
        "seconds": 6.0,
    }


def test_a_deleted_study_is_told_as_such_and_its_charts_stay(tmp_path: Path) -> None:
    made = lively(tmp_path)
    found = studies_of(made).get(None)
    before = payload_of(found, "progress", None)
    with made.engine.begin() as connection:
        connection.execute(sa.delete(study_table).where(study_table.c.id == made.id))
    found.refresh()
    stale = found.live.stale
    assert stale is not None
    assert stale.deleted
    assert "digits-small" in stale.reason
    assert payload_of(found, "progress", None)["figure"] == before["figure"]
    section = Comparison(found).facts([3], VIEW)
    assert section is not None
    assert stale.reason in texts(section)


def test_a_study_that_is_read_for_the_first_time_keeps_no_other_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = lively(tmp_path)
    create_study(made.engine, "slow", 2, SETTINGS, ("a" * 64, "c" * 64))
    studies = studies_of(made)
    reading, go_on = threading.Event(), threading.Event()

    class Slow(LiveStudy):
        def __init__(self, url: str, name: str) -> None:
            if name == "slow":
                reading.set()
                assert go_on.wait(30)
            super().__init__(url, name)

    monkeypatch.setattr(study_cache, "LiveStudy", Slow)
    found: list[CachedStudy] = []
    threads = [threading.Thread(target=lambda: found.append(studies.get("slow")), daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert reading.wait(30)
    other: list[CachedStudy] = []
    second = threading.Thread(target=lambda: other.append(studies.get("digits-small")), daemon=True)
    second.start()
    second.join(30)
    assert other
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert found[0] is found[1]
