"""The protocol that every runtime keeps, and what those have in common that are Python packages."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from typing import Protocol


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


class PackageRuntime:
    """What the runtimes share that are Python packages."""

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
    except importlib.metadata.PackageNotFoundError:  # put there by hand, without its record
        return "unknown"
