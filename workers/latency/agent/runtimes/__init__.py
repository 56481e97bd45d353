"""The runtimes that run a model, one class each; see `Runtime` for what they have in common."""

from __future__ import annotations

from workers.latency.agent.runtimes.base import Runtime
from workers.latency.agent.runtimes.litert import LiteRt
from workers.latency.agent.runtimes.native import Native
from workers.latency.agent.runtimes.ncnn import Ncnn
from workers.latency.agent.runtimes.onnx import OnnxRuntime

__all__ = ["RUNTIMES", "LiteRt", "Native", "Ncnn", "OnnxRuntime", "Runtime", "installed_runtimes", "runtime_named"]

RUNTIMES: dict[str, type[Runtime]] = {runtime.name: runtime for runtime in (OnnxRuntime, Ncnn, LiteRt, Native)}


def installed_runtimes() -> dict[str, str]:
    """Return the version of each runtime that is installed on this machine, by name, without importing any."""
    versions = {name: runtime.installed() for name, runtime in RUNTIMES.items()}
    return {name: version for name, version in versions.items() if version is not None}


def runtime_named(name: str) -> Runtime:
    """Return the runtime, loaded; ValueError when there is none of that name, ImportError when it isn't installed."""
    if name not in RUNTIMES:
        raise ValueError(f"the runtime must be one of {sorted(RUNTIMES)}, but got {name!r}; use one of those")
    return RUNTIMES[name]()
