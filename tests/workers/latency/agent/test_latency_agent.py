"""The agent's file measures models by itself; what it reads from the machine."""

from __future__ import annotations

import ast
import gc
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from onnx import TensorProto

from tests.workers.latency.test_latency_contract import TINY, sha256, write_corrupt, write_network
from workers.latency import agent
from workers.latency.agent import timing
from workers.latency.agent.__main__ import main
from workers.latency.agent.reports import PROGRESS
from workers.latency.agent.runtimes import RUNTIMES, LiteRt, Ncnn, OnnxRuntime
from workers.latency.agent.sensors import conditions, cpu_model, identity, throttled, usable_cores
from workers.latency.agent.timing import measure_models
from workers.latency.agent_file import agent_bytes

SOURCES = sorted(Path(agent.__file__).parent.rglob("*.py"))
POLICY = TINY.model_dump(mode="json")


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """Return a folder that holds the agent's file and nothing else of the project."""
    folder = tmp_path_factory.mktemp("device")
    (folder / "agent.pyz").write_bytes(agent_bytes())
    return folder


def run_alone(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, str(folder / "agent.pyz"), *arguments]
    return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=60)


def test_the_agent_file_alone_measures_models_and_prints_one_json_document(alone, tmp_path):
    models = [
        write_network(tmp_path / "a.onnx", 4),
        write_corrupt(tmp_path / "b.onnx"),
        write_network(tmp_path / "c.onnx", 8),
    ]
    core = str(usable_cores()[0])
    done = run_alone(alone, "measure", "--policy", json.dumps(POLICY), "--cores", core, *map(str, models))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["runtime"] == "onnxruntime"
    assert (report["core"], report["cores"]) == (int(core), [int(core)])
    assert report["pinned"] == hasattr(os, "sched_setaffinity")
    assert [entry["sha256"] for entry in report["models"]] == [sha256(model) for model in models]
    assert ["error" in entry for entry in report["models"]] == [False, True, False]
    assert all(len(report["models"][place]["samples_ms"]) == 5 for place in (0, 2))
    positions = [line for line in done.stderr.splitlines() if line.startswith(PROGRESS)]
    assert positions == [f"{PROGRESS}{position}" for position in range(3)]


def test_help_names_the_sub_commands(alone):
    done = run_alone(alone, "--help")
    assert done.returncode == 0
    assert {"measure", "count"} <= set(done.stdout.replace(",", " ").replace("{", " ").replace("}", " ").split())


@pytest.mark.parametrize(
    ("policy", "core", "complaint"),
    [
        ("{}", 0, "needs a number for each of"),
        ("[1]", 0, "must be a JSON object"),
        ("no json", 0, "Expecting value"),
        (json.dumps(POLICY), 999, "must be some that this process may use"),
        (json.dumps({**POLICY, "threads": 2}), usable_cores()[0], "as many cores as threads"),
    ],
)
def test_a_wrong_policy_or_core_ends_with_code_2_and_one_line(capsys, tmp_path, policy, core, complaint):
    model = str(write_network(tmp_path / "a.onnx"))
    assert main(["measure", "--policy", policy, "--cores", str(core), model]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert complaint in streams.err
    assert streams.err.count("\n") == 1


def test_the_agent_is_python_3_9_and_imports_only_the_standard_library_numpy_and_the_runtimes():
    imported = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 9))):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                imported.add(node.module or "")
    ours = {name for name in imported if name.partition(".")[0] == "workers"}
    assert all(name.startswith("workers.latency.agent") for name in ours)
    modules = {runtime.MODULE for runtime in (OnnxRuntime, Ncnn, LiteRt)}  # the fourth is compiled
    others = {name.partition(".")[0] for name in imported - ours}
    assert others - set(sys.stdlib_module_names) == {"numpy", *modules}


def test_nothing_in_the_agent_needs_a_newer_python_than_3_9_when_it_runs():
    """Annotations are strings and may say anything; what is evaluated may not."""
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert "from __future__ import annotations" in ast.unparse(tree) or not tree.body[1:], path
        annotations = {
            id(part)
            for node in ast.walk(tree)
            for name in ("annotation", "returns")
            for part in (ast.walk(getattr(node, name)) if getattr(node, name, None) else ())
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr) and id(node) not in annotations:
                sides = [ast.unparse(side) for side in (node.left, node.right)]
                assert not {"None", "int", "str", "float", "Path"} & set(sides), f"{path}:{node.lineno}"
            if isinstance(node, ast.Call):
                called, keywords = ast.unparse(node.func), {keyword.arg for keyword in node.keywords}
                assert not (called == "zip" and "strict" in keywords), f"{path}:{node.lineno}"
                assert not (called == "dataclass" and keywords & {"slots", "kw_only"}), f"{path}:{node.lineno}"


