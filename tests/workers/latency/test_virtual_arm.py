"""The ARM device in software: making it, and counting networks' instructions on it."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from space import CondenseNetConfig, cost_of
from space.errors import EmulatorMissing, InvalidSettings, ReadOnlyFolder
from tests.workers.arm_device import arm_device, linked_copy, small_config, write_condensenet
from tests.workers.latency.test_latency_contract import sha256, write_corrupt
from workers.latency import FailedMeasurement, MeasurementStopped
from workers.latency.agent_file import agent_path
from workers.latency.emulated import virtual_arm
from workers.latency.emulated.virtual_arm import (
    Counts,
    VirtualArm,
    build,
    counts_from_report,
    default_folder,
    missing_tools,
)

CLASSES = ("branch", "load", "store", "vload", "vstore", "vfma", "simd_fp", "int")

needs_tools = pytest.mark.skipif(bool(missing_tools()), reason=f"needs {' '.join(missing_tools())}")


@pytest.fixture(scope="module")
def arm() -> VirtualArm:
    return arm_device()


# ---- making it -------------------------------------------------------------------------------------------


def beside(folder: Path) -> set[str]:
    return {path.name for path in folder.parent.iterdir()} - {f".{folder.name}.lock"}


@pytest.fixture
def nothing(tmp_path: Path) -> Path:
    """An apt source list that offers nothing."""
    path = tmp_path / "nothing.list"
    path.touch()
    return path


def test_the_folder_follows_the_cache_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("CONDENSERY_CACHE", str(tmp_path))
    assert default_folder() == tmp_path / "arm64"
    monkeypatch.delenv("CONDENSERY_CACHE")
    assert default_folder() == Path.home() / ".cache/condensery/arm64"


@needs_tools
def test_a_folder_that_can_not_be_made_is_one_error_of_ours(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for folder in (Path("/proc/no/arm64"), tmp_path / "loop" / "arm64"):
        with pytest.raises(ReadOnlyFolder, match="choose a folder you may write"):
            build(folder)


def test_missing_tools_are_named_by_their_packages(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert missing_tools() == ["qemu-user", "gcc", "libc6-dev", "dpkg", "apt"]
    with pytest.raises(EmulatorMissing, match=r"apt install qemu-user gcc libc6-dev dpkg apt$"):
        build(tmp_path / "arm64")


@needs_tools
def test_an_emulator_that_takes_no_plugins_is_refused(monkeypatch, tmp_path):
    emulator = tmp_path / "qemu"
    emulator.write_text("#!/bin/sh\necho 'usage: qemu version 10.0.2 [options] program'\n")
    emulator.chmod(0o755)
    monkeypatch.setenv("CONDENSERY_QEMU", str(emulator))
    with pytest.raises(EmulatorMissing, match=r"must take plugins, but .* 10\.0\.2 doesn't"):
        build(tmp_path / "arm64")


@needs_tools
def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path, nothing):
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "letter").write_text("dear")
    with pytest.raises(InvalidSettings, match="something else"):
        build(folder, sources=nothing)
    assert (folder / "letter").read_text() == "dear"


@needs_tools
def test_a_build_that_can_fetch_nothing_says_so_in_one_line_and_leaves_nothing(tmp_path, nothing):
    folder = tmp_path / "cache" / "arm64"
    with pytest.raises(EmulatorMissing, match="apt found no arm64 Python") as caught:
        build(folder, sources=nothing)
    assert "\n" not in str(caught.value)
    assert beside(folder) == set()


@needs_tools
def test_a_killed_build_leaves_no_device_and_the_next_build_clears_what_it_left(tmp_path, nothing):
    folder = tmp_path / "cache" / "arm64"
    code = "import sys, pathlib; from workers.latency.emulated.virtual_arm import build\n"
    code += "build(pathlib.Path(sys.argv[1]), print, sources=pathlib.Path(sys.argv[2]))"
    with socket.create_server(("127.0.0.1", 0)) as silent:  # apt waits for its answer
        (tmp_path / "slow.list").write_text(f"deb [trusted=yes] http://127.0.0.1:{silent.getsockname()[1]}/ ./\n")
        command = [sys.executable, "-u", "-c", code, str(folder), str(tmp_path / "slow.list")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "fetching an arm64 Python\n"
            asking, _ = silent.accept()
            child.kill()
        asking.close()
    assert not folder.exists()
    assert len(beside(folder)) == 1
    with pytest.raises(EmulatorMissing, match="isn't built"):
        VirtualArm(folder)
    with pytest.raises(EmulatorMissing):
        build(folder, sources=nothing)
    assert beside(folder) == set()


def test_a_device_that_is_not_there_says_that_it_must_be_built(tmp_path):
    with pytest.raises(EmulatorMissing, match="isn't built"):
        VirtualArm(tmp_path / "arm64")


@pytest.mark.slow(seconds=35)
def test_building_again_uses_the_device_that_is_there(arm):
    messages: list[str] = []
    again = build(arm.folder, messages.append)
    assert messages == []
    assert again.facts == arm.facts
    assert again.facts["machine"] == "aarch64"


@pytest.mark.slow
def test_a_device_stays_when_the_one_to_replace_it_can_not_be_made(arm, tmp_path, nothing):
    folder = linked_copy(arm, tmp_path / "cache" / "arm64", wanted={"onnxruntime": "0.1"})
    with pytest.raises(EmulatorMissing):
        build(folder, sources=nothing)
    assert beside(folder) == {"arm64"}
    assert VirtualArm(folder).facts == arm.facts


@pytest.mark.slow
def test_two_builds_at_once_make_the_counter_of_a_newer_version_once(arm, tmp_path):
    folder = linked_copy(arm, tmp_path / "cache" / "arm64", counter="of an older version")
    with pytest.raises(EmulatorMissing, match="another version"):
        VirtualArm(folder)
    messages: list[str] = []
    threads = [threading.Thread(target=build, args=(folder, messages.append)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert messages.count("building the instruction counter") == 1
    assert set(messages) <= {"building the instruction counter", "waiting for another process that builds it"}
    assert VirtualArm(folder).facts == arm.facts


@pytest.mark.slow
def test_a_path_with_a_comma_is_refused_because_the_emulator_splits_there(arm, tmp_path):
    folder = linked_copy(arm, tmp_path / "a,b" / "arm64")
    with pytest.raises(EmulatorMissing, match="comma"):
        VirtualArm(folder).python_command()


# ---- counting --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("networks")
    return {
        "small": write_condensenet(folder / "small.onnx", layers=1),
        "deep": write_condensenet(folder / "deep.onnx", layers=3),
        "corrupt": write_corrupt(folder / "corrupt.onnx"),
        "missing": folder / "missing.onnx",
    }


ORDER = ("small", "corrupt", "deep", "missing", "small")


@pytest.fixture(scope="module")
def counted(arm, networks) -> list[Counts | FailedMeasurement]:
    return arm.count([networks[name] for name in ORDER], runs=3)


@pytest.mark.slow
def test_results_come_in_the_order_of_the_models_and_only_bad_ones_fail(counted, networks):
    assert [isinstance(result, Counts) for result in counted] == [True, False, True, False, True]
    hashes = [sha256(networks[name]) if networks[name].exists() else "" for name in ORDER]
    assert [result.model_hash for result in counted] == hashes
    assert all(result.reason and "\n" not in result.reason for result in (counted[1], counted[3]))


@pytest.mark.slow
def test_the_classes_add_up_to_all_instructions(counted):
    for result in (counted[0], counted[2]):
        assert len(result.runs) == 3
        for run in result.runs:
            assert sum(run[name] for name in CLASSES) == run["all"]


@pytest.mark.slow
def test_counts_are_the_same_in_another_process_within_two_in_a_thousand(arm, networks, counted):
    (again,) = arm.count([networks["deep"]])
    assert len(again.runs) == 5
    few = ("load", "store")  # the rarest, and where the runtime's own book-keeping shows
    for name, count in counted[2].median.items():
        assert again.median[name] == pytest.approx(count, rel=0.01 if name in few else 0.002), name


# The deep network's, under the onnxruntime that a device is built with: medians of five runs.
# Another version needs new counts.
KNOWN_WITH = "1.31.1"
KNOWN = {"all": 7_718_458, "branch": 1_204_081, "vload": 895_572, "vstore": 598_312, "vfma": 1_698_633}


@pytest.mark.slow
def test_the_counts_of_a_known_network_are_those_known_within_two_in_a_thousand(arm, counted):
    if arm.facts["onnxruntime"] != KNOWN_WITH:
        pytest.skip(f"the counts are known for onnxruntime {KNOWN_WITH}, this device has {arm.facts['onnxruntime']}")
    median = counted[2].median
    assert {name: median[name] for name in KNOWN} == pytest.approx(KNOWN, rel=0.002)


def macs(layers: int) -> int:
    return cost_of(small_config(layers)).macs


@pytest.mark.slow
def test_vector_multiply_adds_are_a_quarter_of_the_macs_and_little_more(counted):
    for result, layers in ((counted[0], 1), (counted[2], 3)):
        assert 1.0 <= result.median["vfma"] / (macs(layers) / 4) < 1.5  # what is over: padding, batch norm


@pytest.mark.slow
def test_more_layers_are_more_instructions_of_every_class(counted):
    small, deep = counted[0].median, counted[2].median
    assert all(deep[name] > small[name] for name in small)


@pytest.mark.slow
def test_the_runtime_counted_is_the_one_of_the_device(arm, counted):
    assert (counted[0].runtime, counted[0].runtime_version) == ("onnxruntime", arm.facts["onnxruntime"])


CRASHING_AGENT = """
import os, signal, sys
sys.path.insert(0, {folder!r})
from workers.latency.agent.__main__ import main
from workers.latency.agent.runtimes import OnnxRuntime
load = OnnxRuntime.load
def crash(self, model, threads):
    if model == b"crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    return load(self, model, threads)
