"""What the read commands print, at 80 columns and less, with and without a terminal."""

from __future__ import annotations

import dataclasses
import io
import math
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from dashboards import formats
from dashboards.data.study_settings import public_settings
from dashboards.studies.overview import Overview
from dashboards.terminal import device_tables, study_tables, trial_panel, trial_tables
from search.devices.history import JobLine
from search.results.pareto import pareto_front
from search.store import reader
from search.store.rows import AttemptRow, EventRow, StudyStatus
from search.store.vocabulary import TrialState
from tests.dashboards.studies import SETTINGS, Study, lively
from tests.workers.latencies import without_samples
from workers.latency.measurement import FailedMeasurement


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return lively(tmp_path_factory.mktemp("lively"))


def shown(renderable: RenderableType, width: int = 80) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(renderable)
    return file.getvalue()


def test_no_line_is_longer_than_80_columns_and_nothing_is_cut(made: Study) -> None:
    rows = made.rows()
    for renderable in (trial_tables.trials_table(rows), trial_tables.pareto_table(pareto_front(rows))):
        text = shown(renderable)
        assert max(map(len, text.splitlines())) <= 80
        assert "…" not in text
        assert "\x1b" not in text


def test_a_trial_shows_its_costs_with_interval_and_kind(made: Study) -> None:
    row = next(row for row in made.rows() if row.state == "done")
    assert row.latency is not None
    text = shown(trial_tables.trials_table([row]))
    assert formats.percent(row.top1) in text
    assert formats.latency_text(row.latency) in text
    assert "measured, quick, on" in text
    assert "host:intel-xeon-8370c, onnxruntime 0, 1 thread" in text


def test_latencies_of_several_kinds_each_say_their_own(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(0.3, 0.9)
    made.done(0.2, 0.9, kind="estimated", policy="standard", device="virtual-arm")
    text = shown(trial_tables.pareto_table(made.rows()))
    assert "measured, quick" in text
    assert "estimated" in text
    assert "virtual-arm" in text


def test_reasons_are_shown_in_full_words_at_40_columns(made: Study) -> None:
    failed = next(row for row in made.rows() if row.state == "failed")
    text = shown(trial_tables.trials_table([failed]), width=40)
    assert max(map(len, text.splitlines())) <= 40


def test_a_trial_that_went_on_and_was_ended_again_says_why(made: Study) -> None:
    row = next(row for row in made.rows() if row.state == "failed")
    again = dataclasses.replace(row, state=TrialState.PRUNED, continues=1, reason="ended early: its chance is small")
    text = shown(trial_tables.trials_table([again]))
    assert "continues trial 1" in text
    assert "ended early: its chance is small" in text


SENTENCE = " ".join(f"word{number:02}" for number in range(22))  # 153 letters


def lines_of_sentence(text: str) -> int:
    return sum("word" in line for line in text.splitlines())


def test_no_paragraph_stands_in_a_narrow_column(made: Study) -> None:
    """A sentence of 153 letters takes at most three lines of 80, whatever else the table holds."""
    rows = [dataclasses.replace(row, reason=SENTENCE) for row in made.rows() if row.state == "failed"][:1]
    assert lines_of_sentence(shown(trial_tables.trials_table([*made.rows(), *rows]))) <= 3
    what = ("raspberry-pi-5", "failed", "a" * 64, "wall", "onnxruntime", 1, "standard", 3, 1)
    for reason, history in ((SENTENCE, ()), (None, (f"quarantined: {SENTENCE}",))):
        text = shown(device_tables.jobs_table([JobLine(1, *what, reason, "pi5", 0.0, None, history)]))
        assert 0 < lines_of_sentence(text) <= 3
    failed = FailedMeasurement("a" * 64, SENTENCE)
    text = shown(device_tables.estimates_table([Path("a-network-with-a-name-of-its-own.onnx")], [failed]))
    assert 0 < lines_of_sentence(text) <= 4


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *[(0.04, "0.0 s"), (59.94, "59.9 s"), (59.96, "1 min"), (60, "1 min"), (125.4, "2 min 5 s"), (3_600, "1 h")],
        *[(3_599.6, "1 h"), (3_725, "1 h 2 min"), (86_399, "1 d"), (489_600, "5 d 16 h"), (86_400_000, "1,000 d")],
    ],
)
def test_durations_are_in_the_two_largest_units(seconds: float, text: str) -> None:
    assert formats.duration(seconds) == text


def test_empty_reads_say_so() -> None:
    assert shown(trial_tables.trials_table([])) == "No trials.\n"
    assert "empty" in shown(trial_tables.pareto_table([]))
    assert shown(study_tables.studies_table([])) == "No studies.\n"


