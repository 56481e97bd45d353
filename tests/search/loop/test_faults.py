"""What goes wrong around a search: a full disk, a read-only one, too little memory, damaged files, two at once."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from search.engines.events import Done, EpochEnded, Failed, Resumed, Stopped
from search.engines.local import LocalEngine
from search.store.connection.database import open_for_reading
from search.store.tables import event
from space.errors import (
    DatabaseUnavailable,
    DiskFull,
    OutOfMemory,
    ReadOnlyFolder,
    StudyBusy,
    StudyExists,
)
from tests.command_line import StartedCommand
from tests.search.engines.engine_contract import collect
from tests.search.loop.small_disk import PATIENCE_S, SmallDisk, on_a_small_disk
from tests.search.test_launch import Place, new_place
from tests.search.tiny_studies import assert_consistent
from tests.waiting import until
from tests.workers.tiny import NET, TRAINING, digits, job
from workers.file_names import CHECKPOINTS, LOG_FILE

pytestmark = pytest.mark.slow


def started(place: Place, *words: str) -> StartedCommand:
    """A command in a process and a group of its own, in the study's folder."""
    logs = len(list(place.folder.glob("*.log")))
    return StartedCommand(*words, cwd=place.folder, log=place.folder / f"{logs}.log")


def said(process: StartedCommand) -> str:
    """Everything that a command has printed."""
    return process.log.read_text()


def events(place: Place) -> list[str]:
    engine = open_for_reading(place.url)
    with engine.connect() as connection:
        kinds = list(connection.scalars(sa.select(event.c.kind).order_by(event.c.id)))
    engine.dispose()
    return kinds


def ends_well(place: Place, wanted: int) -> None:
    rows = place.read()
    done = [row for row in rows if row.state == "done"]
    assert len(done) == wanted
    assert {row.state for row in rows} <= {"done", "infeasible", "duplicate"}
    assert len({row.identity for row in done}) == wanted
    for row in done:
        assert [point["epoch"] for point in place.curve(row)] == list(range(1, row.training["epochs"] + 1))


# -- the disk --


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A study whose files are on the small disk."""
    place = new_place(tmp_path)
    place.file.write_text(place.file.read_text().replace(str(tmp_path / "files"), str(tmp_path / "disk" / "files")))
    return place


NEW = ("launch", "study.toml", "--storage", "sqlite:///study.db", "--set", "engine.workers=1")


def brought(disk: SmallDisk, file: Path) -> None:
    """Put the study's file on the disk."""
    shutil.copy(file, disk.folder / "study.toml")


def keep_database(disk: SmallDisk) -> None:
    """Copy the database to where the test looks for it: nobody else sees this disk."""
    shutil.copy(disk.folder / "study.db", disk.folder.parent / "study.db")


def full_then_filled(disk: SmallDisk, file: Path) -> None:
    brought(disk, file)
    launch = (*NEW, "--set", "training.epochs=20", "--set", "study.trainings=1")
    disk.fill(room_kb=400)
    print("first", disk.run(*launch), flush=True)
    disk.clear()
    disk.mount("size=24m")
    second = disk.start(*launch, "--resume")
    until((disk.folder / "files" / "digits" / "trial-00000" / LOG_FILE).exists, every_s=0.005)
    disk.fill()
    second.join(PATIENCE_S)
    print("second", second.exitcode, flush=True)
    disk.clear()
    print("third", disk.run(*launch, "--resume"), flush=True)
    keep_database(disk)


@pytest.mark.slow(seconds=15)
def test_a_disk_that_is_full_or_fills_in_the_middle_ends_the_search_and_with_room_it_goes_on(place: Place):
    printed = on_a_small_disk(place.folder, full_then_filled, place.file)
    assert f"first {DiskFull.exit_code}\n" in printed, printed
    assert f"second {DiskFull.exit_code}\n" in printed, printed
    assert "third 0\n" in printed, printed
    assert "Traceback" not in printed
    assert printed.count("no space is left") >= 2
    ends_well(place, 1)


def full_at_some_moment(disk: SmallDisk, file: Path, room_kb: int) -> None:
    brought(disk, file)
    launch = (*NEW, "--set", "training.epochs=2")
    disk.fill(room_kb)
    print("first", disk.run(*launch), flush=True)
    disk.clear()
    disk.mount("size=200m")
    print("then", disk.run(*launch, "--resume"), flush=True)
    keep_database(disk)


@pytest.mark.soak
@pytest.mark.parametrize("room_kb", [60, 300, 700])
def test_a_disk_that_fills_at_any_moment_loses_nothing(place: Place, room_kb: int):
    """Room for hardly anything, for the tables, for the images: whatever is full first."""
    printed = on_a_small_disk(place.folder, full_at_some_moment, place.file, room_kb)
    assert f"first {DiskFull.exit_code}\n" in printed, printed
    assert "then 0\n" in printed, printed
    assert "Traceback" not in printed
    ends_well(place, 3)


def read_only(disk: SmallDisk, file: Path) -> None:
    brought(disk, file)
    disk.mount("ro")
    print("first", disk.run(*NEW), "files", *sorted(path.name for path in disk.folder.iterdir()), flush=True)


