"""Ray Tune keeps the engines' contract, and survives what happens to Ray, its workers and the controller."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch

from search.engines import make_engine
from search.engines.base import Engine
from search.engines.events import AttemptEnd, Done, EpochEnded, Failed, Lost, Stopped
from search.engines.ray.checks import about_dashboard, check_settings, processors_apart
from search.engines.ray.engine import RayTuneEngine
from search.engines.ray.run_folder import TOKEN
from search.launch import launch
from search.loop.callbacks import SilentCallback
from space.deployed import DeployedCondenseNet
from space.errors import EngineUnavailable, InvalidSettings, OutOfMemory
from tests.command_line import fork_server
from tests.search.engines.engine_contract import LONG, PATIENCE_S, MakeJob, TrainingEngineContract, collect
from tests.search.engines.ray.tiny_ray import (
    command_of,
    descendants,
    epochs_of,
    final,
    job_maker,
    settings,
    started,
    until_quietly,
)
from tests.search.test_launch import new_place
from tests.search.tiny_studies import CountingProbe
from tests.waiting import until
from tests.workers.tiny import NET, TRAINING, digits, job
from workers.file_names import NETWORK_FILE, ONNX_FILE, SETTINGS_FILE
from workers.files import file_hash, write_atomically
from workers.latency.host_probe import default_core
from workers.processes import KillsForMemory, lives
from workers.training.checkpoint import model_tensors
from workers.training.start import StartNetwork

pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are watched through /proc, on Linux"),
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    digits(folder)
    return folder


@pytest.fixture
def make_job(tmp_path: Path, cache: Path) -> MakeJob:
    return job_maker(tmp_path, cache)


@pytest.fixture(scope="module")
def ray_engine() -> Iterator[RayTuneEngine]:
    notes: list[str] = []
    engine = RayTuneEngine(settings(), {default_core()}, notes.append)
    assert [note.partition(": ")[0] for note in notes] == ["Ray dashboard"]
    yield engine
    engine.close()


class TestRayEngine(TrainingEngineContract):
    @pytest.fixture
    def engine(self, ray_engine: RayTuneEngine) -> RayTuneEngine:
        assert ray_engine.free_slots() == 2
        return ray_engine

    def test_one_worker_process_serves_one_job_after_another(self, engine: RayTuneEngine, make_job: MakeJob):
        pids = []
        for number in (0, 1, 2):
            engine.submit(make_job(number))
            pids.append(started(engine, {number})[number])
            collect(engine, {number})
        assert len(set(pids)) == 1

    def test_a_killed_worker_loses_its_job_which_goes_on_from_its_checkpoint_to_the_same_network(
        self, engine: RayTuneEngine, make_job: MakeJob
    ):
        careful = replace(make_job(0, epochs=20), checkpoint_every_s=0.0)  # a checkpoint after every step
        engine.submit(careful)
        pid = started(engine, {0})[0]
        collect(engine, {0}, EpochEnded)
        os.kill(pid, signal.SIGKILL)
        lost = collect(engine, {0})[-1]
        assert (type(lost), lost.attempt) == (Lost, 1)
        assert lost.reason == "the worker died: The actor died unexpectedly before finishing this task."
        engine.submit(replace(careful, attempt=2))
        engine.submit(make_job(1, epochs=20))
        events = collect(engine, {0, 1})
        assert epochs_of(events, 0) == list(range(1, 21))
        ended = final(events)
        assert ended[0].result.network_sha256 == ended[1].result.network_sha256

    def test_a_stopped_job_has_its_checkpoint_when_its_end_is_told(
        self, engine: RayTuneEngine, make_job: MakeJob, tmp_path: Path
    ):
        engine.submit(make_job(0, epochs=LONG))
        pid = started(engine, {0})[0]
        engine.stop()
        assert isinstance(collect(engine, {0})[-1], Stopped)
        assert list((tmp_path / "trial-0" / "checkpoints").glob("checkpoint-*.json"))
        assert not (tmp_path / "trial-0" / NETWORK_FILE).exists()
        assert lives(pid)

    def test_a_running_job_shows_life(self, engine: RayTuneEngine, make_job: MakeJob):
        engine.submit(make_job(0, epochs=LONG))
        started(engine, {0})
        seen = engine._trials[0].seen_at
        while engine._trials[0].seen_at == seen:
            engine.poll(0.1)
        assert set(engine.alive()) == {0}
        engine.cancel(0)
        collect(engine, {0})

    def test_what_shares_the_measuring_processor_is_paused_and_the_time_is_not_counted(
        self, engine: RayTuneEngine, make_job: MakeJob
    ):
        engine.submit(replace(make_job(0, epochs=LONG), time_limit_s=3000.0))
        pid = started(engine, {0})[0]
        shared = set(range(os.cpu_count() or 1))
        with engine.paused(shared):
            until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
            assert set(engine.alive()) == {0}
            time.sleep(1.0)
        rows = [event for event in collect(engine, {0}, EpochEnded) if isinstance(event, EpochEnded)]
        assert engine._paused_s[pid] >= 1.0
        assert rows
        engine.cancel(0)
        *_, last = collect(engine, {0})
        assert "cancelled" in last.reason

    def test_the_dashboards_address_is_told_and_answers_on_this_machine_only(self, engine: RayTuneEngine):
        pytest.importorskip("aiohttp_cors", reason="ray[default] is not installed")
        assert engine.dashboard_url.startswith("http://127.0.0.1:")

    def test_a_worker_that_the_system_killed_for_memory_is_out_of_memory_and_not_lost(
        self, engine: RayTuneEngine, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
    ):
        """The kernel's counter is a number of ours here: filling this machine's memory is nothing for a test."""
        engine.submit(make_job(0, epochs=LONG))
        pid = started(engine, {0})[0]
        count = chain([4], repeat(5))
        monkeypatch.setattr(engine, "_kills", KillsForMemory(lambda: next(count)))
        os.kill(pid, signal.SIGKILL)
        last = collect(engine, {0})[-1]
        assert isinstance(last, Failed)
        assert (last.reason, last.exit_code) == (
            "out of memory (batch size 128): the system killed its worker",
            OutOfMemory.exit_code,
        )

    def test_who_has_not_the_token_is_refused(self, engine: RayTuneEngine):
        token = engine._driver.folder.path / TOKEN
        assert token.stat().st_mode & 0o077 == 0
        assert token.parent.stat().st_mode & 0o077 == 0
        pids = descendants(engine._driver.process.pid)
        (raylet,) = [command for pid in pids if (command := command_of(pid)).split(" ")[0].endswith("/raylet")]
        address = raylet.partition("--gcs-address=")[2].split(" ")[0]
        wrong = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        none = {"RAY_AUTH_MODE": "disabled"}
        plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
        command = [sys.executable, "-c", NODES, address]
        said = [
            subprocess.run(command, env=plain | extra, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
            for extra in (none, wrong, ours)
        ]
        assert [one.stdout for one in said] == ["refused\n", "refused\n", "1 node\n"], said[-1].stderr

    def test_nothing_of_rays_listens_to_other_machines(self, engine: RayTuneEngine):
        pids = descendants(engine._driver.process.pid)
        assert any("gcs_server" in command_of(pid) for pid in pids)
        assert listening_to_others(pids) == []

    @pytest.mark.long
    def test_a_dead_ray_loses_its_jobs_and_is_started_again(self, engine: RayTuneEngine, make_job: MakeJob):
        first = engine._driver
        engine.submit(make_job(0, epochs=LONG))
        started(engine, {0})
        (pid,) = [pid for pid in descendants(first.process.pid) if command_of(pid).split(" ")[0].endswith("/raylet")]
        os.kill(pid, signal.SIGKILL)
        lost = collect(engine, {0})[-1]
        assert isinstance(lost, Lost)
        assert lost.reason == "Ray ended: its raylet died"
        assert engine._driver is not first
        assert not first.folder.path.exists()
        until_quietly(engine, lambda: engine.free_slots() == 2)
        engine.submit(make_job(1))
        assert isinstance(collect(engine, {1})[-1], Done)


@pytest.mark.alone
def test_a_worker_that_ray_kills_for_memory_is_out_of_memory_and_ray_goes_on(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
):
    """This process takes memory until Ray, told to act a little above what is used now, ends the newest worker."""
    from ray._common.utils import get_system_memory

    room, total = 4 * 2**30, get_system_memory()  # Ray, its workers and what else runs here stay below
    limit = used_memory() + room
    assert limit + 2**30 < total, "this test needs 5 GiB of free memory"
    monkeypatch.setenv("RAY_memory_usage_threshold", str(limit / total))
    engine, taken = RayTuneEngine(settings(), {default_core()}), []
    try:
        engine.submit(make_job(0, epochs=LONG))
        pid, driver = started(engine, {0})[0], engine._driver
        events, deadline = [], time.monotonic() + PATIENCE_S
        while not [event for event in events if isinstance(event, AttemptEnd)]:
            assert time.monotonic() < deadline, events
            if not lives(pid):
                taken.clear()
            elif used_memory() < limit + 2**28:
                taken.append(bytearray(os.urandom(2**20)) * 128)
            events += engine.poll(0.1)
        reason = "out of memory (batch size 128): the system killed its worker"
        assert events[-1] == Failed(events[-1].number, events[-1].attempt, reason, OutOfMemory.exit_code)
        engine.submit(make_job(1))
        last = collect(engine, {1})[-1]
        # It comes to its end by the same Ray, though a virtual machine may take minutes to see what is free again.
        assert isinstance(last, Done) or (isinstance(last, Failed) and last.reason == reason)
        assert engine._driver is driver
    finally:
        taken.clear()
        engine.close()


@pytest.mark.parametrize(
    ("url", "token", "installed", "said"),
    [
        ("http://127.0.0.1:8265", "/run/token", True, "http://127.0.0.1:8265 (it asks for the token in /run/token)"),
        ("http://10.0.0.1:8265", None, True, "http://10.0.0.1:8265"),
        ("", None, True, "none (the cluster's head runs without one)"),
        ("", "/run/token", True, "none (it didn't start)"),
        ("", "/run/token", False, "none (pip install 'condensery[cluster]')"),
    ],
)
def test_it_is_said_where_the_dashboard_is_or_why_there_is_none(url, token, installed, said, monkeypatch):
    monkeypatch.setattr("search.engines.ray.checks.dashboard_is_installed", lambda: installed)
    assert about_dashboard(url, token and Path(token)) == said


def used_memory() -> int:
    """Bytes, as Ray's monitor reads them: of the container when that has a limit, else of the whole system."""
    from ray._common.utils import get_system_memory
    from ray._private.utils import get_used_memory

    lines = Path("/proc/meminfo").read_text().splitlines()
    system = {line.split()[0]: 1024 * int(line.split()[1]) for line in lines}
    if get_system_memory() < system["MemTotal:"]:
        return get_used_memory()
    return system["MemTotal:"] - system["MemAvailable:"]