OnnxRuntime.load = crash
sys.exit(main())
"""


def children() -> set[str]:
    """Return the processes that this process's threads have started and that still run."""
    pids: set[str] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            pids |= set((task / "children").read_text().split())
    return pids


@pytest.mark.slow
def test_a_model_that_crashes_the_process_fails_alone_and_the_next_process_stays_as_long_as_its_device(
    arm, networks, counted, monkeypatch, tmp_path
):
    agent_file, crashing = tmp_path / "crashing_agent.py", tmp_path / "crash.onnx"
    agent_file.write_text(CRASHING_AGENT.format(folder=str(agent_path())))
    crashing.write_bytes(b"crash")
    monkeypatch.setattr(virtual_arm, "agent_path", lambda: agent_file)
    before, own = children(), VirtualArm(arm.folder)
    crashed, other = own.count([crashing, networks["small"]], runs=1)
    assert isinstance(other, Counts)
    assert isinstance(crashed, FailedMeasurement)
    assert (crashed.model_hash, signal.strsignal(signal.SIGSEGV) in crashed.reason) == (sha256(crashing), True)

    (process,) = children() - before
    (again,) = own.count([networks["small"]], runs=1)
    assert children() - before == {process}
    for counts in (other, again):
        assert counts.median["all"] == pytest.approx(counted[0].median["all"], rel=0.002)
    del own
    gc.collect()
    assert children() == before


