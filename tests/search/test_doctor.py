"""Each thing that can be wrong with a study: a sound one is broken that way, examined, repaired, and sound again."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest
import sqlalchemy as sa
from optuna.storages._rdb import models
from optuna.trial import TrialState
from typer.testing import CliRunner

import condensery
from search.devices import jobs, model_store
from search.devices.transitions import REQUEST_S
from search.engines.fake import FakeEngine, instant_result
from search.store import reader
from search.store.device_tables import job, request
from search.store.optuna_mirror import TRIALS, drop_open_trials
from search.store.store import StudyStore
from search.store.tables import artifact, attempt, curve, event, metadata, study, trial
from space.errors import StudyBusy, StudyDamaged
from tests.search.tiny_studies import Bench, assert_consistent, optuna_study
from workers.file_names import NETWORK_FILE, ONNX_FILE
from workers.metrics import Predictions
from workers.processes import process_name
from workers.training.job import TrialJob


def trained(job: TrialJob):
    """A made-up result whose files are there."""
    folder, hashes = Path(job.folder), []
    folder.mkdir(parents=True)
    for name in (NETWORK_FILE, ONNX_FILE):
        content = f"{name} of trial {job.number}".encode()
        (folder / name).write_bytes(content)
        hashes.append(hashlib.sha256(content).hexdigest())
    return replace(instant_result(job), network_sha256=hashes[0], onnx_sha256=hashes[1])


@dataclass
class Broken:
    """A finished study of two trainings, to be broken."""

    bench: Bench

    @property
    def files(self) -> Path:
        return self.bench.folder / "files"

    @property
    def store(self) -> StudyStore:
        assert self.bench.study is not None
        return self.bench.study.store

    def sql(self, statement: sa.Executable) -> None:
        with self.store.engine.begin() as connection:
            connection.execute(statement)

    def drop_from_optuna(self, number: int) -> None:
        """Make Optuna's tables forget a trial."""
        with self.store.engine.begin() as connection:
            connection.execute(sa.update(TRIALS).where(TRIALS.c.number == number).values(state=TrialState.RUNNING))
            drop_open_trials(connection, 1)

    def doctor(self, *words: str) -> click.testing.Result:
        """Run the command; its process would close its connections by ending."""
        opened: list[Any] = []

        def remember(connection: Any, _: Any) -> None:
            opened.append(connection)

        sa.event.listen(sa.pool.Pool, "connect", remember)
        try:
            return CliRunner().invoke(condensery.app, ["doctor", "files", "--storage", self.bench.url, *words])
        finally:
            sa.event.remove(sa.pool.Pool, "connect", remember)
            for connection in opened:
                connection.close()

    def events(self) -> list[tuple[str, int | None, str]]:
        newest = reader.newest_events(self.store.engine, self.store.study_id, 100)
        return [(one.kind, one.number, one.detail) for one in reversed(newest)]

    def content(self) -> dict[str, list[str]]:
        tables = {**metadata.tables, **models.BaseModel.metadata.tables}
        with self.store.engine.connect() as connection:
            rows = {name: sorted(map(repr, connection.execute(sa.select(table)))) for name, table in tables.items()}
        there = sorted(f"{path} {path.is_file() and path.read_bytes()!r}" for path in self.files.rglob("*"))
        return {**rows, "files": there}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=[pytest.mark.slow, pytest.mark.long])])
def database(request: pytest.FixtureRequest) -> str:
    """The URL of a database of the test's own: SQLite; before a release or `on_both`, PostgreSQL too."""
    url: str = request.getfixturevalue("study_database" if request.param == "sqlite" else "postgres_database")
    return url


on_both = pytest.mark.parametrize(
    "database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
)


@pytest.fixture
def broken(database_bench, tmp_path: Path) -> Broken:
    bench = database_bench(study__name="files", study__files=str(tmp_path), study__trainings=2)
    bench.engine = FakeEngine(outcome=trained)
    assert bench.run() == "finished"
    return Broken(bench)


def repaired(broken: Broken, *lines: str, numbers: tuple[int | None, ...]) -> None:
    """The lines say what would be repaired, then what is repaired and recorded; then nothing is wrong."""
    before = broken.content()
    looked = broken.doctor("--dry-run")
    assert isinstance(looked.exception, StudyDamaged), looked
    assert looked.stdout.splitlines() == [f"would repair: {line}" for line in lines]
    assert broken.content() == before
    done = broken.doctor()
    assert done.exit_code == 0, done
    assert done.stdout.splitlines() == [f"repaired: {line}" for line in lines]
    noted = [(number, detail) for kind, number, detail in broken.events() if kind == "repaired"]
    assert noted == [(number, line.replace("; ", ": ")) for number, line in zip(numbers, lines, strict=True)]
    sound(broken)


