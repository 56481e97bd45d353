"""The measuring agent: one file that runs alone on a device and times models there.

- Needs Python 3.9+, numpy and a runtime (onnxruntime, ncnn, LiteRT, or a C compiler for the project's own); imports
  nothing else of the project, so it can be copied anywhere.
- Owns the runtimes, the measuring loop and the batch of fresh processes; whoever measures (a host probe, a device)
  goes through this file.
- `python agent.py measure --policy JSON [--core N] MODEL...` times models in this process,
  `python agent.py count --counts FILE MODEL...` counts their instructions under an emulator that writes FILE. Both
  print one JSON document on standard output and say on standard error which model they are at, so that a crash can
  be blamed on the right one.
- A sensor that isn't there is recorded as null; a model the runtime refuses is that model's entry, not a failure.
"""

# ruff: noqa: B905 - zip() has no `strict` before Python 3.10

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import gc
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import platform
import random
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import IO, Any, Protocol

import numpy as np

FORMAT = 2  # of the reports
PROGRESS = "agent: measuring "  # + position in the given order; one line on standard error per model
POLL_S = 0.2  # how often `stop` is asked

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


class Runtime(Protocol):
    """Loads models and runs them; ImportError on construction when it isn't installed."""

    name: str
    version: str

    @classmethod
    def installed(cls) -> str | None:
        """Return the version that is installed here, without importing it; None when there is none."""

    def load(self, model: bytes, threads: int) -> Callable[[], object]:
        """Return a function that runs the model once on a fixed random input; raises what the runtime raises."""
        ...


class _Package:
    """What the runtimes share that are Python packages."""

    MODULE: str  # what is imported

    @classmethod
    def installed(cls) -> str | None:
        """See `Runtime`."""
        return _installed_version(cls.MODULE)


class OnnxRuntime(_Package):
    """onnxruntime on the CPU with all graph optimisations; fp32 models, batch 1."""

    name = "onnxruntime"
    MODULE = "onnxruntime"

    def __init__(self) -> None:
        import onnxruntime  # here, so that --help and the sensors work without it

        self._ort = onnxruntime
        self.version = str(onnxruntime.__version__)

    def load(self, model: bytes, threads: int) -> Callable[[], object]:
        """See `Runtime`; the model is an ONNX file."""
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


class Ncnn(_Package):
    """ncnn on the CPU, fp32 storage and arithmetic, one image.

    Its Winograd convolutions stay on, as whoever deploys has them; they round to within 1e-5 of the largest output.

    A model is one uncompressed zip of model.param, model.bin and model.json, which names the input and output blobs,
    the input's shape (channels, height, width) and the layers that ncnn itself doesn't have. Of those it may have
    `ChannelGather`, which runs in numpy here, unless it was built into this ncnn.
    """

    name = "ncnn"
    MODULE = "ncnn"
    GATHER = "ChannelGather"  # picks channels: parameter 0 says how many, its weights are their indices as int32

    def __init__(self) -> None:
        import ncnn  # here, so that everything else works without it

        self._ncnn = ncnn
        self.version = self.installed() or "unknown"

    def load(self, model: bytes, threads: int) -> Callable[[], object]:
        """See `Runtime`; the model is the zip's bytes."""
        facts, _ = _unzip(model)
        image = np.random.default_rng(0).standard_normal(facts["shape"]).astype(np.float32)
        pixels, infer = self._ncnn.Mat(image).clone(), self._open(model, threads)  # its own memory
        return lambda: infer(pixels)

    def open(self, model: bytes, threads: int) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
        """Return the function from one image (C, H, W) float32 to the output; raises what the runtime raises."""
        infer = self._open(model, threads)
        return lambda image: np.array(infer(self._ncnn.Mat(np.ascontiguousarray(image))))

    def _open(self, model: bytes, threads: int) -> Callable[[Any], Any]:
        facts, files = _unzip(model)
        unknown = sorted(set(facts["layers"]) - {self.GATHER})
        if unknown:
            rule = f"a model's layers must be ncnn's own or {self.GATHER}"
            raise ValueError(f"{rule}, but it needs {unknown}; export it anew")
        written_here = bool([name for name in facts["layers"] if self._ncnn.layer_to_index(name) < 0])  # not built in
        network = self._net(written_here)

        def infer(pixels: Any) -> Any:
            extractor = network.create_extractor()
            extractor.input(facts["input"], pixels)
            code, output = extractor.extract(facts["output"])
            if code != 0:
                raise RuntimeError(f"ncnn must reach {facts['output']!r}, but ended with code {code}")
            return output

        if written_here:
            weakref.finalize(infer, _free_nets().append, network)  # the next such model takes this net over
        self._stay_in_fp32(network.opt, threads)
        with tempfile.TemporaryDirectory() as folder:  # ncnn takes no weights from memory
            for name, content in files.items():
                Path(folder, name).write_bytes(content)
            for load, name in ((network.load_param, "model.param"), (network.load_model, "model.bin")):
                if load(str(Path(folder, name))) != 0:
                    raise ValueError(f"{name} must be one that ncnn {self.version} reads, but isn't; export it anew")
        return infer

    def _net(self, gathers: bool) -> Any:
        """Return an empty net, one that knows `ChannelGather` if asked."""
        if gathers and _free_nets():
            network = _free_nets().pop()
            network.clear()
            return network
        network = self._ncnn.Net()
        if gathers:
            layer = _channel_gather(self._ncnn)
            alive: list[Any] = []  # ncnn holds no reference to a layer written in Python

            def make() -> Any:
                alive.append(layer())
                return alive[-1]

            network.register_custom_layer(self.GATHER, make, alive.remove)
        return network

    def _stay_in_fp32(self, options: Any, threads: int) -> None:
        """Turn off every storage and arithmetic of fewer than 32 bits: precision is part of a result's key."""
        options.num_threads = threads
        options.use_vulkan_compute = False
        for name in dir(options):
            if name.startswith(("use_fp16", "use_bf16", "use_int8")):
                setattr(options, name, False)


@functools.cache
def _free_nets() -> list[Any]:
    """Return the nets with `ChannelGather` that no model uses: ncnn's binding registers a layer ten times a process."""
    return []


