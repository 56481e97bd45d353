"""The measuring loop: warm up, then time one model after another in this thread, pinned to a core."""

# ruff: noqa: B905 - zip() has no `strict` before Python 3.10

from __future__ import annotations

import gc
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from workers.latency.agent.disturbance import Watch, can_judge, disturbed, is_set_aside
from workers.latency.agent.reports import one_line, wall_facts
from workers.latency.agent.resources import begin_peak_memory, energy_mj, peak_memory_mb
from workers.latency.agent.runtimes import Runtime, runtime_named
from workers.latency.agent.sensors import conditions, cores_for, throttled, usable_cores

LOOP_NUMBERS = ("warmup_runs", "warmup_s", "runs", "run_s", "threads", "samples_kept")
REPEATED_MOST = 2  # times the runs and the seconds that were asked for: no longer are interrupted runs repeated


@dataclass
class _Runs:
    """Timed runs of one model: wall and CPU time of each in ns, in their order."""

    wall_ns: list[int] = field(default_factory=list)
    cpu_ns: list[int] = field(default_factory=list)
    interrupted: list[bool] = field(default_factory=list)

    def repeat(self, run: Callable[[], object], runs: int, seconds: float, judge: bool) -> None:
        """Run until both the count and the duration are reached by uninterrupted runs; give up at twice as much.

        `judge` says whether single runs can be called interrupted.
        """
        wall, cpu = time.perf_counter_ns, time.process_time_ns
        wanted_ns, began, quiet, interrupted_ns = int(seconds * 1e9), wall(), 0, 0
        while True:
            cpu_began = cpu()
            wall_began = wall()
            run()
            wall_ended = wall()
            cpu_ns, wall_ns = cpu() - cpu_began, wall_ended - wall_began
            interrupted = judge and is_set_aside(wall_ns, cpu_ns)
            self.wall_ns.append(wall_ns)
            self.cpu_ns.append(cpu_ns)
            self.interrupted.append(interrupted)
            quiet += not interrupted
            interrupted_ns += wall_ns if interrupted else 0
            spent_ns = wall_ended - began
            if quiet >= runs and spent_ns - interrupted_ns >= wanted_ns:
                return
            if len(self.wall_ns) >= REPEATED_MOST * runs and spent_ns >= REPEATED_MOST * wanted_ns:
                return

    def entry(self, runs: int, most: int, judge: bool) -> dict[str, Any]:
        """Return the report's part on them, thinned out evenly to at most `most` runs.

        Interrupted runs are set aside, unless fewer than `runs` are left.
        """
        places = [place for place, interrupted in enumerate(self.interrupted) if not interrupted]
        if len(places) < runs:
            places = list(range(len(self.wall_ns)))
        stride = -(-len(places) // most)
        lost_ns = sum(max(0, wall_ns - cpu_ns) for wall_ns, cpu_ns in zip(self.wall_ns, self.cpu_ns))
        return {
            "samples_ms": [self.wall_ns[place] / 1e6 for place in places[::stride]],
            "cpu_ms": [self.cpu_ns[place] / 1e6 for place in places[::stride]],
            "runs": len(places),
            "stride": stride,
            "set_aside": sum(self.interrupted) if judge else None,
            "lost": lost_ns / max(1, sum(self.wall_ns)) if judge else None,
        }


def _timed(run: Callable[[], object], policy: dict[str, Any], cores: Sequence[int]) -> dict[str, Any]:
    """Warm up and time; a `stride` of 3 means that every third run is listed."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()  # a collection during a run would be Python's time, not the model's
    try:
        warm_up = _Runs()
        warm_up.repeat(run, policy["warmup_runs"], policy["warmup_s"], judge=False)
        # With several threads a run may wait for another thread: then its own CPU time says nothing about others.
        judge = policy["threads"] == 1 and can_judge(median(warm_up.wall_ns))
        runs, watch = _Runs(), Watch(cores)
        runs.repeat(run, policy["runs"], policy["run_s"], judge)
        happened = watch.finish()
    finally:
        if was_enabled:
            gc.enable()
    return {**runs.entry(policy["runs"], policy["samples_kept"], judge), **happened}


def _time_model(runtime: Runtime, path: Path, policy: dict[str, Any], cores: Sequence[int]) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": str(path), "sha256": None}
    try:
        counts_memory = begin_peak_memory()
        model = path.read_bytes()  # hashed and run from the same bytes: the hash names what was timed
        entry["sha256"] = hashlib.sha256(model).hexdigest()
        run = runtime.load(model, policy["threads"])
        before = conditions(cores[0])
        timed = _timed(run, policy, cores)
        after = conditions(cores[0])
        timed["peak_memory_mb"] = peak_memory_mb() if counts_memory else None
        timed["energy_mj"] = energy_mj(run, policy["run_s"])
    except Exception as error:  # whatever a runtime raises on a file is that model's result; the others are measured
        entry["error"] = one_line(error)
        return entry
    timed.update(before=before, after=after, throttled=throttled(before, after))
    return {**entry, **timed, "disturbed": disturbed(timed)}


def _pin(cores: Sequence[int]) -> None:
    """Keep this thread on these cores, and so the threads that a session starts."""
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        rule = f"the cores to measure on must be some that this process may use, but got {list(cores)}"
        raise ValueError(f"{rule} ({error.strerror}); name others") from None


def require_numbers(policy: dict[str, Any], needed: Sequence[str]) -> None:
    """Raise ValueError if a field of the policy that must be a number isn't one."""
    missing = [key for key in needed if not isinstance(policy.get(key), (int, float))]
    if missing:
        raise ValueError(f"the policy needs a number for each of {missing}, but got {policy}; add them")


def measure_models(
    paths: Sequence[Path],
    policy: dict[str, Any],
    cores: Sequence[int] | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Time each model in the given order in this thread, pinned to `cores`, the first of them first.

    Without `cores` they are the last usable ones, one per thread.

    `policy` needs warmup_runs, warmup_s, runs, run_s, threads and samples_kept, and may name the runtime; other keys
    are ignored. `progress` is called with each position before its model is loaded. Returns a JSON-able report:
    runtime, versions, cores, and under `models` one entry per path: samples_ms (wall) and cpu_ms of the runs that were
    not interrupted, how many were (set_aside), what else `Watch` saw, before and after (the conditions), throttled and
    disturbed (by what); or error. Raises ValueError on an unusable policy or cores, ImportError without the
    runtime.
    """
    require_numbers(policy, LOOP_NUMBERS)
    cores = cores_for(usable_cores()[-1], policy["threads"]) if cores is None else list(cores)
    if len(cores) != policy["threads"]:
        rule = "there must be as many cores as threads"
        raise ValueError(f"{rule}, but got {cores} for {policy['threads']}; name one core for each")
    runtime = runtime_named(policy.get("runtime", "onnxruntime"))
    facts = wall_facts(runtime.name, runtime.version, cores)
    allowed = usable_cores()
    if facts["pinned"]:
        _pin(cores)
    try:
        entries = []
        for position, path in enumerate(paths):
            if progress is not None:
                progress(position)
            entries.append(_time_model(runtime, Path(path), policy, cores))
    finally:
        if facts["pinned"]:
            os.sched_setaffinity(0, allowed)
    return {**facts, "models": entries}
