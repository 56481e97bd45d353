"""Progress: the hypervolume, what was saved, who lives, and what failed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards import panels
from dashboards.data.columns import View
from dashboards.data.liveness import read_liveness
from dashboards.panels.study.hypervolume import hypervolumes
from dashboards.panels.study.progress import saved_epochs, trials_per_hour
from search.devices.registry import add_device
from tests.dashboards.panels.panel_studies import (
    KINDS,
    awkward,
    columns_of,
    default_view,
    drawn_or_refused,
    last_of,
    many,
)
from tests.dashboards.studies import Study, lively
from workers.clock import SimulatedClock
from workers.training.reporting import ProgressReport

points = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 8)), max_size=12)


def cells(chosen: list[tuple[int, int]]) -> int:
    """How many unit cells of an 8 x 8 square are dominated: cost above a point's, accuracy below it."""
    return sum(any(x <= i and j < y for x, y in chosen) for i in range(8) for j in range(8))


@given(points)
def test_the_hypervolume_is_the_dominated_share(found: list[tuple[int, int]]) -> None:
    # The worst cost is 8 and the least accuracy 0; 8 units of accuracy are the way from 0 to 1.
    cost, top1 = (np.array([float(point[i]) for point in found]) for i in (0, 1))
    shares = hypervolumes(cost, top1 / 8, 8.0, 0.0)
    assert np.allclose(shares, [cells(found[: place + 1]) / 64 for place in range(len(found))])


@given(points)
def test_the_hypervolume_never_falls_and_its_end_knows_no_order(found: list[tuple[int, int]]) -> None:
    cost, top1 = (np.array([float(point[i]) for point in found]) for i in (0, 1))
    shares = hypervolumes(cost, top1 / 10, 8.0, 0.1)
    assert (np.diff(shares) >= -1e-12).all()
    backwards = hypervolumes(cost[::-1], top1[::-1] / 10, 8.0, 0.1)
    assert np.allclose(shares[-1:], backwards[-1:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", ["latency", "macs"])
def test_every_kind_of_study_is_shown_or_says_why_not(tmp_path: Path, kind: str, axis: str) -> None:
    made = awkward(tmp_path, kind)
    columns = columns_of(made)
    view = View(columns.default_group, axis)  # type: ignore[arg-type]
    info = panels.progress_info(columns, view, read_liveness(made.engine, made.name), last_of(made))
    drawn_or_refused(panels.progress_figure, info)
    assert dict(info.facts)["trainings"].endswith("of 20")
    for table in (info.table(), info.failures_table(), info.workers, info.devices):
        assert all(len(row) == len(table.headers) for row in table.rows)


def test_the_trainings_stand_in_the_order_in_which_they_ended() -> None:
    columns = many(50)
    backwards = replace(columns, finished_at=columns.finished_at[::-1].copy(), _fronts={})
    info = panels.progress_info(backwards, View(0))
    assert info.number.tolist() == columns.number[columns.trained].tolist()[::-1]
    assert info.table().rows[0][0] <= str(len(info.number))


def test_failures_that_differ_in_numbers_alone_are_counted_together(tmp_path: Path) -> None:
    made = Study(tmp_path)
    for reason in ("nan by step 41 (rate 0.8)", "no memory", "nan by step 7 (rate 1e-3)", "nan by step 9 (rate 0.5)"):
        made.failed(reason)
    columns = columns_of(made)
    rows = panels.progress_info(columns, default_view(columns)).failures_table().rows
    assert rows == (("3", "nan by step 9 (rate 0.5)", "3"), ("1", "no memory", "1"))


def test_saved_epochs_are_those_of_refused_repeated_and_cancelled_trials(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(0.1, 0.9)
    made.infeasible(0.9)
    made.infeasible(0.8)
    made.store.finish(made.priced(0.2), "duplicate", duplicate_of=0)
    cancelled = made.running(0.2, epochs=5)
    made.store.finish(cancelled, "cancelled", reason="cancelled by request")
    pruned = made.running(0.2, epochs=8)
    made.store.finish(pruned, "pruned", reason="behind the median of cheaper networks at 60 %")
    failed = made.running(0.2, epochs=3)
    made.store.finish(failed, "failed", reason="out of memory")
    columns = columns_of(made)
    assert saved_epochs(columns, last_of(made)) == {
        "over a budget": 24,
        "duplicates": 12,
        "ended early": 4,
        "cancelled": 7,
    }
    facts = dict(panels.progress_info(columns, default_view(columns), None, last_of(made)).facts)
    assert facts["epochs saved"] == "47: 24 over a budget, 12 duplicates, 4 ended early, 7 cancelled"


def test_the_rate_is_that_of_the_last_hour() -> None:
    columns = many(400)  # one every 30 s
    assert trials_per_hour(columns) == pytest.approx(120)
    slower = np.where(np.arange(400) < 300, 0.0, 1e6 + 100.0 * np.arange(400))
    assert trials_per_hour(replace(columns, finished_at=slower, _fronts={})) == pytest.approx(36)
    assert trials_per_hour(many(1)) is None


def test_who_was_heard_of_lately_is_alive(tmp_path: Path) -> None:
    made = lively(tmp_path)
    for row in made.rows():
        if row.state in ("done", "failed"):
            made.store.end_attempt(row.number, 1, row.state)
    made.store.renew_attempts([row.number for row in made.rows() if row.state == "running"])
    (running,) = [row.number for row in made.rows() if row.state == "running"]
    made.store.set_reports({(running, 1): ProgressReport(0.51, 51.0, 1234.5)})
    add_device(made.engine, "pi-1")
    add_device(made.engine, "pi-2")
    facts = read_liveness(made.engine, made.name)
    columns = columns_of(made)
    seen = dict(panels.progress_info(columns, default_view(columns), facts).facts)
    assert seen["workers alive"] == "1 of 1 training"
    assert seen["queue"] == "1 priced, 1 to be priced"
    assert seen["run by"] == "no one runs this study now"
    assert seen["devices online"] == "0 of 2"
    later = read_liveness(made.engine, made.name, SimulatedClock(facts.at + 3600))
    info = panels.progress_info(columns, default_view(columns), later)
    assert dict(info.facts)["workers alive"] == "0 of 1 training"
    assert info.workers.rows[0][-1] == "silent"
    assert info.workers.rows[0][2:6] == ("7 of 12", "51.0 %", "1,234", "49 s")
    assert dict(info.facts)["time left"] == "-"  # no one runs it
    assert [row[:2] for row in info.devices.rows] == [("pi-1", "never enrolled"), ("pi-2", "never enrolled")]


def test_a_controller_that_is_silent_is_called_so(tmp_path: Path) -> None:
    made = lively(tmp_path)
    facts = read_liveness(made.engine, made.name)
    columns = columns_of(made)
    for age, words in ((5.0, "box:7, seen 5.0 s ago"), (600.0, "box:7 is silent, seen 10 min ago")):
        study = replace(facts.study, controller="box:7@1", controller_seen_at=facts.at - age)
        info = panels.progress_info(columns, default_view(columns), replace(facts, study=study))
        assert dict(info.facts)["run by"] == words


def test_a_report_that_is_read_later_says_nothing_of_who_lives(tmp_path: Path) -> None:
    columns = columns_of(lively(tmp_path))
    info = panels.progress_info(columns, default_view(columns))
    assert [name for name, _ in info.facts] == ["trainings", "trials", "trials per hour", "epochs saved"]
    assert info.workers.rows == info.devices.rows == ()
