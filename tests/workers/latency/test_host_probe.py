"""The host probe and the fake one: the contract, and what the crash of a measuring process costs."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from space.errors import InvalidSettings, MeasurementFailed
from tests.waiting import until
from tests.workers.latency.test_latency_contract import TINY, LatencyProbeContract, sha256, write_network
from workers.latency import (
    FailedMeasurement,
    FakeProbe,
    HostProbe,
    Measurement,
    MeasurementStopped,
    default_core,
    host_name,
    siblings,
)
from workers.latency.agent.sensors import usable_cores

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


@pytest.fixture
def anchor(tmp_path: Path) -> Path:
    return write_network(tmp_path / "anchor.onnx", 5)


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    return [write_network(tmp_path / f"model{channels}.onnx", channels) for channels in (1, 2, 3)]


class TestHostProbe(LatencyProbeContract):
    @pytest.fixture
    def probe(self, anchor: Path) -> HostProbe:
        return HostProbe(TINY, anchor)

    def test_every_process_leaves_its_conditions_and_place(self, probe: HostProbe, networks: list[Path]):
        result = probe.measure(networks)[0]
        assert isinstance(result, Measurement)
        assert result.conditions["core"] == default_core()
        assert len(result.conditions["processes"]) == len(result.samples_ms) == TINY.processes
        for process in result.conditions["processes"]:
            assert 1 <= process["position"] <= 3
            assert {"temperature_c", "cpu_mhz", "load_average"} <= set(process["before"]) == set(process["after"])

    def test_a_policy_names_the_cores_whose_units_the_measurement_shared(self, probe: HostProbe, networks: list[Path]):
        result = probe.measure(networks[:1])[0]
        assert isinstance(result, Measurement)
        assert result.conditions["siblings"] == sorted(siblings(default_core()))


class TestFakeProbe(LatencyProbeContract):
    @pytest.fixture
    def probe(self) -> FakeProbe:
        def latency_ms(path: Path) -> float:
            if "corrupt" in path.name:
                raise MeasurementFailed("not a network")
            return path.stat().st_size / 100

        return FakeProbe(latency_ms)

    def test_samples_repeat_and_lie_within_one_percent(self, probe: FakeProbe, networks: list[Path]):
        first, again = probe.measure(networks[:1])[0], probe.measure(networks[:1])[0]
        assert first == again
        assert isinstance(first, Measurement)
        centre_ms = networks[0].stat().st_size / 100
        for process in first.samples_ms:
            assert process == pytest.approx([centre_ms] * len(process), rel=0.01)
        assert all(len(set(process)) > 1 for process in first.samples_ms)


# A real measuring process whose runtime does what the model's file name says.
MISCHIEF = """
import fcntl, os, resource, signal, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from workers.latency.agent.__main__ import main
from workers.latency.agent.files import sha256_of
from workers.latency.agent.runtimes import OnnxRuntime, RUNTIMES

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
held = open({lock!r}, "a")  # as long as this process lives
fcntl.flock(held, fcntl.LOCK_SH)
trouble = {{sha256_of(path): word for path, word in {trouble!r}.items() if os.path.exists(path)}}