def test_more_runs_than_are_kept_are_thinned_evenly_and_counted(tmp_path):
    policy = {**POLICY, "runs": 25, "samples_kept": 10}
    (entry,) = measure_models([write_network(tmp_path / "a.onnx")], policy)["models"]
    assert (entry["runs"], entry["stride"], len(entry["samples_ms"])) == (25, 3, 9)


@pytest.mark.parametrize(("runs", "run_s", "expected"), [(3, 0.1, 5), (8, 0.1, 8), (3, 0.0, 3)])
def test_measuring_lasts_until_both_the_count_and_the_duration_are_reached(
    tmp_path, monkeypatch, runs, run_s, expected
):
    ticks = itertools.count(0, 10_000_000)  # each look at the clock is 10 ms later, so a run takes 10 ms of every 20
    cpu_ticks = itertools.count(0, 10_000_000)  # all of it on the core
    clocks = {"perf_counter_ns": lambda: next(ticks), "process_time_ns": lambda: next(cpu_ticks)}
    monkeypatch.setattr(timing, "time", SimpleNamespace(**clocks))
    policy = {**POLICY, "runs": runs, "run_s": run_s}
    (entry,) = measure_models([write_network(tmp_path / "a.onnx")], policy)["models"]
    assert entry["samples_ms"] == [10.0] * expected


def test_a_symbolic_batch_is_run_as_one(tmp_path):
    (entry,) = measure_models([write_network(tmp_path / "a.onnx", batch="N")], POLICY)["models"]
    assert len(entry["samples_ms"]) == 5


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [({"batch": 2}, "must have batch 1"), ({"kind": TensorProto.DOUBLE}, "must be tensor(float), or pixels")],
)
def test_a_network_that_is_not_fp32_with_batch_one_is_refused(tmp_path, arguments, complaint):
    path = write_network(tmp_path / "a.onnx", **arguments)
    (entry,) = measure_models([path], POLICY)["models"]
    assert complaint in entry["error"]


def test_the_garbage_collector_is_off_while_timing_and_on_again_after(tmp_path, monkeypatch):
    seen = []

    class Watched(OnnxRuntime):
        def load(self, model, threads):
            run = super().load(model, threads)
            return lambda: (seen.append(gc.isenabled()), run())

    monkeypatch.setitem(RUNTIMES, "onnxruntime", Watched)
    assert gc.isenabled()
    measure_models([write_network(tmp_path / "a.onnx")], POLICY)
    assert set(seen) == {False}
    assert len(seen) >= 6  # one to warm up, five timed, and those that were interrupted
    assert gc.isenabled()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system can't pin a thread")
def test_the_thread_is_pinned_while_measuring_and_free_again_after(tmp_path):
    before = os.sched_getaffinity(0)
    pinned = []
    core = max(before)
    model = write_network(tmp_path / "a.onnx")
    measure_models([model], POLICY, [core], lambda position: pinned.append(os.sched_getaffinity(0)))
    assert pinned == [{core}]
    assert os.sched_getaffinity(0) == before


def write_tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_a_machine_without_sensors_gives_none_for_each(tmp_path):
    seen = conditions(0, tmp_path)
    assert len(seen.pop("load_average")) == 3
    assert set(seen.values()) == {None}
    assert throttled(conditions(0, tmp_path), conditions(0, tmp_path)) is None


def test_a_raspberry_pi_is_read_with_its_board_core_temperature_and_throttling(tmp_path):
    pi = write_tree(
        tmp_path,
        {
            "proc/cpuinfo": "processor\t: 0\nCPU part\t: 0xd0b\n\nprocessor\t: 1\nCPU part\t: 0xd0b\n",
            "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "48300\n",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "2400000\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "80008\n",
        },
    )
    assert cpu_model(1, pi) == "Raspberry Pi 5 Model B Rev 1.0 (Cortex-A76)"
    seen = conditions(1, pi)
    assert (seen["temperature_c"], seen["cpu_mhz"], seen["throttle_flags"]) == (48.3, 2400.0, 0x80008)


JETSON = (
    "processor\t: {core}\nmodel name\t: ARMv8 Processor rev 0 (v8l)\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n\n"
)


