"""Both engines keep the contract; the local one also survives what processes do to each other."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from dataclasses import replace
from multiprocessing import resource_tracker
from pathlib import Path

import pytest

from search.engines.events import Done, EpochEnded, Failed, Lost, Resumed, Stopped
from search.engines.fake import FakeEngine, instant_result
from search.engines.local import LocalEngine, plan_places
from space.errors import DataNotFound, OutOfMemory
from tests.command_line import fork_server, hear_interrupts
from tests.search.engines.engine_contract import (
    LONG,
    PATIENCE_S,
    EngineContract,
    MakeJob,
    TrainingEngineContract,
    collect,
)
from tests.waiting import until
from tests.workers.tiny import DIGITS, TRAINING, digits, job
from workers.file_names import NETWORK_FILE
from workers.files import write_atomically
from workers.latency.host_probe import default_core, siblings
from workers.processes import KillsForMemory, kills_for_memory
from workers.training.job import TrialJob, TrialResult

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are pinned and paused on Linux")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    digits(folder)
    return folder


@pytest.fixture
def make_job(tmp_path: Path, cache: Path) -> MakeJob:
    def make(number: int, attempt: int = 1, epochs: int = 1, broken: bool = False) -> TrialJob:
        schedule = TRAINING.model_copy(update={"epochs": epochs})
        images = DIGITS.model_copy(update={"split_seed": 999}) if broken else DIGITS
        folder = tmp_path / f"trial-{number}"
        return job(folder, cache, number=number, attempt=attempt, training=schedule, data=images)

    return make


def outcome(job: TrialJob) -> TrialResult:
    if job.data.split_seed == 999:
        raise DataNotFound("these images were never prepared")
    return instant_result(job)


class TestFakeEngine(EngineContract):
    @pytest.fixture
    def engine(self) -> FakeEngine:
        return FakeEngine(slots=2, outcome=outcome)

    def test_closing_forgets_what_runs(self, engine: FakeEngine, make_job: MakeJob):
        engine.submit(make_job(0))
        engine.close()
        assert engine.poll(0.0) == []
        assert engine.free_slots() == 2


@pytest.fixture(scope="module")
def local_engine():
    engine = LocalEngine(workers=2, threads=1, measuring={default_core()})
    yield engine
    engine.close()


def state_of(pid: int) -> str:
    """The state letter of /proc/PID/stat: R and S run, T is stopped, Z and X are dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def wait_for_state(pid: int, states: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while state_of(pid) not in states:
        assert time.monotonic() < deadline, f"process {pid} is {state_of(pid)}, not {states}"
        time.sleep(0.01)


@pytest.mark.slow
class TestLocalEngine(TrainingEngineContract):
    @pytest.fixture
    def engine(self, local_engine: LocalEngine) -> LocalEngine:
        assert local_engine.free_slots() == 2
        return local_engine

    def worker_of(self, engine: LocalEngine, number: int) -> int:
        (pid,) = [w.process.pid for w in engine._workers if w.job is not None and w.job.number == number]
        return pid

    @on_linux
    def test_a_worker_that_was_stopped_is_lost_and_one_that_we_paused_is_not(
        self, engine: LocalEngine, make_job: MakeJob, monkeypatch
    ):
        monkeypatch.setattr("search.engines.local.HUNG_S", 3.0)  # a busy machine lets a worker wait
        monkeypatch.setattr("search.engines.local.LOOK_S", 0.2)
        engine.submit(make_job(0, epochs=LONG))
        collect(engine, {0}, EpochEnded)
        every_core = set(range(os.cpu_count() or 1))
        with engine.paused(every_core):
            ends_at = time.monotonic() + 4.0
            while time.monotonic() < ends_at:
                assert not [event for event in engine.poll(0.1) if isinstance(event, Lost)]
        collect(engine, {0}, EpochEnded)  # it goes on
        pid = self.worker_of(engine, 0)
        os.kill(pid, signal.SIGSTOP)
        wait_for_state(pid, "T")
        engine.poll(0.0)  # what it said before
        deadline = time.monotonic() + PATIENCE_S
        while state_of(pid) not in "ZX":
            assert time.monotonic() < deadline
            engine._end_the_hung()
            time.sleep(0.05)
        time.sleep(0.25)
        engine._end_the_hung()  # a look at a dying worker, whose last moments use its processor, changes nothing
        (lost,) = collect(engine, {0}, Lost)
        assert "was stopped or hung" in lost.reason
        engine.submit(make_job(1))
        collect(engine, {1}, Done)

    def test_a_killed_worker_fails_its_job_by_the_signals_name_and_its_slot_works_again(
        self, engine: LocalEngine, make_job: MakeJob
    ):
        engine.submit(make_job(0, epochs=LONG))
        collect(engine, {0}, EpochEnded)
        os.kill(self.worker_of(engine, 0), signal.SIGKILL)
        last = collect(engine, {0})[-1]
        assert isinstance(last, Lost)
        assert last.reason == "the worker process was killed by SIGKILL"
        assert engine.free_slots() == 2
        for number in (1, 2):
            engine.submit(make_job(number))
        assert [type(event) for event in collect(engine, {1, 2}) if not isinstance(event, EpochEnded)] == [Done, Done]

    def test_a_worker_that_the_system_killed_for_its_memory_is_out_of_memory(
        self, engine: LocalEngine, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """The kernel's counter is a file of ours here: filling this machine's memory is nothing for a test."""
        counter = tmp_path / "vmstat"
        counter.write_text("nr_free_pages 7\noom_kill 4\n")
        monkeypatch.setattr(engine, "_kills", KillsForMemory(lambda: kills_for_memory(counter)))
        engine.submit(make_job(0, epochs=LONG))
        collect(engine, {0}, EpochEnded)
        counter.write_text("nr_free_pages 7\noom_kill 5\n")
        os.kill(self.worker_of(engine, 0), signal.SIGKILL)
        last = collect(engine, {0})[-1]
        assert isinstance(last, Failed)
        assert last.exit_code == OutOfMemory.exit_code
        engine.submit(make_job(1, epochs=LONG))  # the next one that is killed is not
        collect(engine, {1}, EpochEnded)
        os.kill(self.worker_of(engine, 1), signal.SIGKILL)
        assert isinstance(collect(engine, {1})[-1], Lost)

    def test_a_killed_job_goes_on_from_its_checkpoint(self, engine: LocalEngine, make_job: MakeJob):
        careful = replace(make_job(0, epochs=12), checkpoint_every_s=0.0)  # a checkpoint after every step
        engine.submit(careful)
        engine.submit(make_job(1, epochs=12))
        seen = [event for _ in range(2) for event in collect(engine, {0}, EpochEnded)]
        os.kill(self.worker_of(engine, 0), signal.SIGKILL)
        waiting = {0, 1} - {
            event.number for event in seen if not isinstance(event, EpochEnded)
        }  # the other may be done by now
        seen += collect(engine, waiting)
        results = {event.number: event for event in seen if not isinstance(event, EpochEnded)}
        assert isinstance(results[0], Lost)
        engine.submit(replace(careful, attempt=2))
        earlier, *rows, again = collect(engine, {0})
        assert isinstance(earlier, Resumed)
        assert [row["epoch"] for row in [*earlier.epochs, *(row.epoch for row in rows)]] == list(range(1, 13))
        assert again.result.network_sha256 == results[1].result.network_sha256

    def test_a_worker_killed_while_idle_is_replaced(self, engine: LocalEngine, make_job: MakeJob):
        for worker in engine._workers:
            os.kill(worker.process.pid, signal.SIGKILL)
            worker.process.join()
        for number in (0, 1):
            engine.submit(make_job(number))
        assert [type(event) for event in collect(engine, {0, 1}) if not isinstance(event, EpochEnded)] == [Done, Done]

    def test_a_stopped_job_keeps_its_checkpoint_and_ends_with_the_same_network(
        self, engine: LocalEngine, make_job: MakeJob, tmp_path: Path
    ):
        engine.submit(make_job(0, epochs=30))
        collect(engine, {0}, EpochEnded)
        engine.stop()
        engine.submit(make_job(1, epochs=30))
        ended = {event.number: event for event in collect(engine, {0, 1}) if not isinstance(event, EpochEnded)}
        assert {number: type(event) for number, event in ended.items()} == {0: Stopped, 1: Done}
        assert list((tmp_path / "trial-0" / "checkpoints").glob("checkpoint-*.safetensors"))
        assert not (tmp_path / "trial-0" / NETWORK_FILE).exists()
        engine.submit(make_job(0, attempt=2, epochs=30))
        *_, again = collect(engine, {0})
        assert again.result.network_sha256 == ended[1].result.network_sha256

    @on_linux
    def test_quiet_stops_the_workers_on_that_processor_and_lets_them_go_on(
        self, engine: LocalEngine, make_job: MakeJob
    ):
        for number in (0, 1):
            engine.submit(make_job(number, epochs=LONG))
        collect(engine, {0, 1}, EpochEnded)
        core = default_core()
        sharing = [w.process.pid for w in engine._workers if siblings(core) & set(w.place.cores)]
        others = [w.process.pid for w in engine._workers if w.process.pid not in sharing]
        with engine.paused({core}):
            for pid in sharing:
                wait_for_state(pid, "T")
            assert all(state_of(pid) != "T" for pid in others)
        for pid in sharing:
            wait_for_state(pid, "RSD")
        collect(engine, {0, 1}, EpochEnded)
        for number in (0, 1):
            engine.cancel(number)
        collect(engine, {0, 1})

    @on_linux
    def test_an_error_while_measuring_does_not_leave_workers_stopped(self, engine: LocalEngine, make_job: MakeJob):
        with pytest.raises(KeyboardInterrupt), engine.paused({default_core()}):
            raise KeyboardInterrupt
        engine.submit(make_job(0))
        engine.submit(make_job(1))
        collect(engine, {0, 1})

    @on_linux
    def test_a_worker_runs_in_its_own_group_on_its_own_processors_with_its_threads(self, engine: LocalEngine):
        for worker in engine._workers:
            assert os.getpgid(worker.process.pid) == worker.process.pid
            assert os.sched_getaffinity(worker.process.pid) == set(worker.place.cores)

    def test_a_terminals_interrupt_does_not_end_a_job(self, engine: LocalEngine, make_job: MakeJob):
        engine.submit(make_job(0, epochs=LONG))
        collect(engine, {0}, EpochEnded)
        os.kill(self.worker_of(engine, 0), signal.SIGINT)
        for _ in range(2):  # it goes on
            collect(engine, {0}, EpochEnded)
        engine.cancel(0)
        assert "cancelled" in collect(engine, {0})[-1].reason


def control(folder: Path, mode: str, said: Path) -> None:
    """Be a controller whose workers are new, busy or quiet; write their process ids to the file `said`."""
    engine = LocalEngine(workers=2, threads=1, measuring={default_core()})

    def say() -> None:
        text = " ".join(str(worker.process.pid) for worker in engine._workers)
        write_atomically(said, text.encode())

    if mode != "new":
        long = TRAINING.model_copy(update={"epochs": LONG})
        for number in (0, 1):
            engine.submit(job(folder / str(number), folder / "images", number=number, training=long))
        collect(engine, {0, 1}, EpochEnded)
    with contextlib.nullcontext() if mode == "busy" else engine.paused({default_core()}):
        say()
        time.sleep(600)


@on_linux
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["new", pytest.param("busy", marks=pytest.mark.long), "quiet"])
def test_workers_die_with_a_controller_that_is_killed_even_while_they_are_stopped(tmp_path: Path, mode: str):
    """New ones are stopped the moment they were started."""
    digits(tmp_path / "images")
    said = tmp_path / "said"
    controller = fork_server().Process(target=control, args=(tmp_path, mode, said))
    controller.start()
    try:
        until(lambda: said.exists() or not controller.is_alive())
        pids = [int(word) for word in said.read_text().split()]
        assert len(pids) == 2
        assert not {"X", "Z"} & {state_of(pid) for pid in pids}
    finally:
        controller.kill()
    for pid in pids:
        wait_for_state(pid, "XZ")


@pytest.mark.slow
def test_closing_ends_busy_and_idle_workers(make_job: MakeJob):
    engine = LocalEngine(workers=2, threads=1, measuring={default_core()})
    engine.submit(make_job(0, epochs=LONG))
    collect(engine, {0}, EpochEnded)
    processes = [worker.process for worker in engine._workers]
    engine.close()
    assert all(not process.is_alive() for process in processes)


def start_interrupted(said: Path) -> None:
    """Be a controller in a group of its own that minds no Ctrl-C, and say once its worker is ready."""
    hear_interrupts()
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, lambda number, frame: None)
    resource_tracker._resource_tracker.__init__()  # type: ignore[misc]  # a command has none before its workers' server
    engine = LocalEngine(workers=1, threads=1, measuring={default_core()})
    assert engine._workers[0].pipe.poll(60)
    assert engine._workers[0].pipe.recv()[0] == "ready"
    assert engine._workers[0].process.is_alive()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())  # it still hears Ctrl-C
    engine.close()
    said.write_text("served")