class Mischief(OnnxRuntime):
    def load(self, model, threads):
        import hashlib
        word = trouble.get(hashlib.sha256(model).hexdigest())
        if word == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if word == "killed once" and not os.path.exists({lock!r} + ".killed"):
            Path({lock!r} + ".killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "hang":
            Path({lock!r} + ".hangs").touch()
            time.sleep(120)
        if word == "exit":
            sys.stderr.write("out of luck\\n")
            os._exit(7)
        return super().load(model, threads)

RUNTIMES["onnxruntime"] = Mischief
sys.exit(main())
"""


@pytest.fixture
def mischief(tmp_path: Path):
    """Return a function: {model: word} -> command, whose processes hold `tmp_path/lock` while they live."""

    def command(trouble: dict[Path, str]):
        script = tmp_path / "mischief.py"
        named = {str(path): word for path, word in trouble.items()}
        script.write_text(MISCHIEF.format(root=str(ROOT), lock=str(tmp_path / "lock"), trouble=named))
        return [sys.executable, str(script)]

    return command


def test_a_model_that_crashes_the_process_is_failed_and_the_rest_measured_without_it(anchor, models, mischief):
    command = mischief({models[1]: "crash"})
    first, crashed, last = HostProbe(TINY, anchor, command=command).measure(models)
    assert isinstance(crashed, FailedMeasurement)
    assert crashed.model_hash == sha256(models[1])
    assert "signal 11" in crashed.reason
    assert isinstance(first, Measurement)
    assert isinstance(last, Measurement)
    assert len(first.samples_ms) == TINY.processes


def test_a_measuring_process_that_is_killed_is_a_lost_measurement_that_is_taken_again(anchor, models, mischief):
    command = mischief({models[1]: "killed once"})
    results = HostProbe(TINY, anchor, command=command).measure(models)
    assert [len(one.samples_ms) for one in results if isinstance(one, Measurement)] == [TINY.processes] * 3


def test_one_that_is_killed_each_time_fails_alone_and_says_how_often_it_was_tried(anchor, models, mischief):
    measured, killed = HostProbe(TINY, anchor, command=mischief({models[1]: "killed"})).measure(models[:2])
    assert isinstance(measured, Measurement)
    assert isinstance(killed, FailedMeasurement)
    assert "signal 9" in killed.reason
    assert "3 times in a row" in killed.reason


@pytest.mark.slow
def test_a_model_that_hangs_is_failed_at_the_time_out_and_the_rest_measured(anchor, models, mischief):
    policy = TINY.model_copy(update={"timeout_s": 10.0})
    command = mischief({models[0]: "hang"})
    hung, measured = HostProbe(policy, anchor, command=command).measure(models[:2])
    assert isinstance(hung, FailedMeasurement)
    assert "within 10 s" in hung.reason
    assert isinstance(measured, Measurement)


def test_when_every_model_dies_each_has_its_own_reason(anchor, models, mischief):
    command = mischief({models[0]: "exit", models[1]: "crash"})
    exited, crashed = HostProbe(TINY, anchor, command=command).measure(models[:2])
    assert isinstance(exited, FailedMeasurement)
    assert isinstance(crashed, FailedMeasurement)
    assert "exit code 7" in exited.reason
    assert "out of luck" in exited.reason
    assert "signal 11" in crashed.reason


def test_an_anchor_that_crashes_fails_the_whole_batch_by_name(anchor, models, mischief):
    results = HostProbe(TINY, anchor, command=mischief({anchor: "crash"})).measure(models)
    assert [result.model_hash for result in results] == [sha256(path) for path in models]
    assert all("anchor.onnx" in result.reason for result in results if isinstance(result, FailedMeasurement))
    assert all(isinstance(result, FailedMeasurement) for result in results)


def test_a_refused_anchor_fails_the_whole_batch_by_name(tmp_path, models):
    results = HostProbe(TINY, tmp_path / "nowhere.onnx").measure(models)
    assert all(isinstance(result, FailedMeasurement) and "nowhere.onnx" in result.reason for result in results)
    assert len(results) == len(models)


def test_a_process_that_dies_before_its_first_model_fails_the_batch_with_its_last_words(tmp_path, anchor, models):
    script = tmp_path / "broken.py"
    script.write_text("raise SystemExit('no runtime here')")
    command = [sys.executable, str(script)]
    results = HostProbe(TINY, anchor, command=command).measure(models)
    assert all(isinstance(result, FailedMeasurement) and "no runtime here" in result.reason for result in results)
    assert len(results) == len(models)


def test_two_measurements_on_one_core_wait_for_each_other_and_leave_the_threads_where_they_were(anchor, models):
    before, probe = os.sched_getaffinity(0), HostProbe(TINY, anchor)
    with ThreadPoolExecutor(2) as threads:
        first, second = (threads.submit(probe.measure, models[:2]) for _ in range(2))
        assert all(isinstance(one, Measurement) for one in [*first.result(), *second.result()])
    assert os.sched_getaffinity(0) == before


def is_free(lock: Path) -> bool:
    """Say whether no process holds the lock any more."""
    with lock.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_ctrl_c_comes_through_and_leaves_no_process_behind(tmp_path, anchor, models, mischief):
    probe = HostProbe(TINY, anchor, command=mischief({models[0]: "hang"}))

    def interrupt_when_it_hangs() -> None:
        until((tmp_path / "lock.hangs").exists)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt_when_it_hangs)
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell may ignore it
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            probe.measure(models[:1])
        thread.join()
    finally:
        signal.signal(signal.SIGINT, previous)
    assert is_free(tmp_path / "lock")


def test_a_stop_ends_a_process_that_hangs_in_a_model(tmp_path, anchor, models, mischief):
    probe = HostProbe(TINY, anchor, command=mischief({models[0]: "hang"}))
    with pytest.raises(MeasurementStopped):
        probe.measure(models[:1], stop=(tmp_path / "lock.hangs").exists)
    assert is_free(tmp_path / "lock")


def test_a_measuring_process_ends_when_its_owner_is_killed(tmp_path, anchor, models, mischief):
    mischief({models[0]: "hang"})
    owner = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from tests.workers.latency.test_latency_contract import TINY
from workers.latency.host_probe import HostProbe
command = [sys.executable, {str(tmp_path / "mischief.py")!r}]
HostProbe(TINY, Path({str(anchor)!r}), command=command).measure([Path({str(models[0])!r})])
"""
    with subprocess.Popen([sys.executable, "-c", owner]) as process:
        until((tmp_path / "lock.hangs").exists)
        assert not is_free(tmp_path / "lock")
        process.kill()
    until(lambda: is_free(tmp_path / "lock"))


def test_a_core_or_thread_count_this_process_may_not_use_is_refused(anchor):
    with pytest.raises(InvalidSettings, match="the core must be one of"):
        HostProbe(TINY, anchor, core=99_999)
    with pytest.raises(InvalidSettings, match="threads must be at most"):
        HostProbe(TINY.model_copy(update={"threads": 1000}), anchor)


def test_the_default_core_is_the_last_usable_one():
    assert default_core() == max(usable_cores())


@pytest.mark.parametrize(
    ("text", "expected"), [("1,5\n", {1, 5}), ("0-2\n", {0, 1, 2}), ("1", {1}), ("", {1}), ("nonsense", {1})]
)
def test_siblings_are_read_as_lists_and_ranges(tmp_path, text, expected):
    topology = tmp_path / "cpu1" / "topology"
    topology.mkdir(parents=True)
    (topology / "thread_siblings_list").write_text(text)
    assert siblings(1, tmp_path) == expected


def test_a_core_without_topology_is_its_own_sibling(tmp_path):
    assert siblings(3, tmp_path) == {3}


@pytest.mark.parametrize(
    ("cpu", "label"),
    [
        ("Intel(R) Xeon(R) Platinum 8370C CPU @ 2.80GHz", "host:intel-xeon-platinum-8370c"),
        ("AMD Ryzen 9 5950X 16-Core Processor", "host:amd-ryzen-9-5950x"),
        ("Raspberry Pi 5 Model B Rev 1.0 (Cortex-A76)", "host:raspberry-pi-5-model-b-rev-1-0-cortex-a76"),
        ("®©", "host:unknown"),
    ],
)
def test_the_host_label_is_short_and_plain(cpu, label):
    assert host_name(cpu) == label
    assert len(label) <= 53
