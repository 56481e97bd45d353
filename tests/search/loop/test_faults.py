"""What goes wrong around a search: a full disk, a read-only one, too little memory, damaged files, two at once."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from search.engines.events import Done, EpochEnded, Failed, Resumed, Stopped
from search.engines.local import LocalEngine
from search.store import reader
from search.store.connection.database import open_for_reading
from search.store.tables import event
from space.errors import (
    CondenseryError,
    DatabaseUnavailable,
    DiskFull,
    OutOfMemory,
    ReadOnlyFolder,
    StudyBusy,
    StudyExists,
)
from tests.command_line import StartedCommand
from tests.search.engines.engine_contract import collect
from tests.search.test_launch import Place, new_place
from tests.search.tiny_studies import assert_consistent
from tests.waiting import until
from tests.workers.tiny import NET, TRAINING, digits, job
from workers.file_names import CHECKPOINTS

ROOT = Path(__file__).parents[3]
PATIENCE_S = 300.0  # none waits so long on a machine that is not crowded
pytestmark = pytest.mark.slow(seconds=12)


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


def epochs(place: Place) -> int:
    """How many epochs are recorded, of all trials."""
    if not (place.folder / "study.db").exists():
        return 0
    try:
        return sum(len(place.curve(row)) for row in place.read())
    except Exception:  # the tables are being made
        return 0


def is_running(place: Place) -> bool:
    """Whether the study is there and has a controller."""
    with contextlib.ExitStack() as after, contextlib.suppress(CondenseryError, sa.exc.SQLAlchemyError):
        engine = open_for_reading(place.url)  # neither may be there yet
        after.callback(engine.dispose)
        return reader.find_study(engine, "digits").controller is not None
    return False


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
    """A study whose files are on the small disk; see `on_a_small_disk`."""
    place = new_place(tmp_path)
    place.file.write_text(place.file.read_text().replace(str(tmp_path / "files"), str(tmp_path / "disk" / "files")))
    return place


def on_a_small_disk(place: Place, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in a mount namespace of its own, with `$DISK` a file system of 3 MB."""
    disk = place.folder / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size=3m tmpfs "{disk}" && cp "{place.file}" "{disk}" && cd "{disk}"\n'
    command = f"{sys.executable} -m condensery"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DISK": str(disk), "CONDENSERY": command}
    isolated = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", mount + script]
    return subprocess.run(isolated, env=environment, capture_output=True, text=True, timeout=600, check=False)


def test_a_disk_that_is_full_or_fills_in_the_middle_ends_the_search_and_with_room_it_goes_on(place: Place):
    ran = on_a_small_disk(
        place,
        """
        launch="$CONDENSERY launch study.toml --storage sqlite:///study.db"
        launch="$launch --set training.epochs=12 --set study.trainings=2"
        head -c 2600k /dev/zero > filler
        $launch; echo "first $?"
        rm filler; mount -o remount,size=200m "$DISK"
        $launch --resume & process=$!
        for i in $(seq 600); do ls files/digits/trial-00000/log.txt >/dev/null 2>&1 && break; sleep 0.1; done
        head -c 220m /dev/zero > filler 2>/dev/null
        wait $process; echo "second $?"
        rm filler
        $launch --resume; echo "third $?"
        cp -r study.db "$DISK"/../copy.db
        """,
    )
    printed = ran.stdout + ran.stderr
    assert f"first {DiskFull.exit_code}" in ran.stdout, printed
    assert f"second {DiskFull.exit_code}" in ran.stdout, printed
    assert "third 0" in ran.stdout, printed
    assert "Traceback" not in ran.stderr
    assert "no space is left" in ran.stderr
    shutil.copy(place.folder / "copy.db", place.folder / "study.db")
    ends_well(place, 2)