def _channel_gather(ncnn: Any) -> Any:
    """Return the class of the layer that picks channels (see `Ncnn.GATHER`)."""

    class ChannelGather(ncnn.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.one_blob_only = True
            self.index = np.zeros(0, np.intp)

        def load_param(self, parameters: Any) -> int:
            self.count = parameters.get(0, 0)
            return 0 if self.count > 0 else -1

        def load_model(self, weights: Any) -> int:
            words = weights.load(self.count, 1)
            if words.w != self.count:
                return -100
            self.index = np.array(words).view(np.int32).astype(np.intp)
            return 0

        def forward(self, bottom: Any, top: Any, options: Any) -> int:
            top.create((bottom.w, bottom.h, self.count))
            # an index out of range is clipped: nothing outside the image is ever read, and the check finds it
            np.asarray(bottom).take(self.index, 0, np.asarray(top), "clip")
            return 0

    return ChannelGather


def _unzip(
    model: bytes, kind: str = "ncnn", names: Sequence[str] = ("model.param", "model.bin")
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return a zipped model's facts and its files by name; ValueError when it isn't one."""
    rule = f"a model for {kind} must be an uncompressed zip of {', '.join(names)} and model.json"
    try:
        with zipfile.ZipFile(io.BytesIO(model)) as archive:
            packed = [entry.filename for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
            if packed:  # a small upload must not unfold into a large one
                raise ValueError(f"{rule}, but {packed[0]} is compressed; export it anew")
            files = {name: archive.read(name) for name in names}
            facts = json.loads(archive.read("model.json"))
            wanted = {"input": str, "output": str, "shape": list, "layers": list}
            given = facts if isinstance(facts, dict) else {}
            wrong = [key for key, kind in wanted.items() if not isinstance(given.get(key), kind)]
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{rule}, but: {error}; export it anew") from None
    if wrong:
        raise ValueError(f"{rule}, but model.json gives no {wrong[0]}; export it anew")
    return facts, files


class LiteRt(_Package):
    """LiteRT on the CPU with its XNNPACK kernels; fp32 models (.tflite), one image with its channels last."""

    name = "litert"
    MODULE = "ai_edge_litert"

    def __init__(self) -> None:
        from ai_edge_litert import interpreter  # here, so that everything else works without it

        self._interpreter = interpreter.Interpreter
        self.version = self.installed() or "unknown"

    def load(self, model: bytes, threads: int) -> Callable[[], object]:
        """See `Runtime`; the model is a .tflite file."""
        interpreter, (given, _) = self._open(model, threads)
        interpreter.set_tensor(given["index"], np.random.default_rng(0).standard_normal(given["shape"], np.float32))
        run: Callable[[], object] = interpreter.invoke
        return run

    def open(self, model: bytes, threads: int) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
        """Return the function from one image (C, H, W) float32 to the output; raises what the runtime raises."""
        interpreter, (given, found) = self._open(model, threads)

        def infer(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            interpreter.set_tensor(given["index"], np.ascontiguousarray(image.transpose(1, 2, 0)[None]))
            interpreter.invoke()
            return np.array(interpreter.get_tensor(found["index"])[0])

        return infer

    def _open(self, model: bytes, threads: int) -> tuple[Any, tuple[dict[str, Any], dict[str, Any]]]:
        """Return an interpreter ready to run, and what it says of its input and its output."""
        if model[4:8] != b"TFL3":
            raise ValueError("a model for litert must be a .tflite file, but isn't; export it anew")
        interpreter = self._interpreter(model_content=model, num_threads=threads)
        interpreter.allocate_tensors()
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        fits = len(inputs) == len(outputs) == 1 and inputs[0]["dtype"] is np.float32 and len(inputs[0]["shape"]) == 4
        if not fits or inputs[0]["shape"][0] != 1:
            raise ValueError("a model for litert must take one fp32 image and give one tensor; export it so")
        return interpreter, (inputs[0], outputs[0])


class Native:
    """The project's own kernel (condensenet.c), one image, one thread, fp32.

    A model is one uncompressed zip of weights.bin, condensenet.c and model.json. The kernel is compiled once and kept
    in $CONDENSERY_KERNELS or ~/.cache/condensery/kernels, where one that was compiled elsewhere may lie as well. A
    source of another hash than the one below is never compiled.
    """

    name = "native"
    SOURCE = "condensenet.c"
    SHA256 = "b1180ce46bac1bb96d732845399cf59369bdb313c60c6dff61d839f61229cc4d"  # of the source
    VERSION = SHA256[:12]
    FLAGS = ("-O3", "-shared", "-fPIC")

    @classmethod
    def installed(cls) -> str | None:
        """See `Runtime`; it is there where it is compiled, or can be."""
        return cls.VERSION if cls.library().exists() or cls.compiler() is not None else None

    def __init__(self) -> None:
        if self.installed() is None:
            raise ImportError("the native runtime needs a C compiler; install one: apt install gcc libc6-dev")
        self.version = self.VERSION

    @staticmethod
    def compiler() -> str | None:
        """Return the C compiler's path, if there is one."""
        return shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc") or shutil.which("clang")

    @classmethod
    def library(cls) -> Path:
        """Return where the compiled kernel is, or would be."""
        folder = os.environ.get("CONDENSERY_KERNELS")
        return (Path(folder) if folder else Path.home() / ".cache/condensery/kernels") / cls.file_name()

    @classmethod
    def file_name(cls, machine: str | None = None) -> str:
        """Return the name of a compiled kernel, which says of which source and for which processor it is."""
        kind = machine or "-".join([platform.machine(), *(flag.strip("-") for flag in _wide_vectors())])
        return f"{cls.VERSION}-{kind}.so"

    def load(self, model: bytes, threads: int) -> Callable[[], object]:
        """See `Runtime`; the model is the zip's bytes."""
        facts, _ = _unzip(model, self.name, ("weights.bin", self.SOURCE))
        image = np.random.default_rng(0).standard_normal(facts["shape"]).astype(np.float32)
        infer = self._open(model, threads)
        return lambda: infer(image)

    def open(self, model: bytes, threads: int) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
        """Return the function from one image (C, H, W) float32 to the logits; raises ValueError on an invalid model."""
        infer = self._open(model, threads)
        return lambda image: infer(np.ascontiguousarray(image, np.float32)).copy()

    def _open(self, model: bytes, threads: int) -> Callable[[Any], Any]:
        if threads != 1:
            raise ValueError(f"the native runtime has one thread, but got threads={threads}; ask for 1")
        facts, files = _unzip(model, self.name, ("weights.bin", self.SOURCE))
        kernel = ctypes.CDLL(str(self._compiled(files[self.SOURCE])))
        words = np.frombuffer(files["weights.bin"][: len(files["weights.bin"]) // 4 * 4], "<i4").copy()
        kernel.condensenet_workspace.restype = ctypes.c_size_t
        kernel.condensenet_workspace.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        floats = kernel.condensenet_workspace(words.ctypes.data, words.size)
        header = words[2:14].tolist()
        if floats == 0 or facts["shape"] != header[:3]:
            raise ValueError("weights.bin must be those of one deployed CondenseNet, but aren't; export it anew")
        workspace, logits = np.empty(floats, np.float32), np.empty(header[9], np.float32)
        kernel.condensenet_run.restype = None
        kernel.condensenet_run.argtypes = [ctypes.c_void_p] * 4
        fixed = [array.ctypes.data for array in (words, logits, workspace)]

        def infer(image: Any) -> Any:
            if image.shape != tuple(header[:3]):
                raise ValueError(f"an image must be of shape {header[:3]}, but is {image.shape}; resize it")
            kernel.condensenet_run(fixed[0], image.ctypes.data, *fixed[1:])
            return logits

        infer.keeps = (words, workspace)  # type: ignore[attr-defined]  # as long as the pointers are used
        return infer

    def _compiled(self, source: bytes) -> Path:
        """Return the compiled kernel, compiling it when it isn't there."""
        if hashlib.sha256(source).hexdigest() != self.SHA256:
            raise ValueError("the model's kernel must be the one this agent knows; use model and agent of one version")
        library = self.library()
        if not library.exists():
            library.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=library.parent) as folder:  # a rename stays on one file system
                code, made = Path(folder, self.SOURCE), Path(folder, library.name)
                code.write_bytes(source)
                command = [self.compiler() or "cc", *self.FLAGS, *_wide_vectors(), "-o", str(made), str(code)]
                done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
                if done.returncode != 0:
                    raise ValueError(f"the kernel can't be compiled: {done.stderr.strip()[-300:]}")
                made.replace(library)
        return library


def _wide_vectors() -> list[str]:
    """Return flags for fused multiply-adds where the processor has them but compilers don't assume them."""
    has = set(_cpuinfo(0, _ROOT).get("flags", "").split()) if Path(_ROOT, "proc/cpuinfo").exists() else set()
    return ["-mavx2", "-mfma"] if {"avx2", "fma"} <= has else []


RUNTIMES: dict[str, type[Runtime]] = {runtime.name: runtime for runtime in (OnnxRuntime, Ncnn, LiteRt, Native)}


def installed_runtimes() -> dict[str, str]:
    """Return the version of each runtime that is installed here, by name, without importing any."""
    found = {name: runtime.installed() for name, runtime in RUNTIMES.items()}
    return {name: version for name, version in found.items() if version is not None}


def _installed_version(module: str) -> str | None:
    """Return the version that a module is installed in; None when it isn't installed."""
    if importlib.util.find_spec(module) is None:
        return None
    try:
        return importlib.metadata.version(module.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:  # put there by hand, without its record
        return "unknown"


def _runtime(name: str) -> Runtime:
    if name not in RUNTIMES:
        raise ValueError(f"the runtime must be one of {sorted(RUNTIMES)}, but got {name!r}; use one of those")
    return RUNTIMES[name]()


# ---- the measuring loop ----------------------------------------------------------------------------------


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal; OSError when it can't be read."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def hash_or_empty(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal, or nothing when it can't be read."""
    try:
        return sha256_of(path)
    except OSError:
        return ""


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


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


def _one_model(runtime: Runtime, path: Path, policy: dict[str, Any], core: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": str(path), "sha256": None}
    try:
        model = path.read_bytes()  # hashed and run from the same bytes: the hash names what was timed
        entry["sha256"] = hashlib.sha256(model).hexdigest()
        run = runtime.load(model, policy["threads"])
        before = conditions(core)
        timed = _timed(run, policy)
        after = conditions(core)
    except Exception as error:  # whatever a runtime raises on a file is that model's result; the others go on
        entry["error"] = _one_line(error)
        return entry
    return {**entry, **timed, "before": before, "after": after, "throttled": throttled(before, after)}


_LOOP_NUMBERS = ("warmup_runs", "warmup_s", "runs", "run_s", "threads", "samples_kept")


def _need_numbers(policy: dict[str, Any], needed: Sequence[str]) -> None:
    missing = [key for key in needed if not isinstance(policy.get(key), (int, float))]
    if missing:
        raise ValueError(f"the policy needs a number for each of {missing}, but got {policy}; add them")


def _facts(mode: str, runtime: str, version: str, threads: int) -> dict[str, Any]:
    """Return what every report says about the runtime and the machine."""
    return {
        "format": FORMAT,
        "mode": mode,
        "runtime": runtime,
        "runtime_version": version,
        "python_version": platform.python_version(),
        "machine": platform.machine(),
        "threads": threads,
    }


def _wall_facts(runtime: str, version: str, cores: Sequence[int]) -> dict[str, Any]:
    """Return what a report of timed samples says; `cores` are those used, the first one first."""
    return {
        **_facts("wall", runtime, version, len(cores)),
        "cpu_model": cpu_model(cores[0]),
        "core": cores[0],
        "cores": list(cores),
        "pinned": hasattr(os, "sched_setaffinity"),  # not on macOS
    }


def measure_models(
    paths: Sequence[Path],
    policy: dict[str, Any],
    core: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Time each model in the given order in this thread, pinned to `core` (None: the last usable one).

    `policy` needs warmup_runs, warmup_s, runs, run_s, threads and samples_kept, may name the runtime; other keys are
    ignored. `progress` is called with each position before its model is loaded. With several threads as many cores
    are used, `core` first. Returns a JSON-able report: runtime, versions, cores, and under `models` one entry per
    path with samples_ms, runs, stride, before, after (the conditions) and throttled, or with error. Raises ValueError
    on an unusable core or policy, ImportError without the runtime.
    """
    _need_numbers(policy, _LOOP_NUMBERS)
    cores = cores_for(usable_cores()[-1] if core is None else core, policy["threads"])
    runtime = _runtime(policy.get("runtime", "onnxruntime"))
    facts = _wall_facts(runtime.name, runtime.version, cores)
    allowed = usable_cores()
    if facts["pinned"]:
        os.sched_setaffinity(0, cores)  # threads that a session starts inherit it
    try:
        entries = []
        for position, path in enumerate(paths):
            if progress is not None:
                progress(position)
            entries.append(_one_model(runtime, Path(path), policy, cores[0]))
    finally:
        if facts["pinned"]:
            os.sched_setaffinity(0, allowed)
    return {**facts, "models": entries}


# ---- counting instructions -------------------------------------------------------------------------------

_START, _STOP = 0x5EED01, 0x5EED02  # arguments of a harmless system call that the emulator's counter looks for


def _mark(marker: int) -> None:
    with contextlib.suppress(OSError):  # there is no such process
        os.getsid(marker)


class _NoCounts(Exception):
    """The emulator, if there is one, did not count a run."""


class _CountsFile:
    """The file that a counting emulator appends one JSON line to for each marked run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = len(self._content())  # what an earlier process left there is not ours

    def _content(self) -> bytes:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return b""

    def next(self) -> dict[str, int]:
        """Return the counts of the run just marked; _NoCounts when there are none."""
        fresh = self._content()[self._read :]
        self._read += len(fresh)
        lines = fresh.decode("ascii", errors="replace").splitlines()
        if not lines:
            raise _NoCounts("no counts: start it under the counting emulator")
        try:
            counts = json.loads(lines[0])
        except ValueError:
            counts = None
        if len(lines) > 1 or not isinstance(counts, dict) or any(type(count) is not int for count in counts.values()):
            raise _NoCounts(f"a run must give one line of counts, but gave {lines[:2]}; count one process at a time")
        return counts


def _count_one(runtime: Runtime, path: Path, runs: int, warmup: int, file: _CountsFile) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": str(path), "sha256": None}
    collected = gc.isenabled()
    try:
        model = path.read_bytes()
        entry["sha256"] = hashlib.sha256(model).hexdigest()
        run = runtime.load(model, 1)
        gc.collect()
        gc.disable()
        for _ in range(warmup):
            run()
        counts = []
        for _ in range(runs):
            _mark(_START)
            run()
            _mark(_STOP)
            counts.append(file.next())
    except _NoCounts as error:
        return {**entry, "error": str(error), "fault": "device"}
    except Exception as error:  # as in `_one_model`
        return {**entry, "error": _one_line(error), "fault": "model"}
    finally:
        if collected:
            gc.enable()
    return {**entry, "counts": counts}


def count_models(
    paths: Sequence[Path],
    counts: Path,
    runs: int = 5,
    warmup: int = 2,
    runtime: str = "onnxruntime",
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Count the instructions of each model's runs, in one thread, in a process that a counting emulator runs.

    Each run stands between two marker calls; after the second the emulator appends one JSON object of counts by
    class to the file `counts`. Returns a JSON-able report: runtime, versions, and under `models` one entry per path
    with counts (one object a run), or with error and fault ("model" or "device"): without such an emulator every model
    has one. Raises ValueError on wrong numbers or an unknown runtime, ImportError without the runtime.
    """
    if runs < 1 or warmup < 0:
        raise ValueError(f"runs >= 1 and warmup >= 0 must hold, but got {runs} and {warmup}; raise them")
    loaded, file = _runtime(runtime), _CountsFile(counts)
    entries = []
    for position, path in enumerate(paths):
        if progress is not None:
            progress(position)
        entries.append(_count_one(loaded, Path(path), runs, warmup, file))
    return {**_facts("counts", loaded.name, loaded.version, 1), "models": entries}


# ---- one fresh process -----------------------------------------------------------------------------------


class Stopped(Exception):
    """Whoever ordered the work wants it no more; the processes started for it are gone."""


@dataclass(frozen=True)
class ProcessEnd:
    """How one process ended: with its report, or with the position it was at (None: unknown) and why."""

    report: dict[str, Any] | None
    position: int | None = None
    reason: str = ""


def never() -> bool:
    """Return False: the `stop` of work that nobody stops."""
    return False


def fresh_python() -> list[str]:
    """Return the command that starts this Python anew."""
    # -P: the agent's own folder must not shadow the modules it imports; older Pythons don't know it
    return [sys.executable, *(["-P"] if sys.version_info >= (3, 11) else [])]


def run_process(command: Sequence[str], timeout_s: float, stop: Callable[[], bool] = never) -> ProcessEnd:
    """Run a sub-command of this file that prints one JSON document and says on standard error where it is.

    It is killed when one model takes longer than `timeout_s`, when `stop` says so (then Stopped is raised) and
    whenever this call is left by an exception.
    """
    try:
        return _run_process(command, timeout_s, stop)
    except OSError as error:  # no process, no temporary file: nothing can be measured now
        return ProcessEnd(None, None, f"the measuring process could not be started: {error}")


def _run_process(command: Sequence[str], timeout_s: float, stop: Callable[[], bool]) -> ProcessEnd:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as output:
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # held open: when this process dies, the child notices and ends
            stdout=output,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # the terminal's Ctrl-C is for us; we end the child ourselves
        ) as child:
            try:
                log = _follow(child, timeout_s, stop)
            finally:
                _kill(child)
        output.seek(0)
        try:
            report = json.loads(output.read())
        except ValueError:
            report = None
        if not isinstance(report, dict):
            return ProcessEnd(None, log.position, log.reason(child.returncode, timeout_s))
        return ProcessEnd(report)  # complete, so a crash on the way out does no harm


@dataclass
class _Log:
    """What a process said on standard error."""

    position: int | None = None
    last_words: str = ""
    timed_out: bool = False

    def add(self, line: str) -> bool:
        """Take one line in; return whether it said that a next model begins."""
        position = line[len(PROGRESS) :]
        if line.startswith(PROGRESS) and position.isdigit():
            self.position = int(position)
            self.last_words = ""
            return True
        self.last_words = line.strip()[:300] or self.last_words
        return False

    def reason(self, code: int, timeout_s: float) -> str:
        """Say in one line why the process gave no report."""
        if self.timed_out:
            return f"the measuring process must finish a model within {timeout_s:g} s, but didn't; raise timeout_s"
        how = f"signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exit code {code}"
        words = f": {self.last_words}" if self.last_words else ""
        return f"the measuring process ended with {how} and no report{words}"


def _follow(child: subprocess.Popen[bytes], timeout_s: float, stop: Callable[[], bool]) -> _Log:
    """Read the process's standard error until it ends, or is silent about a next model for too long."""
    assert child.stderr is not None
    log, rest, open_ = _Log(), b"", True
    deadline = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        selector.register(child.stderr, selectors.EVENT_READ)
        while open_ or child.poll() is None:
            if stop():
                raise Stopped
            left = deadline - time.monotonic()
            if left <= 0:
                log.timed_out = True
                break
            if not open_:  # it closed standard error and may still be at work
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(min(POLL_S, left))
            elif selector.select(min(POLL_S, left)):
                chunk = os.read(child.stderr.fileno(), 65536)
                open_ = bool(chunk)
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines if chunk else [*lines, rest]:
                    if log.add(line.decode(errors="replace")):
                        deadline = time.monotonic() + timeout_s
    return log


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End a process that still runs, with whatever it started (it leads its own group)."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _pause(seconds: float, stop: Callable[[], bool]) -> None:
    """Sleep, asking `stop` several times a second; raises Stopped."""
    until = time.monotonic() + seconds
    while True:
        if stop():
            raise Stopped
        left = until - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(POLL_S, left))


# ---- a batch: fresh processes, an anchor, attempts -------------------------------------------------------


@dataclass(frozen=True)
class Client:
    """What a batch asks and tells whoever ordered it."""

    stop: Callable[[], bool] = never
    heartbeat: Callable[[str], None] = lambda state: None  # "measuring" or "cooling", as one of them begins


class Cooling:
    """Waits before each process while the processor is hot; without a limit or a sensor it never waits.

    From `pause_above_c` on it waits until below `resume_below_c`, for `cool_for_s` at most. One wait in vain is the
    last: a machine that idles above the limit is measured hot, and says so.
    """

    def __init__(
        self, policy: dict[str, Any], client: Client, temperature: Callable[[], float | None] = temperature_c
    ) -> None:
        self._pause_above_c: float | None = policy.get("pause_above_c")
        self._resume_below_c = float(policy.get("resume_below_c", 55.0))
        self._cool_for_s = float(policy.get("cool_for_s", 600.0))
        self._client = client
        self._temperature = temperature
        self._in_vain = False

    def wait(self) -> bool | None:
        """Return None where there was nothing to wait for, else whether it is cool now; raises Stopped."""
        now_c = None if self._pause_above_c is None else self._temperature()
        if self._pause_above_c is None or now_c is None or now_c < self._pause_above_c:
            return None
        if self._in_vain:
            return False
        self._client.heartbeat("cooling")
        until = time.monotonic() + self._cool_for_s
        while now_c is not None and now_c >= self._resume_below_c:
            left = until - time.monotonic()
            if left <= 0:
                self._in_vain = True
                return False
            _pause(min(1.0, left), self._client.stop)
            now_c = self._temperature()
        return True


class _BatchLost(Exception):
    """No model of the batch can be measured: the anchor or the process itself fails."""


@dataclass(frozen=True)
class _Attempt:
    """One whole batch: per process the report, where in it each model stands, and whether it had to cool down."""

    number: int  # from 1
    reports: tuple[dict[str, Any], ...]
    orders: tuple[tuple[int, ...], ...]  # (processes, models): the model at each position after the first anchor
    cooled: tuple[bool | None, ...]

    @property
    def anchor_ms(self) -> list[list[float]]:
        """The medians of the first and last anchor of each process."""
        ends = ((report["models"][0], report["models"][-1]) for report in self.reports)
        return [[median(entry["samples_ms"]) for entry in pair] for pair in ends]

    @property
    def drift(self) -> float:
        """How far the anchor moved within and between the processes, relative to its fastest median."""
        medians = [value for pair in self.anchor_ms for value in pair]
        return float((max(medians) - min(medians)) / min(medians))

    @property
    def throttled(self) -> bool:
        """Whether the processor is known to have been slowed down while any model ran."""
        return any(entry.get("throttled") for report in self.reports for entry in report["models"])

    def is_steady(self, tolerance: float) -> bool:
        """Say whether the machine kept still."""
        return self.drift <= tolerance and not self.throttled

    def entry(self, place: int, path: Path, tolerance: float) -> dict[str, Any]:
        """Gather one model's samples and conditions from the processes."""
        positions = [order.index(place) + 1 for order in self.orders]
        found = [report["models"][position] for report, position in zip(self.reports, positions)]
        if any(one["sha256"] != found[-1]["sha256"] for one in found):
            reason = "a model's file must not change while it is measured, but it did; measure it again"
            return _refused(path, reason, "model")
        processes = [
            {**{key: one[key] for key in _PER_PROCESS}, "position": position, "anchor_ms": anchor_ms, "cooled": cooled}
            for one, position, anchor_ms, cooled in zip(found, positions, self.anchor_ms, self.cooled)
        ]
        return {
            "path": str(path),
            "sha256": found[-1]["sha256"],
            "processes": processes,
            "attempt": self.number,
            "anchor_drift": self.drift,
            "steady": self.is_steady(tolerance),
        }


_PER_PROCESS = ("samples_ms", "stride", "runs", "before", "after", "throttled")


def _refused(path: Path, reason: str, fault: str) -> dict[str, Any]:
    return {"path": str(path), "sha256": hash_or_empty(path), "error": reason, "fault": fault}


class Batch:
    """Times models in `policy["processes"]` fresh processes; see `measure_batch`, which gives it its parts."""

    def __init__(
        self,
        anchor: Path,
        policy: dict[str, Any],
        start: Callable[[Sequence[Path]], ProcessEnd],
        cooling: Cooling,
        client: Client,
    ) -> None:
        self._anchor, self._policy = anchor, policy
        self._start, self._cooling, self._client = start, cooling, client
        self._failed: dict[int, tuple[str, str]] = {}  # reason and fault, by place: a file may stand there twice

    def measure(self, models: Sequence[Path]) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """Return the report of a process of the attempt that counts (None: there is none), and an entry a model."""
        best = self._best_attempt(models)
        entries = []
        for place, path in enumerate(models):
            if best is None or place in self._failed:
                entries.append(_refused(path, *self._failed[place]))
            else:
                entries.append(best.entry(place, path, self._policy["anchor_tolerance"]))
        return (None if best is None else best.reports[0]), entries

    def _best_attempt(self, models: Sequence[Path]) -> _Attempt | None:
        """Attempt until one is steady; of unsteady ones keep the one least throttled, then least moved."""
        best: _Attempt | None = None
        for number in range(1, self._policy["attempts"] + 1):
            if len(self._failed) == len(models):
                break
            if number > 1:
                self._client.heartbeat("cooling")
                _pause(self._policy["cooldown_s"], self._client.stop)
            try:
                attempt = self._attempt(models, number)
            except _BatchLost as lost:
                if best is None:
                    for place in set(range(len(models))) - set(self._failed):
                        self._failed[place] = (str(lost), "device")
                break
            if best is None or (attempt.throttled, attempt.drift) < (best.throttled, best.drift):
                best = attempt
            if best.is_steady(self._policy["anchor_tolerance"]):
                break
        return best

    def _attempt(self, models: Sequence[Path], number: int) -> _Attempt:
        """Run every process once; models found to fail are noted and left out from then on."""
        reports, orders, cooled = [], [], []
        for order in _shuffled_orders(len(models), self._policy["processes"], seed=number):
            cooled.append(self._cooling.wait())
            self._client.heartbeat("measuring")
            report, measured = self._round(models, order)
            for entry in (report["models"][0], report["models"][-1]):
                if "error" in entry:
                    raise _BatchLost(f"the anchor model {self._anchor.name} was refused: {entry['error']}")
            for place, entry in zip(measured, report["models"][1:-1]):
                if "error" in entry:
                    self._failed[place] = (entry["error"], "model")
            reports.append(report)
            orders.append(measured)
        return _Attempt(number, tuple(reports), tuple(orders), tuple(cooled))

    def _round(self, models: Sequence[Path], order: Sequence[int]) -> tuple[dict[str, Any], tuple[int, ...]]:
        """Run one process, again without the model it died of until it lives; return its report and order."""
        while True:
            places = tuple(place for place in order if place not in self._failed)
            if not places:
                raise _BatchLost("no model is left")  # each has its own reason by now
            end = self._start([self._anchor, *(models[place] for place in places), self._anchor])
            if end.report is not None:
                return end.report, places
            if end.position is None or not 1 <= end.position <= len(places):
                at_anchor = "" if end.position is None else f" (at the anchor model {self._anchor.name})"
                raise _BatchLost(end.reason + at_anchor)
            self._failed[places[end.position - 1]] = (end.reason, "model")


def _shuffled_orders(count: int, processes: int, seed: int) -> list[list[int]]:
    """Return an order of `count` places per process, no two neighbouring ones equal where that is possible."""
    rng = random.Random(seed)
    orders: list[list[int]] = []
    for _ in range(processes):
        order = rng.sample(range(count), count)
        while count > 1 and orders and order == orders[-1]:
            rng.shuffle(order)
        orders.append(order)
    return orders


def measure_batch(
    paths: Sequence[Path],
    anchor: Path,
    policy: dict[str, Any],
    core: int | None = None,
    launcher: Sequence[str] | None = None,
    stop: Callable[[], bool] = never,
    heartbeat: Callable[[str], None] = lambda state: None,
) -> dict[str, Any]:
    """Time the models on this machine by the rules of the policy; return one JSON-able report.

    Each of `processes` fresh processes times the anchor, every model in an order of its own, and the anchor again.
    If the anchor's medians moved by more than `anchor_tolerance`, or the processor was throttled, the batch is redone
    after `cooldown_s`, `attempts` times at most; when none is steady the best one is kept and says so. A model that
    is refused, crashes its process or takes longer than `timeout_s` is left out from then on.

    Args:
        paths: the models; the same one may stand there twice.
        anchor: the model that shows whether the machine keeps still.
        policy: every field of a measurement policy, as JSON has it.
        core: the core to pin to (None: the last usable one).
        launcher: the command that runs this file in a fresh process (None: this Python).
        stop: asked several times a second; once it says true the processes are ended and Stopped is raised.
        heartbeat: told "measuring" or "cooling" as one of them begins.

    Returns:
        The facts of runtime and machine, and under `models` one entry per path in the order given: path, sha256,
        processes, attempt, anchor_drift and steady; or path, sha256 (empty: unreadable), error (one line) and fault
        ("model", or "device" when the anchor or the process failed).

    Raises:
        ValueError: the policy lacks a number, the core is not usable or there are fewer cores than threads.
        Stopped: `stop` said so.
    """
    _need_numbers(policy, ("processes", "attempts", "cooldown_s", "anchor_tolerance", "timeout_s", *_LOOP_NUMBERS))
    runtime = str(policy.get("runtime", "onnxruntime"))
    first = usable_cores()[-1] if core is None else core
    facts = _wall_facts(runtime, installed_runtimes().get(runtime, ""), cores_for(first, policy["threads"]))
    options = ["--watch-stdin", "--policy", json.dumps(policy), "--core", str(first), "--"]
    command = [*(fresh_python() if launcher is None else launcher), str(Path(__file__)), "measure", *options]
    client = Client(stop, heartbeat)

    def start(models: Sequence[Path]) -> ProcessEnd:
        return run_process([*command, *map(str, models)], policy["timeout_s"], stop)

    report, entries = Batch(anchor, policy, start, Cooling(policy, client), client).measure(paths)
    return {**(report or facts), "policy": policy.get("label"), "models": entries}


# ---- the hub ---------------------------------------------------------------------------------------------
#
# - `run` serves a hub: it enrols, leases jobs, fetches their models, measures them, and sends back what it found.
# - Nothing that a hub sends reaches a shell, a path or an import: every field is held against a rule before it is
#   used, a file's name in the cache is its checked hash, and its content is a model for the runtime, never code.
# - Nothing measured is lost: a result is kept in the agent's folder until the hub has taken it.
# - Only the monotonic clock decides anything; the log alone shows the time of day.

_HUB_FORMAT = 1
_LONGEST_ANSWER = 8 << 20  # bytes, of anything but a model
_LARGEST_MODEL = 1 << 30
_SLOWEST_MODEL = 10_000  # bytes a second: a download that is slower is broken off and tried again
_COUNT_RUNS, _COUNT_WARMUP = 5, 2
_HUBS_ERRORS_MOST = 20  # of answers to one report: some six minutes
_AWAY = (502, 503, 504)  # the hub, or its database: it is waited for, however long
_Call = Callable[[str, dict[str, Any]], dict[str, Any]]  # path and body of a call -> the hub's answer

_POLICY_LIMITS: dict[str, tuple[type, float, float]] = {  # every other key of a job's policy is ignored
    "warmup_runs": (int, 1, 100_000),
    "warmup_s": (float, 0, 600),
    "runs": (int, 1, 100_000),
    "run_s": (float, 0, 600),
    "processes": (int, 1, 100),
    "anchor_tolerance": (float, 1e-6, 10),
    "attempts": (int, 1, 100),
    "cooldown_s": (float, 0, 3600),
    "samples_kept": (int, 1, 1_000_000),
    "timeout_s": (float, 0.001, 86_400),
    "pause_above_c": (float, 0, 200),
    "resume_below_c": (float, 0, 200),
    "cool_for_s": (float, 0, 3600),
}
_POLICY_MAY_BE_NULL = ("pause_above_c",)


@dataclass(frozen=True)
class HubSettings:
    """Which hub to serve, as which device, and where to keep what must outlive the process."""

    url: str  # without a slash at its end
    token: str = field(repr=False)
    folder: Path
    core: int
    launcher: tuple[str, ...] | None = None  # of an emulator: the device is virtual and counts instructions
    cafile: Path | None = None  # certificates to trust instead of the system's
    once: bool = False  # end as soon as the hub has no job left
    limit: int = 4  # jobs a batch
    cache_bytes: int = 512 << 20
    call_s: float = 30.0  # of silence until a call is given up


class _Ended(BaseException):
    """A signal asked the agent to end (no Exception: nothing that handles a failure may swallow it)."""


class _Unreachable(Exception):
    """No answer, or none that a hub gives: the same call may do later."""

    def __init__(self, why: str, is_hubs_error: bool = False) -> None:
        super().__init__(why)
        self.is_hubs_error = is_hubs_error  # it did answer, and that it failed


class _NotTaken(Exception):
    """The hub fails whenever it is handed this report."""


class _SaysNo(Exception):
    """The hub understood and says no; the same call will not do."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status


class _TokenRefused(Exception):
    """The hub knows no such token, or not any more."""


class _DeviceFault(Exception):
    """This device can't do a job that another one of the queue may do."""


class _LeaseLost(Exception):
    """Nobody waits for what is being done any more."""


class _WrongUse(Exception):
    """The agent can't start like this; the message says what to change."""


def _plain(text: object, most: int = 300) -> str:
    """Return printable text on one line: what a hub or a runtime says goes to logs and terminals."""
    return " ".join("".join(char if char.isprintable() else " " for char in str(text)).split())[:most]


class _Journal:
    """One plain line an event on standard error; an outage is said once, when it begins and when it is over."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outage = ""

    def say(self, text: str) -> None:
        line = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {_plain(text, 600)}\n"
        with contextlib.suppress(OSError, ValueError):  # a closed terminal is no reason to stop measuring
            sys.stderr.write(line)
            sys.stderr.flush()

    def unreachable(self, why: str) -> None:
        with self._lock:
            new, self._outage = why != self._outage, why
        if new:
            self.say(f"no answer from the hub: {why}; trying again")

    def reached(self) -> None:
        with self._lock:
            was, self._outage = self._outage, ""
        if was:
            self.say("the hub answers again")


class _Ending:
    """Whether a signal asked the agent to end. A signal cuts the main thread's waits and calls short."""

    def __init__(self) -> None:
        self.asked = False
        self._asked_at = 0.0
        self._may_cut = False

    def install(self) -> None:
        """Take over Ctrl-C, SIGTERM and a lost terminal (unless the agent was told to outlive that)."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: object) -> None:
        if self.asked:
            if time.monotonic() - self._asked_at > 1:  # some senders send the first one twice
                os._exit(130)  # children notice, and end
            return
        self.asked, self._asked_at = True, time.monotonic()
        if self._may_cut:
            raise _Ended

    @contextlib.contextmanager
    def cutting(self) -> Iterator[None]:
        """Let a signal end the block at once, by _Ended; main thread only."""
        self._may_cut = True
        try:
            if self.asked:
                raise _Ended
            yield
        finally:
            self._may_cut = False

    def sleep(self, seconds: float) -> None:
        with self.cutting():
            time.sleep(seconds)


class _Patience:
    """Waits that double up to half a minute, each a random part shorter so that agents don't come in step."""

    def __init__(self) -> None:
        self._longest_s = 0.2

    def next_s(self) -> float:
        wait_s = self._longest_s * random.uniform(0.5, 1.0)
        self._longest_s = min(30.0, 2 * self._longest_s)
        return wait_s


class _Hub:
    """The hub's interface: a call returns what the hub answers, or raises _Unreachable, _SaysNo or _TokenRefused."""

    def __init__(self, settings: HubSettings, journal: _Journal) -> None:
        import ssl  # here and below: a measuring process needs no network and shall start fast
        import urllib.request

        class NoRedirects(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_: Any) -> None:
                return None  # the token and the models are between this address and us

        handlers: list[urllib.request.BaseHandler] = [NoRedirects()]
        if settings.url.startswith("https:"):
            try:
                context = ssl.create_default_context(cafile=settings.cafile)
            except OSError as error:  # ssl's own errors included
                rule = f"--cafile must hold PEM certificates, but {settings.cafile} does not"
                raise _WrongUse(f"{rule}: {error}; name a file that does") from None
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)
        self._url, self._token, self._call_s, self._journal = settings.url, settings.token, settings.call_s, journal

    def call(self, path: str, body: dict[str, Any], call_s: float | None = None) -> dict[str, Any]:
        """Post a JSON object, return the one answered."""
        content = json.dumps(body, allow_nan=False).encode()
        call_s = call_s or self._call_s
        with self._conversation(path, content, call_s) as reply:
            text = b"".join(_received(reply, _LONGEST_ANSWER, call_s))
            try:
                answer = json.loads(text)
            except (ValueError, RecursionError):
                answer = None
            if not isinstance(answer, dict):
                raise _Unreachable(f"{path} answered something that is no JSON object")
            return answer

    def download(self, model: _Model) -> Iterator[bytes]:
        """Yield a model's bytes, or what the hub sends for them, as they come."""
        with self._conversation(f"/v1/models/{model.sha256}", None, self._call_s) as reply:
            yield from _received(reply, _LARGEST_MODEL, 2 * self._call_s + model.size / _SLOWEST_MODEL)

    @contextlib.contextmanager
    def _conversation(self, path: str, content: bytes | None, call_s: float) -> Iterator[Any]:
        try:
            with self._open(path, content, call_s) as reply:
                yield reply
        except _Unreachable as why:
            self._journal.unreachable(str(why))
            raise
        except (_SaysNo, _TokenRefused):
            self._journal.reached()
            raise
        self._journal.reached()

    def _open(self, path: str, content: bytes | None, call_s: float) -> Any:
        import http.client
        import ssl
        import urllib.error
        import urllib.request

        request = urllib.request.Request(self._url + path, content, {"User-Agent": f"condensery-agent/{_HUB_FORMAT}"})
        request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        if content is not None:
            request.add_header("Content-Type", "application/json")
        try:
            return self._opener.open(request, timeout=call_s)
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(error, call_s) from None
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a name that can't be one
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, ssl.SSLCertVerificationError):
                why = f"its certificate can't be trusted ({_plain(reason.verify_message)})"
                raise _Unreachable(f"{why}; name a file that vouches for it as --cafile") from None
            raise _Unreachable(_plain(reason) or type(error).__name__) from None


