"""A live study reads again exactly when something has changed, and keeps what it knows while the database is away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dashboards.data import live_study
from dashboards.data.live_study import LiveStudy
from dashboards.data.revision import load_revision
from space.errors import DatabaseUnavailable, StudyNotFound
from tests.dashboards.studies import SMALL, Study


def live(made: Study) -> LiveStudy:
    return LiveStudy(f"sqlite:///{made.folder / 'study.db'}", made.name)


CHANGES: dict[str, Callable[[Study], object]] = {
    "asked": lambda made: made.asked(),
    "priced": lambda made: made.priced(0.2),
    "running": lambda made: made.running(0.2),
    "done": lambda made: made.done(0.2, 0.9),
    "refused": lambda made: made.infeasible(0.9),
    "failed": lambda made: made.failed("no reason"),
    "another latency": lambda made: made.store.add_latency(0, made.measurement(0, 0.3, purpose="verify")),
    "an epoch": lambda made: made.add_curve(1, 0.9, epochs=6),
    "tested": lambda made: made.store.set_test_top1(0, 0.8),
    "enqueued": lambda made: made.store.enqueue(SMALL, {}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    monkeypatch.setattr(live_study, "LOOK_WHOLE_S", 0.0)
    made = Study(tmp_path)
    made.done(0.2, 0.9)
    made.running(0.2)
    study = live(made)
    before = study.refresh()
    assert study.refresh() is before
    CHANGES[change](made)
    after = study.refresh()
    assert after is not before
    assert after.revision != before.revision
    assert study.refresh() is after


def test_what_takes_a_scan_to_find_is_looked_for_less_often(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(0.2, 0.9)
    whole = load_revision(made.engine, made.id)
    assert load_revision(made.engine, made.id, whole) == whole
    made.store.set_test_top1(0, 0.8)
    assert load_revision(made.engine, made.id, whole) == whole
    assert load_revision(made.engine, made.id) != whole


def test_while_the_database_is_away_the_columns_stay_and_say_since_when(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(0.2, 0.9)
    study = live(made)
    before = study.columns
    assert study.stale is None
    made.engine.dispose()
    file = tmp_path / "study.db"
    file.rename(tmp_path / "elsewhere.db")
    assert study.refresh() is before
    first = study.stale
    assert first is not None
    assert "unable to open" in first.reason
    study.refresh()
    assert study.stale == first  # since when it has been away
    (tmp_path / "elsewhere.db").rename(file)
    study.refresh()
    assert study.stale is None


def test_a_study_that_is_not_there_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    made = Study(tmp_path)
    with pytest.raises(StudyNotFound, match="Did you mean 'digits-small'"):
        LiveStudy(f"sqlite:///{made.folder / 'study.db'}", "digit-small")
    with pytest.raises(DatabaseUnavailable):
        LiveStudy(f"sqlite:///{tmp_path / 'none.db'}", "digits-small")
