"""The timeline: who worked when, drawn from attempts and leases, quick and honest about what it leaves out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dashboards import panels
from dashboards.data.column_reader import read_columns
from dashboards.data.timeline import Span, Timeline, read_timeline
from dashboards.panels.study.timeline import LOOKS, MOST_ROWS, TimelineInfo
from search.store import device_tables as devices
from search.store.store import StudyStore
from search.store.tables import attempt, trial
from search.store.vocabulary import AttemptOutcome
from tests.dashboards.studies import Study
from workers.clock import SimulatedClock

START = 1_800_000_000.0


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Two workers of one host and one of a node that was lost; a device that measured, and gave up once."""
    study = Study(tmp_path)
    clock = SimulatedClock(START)
    study.store = StudyStore(study.engine, study.id, clock=clock)

    def train(number: int, of: int, worker: str, after_s: float) -> None:
        clock.sleep(after_s)
        study.store.set_running(number, of)
        study.store.set_worker(number, of, worker)

    for _ in range(4):
        study.asked()
    train(0, 1, "desk:11", 5)
    train(1, 1, "desk:12", 0)
    train(2, 1, "node-2:7", 5)
    clock.sleep(20)
    study.store.end_attempt(0, 1, AttemptOutcome.DONE)
    study.store.end_attempt(2, 1, AttemptOutcome.LOST, "its worker fell <silent>")
    train(2, 2, "desk:13", 1)  # a new process of the host, where the first one's row is free again
    clock.sleep(30)
    study.store.renew_attempts([1, 2])
    study.store.end_attempt(2, 2, AttemptOutcome.PRUNED)
    _measured(study)
    return study


def _measured(study: Study) -> None:
    row = {"anchor_sha256": None, "mode": "wall", "runtime": "ncnn", "threads": 1, "precision": "fp32", "policy": "{}"}
    row |= {"policy_label": "quick", "batch": "b", "priority": 0, "state": "done", "attempt": 2, "troubles": 1}
    with study.engine.begin() as connection:
        added = {"name": "phone-1", "queue": "host", "token_hash": "t", "added_at": START}
        connection.execute(sa.insert(devices.device).values(added))
        for key, (queue, at) in enumerate((("host", START + 2), ("another", START + 3)), start=1):
            named = {"id": key, "queue": queue, "identity": f"i{key}", "model_sha256": f"m{key}", "submitted_at": at}
            connection.execute(sa.insert(devices.job).values(**row, **named, quarantines=0))
            for of, outcome in ((1, "gave up"), (2, "accepted")):
                lease = {"job_id": key, "attempt": of, "device_id": 1, "instance": "x", "doing": "measuring"}
                times = {"leased_at": at + 10 * of, "heartbeat_at": at + 10 * of + 4}
                connection.execute(sa.insert(devices.lease).values(**lease, **times, outcome=outcome))


def info_of(study: Study, most: int = 500) -> TimelineInfo:
    columns = read_columns(study.engine, study.name)
    return panels.timeline_info(columns, read_timeline(study.engine, study.id, list(columns.latencies), most))


def bars(info: TimelineInfo) -> list[tuple[str, str, int | None, int]]:
    return [(bar.row, bar.kind, bar.span.number, bar.span.attempt) for bar in info.bars if "waiting" not in bar.kind]


def test_each_worker_and_device_has_a_row_with_what_it_did_and_how_that_ended(study: Study):
    info = info_of(study)
    assert bars(info) == [
        ("desk #1", "trained", 0, 1),
        ("desk #2", "running", 1, 1),
        ("node-2 #1", "failed or lost", 2, 1),
        ("device phone-1", "not measured", None, 1),
        ("device phone-1", "measured", None, 2),
        ("desk #1", "ended early", 2, 2),
    ]
    assert info.rows == ("waiting for a worker", "device phone-1", "desk #2", "desk #1", "node-2 #1")
    newest = info.table().rows[0]
    assert newest[1:7] == ("desk:13", "2", "2", "30.0 s", "-", "pruned")
    assert info.table().rows[-1][1:6] == ("desk:11", "0", "1", "25.0 s", "5.0 s")
    assert "3 workers trained" in info.notes[0]
    assert "trials waited 5.0 s in the middle and 10.0 s at most" in info.notes[0]
    assert "1 attempt failed or was lost" in info.notes[0]


def test_the_figure_draws_each_bar_where_and_when_it_was_and_no_markup_of_a_reason(study: Study):
    info = info_of(study)
    figure = panels.timeline_figure(info)
    assert {trace.name for trace in figure.data} <= LOOKS.keys()
    assert sum(len(trace.x) for trace in figure.data) == len(info.bars)
    lost = next(trace for trace in figure.data if trace.name == "failed or lost")
    assert (lost.base[0], lost.x[0], lost.y[0]) == (1000 * (START + 10), 20_000, "node-2 #1")
    assert "fell &lt;silent&gt;" in lost.text[0]
    assert list(lost.customdata) == [2]  # what a click on it selects
    colours = [(trace.marker.color, trace.marker.pattern.shape, trace.width) for trace in figure.data]
    assert len(set(colours)) == len(colours)


def test_what_is_left_out_of_a_long_study_is_said(study: Study):
    info = info_of(study, most=1)
    assert bars(info) == [("desk #1", "ended early", 2, 2)]
    assert "3 attempts and 2 measurements before that are left out" in info.notes[0]


def test_a_study_without_work_says_so(tmp_path: Path):
    study = Study(tmp_path)
    assert "No trial has been asked for yet." in str(info_of(study).reason)
    study.asked()
    assert "No training has begun yet" in str(info_of(study).reason)


def test_many_restarts_leave_few_rows_and_many_nodes_the_newest():
    spans = [Span(f"desk:{n}", n, 1, START + 10 * n, START + 10 * n + 9, AttemptOutcome.DONE) for n in range(300)]
    columns: Any = range(300)
    assert panels.timeline_info(columns, Timeline(tuple(spans))).rows == ("desk #1",)
    nodes = [Span(f"node-{n}:1", n, 1, START + n, START + n + 9, AttemptOutcome.DONE) for n in range(300)]
    info = panels.timeline_info(columns, Timeline(tuple(nodes)))
    assert len(info.rows) == MOST_ROWS
    assert "node-299 #1" in info.rows
    assert "260 rows without newer work are left out." in info.notes


@pytest.mark.slow(seconds=3)
def test_ten_thousand_trials_are_read_and_drawn_in_a_moment(study: Study):
    with study.engine.begin() as connection:
        row = dict(connection.execute(sa.select(trial).where(trial.c.number == 0)).one()._mapping)
        rows = [{**row, "id": 100 + n, "number": 100 + n, "config_hash": str(n)} for n in range(10_000)]
        connection.execute(sa.insert(trial), rows)
        tries = [
            {"trial_id": 100 + n, "attempt": 1, "owner": "desk:1", "worker": f"desk:{n % 8}", "epochs": 1}
            | {"started_at": START + n, "heartbeat_at": START + n + 7, "ended_at": START + n + 8, "outcome": "done"}
            for n in range(10_000)
        ]
        connection.execute(sa.insert(attempt), tries)
    columns = read_columns(study.engine, study.name)
    times = []
    for _ in range(3):
        began = time.process_time()
        info = panels.timeline_info(columns, read_timeline(study.engine, study.id, ["host"]))
        figure = panels.timeline_figure(info)
        times.append(time.process_time() - began)
    assert min(times) < 0.5
    assert len(info.rows) <= 9
    assert len(figure.to_json()) < 400_000  # of a report's 6 MB