def test_status_counts_the_trials_and_says_who_runs_them(made: Study) -> None:
    study = reader.find_study(made.engine, made.name)
    counts = reader.count_states(made.engine, made.id)
    running = AttemptRow(
        *(7, 2, "desk:4711@99", "desk:4712", 900.0, 1007.0, 3, None, None, None),
        **{"progress": 0.26, "seconds": 90.0, "images_per_s": 1234.5, "schedule_epochs": 12},
    )
    event = EventRow("lost", 7, 1, "the worker process was killed by SIGKILL", 912.0)
    standing = StudyStatus(counts, 2, [running], [event])
    seen = dataclasses.replace(study, controller="desk:4711", controller_seen_at=1000.0, stop_requested=True)
    text = shown(study_tables.status_panel(seen, standing, now=1012.0))
    assert counts["done"] == 25
    assert "25 done, 5 more than wanted" in text
    assert "1 failed" in " ".join(text.split())
    assert "2 enqueued configs" in text
    assert "desk:4711, last seen 12.0 s ago" in text
    assert "latency 0.400 ms" in text
    assert "asked for" in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "7 2 desk:4712 desk:4711 5.0 s ago 3" in lines
    assert "7 4 of 12 26.0 % 1,234 1 min 30 s 4 min 16 s" in lines
    assert "time left about 4 min 16 s, at the speed of its trainings so far" in lines
    assert "1 min 40 s lost 7 the worker process was killed by SIGKILL" in lines
    assert max(map(len, text.splitlines())) <= 80
    quiet = shown(study_tables.status_panel(seen, StudyStatus(counts), now=1012.0))
    assert "Running" not in quiet
    assert "events" not in quiet


def test_one_trial_is_shown_with_measurements_curve_and_files(made: Study) -> None:
    row = next(row for row in made.rows() if row.state == "done")
    curve, latencies = reader.read_curve(made.engine, row.id), reader.read_latencies(made.engine, row.id)
    files = {"model.onnx": {"path": "/files/model.onnx", "sha256": "0", "removed": True}}
    text = shown(trial_panel.trial_panel(row, curve, latencies, files, why=("spread", "reached")))
    assert "proposed  spread" in text
    assert "deployed" in text
    assert "/files/model.onnx (removed by the retention rule)" in text
    assert str(row.config) in text
    assert "price" in text
    assert max(map(len, text.splitlines())) <= 80


def test_an_estimate_is_shown_without_a_p90(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(0.3, 0.9, kind="estimated", **without_samples(0.3, 0.25, 0.4))
    row = made.row(0)
    text = shown(trial_panel.trial_panel(row, [], reader.read_latencies(made.engine, row.id), {}))
    assert f"0.3000 [0.2500, 0.4000] {formats.NOTHING} estimated" in " ".join(text.split())


def test_a_long_curve_keeps_its_ends_and_every_condensing_stage(made: Study) -> None:
    row = made.rows()[0]
    first = reader.read_curve(made.engine, row.id)[0]
    curve = [{**first, "epoch": e, "condensing_stage": min(3, e // 70), "form": "training"} for e in range(1, 301)]
    text = shown(trial_panel.trial_panel(row, curve, [], {}))
    for epoch in (1, 70, 140, 210, 300):
        assert f"\n{epoch:>5}  " in text
    assert "of 300 epochs shown" in text


def test_names_that_look_like_markup_are_shown_as_they_are(tmp_path: Path) -> None:
    name = "[bold red]x[/] <script>\x1b[31m"
    made = Study(tmp_path, name)
    text = shown(study_tables.studies_table(Overview(made.engine).read()))
    assert "\x1b" not in text
    joined = "".join(text.split())
    assert "[boldred]x[/]" in joined.replace("─", "")


@pytest.mark.parametrize(
    ("number", "text"),
    [(917_504, "0.92 M"), (65_800_000, "65.8 M"), (529e6, "529 M"), (12_345, "12.3 k"), (999, "999"),
     (9.996e6, "10.0 M"), (1.9e9, "1.90 G"), (math.nan, "-"), (None, "-")],
)  # fmt: skip
def test_counts_have_three_digits_at_most(number: float | None, text: str) -> None:
    assert formats.count(number) == text


@pytest.mark.parametrize(
    ("value_ms", "text"),
    [(0.3119, "0.312"), (1.23, "1.23"), (12.34, "12.3"), (250.0, "250"), (1250.4, "1250"), (None, "-")]
)  # fmt: skip
def test_milliseconds_have_three_digits(value_ms: float | None, text: str) -> None:
    assert formats.digits_ms(value_ms) == text


def test_a_database_password_is_never_shown() -> None:
    settings = {**SETTINGS, "study": {"name": "x", "storage": "postgresql+psycopg://me:secret@db/studies"}}
    assert "secret" not in str(public_settings(settings))
    assert "me:***@db" in str(public_settings(settings))
