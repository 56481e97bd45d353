"""The measuring loop: warm up, then time one model after another in this thread, pinned to a core."""

from __future__ import annotations

import gc
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from workers.latency.agent.reports import one_line, wall_facts
from workers.latency.agent.runtimes import Runtime, runtime_named
from workers.latency.agent.sensors import conditions, cores_for, throttled, usable_cores

LOOP_NUMBERS = ("warmup_runs", "warmup_s", "runs", "run_s", "threads", "samples_kept")


def _repeat_ms(run: Callable[[], object], runs: int, seconds: float) -> list[float]:
    """Run until both the count and the duration are reached; return the time of each run in ms."""
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
    """Warm up, time, and thin out the samples evenly; a `stride` of 3 means that every third run is listed."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()  # a collection during a run would be Python's time, not the model's
    try:
        _repeat_ms(run, policy["warmup_runs"], policy["warmup_s"])
        samples = _repeat_ms(run, policy["runs"], policy["run_s"])
    finally:
        if was_enabled:
            gc.enable()
    stride = -(-len(samples) // policy["samples_kept"])
    return {"samples_ms": samples[::stride], "runs": len(samples), "stride": stride}


def _time_model(runtime: Runtime, path: Path, policy: dict[str, Any], core: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": str(path), "sha256": None}
    try:
        model = path.read_bytes()  # hashed and run from the same bytes: the hash names what was timed
        entry["sha256"] = hashlib.sha256(model).hexdigest()
        run = runtime.load(model, policy["threads"])
        before = conditions(core)
        timed = _timed(run, policy)
        after = conditions(core)
    except Exception as error:  # whatever a runtime raises on a file is that model's result; the others are measured
        entry["error"] = one_line(error)
        return entry
    return {**entry, **timed, "before": before, "after": after, "throttled": throttled(before, after)}


def require_numbers(policy: dict[str, Any], needed: Sequence[str]) -> None:
    """Raise ValueError if a field of the policy that must be a number isn't one."""
    missing = [key for key in needed if not isinstance(policy.get(key), (int, float))]
    if missing:
        raise ValueError(f"the policy needs a number for each of {missing}, but got {policy}; add them")


def measure_models(
    paths: Sequence[Path],
    policy: dict[str, Any],
    core: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Time each model in the given order in this thread, pinned to `core` (None: the last usable one).

    `policy` needs warmup_runs, warmup_s, runs, run_s, threads and samples_kept, and may name the runtime; other keys
    are ignored. `progress` is called with each position before its model is loaded. With several threads as many cores
    are used, `core` first. Returns a JSON-able report: runtime, versions, cores, and under `models` one entry per
    path with samples_ms, runs, stride, before, after (the conditions) and throttled, or with error. Raises ValueError
    on an unusable core or policy, ImportError without the runtime.
    """
    require_numbers(policy, LOOP_NUMBERS)
    cores = cores_for(usable_cores()[-1] if core is None else core, policy["threads"])
    runtime = runtime_named(policy.get("runtime", "onnxruntime"))
    facts = wall_facts(runtime.name, runtime.version, cores)
    allowed = usable_cores()
    if facts["pinned"]:
        os.sched_setaffinity(0, cores)  # threads that a session starts inherit it
    try:
        entries = []
        for position, path in enumerate(paths):
            if progress is not None:
                progress(position)
            entries.append(_time_model(runtime, Path(path), policy, cores[0]))
    finally:
        if facts["pinned"]:
            os.sched_setaffinity(0, allowed)
    return {**facts, "models": entries}