NODES = """
import sys
from ray._raylet import GcsClient
try:
    print(len(GcsClient(address=sys.argv[1]).get_all_node_info(timeout=10)), "node")
except Exception as error:
    print("refused" if "auth" in str(error).lower() else repr(error))
"""


def listening_to_others(pids: set[int]) -> list[str]:
    """Addresses other than loopback on which these processes accept TCP connections."""
    sockets = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                sockets.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    found = []
    for table in ("tcp", "tcp6"):
        loopback = ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and rest[5] in sockets and not local.startswith(loopback):
                found.append(f"{local} of {table}")
    return found


# -- the exchange --


@pytest.mark.long
def test_with_an_exchange_workers_need_none_of_the_controllers_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "worker-cache"))  # of the workers, which inherit it
    url = f"file://{tmp_path}/exchange"
    engine = RayTuneEngine(settings(exchange=url), {default_core()})
    try:
        nowhere = tmp_path / "not-prepared"  # the workers prepare their own images
        start = StartNetwork.of_weights(NET, (), safetensors.torch.save(model_tensors(DeployedCondenseNet.random(NET))))
        (tmp_path / "start").write_bytes(start.content)
        schedule = TRAINING.model_copy(update={"epochs": 30, "start": f"trial:earlier/0#{start.pin}"})
        begin = {"training": schedule, "start": str(tmp_path / "start")}
        first = job(tmp_path / "trial-0", nowhere, number=0, checkpoint_every_s=0.0, **begin)
        engine.submit(first)
        pid = started(engine, {0})[0]
        collect(engine, {0}, EpochEnded)
        os.kill(pid, signal.SIGKILL)
        assert isinstance(collect(engine, {0})[-1], Lost)
        assert not (tmp_path / "trial-0" / "checkpoints").exists()
        assert list((tmp_path / "exchange" / "tiny" / "trial-00000" / "checkpoints").glob("*.json"))
        engine.submit(replace(first, attempt=2))
        engine.submit(job(tmp_path / "trial-1", cache, number=1, **begin))
        events = collect(engine, {0, 1})
        assert epochs_of(events, 0) == list(range(1, 31))
        assert "begins as trial:earlier/0" in (tmp_path / "trial-1" / "log.txt").read_text()
        ended = final(events)
        assert ended[0].result.network_sha256 == ended[1].result.network_sha256
        for number in (0, 1):
            folder = tmp_path / f"trial-{number}"
            assert file_hash(folder / NETWORK_FILE) == ended[number].result.network_sha256
            assert file_hash(folder / ONNX_FILE) == ended[number].result.onnx_sha256
            assert str(folder) in (folder / SETTINGS_FILE).read_text()
        assert "attempt 1" in (tmp_path / "trial-0" / "log.txt").read_text()
        for number in (0, 1):
            engine.forget("tiny", number)
        assert not list((tmp_path / "exchange" / "tiny").glob("*"))
        assert not list(Path("/tmp").glob(f"condensery-trial-{pid}-*"))  # what the killed worker left
    finally:
        engine.close()


