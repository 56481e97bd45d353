"""Latency probes: hand over ONNX files, get back one measurement (or one failure) each, in the order given.

- `HostProbe` times on this machine, in fresh processes that run `agent.py`; `FakeProbe` makes numbers up for tests.
- A batch is never lost: what a runtime refuses, crashes on or hangs in is that model's `FailedMeasurement`.
- An anchor model, timed first and last in every process, shows whether the machine kept still.
"""

from __future__ import annotations

import json
import os
import random
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal, Protocol

from space.errors import InvalidSettings, MeasurementFailed
from workers.latency import agent
from workers.latency.policy import MeasurementPolicy, PolicyLabel
from workers.latency.stats import LatencySummary, summarise

_AGENT_FILE = Path(agent.__file__)


@dataclass(frozen=True)
class Measurement:
    """One model's measured latency on one device; (model_hash, device, runtime, threads, precision) is its key.

    `samples_ms` holds one tuple per process, thinned so that at most every `stride`-th run was kept (1 = all).
    `anchor_drift` is how far the anchor's medians moved, (max - min) / min; `steady` says whether that was within
    the policy's tolerance. `conditions` is JSON-able: temperature, frequency, throttling, load of each process.
    """

    model_hash: str  # SHA-256 of the file, hexadecimal
    device: str
    cpu_model: str
    runtime: str
    runtime_version: str
    threads: int
    policy: PolicyLabel
    summary: LatencySummary
    samples_ms: tuple[tuple[float, ...], ...]
    stride: int
    conditions: dict[str, Any]
    anchor_drift: float
    steady: bool
    precision: Literal["fp32"] = "fp32"
    kind: Literal["measured"] = "measured"


@dataclass(frozen=True)
class FailedMeasurement:
    """A model without a latency, and why in one line; `model_hash` is empty when the file can't be read."""

    model_hash: str
    reason: str


class LatencyProbe(Protocol):
    """Something that knows latencies on one device.

    `measure` returns one result per path in the order given, equal paths measured separately; `[]` for no paths.
    It raises nothing for a model's sake. It may take minutes, and KeyboardInterrupt leaves no process behind.
    """

    device: str

    def measure(self, models: Sequence[Path]) -> list[Measurement | FailedMeasurement]:
        """Return the latency of each ONNX file, or why there is none."""
        ...


def default_core() -> int:
    """Return the last core this process may use: the system's own work gathers on the first ones."""
    return agent.usable_cores()[-1]


def siblings(core: int, cpus: Path = Path("/sys/devices/system/cpu")) -> set[int]:
    """Return the cores (itself included) that share this one's execution units; {core} where nothing says so."""
    try:
        text = (cpus / f"cpu{core}/topology/thread_siblings_list").read_text(encoding="ascii")
        ranges = [[int(end) for end in part.split("-")] for part in text.strip().split(",")]
    except (OSError, ValueError):
        return {core}
    return {core} | {number for ends in ranges for number in range(ends[0], ends[-1] + 1)}


def measuring_cores(core: int | None, threads: int) -> frozenset[int]:
    """Return the cores a measurement must have for itself: one a thread as the agent takes them, with siblings.

    Raises:
        InvalidSettings: the core is not usable, or there are fewer cores than threads.
    """
    try:
        taken = agent.cores_for(default_core() if core is None else core, threads)
    except ValueError as error:
        raise InvalidSettings(f"latency.core and latency.threads: {error}.") from None
    return frozenset(number for one in taken for number in siblings(one))


def host_name(cpu_model: str | None = None) -> str:
    """Return this machine's device label, such as `host:intel-xeon-platinum-8370c`; at most 53 characters."""
    name = (cpu_model or agent.cpu_model(default_core())).lower()
    name = re.sub(r"\((r|tm)\)|@.*|\b(cpu|processor|\d+-core)\b", " ", name)
    return "host:" + (re.sub(r"[^a-z0-9]+", "-", name).strip("-")[:48].strip("-") or "unknown")


def _hash_or_empty(path: Path) -> str:
    try:
        return agent.sha256_of(path)
    except OSError:
        return ""


# ---- one measuring process -------------------------------------------------------------------------------


@dataclass(frozen=True)
class AgentRun:
    """How one measuring process ended: with its report, or with the position it was at (None: unknown) and why."""

    report: dict[str, Any] | None
    position: int | None = None
    reason: str = ""


Runner = Callable[[Sequence[Path], MeasurementPolicy, int], AgentRun]


def run_agent(paths: Sequence[Path], policy: MeasurementPolicy, core: int, agent_file: Path = _AGENT_FILE) -> AgentRun:
    """Time the models in one fresh process; it is killed when one model takes longer than the policy's time-out."""
    try:
        return _run_agent(paths, policy, core, agent_file)
    except OSError as error:  # no process, no temporary file: nothing of this batch can be measured now
        return AgentRun(None, None, f"the measuring process could not be started: {error}")