def _received(reply: Any, most_bytes: int, within_s: float) -> Iterator[bytes]:
    """Yield a reply's body as it comes; _Unreachable if it is cut short, too long or too slow."""
    import http.client

    length = reply.headers.get("Content-Length") or ""
    expected = int(length) if length.isdigit() and len(length) < 16 else None
    until, got = time.monotonic() + within_s, 0
    while expected is None or got < expected:
        try:
            chunk = reply.read1(1 << 16)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _Unreachable(f"the connection broke in mid-answer: {_plain(error)}") from None
        if not chunk:
            break
        got += len(chunk)
        if got > most_bytes:
            raise _Unreachable(f"an answer of more than {most_bytes} bytes")
        if time.monotonic() > until:
            raise _Unreachable(f"an answer that was not complete after {within_s:.0f} s")
        yield chunk
    if expected is not None and got < expected:
        raise _Unreachable(f"the connection broke after {got} of {expected} bytes")


_WRONG_ADDRESS = "is the address right? --hub takes it as `devices serve` prints it, without a path"


def _refusal(error: Any, call_s: float) -> Exception:
    """Tell the hub's own no (JSON with a `detail`) from whatever stands between us and a hub that is down."""
    if error.code == 401:
        return _TokenRefused()
    if error.code in (400, 404, 409, 413, 422):
        try:
            answer = json.loads(b"".join(_received(error, _LONGEST_ANSWER, call_s)))
        except (_Unreachable, ValueError, RecursionError):
            answer = None
        if isinstance(answer, dict) and "detail" in answer:
            return _SaysNo(error.code, _plain(answer["detail"]))
    hint = "; give the address it points to as --hub" if 300 <= error.code < 400 else ""
    hint = f"; {_WRONG_ADDRESS}" if error.code == 404 else hint
    is_hubs_error = error.code >= 500 and error.code not in _AWAY
    return _Unreachable(f"it answered with status {error.code}{hint}", is_hubs_error)