def sound(broken: Broken) -> None:
    before = broken.content()
    result = broken.doctor()
    assert (result.exit_code, result.stdout) == (0, ""), result
    assert "study 'files': nothing is wrong" in result.stderr
    assert broken.content() == before


def left(broken: Broken, *lines: str) -> None:
    """The lines are reported, and nothing is changed."""
    before = broken.content()
    for words in ((), ("--dry-run",), ()):
        result = broken.doctor(*words)
        assert isinstance(result.exception, StudyDamaged), result
        counts = "1 of 1 finding" if len(lines) == 1 else f"{len(lines)} of {len(lines)} findings"
        are = "is" if len(lines) == 1 else "are"
        assert str(result.exception) == f"{counts} in study 'files' {are} not repaired."
        assert result.stdout.splitlines() == [f"left: {line}" for line in lines]
    assert broken.content() == before


def test_nothing_is_wrong_with_a_study_that_ended_by_itself(broken: Broken):
    sound(broken)


def test_a_study_that_a_live_controller_runs_is_only_looked_at(broken: Broken):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        store = StudyStore(broken.store.engine, broken.store.study_id)
        store.me = process_name(process.pid)
        store.claim()
        broken.sql(sa.update(trial).where(trial.c.number == 0).values(mirrored=False))
        broken.sql(sa.update(trial).where(trial.c.number == 1).values(state="running", finished_at=None))
        (broken.files / "pricing-x").mkdir()
        (broken.files / "trial-00007").mkdir()
        before = broken.content()
        refused = broken.doctor()
        assert isinstance(refused.exception, StudyBusy)
        assert "--dry-run" in str(refused.exception)
        looked = broken.doctor("--dry-run")
        assert (looked.exit_code, looked.stdout) == (0, "")  # it is the controller's business
        (broken.files / "trial-00000" / ONNX_FILE).unlink()
        assert len(broken.doctor("--dry-run").stdout.splitlines()) == 1
        assert {name: rows for name, rows in broken.content().items() if name != "files"} == {
            name: rows for name, rows in before.items() if name != "files"
        }
    finally:
        process.kill()
        process.communicate()


@on_both
def test_what_a_dead_controller_left_running_is_queued(broken: Broken):
    broken.sql(sa.update(trial).where(trial.c.number == 1).values(state="running", finished_at=None, mirrored=False))
    broken.sql(sa.update(attempt).values(outcome=None, ended_at=None).where(attempt.c.trial_id == 2))
    broken.drop_from_optuna(1)
    dead = f"{socket.gethostname()}:4194999@1"
    broken.sql(sa.update(study).values(controller=dead, controller_seen_at=time.time(), stop_requested=True))
    repaired(
        broken,
        f"the controller {dead.partition('@')[0]} ended without releasing the study; released",
        "a request to stop is left over; forgotten",
        "attempt 1 of trial 1 has no end, but no controller runs the study; ended as stopped",
        "trial 1 is running, but no controller runs the study; queued, to go on from its checkpoint",
        numbers=(None, None, 1, 1),
    )
    assert broken.store.trial(1).state == "queued"
    found = reader.find_study(broken.store.engine, "files")
    assert (found.controller, found.stop_requested) == (None, False)
    (one,) = [one for one in reader.read_attempts(broken.store.engine, broken.store.study_id) if one.number == 1]
    assert one.outcome == "stopped"
    broken.bench.engine = FakeEngine()
    assert broken.bench.run(resume=True) == "finished"
    assert_consistent(broken.bench)


def test_an_attempt_without_an_end_is_ended(broken: Broken):
    broken.sql(sa.update(attempt).values(outcome=None, ended_at=None).where(attempt.c.trial_id == 1))
    line = "attempt 1 of trial 0 has no end, but no controller runs the study; ended as stopped"
    repaired(broken, line, numbers=(0,))


def test_a_request_to_stop_that_nobody_obeyed_is_forgotten(broken: Broken):
    broken.sql(sa.update(study).values(stop_requested=True))
    repaired(broken, "a request to stop is left over; forgotten", numbers=(None,))


@on_both
def test_trials_open_in_optunas_tables_are_dropped_there(broken: Broken):
    with optuna_study(broken.bench) as theirs:
        theirs.ask({})
        theirs.enqueue_trial({"groups": 1})
    line = "Optuna's tables hold trials 2, 3 as open; ours hold none as open; dropped there"
    before = broken.store.trials()
    looked = broken.doctor()
    assert looked.stdout == f"repaired: {line}\n"
    sound(broken)
    assert broken.store.trials() == before
    assert_consistent(broken.bench)