def _run_agent(paths: Sequence[Path], policy: MeasurementPolicy, core: int, agent_file: Path) -> AgentRun:
    options = ["--watch-stdin", "--policy", policy.model_dump_json(), "--core", str(core)]
    # -P: the agent's own folder must not shadow the modules it imports
    command = [sys.executable, "-P", str(agent_file), "measure", *options, "--", *map(str, paths)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # held open: when this process dies, the agent notices and ends
            stdout=output,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # the terminal's Ctrl-C is for us; we end the child ourselves
        ) as child,
    ):
        try:
            log = _follow(child, policy.timeout_s)
        finally:
            _kill(child)
        output.seek(0)
        try:
            report = json.loads(output.read())
        except ValueError:
            return AgentRun(None, log.position, log.reason(child.returncode, policy.timeout_s))
        return AgentRun(report)  # complete, so a crash on the way out does no harm


@dataclass
class _Log:
    """What a measuring process said on standard error."""

    position: int | None = None
    last_words: str = ""
    timed_out: bool = False

    def add(self, line: str) -> bool:
        """Take one line in; return whether it said that a next model begins."""
        position = line.removeprefix(agent.PROGRESS)
        if position != line and position.isdigit():
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


def _follow(child: subprocess.Popen[bytes], timeout_s: float) -> _Log:
    """Read the process's standard error until it ends, or is silent about a next model for too long."""
    assert child.stderr is not None
    log, rest = _Log(), b""
    deadline = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        selector.register(child.stderr, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            chunk = os.read(child.stderr.fileno(), 65536)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines if chunk else [*lines, rest]:
                if log.add(line.decode(errors="replace")):
                    deadline = time.monotonic() + timeout_s
            if not chunk:
                break
    try:
        child.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        log.timed_out = True
    return log


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End a process that still runs, with whatever it started (it leads its own group)."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


# ---- the probes ------------------------------------------------------------------------------------------


class _BatchLost(Exception):
    """No model of the batch can be measured: the anchor or the process itself fails."""


@dataclass(frozen=True)
class _Attempt:
    """One whole batch: per process the report, and where in it each model stands."""

    number: int
    reports: tuple[dict[str, Any], ...]
    orders: tuple[tuple[int, ...], ...]  # (processes, models): the model at each position after the first anchor
    anchor_ms: tuple[tuple[float, float], ...]  # medians of the first and last anchor of each process

    @property
    def drift(self) -> float:
        """How far the anchor moved within and between the processes, relative to its fastest median."""
        medians = [value for pair in self.anchor_ms for value in pair]
        return (max(medians) - min(medians)) / min(medians)


class HostProbe:
    """Times models on this machine, by the rules of its policy.

    Each of `policy.processes` fresh processes times the anchor, every model in an order of its own, and the anchor
    again. If the anchor's medians moved by more than the tolerance the batch is redone after a cool-down; when
    no attempt is steady the one that drifted least is kept and says `steady=False`.
    """

    def __init__(
        self,
        policy: MeasurementPolicy,
        anchor: Path,
        core: int | None = None,
        device: str | None = None,
        *,
        _runner: Runner = run_agent,
    ) -> None:
        usable = agent.usable_cores()
        if core is not None and core not in usable:
            raise InvalidSettings(f"the core must be one of {usable}, but got {core}; pick one of those")
        if policy.threads > len(usable):
            raise InvalidSettings(
                f"threads must be at most the {len(usable)} usable cores, but got {policy.threads}; use fewer"
            )
        self.device = device or host_name()
        self._policy = policy
        self._anchor = anchor
        self._core = default_core() if core is None else core
        self._runner = _runner

    def measure(self, models: Sequence[Path]) -> list[Measurement | FailedMeasurement]:
        """Time the models; see the class and `LatencyProbe`."""
        failed: dict[int, str] = {}  # by place in `models`: the same file may stand there twice
        best: _Attempt | None = None
        for number in range(self._policy.attempts):
            if len(failed) == len(models):
                break
            if number:
                time.sleep(self._policy.cooldown_s)
            try:
                attempt = self._attempt(models, number, failed)
            except _BatchLost as lost:
                if best is None:
                    failed.update({place: str(lost) for place in range(len(models)) if place not in failed})
                break
            if best is None or attempt.drift < best.drift:
                best = attempt
            if best.drift <= self._policy.anchor_tolerance:
                break
        results: list[Measurement | FailedMeasurement] = []
        for place, path in enumerate(models):
            if best is None or place in failed:
                results.append(FailedMeasurement(_hash_or_empty(path), failed[place]))
            else:
                results.append(self._result(place, best))
        return results

    def _attempt(self, models: Sequence[Path], number: int, failed: dict[int, str]) -> _Attempt:
        """Run every process once; models found to fail are added to `failed` and left out from then on."""
        reports, orders, anchors = [], [], []
        for order in _shuffled_orders(len(models), self._policy.processes, seed=number):
            report, measured = self._round(models, order, failed)
            first, last = report["models"][0], report["models"][-1]
            for entry in (first, last):
                if "error" in entry:
                    raise _BatchLost(f"the anchor model {self._anchor.name} was refused: {entry['error']}")
            for place, entry in zip(measured, report["models"][1:-1], strict=True):
                if "error" in entry:
                    failed[place] = entry["error"]
            reports.append(report)
            orders.append(measured)
            anchors.append((median(first["samples_ms"]), median(last["samples_ms"])))
        return _Attempt(number, tuple(reports), tuple(orders), tuple(anchors))

    def _round(
        self, models: Sequence[Path], order: Sequence[int], failed: dict[int, str]
    ) -> tuple[dict[str, Any], tuple[int, ...]]:
        """Run one process, again without the model it died of until it lives; return its report and order."""
        while True:
            places = tuple(place for place in order if place not in failed)
            if not places:
                raise _BatchLost("no model is left")  # each has its own reason by now
            paths = [self._anchor, *(models[place] for place in places), self._anchor]
            run = self._runner(paths, self._policy, self._core)
            if run.report is not None:
                return run.report, places
            if run.position is None or not 1 <= run.position <= len(places):
                at_anchor = "" if run.position is None else f" (at the anchor model {self._anchor.name})"
                raise _BatchLost(run.reason + at_anchor)
            failed[places[run.position - 1]] = run.reason

    def _result(self, place: int, attempt: _Attempt) -> Measurement | FailedMeasurement:
        """Gather one model's samples and conditions from the processes of an attempt."""
        entries = [
            report["models"][order.index(place) + 1]
            for report, order in zip(attempt.reports, attempt.orders, strict=True)
        ]
        model_hash = entries[-1]["sha256"]
        if any(entry["sha256"] != model_hash for entry in entries):
            reason = "a model's file must not change while it is measured, but it did; measure it again"
            return FailedMeasurement(model_hash, reason)
        processes = [
            {
                **entry["conditions"],
                "position": order.index(place) + 1,
                "runs": entry["runs"],
                "stride": entry["stride"],
                "anchor_ms": list(anchor_ms),
            }
            for entry, order, anchor_ms in zip(entries, attempt.orders, attempt.anchor_ms, strict=True)
        ]
        report = attempt.reports[0]
        samples_ms = tuple(tuple(entry["samples_ms"]) for entry in entries)
        return Measurement(
            model_hash=model_hash,
            device=self.device,
            cpu_model=report["cpu_model"],
            runtime=report["runtime"],
            runtime_version=report["runtime_version"],
            threads=report["threads"],
            policy=self._policy.label,
            summary=summarise(samples_ms),
            samples_ms=samples_ms,
            stride=max(entry["stride"] for entry in entries),
            conditions={
                **{key: report[key] for key in ("core", "cores", "pinned", "machine", "python_version")},
                "siblings": sorted(siblings(report["core"])),
                "attempt": attempt.number + 1,
                "processes": processes,
            },
            anchor_drift=attempt.drift,
            steady=attempt.drift <= self._policy.anchor_tolerance,
        )


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


class FakeProbe:
    """Makes latencies up for tests: three processes of 40 samples each, spread by 1 % around `latency_ms(path)`.

    The samples depend on the file's bytes alone. `latency_ms` raises MeasurementFailed for a model to refuse.
    """

    def __init__(self, latency_ms: Callable[[Path], float], device: str = "fake") -> None:
        self.device = device
        self._latency_ms = latency_ms

    def measure(self, models: Sequence[Path]) -> list[Measurement | FailedMeasurement]:
        """Return made-up results; see `LatencyProbe`."""
        return [self._one(path) for path in models]

    def _one(self, path: Path) -> Measurement | FailedMeasurement:
        try:
            model_hash = agent.sha256_of(path)
            centre_ms = self._latency_ms(path)
        except (OSError, MeasurementFailed) as error:
            return FailedMeasurement(_hash_or_empty(path), str(error))
        rng = random.Random(model_hash)
        samples_ms = tuple(tuple(centre_ms * (1 + 0.01 * rng.uniform(-1, 1)) for _ in range(40)) for _ in range(3))
        return Measurement(
            model_hash=model_hash,
            device=self.device,
            cpu_model="fake",
            runtime="fake",
            runtime_version="0",
            threads=1,
            policy="quick",
            summary=summarise(samples_ms),
            samples_ms=samples_ms,
            stride=1,
            conditions={"processes": []},
            anchor_drift=0.0,
            steady=True,
        )