# ---- the hub: what a job may say -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Model:
    sha256: str
    size: int  # bytes


@dataclass(frozen=True)
class _Task:
    """What the jobs of a batch share."""

    mode: str
    anchor: _Model | None
    runtime: str
    threads: int
    policy: dict[str, Any]


@dataclass(frozen=True)
class _Ticket:
    """One attempt at one job: what the hub wants to see again."""

    job: int
    attempt: int


@dataclass(frozen=True)
class _Job:
    ticket: _Ticket
    model: _Model
    task: _Task


def _must(holds: bool, name: str, rule: str, value: object) -> None:
    if not holds:
        raise _DeviceFault(f"this agent takes jobs whose {name} is {rule}, but got {_plain(repr(value), 80)}")


def _number(value: Any, name: str, limits: tuple[type, float, float]) -> Any:
    kind, low, high = limits
    fits = type(value) is int or (kind is float and type(value) is float)
    _must(fits and low <= value <= high, name, f"a{'n int' if kind is int else ' number'} in {low:g}..{high:g}", value)
    return value


def _read_ticket(raw: Any) -> _Ticket | None:
    """Return which attempt this is; None where even that can't be made out, so that nobody can be told."""
    if not isinstance(raw, dict):
        return None
    job, attempt = raw.get("id"), raw.get("attempt")
    if type(job) is int and type(attempt) is int and 0 <= job < 1 << 63 and 0 <= attempt < 1 << 63:
        return _Ticket(job, attempt)
    return None


