"""Shared by the benchmarks: timing in turn with a peer, and saving a result with versions and machine."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")


def timed(action: Callable[[], Any]) -> float:
    """Return the seconds one call takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def in_turn(actions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Time every action once a round, in turn, so that a machine that drifts drifts for all; one round of warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(rounds + 1):
        for name, action in actions.items():
            spent = timed(action)
            if turn:
                seconds[name].append(spent)
    return seconds


def ratios(seconds: dict[str, list[float]], ours: str, peer: str) -> dict[str, float]:
    """Return peer / ours round by round: min, median, max."""
    pairs = sorted(p / o for o, p in zip(seconds[ours], seconds[peer], strict=True))
    return {"min": pairs[0], "median": statistics.median(pairs), "max": pairs[-1]}


def save(name: str, result: dict[str, Any]) -> Path:
    """Write benchmarks/results/NAME.json with versions and machine beside the result; return the path."""
    RESULTS.mkdir(exist_ok=True)
    path = write(name, result, RESULTS / f"{name}.json")
    print(f"saved {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    return path


def write(name: str, result: dict[str, Any], path: Path) -> Path:
    """Write a benchmark's result with versions and machine to a file; return its path."""
    document = {
        "benchmark": name,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "result": result,
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def machine() -> dict[str, Any]:
    """Return what of this machine a reader needs to know."""
    return {"cpu": _cpu_model(), "cores": os.cpu_count(), "system": platform.system()}


def versions() -> dict[str, str]:
    """Return the versions of Python and the main libraries."""
    try:
        from search.store.studies import library_versions
    except ImportError:  # a machine that has what a training needs and no more
        names = ("torch", "torchvision", "numpy", "pillow")
        present = (name for name in names if importlib.util.find_spec(name.replace("pillow", "PIL")))
        return {"python": platform.python_version()} | {name: metadata.version(name) for name in present}
    return {name: version for name, version in library_versions().items() if name != "platform"}


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