# -- beginnings and ends --


def control(folder: Path, said: Path) -> None:
    """Be a controller that has paused its busy worker for a measurement; write Ray's folder to the file `said`."""
    engine = RayTuneEngine(settings(workers=1), set(range(64)))
    engine.submit(job_maker(folder, folder / "images")(0, epochs=LONG))
    while not any(isinstance(event, EpochEnded) for event in engine.poll(1.0)):
        pass
    with engine.paused(set(range(64))):
        write_atomically(said, str(engine._driver.folder.path).encode())
        time.sleep(600)


def test_nothing_is_left_of_ray_when_the_controller_is_killed_even_while_workers_are_paused(tmp_path: Path):
    digits(tmp_path / "images")
    said = tmp_path / "said"
    controller = fork_server().Process(target=control, args=(tmp_path, said))
    controller.start()
    assert controller.pid is not None
    try:
        until(lambda: said.exists() or not controller.is_alive())
        folder = Path(said.read_text())
        pids = descendants(controller.pid)
        assert any("raylet" in command_of(pid) for pid in pids)
        assert any("TuneWorker" in command_of(pid) for pid in pids)
    finally:
        controller.kill()
    until(lambda: not any(lives(pid) for pid in pids))
    until(lambda: not folder.exists())


def test_a_cluster_that_is_not_there_is_one_clear_error():
    with pytest.raises(EngineUnavailable, match=r"Ray can't be used at 127\.0\.0\.1:1: .*; start it, or correct"):
        RayTuneEngine(settings(address="127.0.0.1:1"), set())