def _read_model(raw: Any, name: str) -> _Model:
    _must(isinstance(raw, dict), name, "an object with sha256 and size", raw)
    sha256 = raw.get("sha256")
    _must(isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256) is not None, name, "named by 64 hex", sha256)
    return _Model(sha256, _number(raw.get("size"), f"{name}'s size", (int, 1, _LARGEST_MODEL)))


def _read_policy(raw: Any) -> dict[str, Any]:
    _must(isinstance(raw, dict), "policy", "an object", raw)
    policy: dict[str, Any] = {}
    for name, limits in _POLICY_LIMITS.items():
        value = raw.get(name)
        if value is not None or name not in _POLICY_MAY_BE_NULL:
            value = _number(value, f"policy's {name}", limits)
        policy[name] = value
    label = raw.get("label")
    is_word = isinstance(label, str) and re.fullmatch("[a-z0-9_-]{1,40}", label) is not None
    _must(is_word, "policy's label", "a word", label)
    return {**policy, "label": label}


def _read_job(raw: dict[str, Any], ticket: _Ticket, virtual: bool) -> _Job:
    """Check every field of a job; _DeviceFault on one that this device must not or can't take."""
    mode, runtime = raw.get("mode"), raw.get("runtime")
    wanted = "counts" if virtual else "wall"  # emulated time is no latency, and counting needs an emulator
    _must(mode == wanted, "mode", repr(wanted), mode)
    _must(isinstance(runtime, str) and runtime in RUNTIMES, "runtime", f"one of {sorted(RUNTIMES)}", runtime)
    installed = installed_runtimes()
    _must(runtime in installed, "runtime", f"installed ({sorted(installed)})", runtime)
    threads = _number(raw.get("threads"), "number of threads", (int, 1, 1 if virtual else len(usable_cores())))
    _must(raw.get("precision") == "fp32", "precision", "'fp32'", raw.get("precision"))
    anchor = None if virtual else _read_model(raw.get("anchor"), "anchor")
    policy = {**_read_policy(raw.get("policy")), "threads": threads, "runtime": runtime}
    return _Job(ticket, _read_model(raw.get("model"), "model"), _Task(str(mode), anchor, str(runtime), threads, policy))