def test_a_read_only_disk_is_one_line_before_anything_is_begun(place: Place):
    *said, ending = on_a_small_disk(place.folder, read_only, place.file).splitlines()
    assert "Traceback" not in "".join(said)
    codes = (DatabaseUnavailable.exit_code, ReadOnlyFolder.exit_code)
    assert ending in [f"first {code} files study.toml" for code in codes]


# -- memory --


def test_a_worker_that_runs_out_of_memory_says_so_and_serves_the_next(tmp_path: Path):
    digits(tmp_path)
    engine = LocalEngine(workers=1, threads=1, measuring=())
    try:
        engine.submit(job(tmp_path / "0", tmp_path, number=0))
        collect(engine, {0})
        pid = engine._workers[0].process.pid
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + 4 * 2**20
        resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))
        wide = NET.__class__.from_dict({**NET.to_dict(), "growth": [96] * len(NET.growth)})
        greedy = TRAINING.model_copy(update={"batch_size": 1024})
        engine.submit(job(tmp_path / "1", tmp_path, number=1, training=greedy, config=wide))
        last = collect(engine, {1})[-1]
        assert last == Failed(1, 1, "out of memory (batch size 1024)", OutOfMemory.exit_code)
        resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))
        assert engine._workers[0].process.pid == pid  # it goes on
    finally:
        engine.close()


# -- files --


def test_a_truncated_checkpoint_is_passed_over_and_the_network_is_the_same(tmp_path: Path):
    digits(tmp_path)
    training = TRAINING.model_copy(update={"epochs": 12})
    undisturbed, damaged = (
        replace(job(tmp_path / str(number), tmp_path, number=number, training=training), checkpoint_every_s=0.0)
        for number in (0, 1)
    )
    engine = LocalEngine(workers=1, threads=1, measuring=())
    try:
        engine.submit(undisturbed)
        expected = collect(engine, {0})[-1]
        assert isinstance(expected, Done)
        engine.submit(damaged)
        for _ in range(2):
            collect(engine, {1}, EpochEnded)
        engine.stop()
        assert isinstance(collect(engine, {1})[-1], Stopped)
        checkpoints = sorted((tmp_path / "1" / CHECKPOINTS).glob("*.safetensors"))
        assert len(checkpoints) == 2
        os.truncate(checkpoints[-1], checkpoints[-1].stat().st_size // 2)
        engine.submit(replace(damaged, attempt=2))
        resumed, *_, last = collect(engine, {1})
        assert isinstance(resumed, Resumed)  # it goes on from the older one
        assert isinstance(last, Done)
        assert last.result.network_sha256 == expected.result.network_sha256
        assert last.result.onnx_sha256 == expected.result.onnx_sha256
    finally:
        engine.close()


# -- two at once --


@pytest.mark.slow(seconds=8)
def test_of_two_launches_of_one_new_study_one_runs_and_the_other_says_why_not(tmp_path: Path):
    place = new_place(tmp_path)
    few = ("--set", "study.trainings=1", "--set", "engine.workers=1")
    words = ("launch", "study.toml", "--storage", place.url, "--resume", *few)
    both = [started(place, *words) for _ in range(2)]
    ended = [(process.wait(PATIENCE_S), said(process)) for process in both]
    codes = sorted(code for code, _ in ended)
    assert codes[0] == 0, ended
    assert codes[1] in (0, StudyBusy.exit_code, StudyExists.exit_code), ended  # 0: it came after the other had ended
    for code, err in ended:
        assert "Traceback" not in err
        if code:
            assert err.strip().splitlines()[-1].startswith("error:"), err
    ends_well(place, 1)


@pytest.mark.slow(seconds=15)
def test_of_those_that_stand_by_one_ends_on_ctrl_c_and_one_takes_over_when_the_controller_is_killed(tmp_path: Path):
    place = new_place(tmp_path)
    changes = ("study.trainings=1", "training.epochs=16", "limits.checkpoint_every_s=0.2", "engine.workers=1")
    options = ("--storage", place.url, *(word for change in changes for word in ("--set", change)))
    first = started(place, "launch", "study.toml", *options)
    until(lambda: place.epochs() > 0)
    place.hold()
    waiting, interrupted = (started(place, "launch", "study.toml", "--stand-by", *options) for _ in range(2))
    until(lambda: all("standing by" in said(process) for process in (waiting, interrupted)))
    interrupted.send_signal(signal.SIGINT)
    assert interrupted.wait(PATIENCE_S) == 130
    assert "stopped with" in said(interrupted)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert waiting.wait(PATIENCE_S) == 0, said(waiting)
    assert events(place) == ["taken over"]
    ends_well(place, 1)
    late = started(place, "launch", "study.toml", "--stand-by", *options)
    assert late.wait(PATIENCE_S) == 0, said(late)
    assert events(place) == ["taken over"]  # it found a finished study finished
    ends_well(place, 1)


# -- clocks --


def test_a_clock_that_jumps_changes_nothing_but_the_times(make_bench, monkeypatch: pytest.MonkeyPatch):
    true, rng = time.time, random.Random(7)
    monkeypatch.setattr(time, "time", lambda: true() + rng.choice([-86400.0, -90.0, 0.0, 90.0, 86400.0]))
    bench = make_bench(study__trainings=8)
    assert bench.run() == "finished"
    assert len(bench.done()) == 8
    assert_consistent(bench)