class ReadyDriver:
    """A driver's process that has started and says what there is; nothing runs in it."""

    def __init__(self, folder: Path, resources: dict[str, float]) -> None:
        self.pipe, self._theirs = multiprocessing.Pipe()
        self._theirs.send(("ready", "", resources))
        self._living, self.sentinel = multiprocessing.Pipe()
        self.process, self.folder = self, SimpleNamespace(path=folder)
        self.started_at, self.ready, self.reason, self.ended = time.monotonic(), False, "", False

    def is_alive(self) -> bool:
        return not self.ended

    def end(self) -> None:
        self.ended = True


def test_more_gpus_than_there_are_are_refused_and_ray_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    driver = ReadyDriver(tmp_path, {"CPU": 2.0})
    monkeypatch.setattr("search.engines.ray.engine.start_driver", lambda *_: driver)
    with pytest.raises(InvalidSettings, match=r"engine\.gpus = 0\.5 for each trial, but Ray sees 0 GPUs"):
        RayTuneEngine(settings(gpus=0.5), set())
    assert driver.ended


def test_enough_gpus_are_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    driver = ReadyDriver(tmp_path, {"CPU": 2.0, "GPU": 1.0})
    monkeypatch.setattr("search.engines.ray.engine.start_driver", lambda *_: driver)
    assert RayTuneEngine(settings(gpus=0.5), set()).free_slots() == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gpus": 1.5}, "engine.gpus must be a fraction of one GPU or a whole number, but got 1.5"),
        ({"exchange": "nonsense://there"}, "engine.exchange = 'nonsense://there' can't be opened: "),
    ],
)
def test_settings_that_ray_cannot_keep_are_refused_before_it_starts(values: dict[str, object], message: str):
    with pytest.raises(InvalidSettings) as refused:
        check_settings(settings(**values))
    assert message in str(refused.value)