# ---- the hub: what outlives the process ------------------------------------------------------------------


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, whatever ends us."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


class _Cache:
    """Models by hash in one folder, kept to a size; the ones used longest ago go first."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        with contextlib.suppress(OSError):  # `keep` says what is wrong
            for part in folder.glob("*.part"):  # of an agent that was killed
                part.unlink()
        self._folder, self._most_bytes = folder, most_bytes

    def path_of(self, model: _Model) -> Path | None:
        """Return where a model's file is, None if it is not here or not whole (it is thrown away then)."""
        path = self._folder / model.sha256
        try:
            if _is_model(path, model):
                os.utime(path)
                return path
            path.unlink()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _DeviceFault(f"{path} can't be used: {error.strerror or error}") from None
        return None

    def keep(self, model: _Model, chunks: Iterator[bytes], in_use: Collection[Path]) -> Path | None:
        """Store what comes as a model's file; None if it is not that model. _DeviceFault if it can't be stored."""
        path = self._folder / model.sha256
        part = path.with_name(path.name + ".part")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._make_room(model.size, in_use)
            with part.open("wb") as file:
                for chunk in chunks:  # what the network raises is no OSError
                    file.write(chunk)
                    if file.tell() > model.size:
                        return None
            if not _is_model(part, model):
                return None
            part.replace(path)
            return path
        except OSError as error:
            reason = f"the model of {model.size} bytes can't be stored in {self._folder}: {error.strerror or error}"
            raise _DeviceFault(f"{reason}; make room on the device, or name another --folder") from None
        finally:
            with contextlib.suppress(OSError):
                part.unlink()

    def _make_room(self, needed_bytes: int, in_use: Collection[Path]) -> None:
        """Delete files, oldest first, until as much more fits into the cache and onto the disk; not those in use."""
        files = [(path.stat(), path) for path in self._folder.iterdir()]
        total = sum(status.st_size for status, _ in files)
        disk = os.statvfs(self._folder)
        most_bytes = min(self._most_bytes, total + disk.f_bavail * disk.f_frsize)
        for status, path in sorted(files, key=lambda pair: pair[0].st_mtime):
            if total + needed_bytes > most_bytes and path not in in_use:
                path.unlink()
                total -= status.st_size


def _is_model(path: Path, model: _Model) -> bool:
    return path.stat().st_size == model.size and sha256_of(path) == model.sha256


class _Unsent:
    """Results and failures the hub has not taken yet: in memory, and on disk if that is possible."""

    def __init__(self, folder: Path, journal: _Journal) -> None:
        self._folder, self._journal = folder, journal
        self._items: dict[_Ticket, dict[str, Any]] = {}
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            for part in folder.glob("*.part"):  # of an agent that was killed; its job is done anew
                part.unlink()
        for path in sorted(folder.glob("*.json")):
            try:
                item = json.loads(path.read_bytes())
                ticket = _read_ticket(item)
                if ticket is None or item["kind"] not in ("result", "failure") or not isinstance(item["body"], dict):
                    raise ValueError("it is no result")
                self._items[ticket] = item
            except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
                self._journal.say(f"an unsent result can't be read and is lost: {path.name}: {error}")
                with contextlib.suppress(OSError):
                    path.unlink()

    def items(self) -> list[tuple[_Ticket, str, dict[str, Any]]]:
        """Return (ticket, "result" or "failure", body) of each, oldest job first."""
        ordered = sorted(self._items.items(), key=lambda pair: (pair[0].job, pair[0].attempt))
        return [(ticket, item["kind"], item["body"]) for ticket, item in ordered]

    def add(self, ticket: _Ticket, kind: str, body: dict[str, Any]) -> None:
        """Keep one, in the place of an earlier one of the same attempt."""
        item = {"id": ticket.job, "attempt": ticket.attempt, "kind": kind, "body": body}
        content = json.dumps(item, allow_nan=False).encode()
        self._items[ticket] = item
        try:
            _write_whole(self._path(ticket), content)
        except OSError as error:
            self._journal.say(f"job {ticket.job}: its {kind} is kept in memory only: {error.strerror or error}")

    def remove(self, ticket: _Ticket) -> None:
        self._items.pop(ticket, None)
        with contextlib.suppress(OSError):
            self._path(ticket).unlink()

    def _path(self, ticket: _Ticket) -> Path:
        return self._folder / f"{ticket.job}-{ticket.attempt}.json"


# ---- the hub: one agent at work --------------------------------------------------------------------------


class _Leases:
    """The leases held. A thread of its own renews them while the main one waits, downloads and measures."""

    def __init__(self, hub: _Hub, instance: str, core: int, journal: _Journal) -> None:
        self.state = "downloading"
        self.token_refused = False
        self._hub, self._instance, self._core, self._journal = hub, instance, core, journal
        self._lease_s = 60.0
        self._held: set[_Ticket] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._wake = threading.Event()
        threading.Thread(target=self._renew_until_closed, daemon=True).start()

    def last(self, lease_s: Any) -> None:
        """Take in how long the hub says that a lease lasts."""
        if type(lease_s) in (int, float) and 0.1 <= lease_s <= 86_400 and lease_s != self._lease_s:
            self._lease_s = lease_s
            self._wake.set()  # the wait under way is one of the old length

    def hold(self, tickets: Iterable[_Ticket]) -> None:
        """Take leases over, and tell the hub at once: what it hears nothing of was never begun."""
        with self._lock:
            self._held.update(tickets)
        self.state = "downloading"
        self._wake.set()

    def tell(self, state: str) -> None:
        """Say what the device is at; the hub hears of a change at once, not at the next beat."""
        if state != self.state:
            self.state = state
            self._wake.set()

    def let_go(self, tickets: Iterable[_Ticket]) -> None:
        with self._lock:
            self._held.difference_update(tickets)

    def held(self) -> set[_Ticket]:
        with self._lock:
            return set(self._held)

    def close(self) -> None:
        self._closed = True
        self._wake.set()

    def _renew_until_closed(self) -> None:
        if hasattr(os, "sched_setaffinity"):
            others = [core for core in usable_cores() if core != self._core]
            with contextlib.suppress(OSError):  # this thread alone: the measured core is to do nothing else
                os.sched_setaffinity(0, others or [self._core])
        while not self._closed:
            if self._wake.wait(self._lease_s / 4):
                self._wake.clear()
            for ticket in sorted(self.held(), key=lambda one: one.job):
                if not self._closed:
                    self._renew(ticket)

    def _renew(self, ticket: _Ticket) -> None:
        body = {"instance": self._instance, "attempt": ticket.attempt, "state": self.state}
        seen = {"conditions": conditions(self._core)}
        try:
            if ticket in self.held():
                # Short, so that one call without an answer doesn't cost the other leases.
                path, call_s = f"/v1/jobs/{ticket.job}/heartbeat", max(1.0, self._lease_s / 12)
                self.last(self._hub.call(path, {**body, **seen}, call_s).get("lease_s"))
        except _SaysNo as refusal:
            if ticket in self.held():  # else its result was taken meanwhile
                lost = refusal.status in (404, 409)
                self._journal.say(f"job {ticket.job}: {'its lease is lost' if lost else 'no beat taken'} ({refusal})")
                self.let_go([ticket] if lost else [])
        except _TokenRefused:
            self.token_refused = True
            self.let_go(self.held())
        except _Unreachable:
            pass  # said already; the next beat tries again
        except Exception as error:  # the other leases must be renewed, whatever it is
            self._journal.say(f"job {ticket.job}: a beat failed, {type(error).__name__}: {error}")