@pytest.mark.soak
@pytest.mark.parametrize("room_kb", [60, 300, 700])
def test_a_disk_that_fills_at_any_moment_loses_nothing(place: Place, room_kb: int):
    """Room for hardly anything, for the tables, for the images: whatever is full first."""
    ran = on_a_small_disk(
        place,
        f"""
        launch="$CONDENSERY launch study.toml --storage sqlite:///study.db --set training.epochs=2"
        free=$(df --output=avail -k . | tail -1)
        head -c $((free - {room_kb}))k /dev/zero > filler
        $launch; echo "first $?"
        rm filler; mount -o remount,size=200m "$DISK"
        $launch --resume; echo "then $?"
        cp -r study.db "$DISK"/../copy.db
        """,
    )
    printed = ran.stdout + ran.stderr
    assert f"first {DiskFull.exit_code}" in ran.stdout, printed
    assert "then 0" in ran.stdout, printed
    assert "Traceback" not in ran.stderr
    shutil.copy(place.folder / "copy.db", place.folder / "study.db")
    ends_well(place, 3)


def test_a_read_only_disk_is_one_line_before_anything_is_begun(place: Place):
    ran = on_a_small_disk(
        place,
        """
        mount -o remount,ro "$DISK"
        $CONDENSERY launch study.toml --storage sqlite:///study.db; echo "first $?"; ls
        """,
    )
    ending, *files = ran.stdout.splitlines()
    assert ending in (f"first {DatabaseUnavailable.exit_code}", f"first {ReadOnlyFolder.exit_code}"), ran.stderr
    assert files == ["study.toml"]
    assert "Traceback" not in ran.stderr


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


def test_of_two_launches_of_one_new_study_one_runs_and_the_other_says_why_not(tmp_path: Path):
    place = new_place(tmp_path)
    words = ("launch", "study.toml", "--storage", place.url, "--resume")
    both = [started(place, *words) for _ in range(2)]
    ended = [(process.wait(PATIENCE_S), said(process)) for process in both]
    codes = sorted(code for code, _ in ended)
    assert codes[0] == 0, ended
    assert codes[1] in (0, StudyBusy.exit_code, StudyExists.exit_code), ended  # 0: it came after the other had ended
    for code, err in ended:
        assert "Traceback" not in err
        if code:
            assert err.strip().splitlines()[-1].startswith("error:"), err
    ends_well(place, 3)


def test_of_those_that_stand_by_one_ends_on_ctrl_c_and_one_takes_over_when_the_controller_is_killed(tmp_path: Path):
    place = new_place(tmp_path)
    changes = ("study.trainings=2", "training.epochs=60", "limits.checkpoint_every_s=0.2")
    options = ("--storage", place.url, *(word for change in changes for word in ("--set", change)))
    first = started(place, "launch", "study.toml", *options)
    until(lambda: is_running(place))
    waiting, interrupted = (started(place, "launch", "study.toml", "--stand-by", *options) for _ in range(2))
    until(lambda: all("standing by" in said(process) for process in (waiting, interrupted)))
    interrupted.send_signal(signal.SIGINT)
    assert interrupted.wait(PATIENCE_S) == 130
    assert "stopped with" in said(interrupted)
    until(lambda: epochs(place) > 0)
    assert first.poll() is None, "its trainings are too short for this test"
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert waiting.wait(PATIENCE_S) == 0, said(waiting)
    assert events(place) == ["taken over"]
    ends_well(place, 2)
    late = started(place, "launch", "study.toml", "--stand-by", *options)
    assert late.wait(PATIENCE_S) == 0, said(late)
    assert events(place) == ["taken over"]  # it found a finished study finished
    ends_well(place, 2)


# -- clocks --


def test_a_clock_that_jumps_changes_nothing_but_the_times(make_bench, monkeypatch: pytest.MonkeyPatch):
    true, rng = time.time, random.Random(7)
    monkeypatch.setattr(time, "time", lambda: true() + rng.choice([-86400.0, -90.0, 0.0, 90.0, 86400.0]))
    bench = make_bench(study__trainings=8)
    assert bench.run() == "finished"
    assert len(bench.done()) == 8
    assert_consistent(bench)