@on_both
def test_trials_that_optunas_tables_lack_are_written_there(broken: Broken):
    def trials():
        with optuna_study(broken.bench) as theirs:
            return [(one.number, one.state, one.values, one.params, one.constraints) for one in theirs.trials]

    before = trials()
    broken.drop_from_optuna(0)
    broken.sql(sa.update(trial).where(trial.c.number == 1).values(mirrored=False, optuna_trial_id=None))
    line = "Optuna's tables don't hold trials 0, 1, or ours don't know that they do; written there"
    repaired(broken, line, numbers=(None,))
    assert trials() == sorted(before)
    assert_consistent(broken.bench)


@on_both
def test_a_trial_that_optunas_tables_tell_differently_is_reported(broken: Broken):
    values = models.TrialValueModel.__table__
    row = broken.store.trial(0)
    broken.sql(
        sa.update(values).where(values.c.trial_id == row.optuna_trial_id, values.c.objective == 0).values(value=2)
    )
    broken.sql(sa.update(TRIALS).where(TRIALS.c.number == 1).values(state=TrialState.FAIL))
    told = broken.doctor("--dry-run").stdout.splitlines()
    rest = "; the search uses our tables, but Optuna's mislead their readers: find out what wrote there"
    assert told[0].startswith(f"left: trial 0 is COMPLETE [{row.top1!r}, ")
    assert ", but COMPLETE [2.0, " in told[0]
    assert ", but FAIL [" in told[1]
    assert all(line.endswith(rest) for line in told)
    left(broken, *(line.removeprefix("left: ") for line in told))


def test_a_trial_that_only_optunas_tables_know_is_reported(broken: Broken):
    with optuna_study(broken.bench) as theirs:
        theirs.tell(theirs.ask({}), [0.5, 1.0, 1.0])
    left(
        broken,
        "Optuna's tables hold trial 2 as COMPLETE, ours as no trial that has ended; the search uses our tables, "
        "but Optuna's mislead their readers: find out what wrote there",
    )


COPY = "put it back from a copy; until then `pick` and `export` can't use this network"
REPLACE = "replace it by a copy with the SHA-256 that is recorded; until then this network can't be used"


def test_files_that_are_gone_or_changed_are_reported_and_sound_once_they_are_back(broken: Broken):
    gone, changed = broken.files / "trial-00000" / ONNX_FILE, broken.files / "trial-00001" / NETWORK_FILE
    before = gone.read_bytes(), changed.read_bytes()
    gone.unlink()
    changed.write_bytes(b"something else")
    left(
        broken,
        f"{gone} of trial 0 is missing; {COPY}",
        f"{changed} of trial 1 is not the file that was recorded (its SHA-256 differs); {REPLACE}",
    )
    gone.write_bytes(before[0])
    changed.write_bytes(before[1])
    sound(broken)


def test_a_trial_done_without_recorded_files_is_reported(broken: Broken):
    broken.sql(sa.delete(artifact).where(artifact.c.trial_id == 1))
    left(broken, f"trial 0 is done, but no file of it is recorded; {COPY}")


def test_predictions_that_are_damaged_or_of_another_network_are_reported(broken: Broken):
    said = Predictions.of(np.eye(2)[[0, 1, 1, 1]], np.array([0, 0, 1, 1]))
    broken.sql(sa.update(trial).where(trial.c.number == 0).values(top1=0.75))
    for number in (0, 1):
        broken.store.add_predictions(number, "validation", said.to_bytes())
    broken.store.add_predictions(0, "test", b"no file")
    remedy = "restore the database from a backup; until then its classes can't be told"
    lines = [line for line in broken.doctor().stdout.splitlines() if "predictions" in line]
    assert lines == [
        f"left: the test predictions of trial 0 are damaged; {remedy}",
        f"left: the validation predictions of trial 1 don't give its top-1; {remedy}",
    ]


def test_what_a_retention_rule_removed_is_left_alone(broken: Broken):
    shutil.rmtree(broken.files / "trial-00000")
    broken.store.mark_removed(0)
    sound(broken)


def test_a_folder_that_no_trial_knows_is_set_aside_and_never_over_another(broken: Broken):
    orphans = broken.files / ".orphans"
    for time_ in range(2):
        folder = broken.files / "trial-00042"
        folder.mkdir()
        (folder / "word.txt").write_text(f"of time {time_}")
        done = broken.doctor()
        assert done.stdout == f"repaired: {folder} belongs to no recorded trial; moved into {orphans}\n"
        sound(broken)
    assert (orphans / "trial-00042" / "word.txt").read_text() == "of time 0"
    assert (orphans / "trial-00042-1" / "word.txt").read_text() == "of time 1"