@pytest.mark.slow
def test_counting_ends_at_once_when_it_is_told_to_stop(arm, networks):
    answers = iter([False, False, True])
    before, own = children(), VirtualArm(arm.folder)
    with pytest.raises(MeasurementStopped):
        own.count([networks["deep"]], stop=lambda: next(answers))
    assert children() == before


@pytest.mark.slow
def test_another_process_counts_when_someone_has_killed_the_first(arm, networks):
    (staying,) = arm._staying.values()
    os.kill(staying._child.pid, signal.SIGKILL)
    assert isinstance(arm.count([networks["small"]], runs=1)[0], Counts)


@pytest.mark.slow
def test_no_models_and_no_runs_are_settled_without_a_process(arm, networks):
    assert arm.count([]) == []
    with pytest.raises(InvalidSettings, match="runs must be at least 1"):
        arm.count([networks["small"]], runs=0)


@pytest.mark.slow
def test_the_agent_of_a_hub_starts_its_processes_through_the_emulator(arm):
    command = arm.agent_command("http://127.0.0.1:8470")
    assert command[: len(arm.python_command())] == arm.python_command()
    launcher = json.loads(command[command.index("--launcher") + 1])
    assert launcher == arm.python_command(Path("{counts}"))
    assert sum("{counts}" in word for word in launcher) == 1
    assert "--folder" not in command


@pytest.mark.slow
def test_an_agent_can_be_given_a_folder_of_its_own(arm, tmp_path):
    command = arm.agent_command("http://127.0.0.1:8470", tmp_path)
    assert command[command.index("--folder") + 1] == str(tmp_path)


# ---- reading a report ------------------------------------------------------------------------------------

HEADER = {"runtime": "onnxruntime", "runtime_version": "1.0"}
RUN = {"all": 36, **{name: number for number, name in enumerate(CLASSES, start=1)}}


def test_the_counts_of_a_report_are_the_medians_of_its_runs():
    runs = [{**RUN, "all": value, "other": 7} for value in (40, 36.0, 44)]
    counts = counts_from_report(HEADER, {"sha256": "ab", "counts": runs})
    assert isinstance(counts, Counts)
    assert counts.median == {**RUN, "all": 40}
    assert [run["all"] for run in counts.runs] == [40, 36, 44]


@pytest.mark.parametrize(
    "counts",
    [
        None,
        [],
        "many",
        [None],
        [{**RUN, "vfma": -1}],
        [{**RUN, "int": 1.5}],
        [{**RUN, "all": 0}],
        [RUN, {"all": 1}],
        [{**RUN, "int": float("nan")}],
    ],
)
def test_a_report_without_whole_counts_of_every_class_is_a_failure(counts):
    result = counts_from_report(HEADER, {"sha256": "ab", "counts": counts})
    assert isinstance(result, FailedMeasurement)
    assert result.model_hash == "ab"


def test_an_error_of_a_report_is_handed_on():
    assert counts_from_report(HEADER, {"sha256": None, "error": "no"}) == FailedMeasurement("", "no")


@pytest.mark.slow
def test_the_small_networks_grow_with_their_layers():
    assert isinstance(small_config(1), CondenseNetConfig)
    assert macs(3) > macs(1)