@pytest.mark.slow
def test_ctrl_c_while_workers_start_ends_neither_them_nor_their_server(tmp_path: Path):
    """A terminal sends Ctrl-C to the whole group of the controller, in which its server begins."""
    controller = fork_server().Process(target=start_interrupted, args=(tmp_path / "said",))
    controller.start()
    assert controller.pid is not None
    while controller.is_alive():
        with contextlib.suppress(ProcessLookupError):  # it has no group of its own yet
            os.killpg(controller.pid, signal.SIGINT)
        time.sleep(0.005)
    assert (controller.exitcode, (tmp_path / "said").read_text()) == (0, "served")


# -- where workers are put --


def test_the_measuring_processor_is_given_away_last():
    places = plan_places(workers=3, threads=1, usable=[0, 1, 2, 3], measuring={3})
    assert [place.cores for place in places] == [(0,), (1,), (2,)]
    places = plan_places(workers=4, threads=1, usable=[0, 1, 2, 3], measuring={0})
    assert [place.cores for place in places] == [(1,), (2,), (3,), (0,)]


def test_all_processors_of_a_measurement_are_given_away_last():
    places = plan_places(workers=3, threads=1, usable=[0, 1, 2, 3], measuring={1, 3})
    assert [place.cores for place in places] == [(0,), (2,), (1,)]


def test_workers_of_several_threads_get_as_many_processors():
    places = plan_places(workers=2, threads=2, usable=[0, 1, 2, 3, 4], measuring={4})
    assert [(place.threads, place.cores) for place in places] == [(2, (0, 1)), (2, (2, 3))]


def test_more_threads_than_processors_share_them_all():
    places = plan_places(workers=3, threads=4, usable=[0, 1], measuring={1})
    assert [place.cores for place in places] == [(0, 1)] * 3