def test_a_folder_that_a_recorded_file_is_in_stays(broken: Broken):
    folder = broken.files / "trial-00042"
    (broken.files / "trial-00000").rename(folder)
    for name in (NETWORK_FILE, ONNX_FILE):
        moved = sa.update(artifact).where(artifact.c.trial_id == 1, artifact.c.name == name)
        broken.sql(moved.values(path=str(folder / name)))
    sound(broken)


def test_what_is_only_temporary_is_removed(broken: Broken):
    (broken.files / "pricing-abc").mkdir()
    (broken.files / "pricing-abc" / "model.onnx").write_bytes(b"x")
    checkpoints = broken.files / "trial-00001" / "checkpoints"
    checkpoints.mkdir()
    half = checkpoints / ".checkpoint-000000001.safetensors.4711"
    half.write_bytes(b"ha")
    (checkpoints / "checkpoint-000000001.json").write_text("{}")
    (broken.files / ".anchor.onnx").write_bytes(b"the anchor network")
    repaired(
        broken,
        f"{broken.files / 'pricing-abc'} is left over from a measurement; removed",
        f"{half} was never finished; removed",
        numbers=(None, None),
    )
    assert [path.name for path in checkpoints.iterdir()] == ["checkpoint-000000001.json"]
    assert (broken.files / ".anchor.onnx").exists()


def test_curves_with_gaps_and_trials_without_any_are_reported(broken: Broken):
    rest = "it can't be restored; the trial's result doesn't depend on it"
    broken.sql(sa.delete(curve).where(curve.c.trial_id == 1))
    broken.sql(sa.update(curve).where(curve.c.trial_id == 2).values(epoch=3))
    left(
        broken,
        f"trial 0 is done, but has no learning curve; {rest}",
        f"the learning curve of trial 1 has 1 epoch, the last is 3; {rest}",
    )


@on_both
def test_device_jobs_that_nobody_requests_any_more_are_given_up(broken: Broken):
    engine = broken.store.engine
    models_ = [model_store.put_model(engine, content) for content in (b"one", b"another")]
    requests = [jobs.MeasurementRequest("pi", sha, None, "wall", "onnxruntime", 1, {}, "quick") for sha in models_]
    key, kept = jobs.submit(engine, requests, "owner-1")
    broken.sql(sa.update(request).where(request.c.job_id == key).values(renewed_at=time.time() - REQUEST_S - 60.0))
    repaired(broken, "1 job waits in queue pi that no one requests any more; given up", numbers=(None,))
    with engine.connect() as connection:
        states = {row.id: row.state for row in connection.execute(sa.select(job.c.id, job.c.state))}
    assert states == {key: "failed", kept: "waiting"}


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_damaged_sqlite_file_is_reported_before_anything_else_is_believed(broken: Broken):
    with broken.store.engine.begin() as connection:  # a column that holds what it must not
        connection.exec_driver_sql("PRAGMA writable_schema = ON")
        connection.exec_driver_sql(
            "UPDATE sqlite_schema SET sql = replace(sql, 'reason TEXT', 'reason TEXT NOT NULL') "
            "WHERE name = 'condensery_trial'"
        )
    broken.bench.close()
    result = broken.doctor("--dry-run")
    assert isinstance(result.exception, StudyDamaged)
    (line,) = result.stdout.splitlines()
    assert line.startswith(
        "left: SQLite finds its file damaged: NULL value in condensery_trial.reason and 1 more; restore"
    )


def test_as_json_it_says_what_was_found_and_what_was_done(broken: Broken):
    (broken.files / "pricing-abc").mkdir()
    (broken.files / "trial-00000" / ONNX_FILE).unlink()
    result = broken.doctor("--json")
    assert isinstance(result.exception, StudyDamaged)
    document = json.loads(result.stdout)
    assert (document["study"], document["dry_run"], document["left"]) == ("files", False, 1)
    file, temporary = document["findings"]
    assert (file["check"], file["trial"], file["repairable"], file["repaired"]) == ("file", 0, False, False)
    assert (temporary["check"], temporary["trial"], temporary["repaired"]) == ("temporary", None, True)
    shutil.copy(broken.files / "trial-00000" / NETWORK_FILE, broken.files / "trial-00000" / ONNX_FILE)
    assert json.loads(broken.doctor("--json", "--dry-run").stdout)["findings"][0]["check"] == "file"


@on_both
def test_several_things_at_once_are_each_mended_in_one_run(broken: Broken):
    broken.sql(sa.update(study).values(stop_requested=True))
    broken.sql(sa.update(trial).where(trial.c.number == 0).values(mirrored=False))
    (broken.files / "trial-00099").mkdir()
    assert len(broken.doctor().stdout.splitlines()) == 3
    sound(broken)
    with broken.store.engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(event)) == 3
