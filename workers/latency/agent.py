"""The measuring agent: one file that runs alone on a device and times models there.

- Needs Python 3.9+, numpy and onnxruntime; imports nothing else of the project, so it can be copied anywhere.
- Owns the measuring loop and the runtimes; whoever measures (a host probe, a device) goes through this file.
- `python agent.py measure --policy JSON [--core N] MODEL...` prints one JSON document on standard output and
  says on standard error which model it is at, so that a crash can be blamed on the right one.
- A sensor that isn't there is recorded as null; a model the runtime refuses is that model's entry, not a failure.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1  # of the report
PROGRESS = "agent: measuring "  # + position in the given order; one line on standard error per model

_ROOT = Path("/")
_CPU_SENSORS = ("cpu", "x86_pkg_temp", "soc", "coretemp", "k10temp", "zenpower")
_PI_THROTTLED_NOW = 0xE  # frequency capped, throttled, soft temperature limit; bit 0 is under-voltage alone
_PI_THROTTLED_EVER = 0xE0000  # the same since boot
_ARM_CORES = {
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd44": "Cortex-X1",
    "0xd49": "Neoverse-N2",
    "0xd4f": "Neoverse-V2",
}


# ---- what the machine says about itself ------------------------------------------------------------------


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip().strip("\0") or None
    except OSError:
        return None


def _integer(path: Path, base: int = 10) -> int | None:
    try:
        return int(_text(path) or "", base)
    except ValueError:
        return None


def _cpuinfo(core: int, root: Path) -> dict[str, str]:
    """Return the fields of this core's paragraph of /proc/cpuinfo (the first paragraph if it has none)."""
    paragraphs = []
    for paragraph in (_text(root / "proc/cpuinfo") or "").split("\n\n"):
        pairs = (line.partition(":") for line in paragraph.splitlines())
        paragraphs.append({key.strip(): value.strip() for key, _, value in pairs})
    return next((fields for fields in paragraphs if fields.get("processor") == str(core)), paragraphs[0])


def cpu_model(core: int, root: Path = _ROOT) -> str:
    """Name the processor of one core: an x86 brand string, or an ARM board with its core type."""
    fields = _cpuinfo(core, root)
    if fields.get("model name"):
        return fields["model name"]
    part = fields.get("CPU part", "").lower()
    board, core_type = _text(root / "proc/device-tree/model"), _ARM_CORES.get(part, part)
    if board and core_type:
        return f"{board} ({core_type})"
    if board or core_type:
        return board or core_type
    if sys.platform == "darwin":
        query = ["sysctl", "-n", "machdep.cpu.brand_string"]
        brand = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
        if brand:
            return brand
    return platform.processor() or platform.machine() or "unknown"


