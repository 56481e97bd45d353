"""What every runtime can do, and what the runtimes that are Python packages have in common."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np


class Runtime(Protocol):
    """Loads models and runs them; constructing it raises ImportError when it isn't installed."""

    name: str
    version: str

    @classmethod
    def installed(cls) -> str | None:
        """Return the version that is installed on this machine, without importing it; None when there is none."""

    def load(self, model: bytes, threads: int) -> Callable[[], object]:
        """Return a function that runs the model once on a fixed random input; raises what the runtime raises."""
        ...


def random_input(shape: Sequence[int], dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    """Return a fixed random input: normal numbers, or pixels of any value where a model takes whole numbers."""
    rng = np.random.default_rng(0)
    if np.issubdtype(dtype, np.unsignedinteger):
        return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    return rng.standard_normal(shape).astype(dtype)


class PackageRuntime:
    """The part of `Runtime` that Python packages share."""

    MODULE: str  # what is imported

    @classmethod
    def installed(cls) -> str | None:
        """See `Runtime`."""
        return installed_version(cls.MODULE)


def installed_version(module: str) -> str | None:
    """Return the version that a module is installed in; None when it isn't installed."""
    if importlib.util.find_spec(module) is None:
        return None
    try:
        return importlib.metadata.version(module.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:  # copied to its place by hand, without its record
        return "unknown"