def jetson(folder, board: str, khz: int, memory_kb: int):
    """A board whose /proc/cpuinfo names nothing but the kind of core."""
    return write_tree(
        folder,
        {
            "proc/cpuinfo": JETSON.format(core=0) + JETSON.format(core=1),
            "proc/device-tree/model": f"{board}\0",
            "proc/meminfo": f"MemTotal:{memory_kb:>15} kB\nMemFree: 1 kB\n",
            "sys/devices/system/cpu/cpu1/cpufreq/cpuinfo_min_freq": "115200\n",
            "sys/devices/system/cpu/cpu1/cpufreq/cpuinfo_max_freq": f"{khz}\n",
        },
    )


def test_boards_of_one_kind_of_core_have_names_and_identities_of_their_own(tmp_path):
    nano = jetson(tmp_path / "nano", "NVIDIA Jetson Orin Nano", 1_510_400, 7_800_000)
    agx = jetson(tmp_path / "agx", "NVIDIA Jetson AGX Orin", 2_201_600, 31_000_000)
    assert cpu_model(1, nano) == "NVIDIA Jetson Orin Nano (Cortex-A78AE)"
    assert cpu_model(1, agx) == "NVIDIA Jetson AGX Orin (Cortex-A78AE)"
    assert identity(1, nano) == {
        "board": "NVIDIA Jetson Orin Nano",
        "part": "0x41:0xd42",
        "mhz": [115, 1510],
        "memory_mb": 7987,
    }
    assert identity(1, agx)["mhz"] == [115, 2202]
    assert identity(0, nano)["mhz"] is None


def test_a_machine_that_says_nothing_has_an_empty_identity_and_a_generic_name_is_better_than_none(tmp_path):
    assert set(identity(0, tmp_path).values()) == {None}
    phone = write_tree(tmp_path, {"proc/cpuinfo": "processor\t: 0\nmodel name\t: ARMv8 Processor rev 1 (v8l)\n"})
    assert cpu_model(0, phone) == "ARMv8 Processor rev 1 (v8l)"


def test_an_x86_machines_identity_is_its_product_and_its_processors_family_and_model(tmp_path):
    cpu = "processor : 0\nvendor_id : AuthenticAMD\ncpu family : 25\nmodel : 1\nmodel name : AMD EPYC 7763\n"
    pc = write_tree(tmp_path, {"proc/cpuinfo": cpu, "sys/class/dmi/id/product_name": "PowerEdge R6525\n"})
    assert (identity(0, pc)["board"], identity(0, pc)["part"]) == ("PowerEdge R6525", "AuthenticAMD:25:1")
    assert cpu_model(0, pc) == "AMD EPYC 7763"


def test_an_x86_machine_is_read_from_its_chip_sensor_and_cpuinfo(tmp_path):
    pc = write_tree(
        tmp_path,
        {
            "proc/cpuinfo": "processor : 0\nmodel name : A\ncpu MHz : 1000\n\n"
            "processor : 1\nmodel name : B\ncpu MHz : 2596.1\n",
            "sys/class/thermal/thermal_zone0/type": "acpitz\n",  # the case, not the processor
            "sys/class/thermal/thermal_zone0/temp": "27000\n",
            "sys/class/hwmon/hwmon0/name": "nvme\n",
            "sys/class/hwmon/hwmon0/temp1_input": "35000\n",
            "sys/class/hwmon/hwmon1/name": "k10temp\n",
            "sys/class/hwmon/hwmon1/temp1_input": "61250\n",
            "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "4\n",
        },
    )
    assert cpu_model(1, pc) == "B"
    seen = conditions(1, pc)
    assert (seen["temperature_c"], seen["cpu_mhz"], seen["throttle_count"]) == (61.25, 2596.1, 4)


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ({"flags": 0x0}, {"flags": 0x0}, False),
        ({"flags": 0x1}, {"flags": 0x1}, False),  # under-voltage alone slows nothing down
        ({"flags": 0x4}, {"flags": 0x0}, True),
        ({"flags": 0x0}, {"flags": 0x80008}, True),
        ({"flags": 0x0}, {"flags": 0x40000}, True),  # over by now, but it began in between
        ({"flags": 0x40000}, {"flags": 0x40000}, False),  # long before
        ({"count": 4}, {"count": 4}, False),
        ({"count": 4}, {"count": 5}, True),
        ({}, {}, None),
    ],
)
def test_throttling_is_judged_from_what_happened_between_two_readings(before, after, verdict):
    def reading(given):
        return {"throttle_flags": given.get("flags"), "throttle_count": given.get("count")}

    assert throttled(reading(before), reading(after)) is verdict