def test_workers_keep_off_the_measuring_processor_only_where_the_others_are_enough():
    usable = os.sched_getaffinity(0)
    core = max(usable)
    assert processors_apart(settings(workers=len(usable)), {core}) is None
    if len(usable) > 1:
        assert processors_apart(settings(workers=len(usable) - 1), {core}) == sorted(usable - {core})


def test_the_same_study_gives_the_same_networks_on_ray(
    tmp_path: Path, ray_engine: RayTuneEngine, monkeypatch: pytest.MonkeyPatch
):
    """Latencies are made up, so that the two don't differ and nothing waits for them."""
    monkeypatch.setattr("search.pricing.targets.host_probe", lambda *_: CountingProbe())
    networks = {}
    for kind in ("local", "ray"):
        folder = tmp_path / kind
        folder.mkdir()
        place = new_place(folder)
        overrides = (f"engine.kind={kind}", "study.trainings=2", "search.startup=8")
        if kind == "ray":  # the one that runs already, and goes on
            monkeypatch.setattr("search.launch.make_engine", lambda *_: ray_engine)
            monkeypatch.setattr(ray_engine, "close", lambda: None)
        launched = launch(place.settings(*overrides), place.url, False, SilentCallback())
        assert (launched.ending, launched.done) == ("finished", 2)
        files = folder / "files" / "digits"
        networks[kind] = {path.parent.name: file_hash(path) for path in files.glob(f"*/{NETWORK_FILE}")}
    assert len(networks["local"]) == 2
    assert networks["ray"] == networks["local"]


@pytest.mark.long
def test_a_launch_starts_its_own_ray_and_leaves_nothing_of_it_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    begun: dict[int, str] = {}
    folders: list[Path] = []
    before = descendants(os.getpid())

    def watched(*given: Any) -> Engine:
        engine = make_engine(*given)
        assert isinstance(engine, RayTuneEngine)
        folders.append(engine._driver.folder.path)
        commands = {pid: command_of(pid) for pid in descendants(os.getpid()) - before}
        begun.update((pid, words) for pid, words in commands.items() if "resource_tracker" not in words)  # Python's own
        return engine

    monkeypatch.setattr("search.launch.make_engine", watched)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    place = new_place(tmp_path)
    launched = place.launch("engine.kind=ray", "engine.workers=1", "study.trainings=2")
    assert (launched.ending, launched.done) == ("finished", 2)
    assert any("raylet" in command for command in begun.values()), begun
    until(lambda: not any(lives(pid) for pid in begun), within_s=30.0)
    assert [folder for folder in folders if folder.exists()] == []
    assert list(temporary.glob("pymp-*")) == []  # the dashboard's, whose process is killed


def test_the_settings_say_which_engine_runs(monkeypatch: pytest.MonkeyPatch):
    made: list[tuple[object, ...]] = []
    monkeypatch.setattr("search.engines.ray.engine.RayTuneEngine", lambda *given: made.append(given))
    wanted, notes = settings(), [].append
    make_engine(wanted, {1}, notes)
    assert made == [(wanted, {1}, notes)]