def temperature_c(root: Path = _ROOT) -> float | None:
    """Return the processor's temperature in °C from a thermal zone or hwmon chip named after it, else None."""
    sensors = [(zone / "type", zone / "temp") for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*"))]
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        sensors.append((chip / "name", chip / "temp1_input"))
    for name, value in sensors:
        reading = _integer(value)  # in millidegrees
        is_cpu = any(word in (_text(name) or "").lower() for word in _CPU_SENSORS)
        if is_cpu and reading is not None and -40_000 < reading < 150_000:
            return reading / 1000
    return None


def conditions(core: int, root: Path = _ROOT) -> dict[str, Any]:
    """Read the sensors that explain a latency, each None where the machine has no such sensor.

    temperature_c in °C; cpu_mhz of this core; throttle_flags as a Raspberry Pi's firmware gives them;
    throttle_count as an x86 core counts them; load_average over 1, 5 and 15 minutes.
    """
    cpu = root / f"sys/devices/system/cpu/cpu{core}"
    khz = _integer(cpu / "cpufreq/scaling_cur_freq")
    try:
        mhz: float | None = khz / 1000 if khz is not None else float(_cpuinfo(core, root)["cpu MHz"])
    except (KeyError, ValueError):
        mhz = None
    try:
        load: list[float] | None = list(os.getloadavg())
    except (OSError, AttributeError):
        load = None
    firmware = sorted((root / "sys/devices/platform").glob("soc*/*firmware/get_throttled"))
    return {
        "temperature_c": temperature_c(root),
        "cpu_mhz": mhz,
        "throttle_flags": _integer(firmware[0], base=16) if firmware else None,
        "throttle_count": _integer(cpu / "thermal_throttle/core_throttle_count"),
        "load_average": load,
    }


def throttled(before: dict[str, Any], after: dict[str, Any]) -> bool | None:
    """Say whether the processor was slowed down between two readings of `conditions`; None without a sensor."""
    flags = (before["throttle_flags"], after["throttle_flags"])
    counts = (before["throttle_count"], after["throttle_count"])
    if None not in flags:
        newly = flags[1] & ~flags[0] & _PI_THROTTLED_EVER
        return bool((flags[0] | flags[1]) & _PI_THROTTLED_NOW or newly)
    if None not in counts:
        return bool(counts[1] > counts[0])
    return None


# ---- cores -----------------------------------------------------------------------------------------------


def usable_cores() -> list[int]:
    """Return the numbers of the cores this process may run on, ascending."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cores_for(core: int, threads: int) -> list[int]:
    """Return `core` and the usable ones below it (then from the top), one per thread."""
    usable = usable_cores()
    if core not in usable:
        raise ValueError(f"the core must be one of {usable}, but got {core}; pick one of those")
    if threads > len(usable):
        raise ValueError(f"threads must be at most the {len(usable)} usable cores, but got {threads}; use fewer")
    at = usable.index(core)
    return [usable[at - step] for step in range(threads)]


# ---- runtimes --------------------------------------------------------------------------------------------


class OnnxRuntime:
    """onnxruntime on the CPU with all graph optimisations; fp32 models, batch 1."""

    name = "onnxruntime"

    def __init__(self) -> None:
        import onnxruntime  # here, so that --help and the sensors work without it

        self._ort = onnxruntime
        self.version = str(onnxruntime.__version__)

    def load(self, model: bytes, threads: int) -> Callable[[], object]:
        """Return a function that runs the model once on a fixed random input; raises what the runtime raises."""
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = threads
        options.execution_mode = self._ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3  # errors only
        session = self._ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        feed = {spec.name: _random_input(spec.name, spec.type, spec.shape) for spec in session.get_inputs()}
        outputs = [spec.name for spec in session.get_outputs()]
        return lambda: session.run(outputs, feed)


def _random_input(name: str, kind: str, shape: Sequence[Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    if kind != "tensor(float)":
        raise ValueError(f"input {name!r} must be tensor(float), but is {kind}; export the model in fp32")
    sizes = [1, *shape[1:]] if shape and not isinstance(shape[0], int) else list(shape)  # a symbolic batch is 1
    if not all(isinstance(size, int) and size > 0 for size in sizes) or sizes[:1] not in ([], [1]):
        raise ValueError(f"input {name!r} must have batch 1 and fixed sizes, but is {list(shape)}; export it so")
    return np.random.default_rng(0).standard_normal(sizes).astype(np.float32)


# ---- the measuring loop ----------------------------------------------------------------------------------


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal; OSError when it can't be read."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _repeat_ms(run: Callable[[], object], runs: int, seconds: float) -> list[float]:
    """Run until both the count and the duration are reached; return each run's time in ms."""
    clock = time.perf_counter_ns
    samples = []
    until = clock() + int(seconds * 1e9)
    while True:
        start = clock()
        run()
        end = clock()
        samples.append((end - start) / 1e6)
        if len(samples) >= runs and end >= until:
            return samples


def _timed(run: Callable[[], object], policy: dict[str, Any]) -> dict[str, Any]:
    """Warm up, time, and thin evenly to the samples kept: `stride` 3 means that every third run is listed."""
    collected = gc.isenabled()
    gc.collect()
    gc.disable()  # a collection inside a run would be a spike of Python's, not of the model's
    try:
        _repeat_ms(run, policy["warmup_runs"], policy["warmup_s"])
        samples = _repeat_ms(run, policy["runs"], policy["run_s"])
    finally:
        if collected:
            gc.enable()
    stride = -(-len(samples) // policy["samples_kept"])
    return {"samples_ms": samples[::stride], "runs": len(samples), "stride": stride}


def _one_model(runtime: OnnxRuntime, path: Path, policy: dict[str, Any], core: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": str(path), "sha256": None}
    try:
        model = path.read_bytes()  # hashed and run from the same bytes: the hash names what was timed
        entry["sha256"] = hashlib.sha256(model).hexdigest()
        run = runtime.load(model, policy["threads"])
        before = conditions(core)
        timed = _timed(run, policy)
        after = conditions(core)
    except Exception as error:  # whatever a runtime raises on a file is that model's result; the others go on
        entry["error"] = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        return entry
    seen = {"before": before, "after": after, "throttled": throttled(before, after)}
    return {**entry, **timed, "conditions": seen}


def measure_models(
    paths: Sequence[Path],
    policy: dict[str, Any],
    core: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Time each model in the given order in this thread, pinned to `core` (None: the last usable one).

    `policy` needs warmup_runs, warmup_s, runs, run_s, threads and samples_kept; other keys are ignored.
    `progress` is called with each position before its model is loaded. With several threads as many cores are
    used, `core` first. Returns a JSON-able report: runtime, versions, cores, and under `models` one entry per path
    with samples_ms, runs, stride and conditions, or with error. Raises ValueError on an unusable core or policy,
    ImportError without the runtime.
    """
    needed = ("warmup_runs", "warmup_s", "runs", "run_s", "threads", "samples_kept")
    missing = [key for key in needed if not isinstance(policy.get(key), (int, float))]
    if missing:
        raise ValueError(f"the policy needs a number for each of {missing}, but got {policy}; add them")
    first = usable_cores()[-1] if core is None else core
    cores = cores_for(first, policy["threads"])
    runtime = OnnxRuntime()
    pins = hasattr(os, "sched_setaffinity")  # not on macOS
    allowed = usable_cores()
    if pins:
        os.sched_setaffinity(0, cores)  # threads that a session starts inherit it
    try:
        entries = []
        for position, path in enumerate(paths):
            if progress is not None:
                progress(position)
            entries.append(_one_model(runtime, Path(path), policy, first))
    finally:
        if pins:
            os.sched_setaffinity(0, allowed)
    return {
        "format": FORMAT,
        "runtime": runtime.name,
        "runtime_version": runtime.version,
        "python_version": platform.python_version(),
        "machine": platform.machine(),
        "cpu_model": cpu_model(first),
        "core": first,
        "cores": cores,
        "pinned": pins,
        "threads": policy["threads"],
        "models": entries,
    }


# ---- the command line ------------------------------------------------------------------------------------


def _exit_when_stdin_closes() -> None:
    """End this process as soon as the one that holds its standard input is gone, however that one died."""

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os._exit(3)

    threading.Thread(target=wait, daemon=True).start()


def _say_position(position: int) -> None:
    sys.stderr.write(f"{PROGRESS}{position}\n")
    sys.stderr.flush()


def _measure(arguments: argparse.Namespace) -> int:
    if arguments.watch_stdin:
        _exit_when_stdin_closes()
    try:
        policy = json.loads(arguments.policy)
        if not isinstance(policy, dict):
            raise ValueError(f"the policy must be a JSON object, but got {arguments.policy}; pass one")
        report = measure_models(arguments.models, policy, arguments.core, _say_position)
    except (ValueError, ImportError) as error:
        sys.stderr.write(f"agent: {error}\n")
        return 2
    sys.stdout.write(json.dumps(report, allow_nan=False) + "\n")
    sys.stdout.flush()
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command; return the exit code: 0 done, 2 wrong use or no runtime."""
    parser = argparse.ArgumentParser(prog="agent.py", description="Time models on this device.")
    commands = parser.add_subparsers(dest="command", required=True)
    measure = commands.add_parser("measure", help="time models and print one JSON document")
    measure.add_argument("--policy", required=True, metavar="JSON", help="warmup_runs, warmup_s, runs, run_s, ...")
    measure.add_argument("--core", type=int, help="the core to pin to (default: the last usable one)")
    measure.add_argument("--watch-stdin", action="store_true", help="exit when standard input closes")
    measure.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="an ONNX file")
    measure.set_defaults(handler=_measure)
    arguments = parser.parse_args(argv)
    return int(arguments.handler(arguments))


if __name__ == "__main__":
    sys.exit(main())