class _Agent:
    """Serves one hub until it is told to end: enrol, then lease, fetch, measure and send, over and over."""

    def __init__(self, settings: HubSettings, instance: str, ending: _Ending, journal: _Journal) -> None:
        self._settings, self._instance, self._ending, self._journal = settings, instance, ending, journal
        self._hub = _Hub(settings, journal)
        self._cache = _Cache(settings.folder / "models", settings.cache_bytes)
        self._leases = _Leases(self._hub, instance, settings.core, journal)
        # Kept apart by hub and device: the same job number means something else elsewhere.
        whose = hashlib.sha256(f"{settings.url}\n{settings.token}".encode()).hexdigest()[:16]
        self._unsent = _Unsent(settings.folder / "unsent" / whose, journal)
        self._enrolled = False
        self._retry_s = 2.0
        self._faults = _Patience()
        self._faulty = False  # the last batch met a fault of this device

    def serve(self) -> int:
        """Return the exit code: 0 when told to end (or nothing is left to do), 3 when the token is refused."""
        try:
            if self._settings.url.startswith("http:") and not _is_this_machine(self._settings.url):
                self._journal.say("the token travels unencrypted; serve the hub over https outside your own network")
            self._serve()
        except _Ended:
            self._journal.say("told to end")
        except _TokenRefused:
            self._journal.say("the hub refuses the token: it is wrong or revoked; pass the device's present one")
            return 3
        finally:
            self._leases.close()
        self._leave()
        return 0

    def _serve(self) -> None:
        patience = _Patience()
        while True:
            self._send_unsent()  # first: who enrols gives up what an earlier life leased
            if not self._enrolled:
                self._enrol()
            try:
                with self._ending.cutting():
                    answer = self._hub.call("/v1/leases", self._about_me(limit=self._settings.limit))
            except (_Unreachable, _SaysNo) as error:
                if isinstance(error, _SaysNo):
                    self._journal.say(f"the hub gives no jobs ({error}); enrolling again")
                self._enrolled = False  # and what an answer that was lost had leased is given back by enrolling
                self._ending.sleep(patience.next_s())
                continue
            patience = _Patience()
            raw_jobs = answer.get("jobs")
            if not isinstance(raw_jobs, list):
                raw_jobs = []
                self._journal.say("the hub's answer holds no list of jobs")
            if raw_jobs:
                self._work(raw_jobs[: self._settings.limit])
            elif self._settings.once:
                return
            else:
                self._ending.sleep(self._retry_s * random.uniform(0.75, 1.0))

    def _about_me(self, **more: Any) -> dict[str, Any]:
        return {"instance": self._instance, **more, "conditions": conditions(self._settings.core)}

    # -- enrolling and leaving

    def _enrol(self) -> None:
        facts = {
            "cpu_model": cpu_model(self._settings.core),
            "machine": platform.machine(),
            "cores": len(usable_cores()),
            "python_version": platform.python_version(),
            "runtimes": installed_runtimes(),
            "pinned": hasattr(os, "sched_setaffinity"),
        }
        virtual = self._settings.launcher is not None
        body = self._about_me(format=_HUB_FORMAT, virtual=virtual, facts=facts)
        patience, said = _Patience(), False
        while True:
            try:
                answer = self._answer("/v1/enrol", body)
                break
            except _SaysNo as refusal:
                if refusal.status not in (404, 409):
                    rule = f"the hub must take this agent in, but refuses it ({refusal})"
                    raise _WrongUse(f"{rule}; mend that, or fetch the agent anew from the hub's /agent.py") from None
                if not said:
                    why = f"{refusal}; {_WRONG_ADDRESS}" if refusal.status == 404 else str(refusal)
                    self._journal.say(f"waiting: the hub can't enrol this agent now ({why})")
                    said = True
                self._ending.sleep(patience.next_s())
        self._enrolled = True
        self._leases.last(answer.get("lease_s"))
        if type(answer.get("retry_s")) in (int, float) and 0.01 <= answer["retry_s"] <= 3600:
            self._retry_s = answer["retry_s"]
        self._journal.say(f"enrolled as {answer.get('device')} in the queue {answer.get('queue')}")

    def _leave(self) -> None:
        """Send what is unsent and give the leases back, if the hub answers at once; all of it can wait otherwise."""
        try:
            for ticket, kind, body in self._unsent.items():
                self._send(ticket, kind, body, lambda path, body: self._hub.call(path, body, call_s=5.0))
            self._hub.call("/v1/leave", {"instance": self._instance}, call_s=5.0)
            self._journal.say("left")
        except (_Unreachable, _SaysNo, _TokenRefused) as error:
            self._journal.say(f"ended without telling the hub: {_plain(error) or 'it refuses the token'}")

    # -- talking until there is an answer

    def _answer(self, path: str, body: dict[str, Any], errors_most: float = float("inf")) -> dict[str, Any]:
        """Call until the hub answers, however long that takes; _NotTaken when it fails at more than `errors_most`."""
        patience, errors = _Patience(), 0
        while True:
            try:
                with self._ending.cutting():
                    return self._hub.call(path, body)
            except _Unreachable as why:
                errors += why.is_hubs_error
                if errors > errors_most:
                    raise _NotTaken(f"{errors} times, {why}") from None
                self._ending.sleep(patience.next_s())

    def _send_unsent(self) -> None:
        for ticket, kind, body in self._unsent.items():
            self._send(ticket, kind, body, lambda path, body: self._answer(path, body, _HUBS_ERRORS_MOST))
            self._leases.let_go([ticket])

    def _send(self, ticket: _Ticket, kind: str, body: dict[str, Any], call: _Call) -> None:
        """Hand one result or failure over; what the hub doesn't want is no use to keep."""
        whole = {"instance": self._instance, "attempt": ticket.attempt, **body}
        try:
            answer = call(f"/v1/jobs/{ticket.job}/{kind}", whole)
            self._journal.say(f"job {ticket.job}: {kind} {answer.get('verdict', 'recorded')}")
        except _SaysNo as refusal:
            self._journal.say(f"job {ticket.job}: the hub refuses the {kind} ({refusal})")
            if kind == "result" and refusal.status in (400, 413, 422):  # the job must not wait for its lease to end
                self._fail(ticket, "device", f"the hub refuses this agent's report ({refusal})")
                return
        except _NotTaken as trouble:
            self._journal.say(f"job {ticket.job}: the hub can't take the {kind} ({trouble}), so it is dropped")
            if kind == "result":
                self._fail(ticket, "device", f"the hub can't take this agent's report ({trouble})")
                return
        self._unsent.remove(ticket)

    # -- one batch

    def _work(self, raw_jobs: list[Any]) -> None:
        self._faulty = False
        jobs = self._accepted(raw_jobs)
        self._leases.hold(job.ticket for job in jobs)
        try:
            self._send_unsent()  # what is wrong with the others, before their leases end
            if jobs:
                self._measure(jobs)
            self._send_unsent()
        except _LeaseLost:
            self._journal.say("the batch is stopped: no lease is left")
        finally:
            self._leases.let_go(self._leases.held())
        if self._faulty:
            self._ending.sleep(self._faults.next_s())  # whatever it is, it won't be over at once
        else:
            self._faults = _Patience()

    def _accepted(self, raw_jobs: list[Any]) -> list[_Job]:
        """Return the jobs that can be done together; the others are answered with a fault."""
        jobs: list[_Job] = []
        for raw in raw_jobs:
            ticket = _read_ticket(raw)
            if ticket is None:
                self._journal.say(f"the hub sent a job without an id and attempt: {_plain(repr(raw), 80)}")
                self._faulty = True
                continue
            try:
                job = _read_job(raw, ticket, virtual=self._settings.launcher is not None)
                _must(not jobs or job.task == jobs[0].task, "settings", "those of the whole batch", "others")
                jobs.append(job)
            except _DeviceFault as fault:
                self._fail(ticket, "device", str(fault))
        return jobs

    def _fail(self, ticket: _Ticket, fault: str, reason: str) -> None:
        self._faulty = self._faulty or fault == "device"
        reason = _plain(reason) or "no reason is known"
        self._journal.say(f"job {ticket.job}: failed, {reason}")
        self._unsent.add(ticket, "failure", {"fault": fault, "reason": reason})

    def _stopped(self) -> bool:
        return self._ending.asked or not self._leases.held()

    def _check_stopped(self) -> None:
        if self._ending.asked:
            raise _Ended
        if self._leases.token_refused:
            raise _TokenRefused
        if not self._leases.held():
            raise _LeaseLost

    def _measure(self, jobs: list[_Job]) -> None:
        """Fetch the models, time them or count their instructions, and store what comes out for each job."""
        numbers = ", ".join(str(job.ticket.job) for job in jobs)
        self._journal.say(f"took {'jobs' if len(jobs) > 1 else 'job'} {numbers}")
        jobs, paths = self._fetched(jobs)
        self._send_unsent()
        if not jobs:
            return
        task, models = jobs[0].task, [paths[job.model] for job in jobs]
        self._set_state("measuring")
        try:
            if task.anchor is None:
                report = self._counted(models, task)
            else:
                anchor, core = paths[task.anchor], self._settings.core
                report = measure_batch(models, anchor, task.policy, core, stop=self._stopped, heartbeat=self._set_state)
        except Stopped:
            self._check_stopped()
            raise _LeaseLost from None
        except Exception as error:  # whatever it is, the agent goes on, and another device may do better
            for job in jobs:
                self._fail(job.ticket, "device", f"{type(error).__name__}: {error}")
            return
        facts = {key: value for key, value in report.items() if key != "models"}
        for job, entry in zip(jobs, report["models"]):
            if job.ticket in self._leases.held():
                self._finish(job, facts, entry)

    def _finish(self, job: _Job, facts: dict[str, Any], entry: dict[str, Any]) -> None:
        """Store one model's result, or its failure, to be sent."""
        if "error" in entry:
            self._fail(job.ticket, entry.get("fault", "model"), entry["error"])
            return
        if entry["sha256"] != job.model.sha256:
            self._fail(job.ticket, "device", "the model's file changed while it was measured")
            return
        names = {"attempt": "tries"}  # the hub's attempts are leases of the job
        found = {names.get(key, key): value for key, value in entry.items() if key != "path"}
        try:
            self._unsent.add(job.ticket, "result", {"report": {**facts, **found}})
        except ValueError as error:  # a number that JSON has no word for
            self._fail(job.ticket, "device", f"the report can't be written: {error}")

    def _set_state(self, state: str) -> None:
        self._leases.tell(state)

    def _fetched(self, jobs: list[_Job]) -> tuple[list[_Job], dict[_Model, Path]]:
        """Return the jobs whose models are here now, and where; the others are answered with a fault."""
        self._set_state("downloading")
        here: list[_Job] = []
        paths: dict[_Model, Path] = {}
        for job in jobs:
            try:
                for model in (job.task.anchor, job.model):
                    if model is not None and model not in paths:
                        paths[model] = self._fetch(model, list(paths.values()))
                here.append(job)
            except _DeviceFault as fault:
                self._fail(job.ticket, "device", str(fault))
        return here, paths

    def _fetch(self, model: _Model, in_use: Collection[Path]) -> Path:
        """Return a model's file, from the cache or the hub, trying as long as somebody waits for it."""
        patience, wrong = _Patience(), 0
        while wrong < 2:
            self._check_stopped()
            path = self._cache.path_of(model)
            if path is not None:
                return path
            try:
                with self._ending.cutting():
                    path = self._cache.keep(model, self._watched(self._hub.download(model)), in_use)
            except _Unreachable:
                self._ending.sleep(patience.next_s())
                continue
            except _SaysNo as refusal:
                raise _DeviceFault(f"the hub doesn't give out the model {model.sha256} ({refusal})") from None
            if path is not None:
                return path
            wrong += 1
            self._journal.say(f"what came as model {model.sha256} is something else, and was thrown away")
        raise _DeviceFault(f"the hub sent something else than the model {model.sha256}, twice")

    def _watched(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._check_stopped()
            yield chunk

    def _counted(self, models: Sequence[Path], task: _Task) -> dict[str, Any]:
        """Count each model's instructions in fresh emulated processes, again without a model that one died of."""
        failed: dict[int, dict[str, Any]] = {}
        while True:
            places = [place for place in range(len(models)) if place not in failed]
            end = self._one_count([models[place] for place in places], task) if places else ProcessEnd({"models": []})
            if end.report is not None:
                counted = dict(zip(places, end.report["models"]))
                return {**end.report, "models": [{**failed, **counted}[place] for place in range(len(models))]}
            culprits, fault = places, "device"
            if end.position is not None and end.position < len(places):
                culprits, fault = [places[end.position]], "model"
            for place in culprits:
                failed[place] = {"path": str(models[place]), "error": end.reason, "fault": fault}

    def _one_count(self, models: Sequence[Path], task: _Task) -> ProcessEnd:
        counts = self._settings.folder / "counts.jsonl"  # ours alone, as the folder is
        with contextlib.suppress(OSError):
            counts.unlink()
        launcher = [word.replace("{counts}", str(counts)) for word in self._settings.launcher or ()]
        options = ["--runs", str(_COUNT_RUNS), "--warmup", str(_COUNT_WARMUP), "--counts", str(counts)]
        options += ["--runtime", task.runtime, "--watch-stdin", "--"]
        command = [*launcher, str(Path(__file__).resolve()), "count", *options, *map(str, models)]
        try:
            return run_process(command, task.policy["timeout_s"], self._stopped)
        finally:
            with contextlib.suppress(OSError):
                counts.unlink()


# ---- the hub: starting -----------------------------------------------------------------------------------


def serve_hub(settings: HubSettings) -> int:
    """Serve a hub until a signal ends it; return the exit code: 0 ended, 2 can't start like this, 3 token refused.

    One agent works in a folder at a time. The folder keeps who the agent is (so that it takes its own leases over
    when it starts again), the models it fetched, and what it could not send.
    """
    journal, ending = _Journal(), _Ending()
    try:
        if not installed_runtimes():
            raise _WrongUse(f"one of {sorted(RUNTIMES)} must be installed here, but none is; pip install one")
        with _locked(settings.folder):
            instance = _instance(settings.folder)
            ending.install()
            return _Agent(settings, instance, ending, journal).serve()
    except _WrongUse as error:
        journal.say(str(error))
        return 2


def _locked(folder: Path) -> IO[str]:
    """Return an open file that holds the folder for this process as long as it lives."""
    try:
        import fcntl
    except ImportError:
        raise _WrongUse("an agent needs flock, which Linux, Android and macOS have; run it on one of those") from None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / "lock").open("a", encoding="ascii")
    except OSError as error:
        raise _WrongUse(f"--folder must be writable, but {folder} is not: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        why = "another agent works in it" if isinstance(error, BlockingIOError) else error.strerror
        raise _WrongUse(f"the folder {folder} can't be locked: {why}; end that one, or name another --folder") from None
    return lock


def _instance(folder: Path, root: Path = _ROOT) -> str:
    """Return the name this agent keeps through restarts, made up when the folder is new or another board's.

    A card copied for a second board must not make two agents one: each would give up what the other one leased.
    """
    path = folder / "instance"
    board = hashlib.sha256((_text(root / "proc/device-tree/serial-number") or "").encode()).hexdigest()[:16]
    try:
        known, _, home = (path.read_text(encoding="ascii") if path.exists() else "").strip().partition(" ")
        if re.fullmatch("[0-9a-f]{32}", known) and home in ("", board):
            return known
        made_up = os.urandom(16).hex()
        _write_whole(path, f"{made_up} {board}".encode())
    except (OSError, UnicodeError) as error:
        raise _WrongUse(f"--folder must be usable, but {path} is not: {error}") from None
    return made_up


def _hub_url(text: str) -> str:
    """Return the address without a slash at its end, or say what is wrong with it."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        fits = False
    if not fits or parts.username or parts.query or parts.fragment or not text.isascii() or not text.isprintable():
        raise _WrongUse(f"--hub must be an address like https://hub.example:8700, but got {_plain(repr(text), 100)}")
    return text.rstrip("/")


def _is_this_machine(url: str) -> bool:
    from urllib.parse import urlsplit

    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _token(file: Path | None) -> str:
    """Return the device's token, and take it out of the environment that children get."""
    given = os.environ.pop("CONDENSERY_TOKEN", "")
    try:
        token = (given if file is None else file.read_text(encoding="ascii")).strip()
    except (OSError, UnicodeError) as error:
        raise _WrongUse(f"--token-file must hold the device's token, but {file} can't be read: {error}") from None
    if not re.fullmatch("[!-~]{1,512}", token):
        raise _WrongUse("the device's token must be one word; set CONDENSERY_TOKEN or name a --token-file")
    return token


def _launcher(virtual: bool, text: str | None) -> tuple[str, ...] | None:
    if not virtual and text is None:
        return None
    try:
        words = json.loads(text or "")
    except ValueError:
        words = None
    fits = isinstance(words, list) and words and all(isinstance(word, str) and word for word in words)
    if not virtual or not fits:
        raise _WrongUse("--virtual needs --launcher, and it a JSON list of words: the emulator and its Python")
    return tuple(words)


def _run(arguments: argparse.Namespace) -> int:
    try:
        core = usable_cores()[-1] if arguments.core is None else arguments.core
        if core not in usable_cores():
            raise _WrongUse(f"--core must be one of {usable_cores()}, but got {core}; pick one of those")
        settings = HubSettings(
            url=_hub_url(arguments.hub),
            token=_token(arguments.token_file),
            folder=arguments.folder.expanduser().resolve(),
            core=core,
            launcher=_launcher(arguments.virtual, arguments.launcher),
            cafile=arguments.cafile,
            once=arguments.once,
        )
    except _WrongUse as error:
        _Journal().say(str(error))
        return 2
    return serve_hub(settings)


def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run",
        help="serve a hub: measure what it asks for",
        description="Serve a hub as one of its devices. The token is read from CONDENSERY_TOKEN or --token-file.",
    )
    run.add_argument("--hub", required=True, metavar="URL", help="the hub's address, such as https://hub.example:8700")
    run.add_argument("--token-file", type=Path, metavar="FILE", help="read the device's token from here")
    run.add_argument("--folder", type=Path, default=Path("~/.condensery-agent"), help="what outlives the agent is here")
    run.add_argument("--core", type=int, metavar="N", help="the core to pin to (default: the last usable one)")
    run.add_argument("--cafile", type=Path, metavar="FILE", help="trust these certificates instead of the system's")
    run.add_argument("--once", action="store_true", help="end when the hub has no job left")
    run.add_argument("--virtual", action="store_true", help="this device is emulated: count instructions, time nothing")
    launcher = 'the words that start an emulated Python; in them "{counts}" stands for the file of the counts'
    run.add_argument("--launcher", metavar="JSON", help=launcher)
    run.set_defaults(handler=_run)


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


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    policy = json.loads(arguments.policy)
    if not isinstance(policy, dict):
        raise ValueError(f"the policy must be a JSON object, but got {arguments.policy}; pass one")
    if arguments.runtime is not None:
        policy["runtime"] = arguments.runtime
    return measure_models(arguments.models, policy, arguments.core, _say_position)


