"""Having the measuring cores to oneself: the lock between processes, and where one's own threads run."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import until
from workers.latency.agent.quiet_cores import CoresTaken, claimed, own_threads_off
from workers.latency.agent.sensors import usable_cores
from workers.latency.agent.subprocesses import Stopped

ROOT = Path(__file__).parents[4]
HOLDS = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from workers.latency.agent.quiet_cores import claimed
with claimed([{core}], root=Path({machine!r})):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine of its own, so that the test waits for no one who measures here."""
    for core in range(4):
        (tmp_path / f"sys/devices/system/cpu/cpu{core}").mkdir(parents=True)
    return tmp_path


@contextlib.contextmanager
def another_process(machine: Path, core: int) -> Iterator[subprocess.Popen[str]]:
    code = HOLDS.format(root=str(ROOT), machine=str(machine), core=core)
    with subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def is_free(machine: Path, cores: list[int]) -> bool:
    try:
        with claimed(cores, wait_s=0.0, root=machine):
            return True
    except CoresTaken:
        return False


def test_one_core_is_held_by_one_process_at_a_time(machine):
    with another_process(machine, 1):
        assert is_free(machine, [0, 2])
        assert not is_free(machine, [1])
        assert not is_free(machine, [0, 1])
        assert is_free(machine, [0])  # what couldn't be had together is let go


def test_a_lock_ends_with_the_process_that_holds_it_however_that_dies(machine):
    with another_process(machine, 1) as process:
        assert not is_free(machine, [1])
        process.kill()
        process.wait()
        assert is_free(machine, [1])


def test_another_measurement_is_waited_for(machine):
    got = threading.Event()

    def wait() -> None:
        with claimed([1], root=machine):
            got.set()

    with another_process(machine, 1) as process:
        thread = threading.Thread(target=wait)
        thread.start()
        assert not got.wait(0.3)
        process.kill()
        until(got.is_set)
        thread.join()


def test_a_stop_ends_the_wait_and_one_that_never_ends_is_an_error_with_the_core(machine):
    with another_process(machine, 1):
        with pytest.raises(Stopped), claimed([1], stop=lambda: True, root=machine):
            pass
        with pytest.raises(CoresTaken, match="core 1 must be free"), claimed([1], wait_s=0.05, root=machine):
            pass


def test_a_process_that_was_handed_the_lock_holds_it_alone_when_the_other_is_gone(machine):
    with claimed([1], root=machine) as locks:
        child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, pass_fds=locks)
    assert not is_free(machine, [1])
    child.communicate(b"\n")
    assert is_free(machine, [1])


def test_a_system_without_such_folders_has_a_file_and_one_without_locks_measures_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    with claimed([1], root=tmp_path / "nothing"):
        assert not is_free(tmp_path / "nothing", [1])
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "not there"))
    with claimed([1], root=tmp_path / "nothing") as locks:
        assert locks == ()


# ---- one's own threads --------------------------------------------------------------------------------------

several_cores = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(usable_cores()) < 2, reason="there is no other core to run on"
)


def masks() -> dict[int, set[int]]:
    return {int(task.name): os.sched_getaffinity(int(task.name)) for task in Path("/proc/self/task").iterdir()}


@several_cores
def test_no_thread_of_this_process_runs_on_the_measuring_core_meanwhile_and_all_may_afterwards():
    core, done = usable_cores()[-1], threading.Event()
    threads = [threading.Thread(target=done.wait)]
    threads[0].start()
    before = masks()
    assert core in before[threading.get_native_id()]
    with own_threads_off([core]):
        threads.append(threading.Thread(target=done.wait))
        threads[1].start()
        assert threads[1].native_id in masks()
        assert all(core not in mask for mask in masks().values())
    after = masks()
    assert {thread: after[thread] for thread in before} == before
    assert core in after[threads[1].native_id]
    done.set()
    for thread in threads:
        thread.join()


@several_cores
def test_where_no_other_core_is_left_nothing_is_moved():
    before = masks()
    with own_threads_off(usable_cores()):
        assert masks() == before


SESSION = """
import os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
os.sched_setaffinity(0, [{core}])
import numpy, torch
from search.pricing.pricer import ANCHOR, write_models
from workers.export.onnx import exported_network
(path,) = write_models([ANCHOR], "onnxruntime", Path({folder!r}))
sessions = []
for threads in (1, 2):
    torch.set_num_threads(threads)
    sessions.append(exported_network(path))
    sessions[-1](numpy.zeros((1, 3, 32, 32), numpy.float32))
for task in Path("/proc/self/task").iterdir():
    lines = (task / "status").read_text().splitlines()
    print(next(line.split()[1] for line in lines if line.startswith("Cpus_allowed_list")))
"""


@several_cores
def test_every_thread_of_a_worker_obeys_the_cores_it_was_given_those_of_onnxruntime_too(tmp_path):
    core = usable_cores()[0]
    code = SESSION.format(root=str(ROOT), core=core, folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {str(core)}
