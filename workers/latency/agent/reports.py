"""What all reports have in common: the facts of runtime and machine, errors on one line, and the progress lines."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import Any

from workers.latency.agent.sensors import cpu_model, identity

FORMAT = 3  # of the reports
PROGRESS = "agent: measuring "  # + a model's position in the given order: one line on standard error as it begins
ANSWER = "agent: answers "  # + a report: what a process says that stays for further requests


def report_facts(mode: str, runtime: str, version: str, threads: int) -> dict[str, Any]:
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


def wall_facts(runtime: str, version: str, cores: Sequence[int]) -> dict[str, Any]:
    """Return what a report of timed samples says; `cores` are those used, the first one first."""
    return {
        **report_facts("wall", runtime, version, len(cores)),
        "cpu_model": cpu_model(cores[0]),
        "identity": identity(cores[0]),
        "core": cores[0],
        "cores": list(cores),
        "pinned": hasattr(os, "sched_setaffinity"),  # not on macOS
    }


def one_line(error: Exception) -> str:
    """Return the error's kind and message on one line of at most 500 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