def _count(arguments: argparse.Namespace) -> dict[str, Any]:
    os.environ["OMP_NUM_THREADS"] = "1"  # read as the runtime is imported
    return count_models(
        arguments.models,
        arguments.counts,
        arguments.runs,
        arguments.warmup,
        arguments.runtime or "onnxruntime",
        _say_position,
    )


def _print_report(arguments: argparse.Namespace) -> int:
    """Run `measure` or `count` and print what it returns."""
    if arguments.watch_stdin:
        _exit_when_stdin_closes()
    try:
        report = arguments.report(arguments)
    except (ValueError, ImportError, OSError) as error:
        sys.stderr.write(f"agent: {error}\n")
        return 2
    sys.stdout.write(json.dumps(report, allow_nan=False) + "\n")
    sys.stdout.flush()
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command; return the exit code: 0 done, 2 wrong use or no runtime."""
    parser = argparse.ArgumentParser(prog="agent.py", description="Time models on this device, or count what they do.")
    commands = parser.add_subparsers(dest="command", required=True)
    measure = commands.add_parser("measure", help="time models and print one JSON document")
    measure.add_argument("--policy", required=True, metavar="JSON", help="warmup_runs, warmup_s, runs, run_s, ...")
    measure.add_argument("--core", type=int, help="the core to pin to (default: the last usable one)")
    measure.set_defaults(handler=_print_report, report=_measure)
    count = commands.add_parser("count", help="count the instructions of models under a counting emulator")
    count.add_argument("--counts", required=True, type=Path, metavar="FILE", help="where the emulator writes counts")
    count.add_argument("--runs", type=int, default=5, help="counted runs of each model")
    count.add_argument("--warmup", type=int, default=2, help="uncounted runs before them")
    count.set_defaults(handler=_print_report, report=_count)
    for command in (measure, count):
        command.add_argument("--runtime", choices=sorted(RUNTIMES), help="what runs the models (default: onnxruntime)")
        command.add_argument("--watch-stdin", action="store_true", help="exit when standard input closes")
        command.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="a file that the runtime reads")
    _add_run(commands)
    arguments = parser.parse_args(argv)
    return int(arguments.handler(arguments))


if __name__ == "__main__":
    sys.exit(main())
