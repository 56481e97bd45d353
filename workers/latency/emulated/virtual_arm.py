"""The ARM device in software: it runs the agent in an emulated aarch64 Python and counts each network's instructions.

It needs no ARM hardware, no root and no container: QEMU's user emulation runs the Python in the folder that `build`
makes. Emulated time means nothing, so it returns counts, never latencies; a profile turns counts into an estimate.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from space.errors import EmulatorMissing, InvalidSettings, MeasurementFailed, ReadOnlyFolder
from workers.files import disk_errors
from workers.latency.agent.files import hash_or_empty
from workers.latency.agent.subprocesses import STARTS_MOST, ProcessEnd, Stopped
from workers.latency.agent_file import agent_path, cache_folder
from workers.latency.emulated import arm_root, arm_tools
from workers.latency.emulated.arm_tools import missing_tools
from workers.latency.emulated.staying_process import StayingProcess
from workers.latency.measurement import FailedMeasurement, MeasurementStopped, never

__all__ = ["Counts", "VirtualArm", "build", "counts_from_report", "default_folder", "missing_tools"]

TOGETHER_MOST = 16  # networks of one request: if one crashes the process, the others are counted again
ANSWERS_MOST = 200  # of a counting process, before another takes its place: no process grows for ever
TIMEOUT_S = 600.0  # for one network, loading included
WARMUP_RUNS = 2  # the first run allocates memory, and the second still some
_COUNTED = ("all", "branch", "load", "store", "vload", "vstore", "vfma", "simd_fp", "int")


def default_folder() -> Path:
    """Return where the device is kept: `arm64` in $CONDENSERY_CACHE, or in ~/.cache/condensery."""
    return cache_folder() / "arm64"


# ---- counts ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counts:
    """The aarch64 instructions that one run of a network executes, by class and in `all`.

    `median` is that of each class over the runs, `runs` the counts of each run. Load and store are those of general
    registers, vload and vstore those of vector ones; vfma are floating-point multiply-adds, simd_fp all other vector
    and floating-point work; system instructions go with the branches.
    """

    model_hash: str  # SHA-256 of the file, hexadecimal
    runtime: str
    runtime_version: str
    median: dict[str, float]
    runs: tuple[dict[str, int], ...]


def counts_from_report(report: Mapping[str, Any], entry: Mapping[str, Any]) -> Counts | FailedMeasurement:
    """Read one network's entry of an agent's `count` report, or why it has none.

    An entry whose counts are not whole numbers of instructions, or name other classes, is a failure too.
    """
    model_hash = str(entry.get("sha256") or "")
    if "error" in entry:
        return FailedMeasurement(model_hash, str(entry["error"]))
    runs = entry.get("counts")
    if not isinstance(runs, list) or not runs or not all(_is_counted(run) for run in runs):
        return FailedMeasurement(model_hash, "the report must give whole counts of every class, but doesn't; repeat it")
    return Counts(
        model_hash=model_hash,
        runtime=str(report["runtime"]),
        runtime_version=str(report["runtime_version"]),
        median={name: float(median(run[name] for run in runs)) for name in _COUNTED},
        runs=tuple({name: int(run[name]) for name in _COUNTED} for run in runs),
    )


def _is_counted(run: Any) -> bool:
    return isinstance(run, dict) and all(_is_whole(run.get(name)) for name in _COUNTED) and run["all"] > 0


def _is_whole(value: Any) -> bool:
    """Whether a count is a whole number; it may be a float, since some JSON writers know no integers."""
    return type(value) in (int, float) and math.isfinite(value) and value >= 0 and value == int(value)


# ---- building --------------------------------------------------------------------------------------------


def build(
    folder: Path,
    progress: Callable[[str], None] = lambda text: None,
    runtimes: Sequence[str] = ("onnxruntime", "ncnn", "ai-edge-litert"),
    sources: Path | None = None,
) -> VirtualArm:
    """Return the device in `folder`; build it unless it is there, complete and of the right versions.

    Building fetches about 90 MB, needs 240 MB on the disk and takes some twenty seconds. Builds of the same folder wait
    for each other. An interrupted build changes nothing.

    Args:
        folder: usually `default_folder()`.
        progress: called with what is being done.
        runtimes: packages of runtimes, in the versions installed here (else the newest).
        sources: an apt source list that offers arm64 packages (default: this machine's own sources).

    Raises:
        EmulatorMissing: tools are missing, or nothing could be fetched; the message says which and what to do.
        InvalidSettings: the folder holds something else.
        DiskFull, ReadOnlyFolder: it can't be written.
    """
    qemu = arm_tools.check_tools()
    folder = folder.absolute()
    wanted = arm_root.wanted(runtimes, sources)
    with disk_errors(folder), _building(folder, progress):
        stamp = arm_root.read_stamp(folder)
        if stamp is None or not wanted.is_met_by(stamp):
            _replace(folder, lambda new: arm_root.make_folder(new, wanted, qemu, progress))
        elif stamp["counter"] != arm_root.counter_hash():
            progress("building the instruction counter")
            arm_root.compile_counter(folder / arm_root.COUNTER)
            arm_root.write_stamp(folder, {**stamp, "counter": arm_root.counter_hash()})
    return VirtualArm(folder)


@contextlib.contextmanager
def _building(folder: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """Lock `folder` for building; the system releases the lock however this process ends."""
    try:
        with disk_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            lock = folder.with_name(f".{folder.name}.lock").open("w")
    except OSError as error:  # /proc has no such file, a loop of links, ...
        raise ReadOnlyFolder(f"{folder} can't be made ({error.strerror}); choose a folder you may write.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process that builds it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _replace(folder: Path, fill: Callable[[Path], None]) -> None:
    """Fill a new folder and put it in the place of `folder`; remove what interrupted builds left."""
    if folder.exists() and any(folder.iterdir()) and not (folder / arm_root.STAMP).exists():
        raise InvalidSettings(f"{folder} holds something else than an ARM device in software; choose an empty folder.")
    prefix = f".{folder.name}.new."
    for left in folder.parent.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        new.chmod(0o755)
        fill(new)
        if folder.exists():
            folder.rename(Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent)) / "old")
        new.rename(folder)
    finally:
        for left in folder.parent.glob(f"{prefix}*"):
            shutil.rmtree(left, ignore_errors=True)


# ---- running ---------------------------------------------------------------------------------------------


class VirtualArm:
    """An ARM device in software, made by `build`.

    Raises:
        EmulatorMissing: it isn't built, another version built it, or the emulator is no longer installed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        stamp, qemu = arm_root.read_stamp(self.folder), arm_tools.qemu_command()
        if stamp is None or stamp.get("counter") != arm_root.counter_hash():
            state = "isn't built" if stamp is None else "was built by another version"
            raise EmulatorMissing(f"the ARM device in software {state} in {folder}; run: condensery devices virtual")
        if qemu is None:
            raise EmulatorMissing("the ARM device in software needs the emulator; install it: apt install qemu-user")
        self._qemu = qemu
        self._versions: dict[str, str] = stamp["versions"]
        self._lock = threading.Lock()  # one call counts at a time
        self._staying: dict[str, StayingProcess] = {}  # at most one, by its runtime
        weakref.finalize(self, _end_all, self._staying)  # also when Python ends

    @property
    def facts(self) -> dict[str, str]:
        """The emulator's version, the processor it shows, and the versions of Python and runtimes in it."""
        return {"qemu": arm_tools.qemu_version(self._qemu), "cpu": arm_root.CPU, **self._versions}

    def python_command(self, counts: Path | None = None) -> list[str]:
        """Return the command that runs the emulated Python; with `counts`, marked runs are counted into that file."""
        return arm_root.emulated_python(self._qemu, self.folder, counts)

    def agent_command(self, hub_url: str, folder: Path | None = None) -> list[str]:
        """Return the command of an agent on this device that serves the hub at `hub_url`, as a virtual one.

        `folder` is the agent's own; two agents on one machine need two folders.

        The agent can't execute an aarch64 program itself, so it starts its processes by way of this machine's
        emulator, with `{counts}` replaced by the file that it wants the counts in.
        """
        launcher = json.dumps(self.python_command(Path("{counts}")))
        own = [] if folder is None else ["--folder", str(folder)]
        options = ["--hub", hub_url, "--virtual", "--launcher", launcher, *own]
        return [*self.python_command(), str(agent_path()), "run", *options]

    def count(
        self,
        models: Sequence[Path],
        runs: int = 5,
        runtime: str = "onnxruntime",
        stop: Callable[[], bool] = never,
    ) -> list[Counts | FailedMeasurement]:
        """Count each network's instructions in `runs` runs on one thread; one result per model, in their order.

        A network that the runtime refuses, crashes on or hangs in fails alone. One process counts many networks: it
        stays for the next call, because importing a runtime takes longer, emulated, than counting small networks.

        Raises:
            MeasurementStopped: `stop`, asked several times a second, said so.
            MeasurementFailed: the emulated process can't be started at all.
        """
        if runs < 1:
            raise InvalidSettings(f"runs must be at least 1, but got {runs}; count once or more")
        results: dict[int, Counts | FailedMeasurement] = {}
        with self._lock:
            while left := [place for place in range(len(models)) if place not in results][:TOGETHER_MOST]:
                results.update(self._count_together({place: models[place] for place in left}, runs, runtime, stop))
        return [results[place] for place in range(len(models))]

    def _count_together(
        self, models: Mapping[int, Path], runs: int, runtime: str, stop: Callable[[], bool]
    ) -> dict[int, Counts | FailedMeasurement]:
        """Count in one process; return all results, or if a network crashed the process, only that network's."""
        end = self._answer({"models": [str(path) for path in models.values()], "runs": runs}, runtime, stop)
        places = list(models)
        if end.report is not None:
            entries = end.report["models"]
            return {place: counts_from_report(end.report, entry) for place, entry in zip(places, entries, strict=True)}
        if end.position is None or not 0 <= end.position < len(places):
            raise MeasurementFailed(f"{runtime} can't count on the ARM device in software: {end.reason}.")
        culprit = places[end.position]
        return {culprit: FailedMeasurement(hash_or_empty(models[culprit]), end.reason)}

    def _answer(self, request: Mapping[str, Any], runtime: str, stop: Callable[[], bool]) -> ProcessEnd:
        """Return what a counting process answers, or how it ended; one that someone else kills is started again."""
        for _start in range(STARTS_MOST):
            try:
                if stop():
                    raise Stopped
                end = self._counting(runtime).ask(request, TIMEOUT_S, stop)
            except Stopped:
                raise MeasurementStopped from None
            except OSError as error:
                raise MeasurementFailed(f"the counting process could not be started: {error}.") from error
            if not end.killed:
                return end
        return end

    def _counting(self, runtime: str) -> StayingProcess:
        """Return the process that counts with a runtime; it is started unless it is there and young enough."""
        staying = self._staying
        if staying.get(runtime) is None or staying[runtime].ended or staying[runtime].answers == ANSWERS_MOST:
            _end_all(staying)
            staying[runtime] = StayingProcess(lambda folder: self._counting_command(folder / "counts", runtime))
        return staying[runtime]

    def _counting_command(self, counts: Path, runtime: str) -> list[str]:
        options = ["--stay", "--warmup", str(WARMUP_RUNS), "--runtime", runtime, "--counts", str(counts)]
        return [*self.python_command(counts), str(agent_path()), "count", *options]


def _end_all(processes: dict[str, StayingProcess]) -> None:
    while processes:
        processes.popitem()[1].end()
