"""Counting the instructions of a model's runs, in a process that a counting emulator executes."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.latency.agent.reports import one_line, report_facts
from workers.latency.agent.runtimes import Runtime, runtime_named

START, STOP = 0x5EED01, 0x5EED02  # arguments of a harmless system call that the emulator's counter looks for


@dataclass(frozen=True)
class CountSettings:
    """How often a model runs, and under which runtime."""

    runs: int = 5  # counted
    warmup: int = 2  # uncounted, before them
    runtime: str = "onnxruntime"


def _mark(marker: int) -> None:
    with contextlib.suppress(OSError):  # there is no such process
        os.getsid(marker)


class _NoCounts(Exception):
    """No emulator counted a run, or it counted something else."""


class _CountsFile:
    """The file that a counting emulator appends one JSON line to for each marked run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = len(self._content())  # what an earlier process left there is not counted again

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


def _count_one(runtime: Runtime, path: Path, settings: CountSettings, counts_file: _CountsFile) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": str(path), "sha256": None}
    was_enabled = gc.isenabled()
    try:
        model = path.read_bytes()
        entry["sha256"] = hashlib.sha256(model).hexdigest()
        run = runtime.load(model, 1)
        gc.collect()
        gc.disable()
        for _ in range(settings.warmup):
            run()
        counts = []
        for _ in range(settings.runs):
            _mark(START)
            run()
            _mark(STOP)
            counts.append(counts_file.next())
    except _NoCounts as error:
        return {**entry, "error": str(error), "fault": "device"}
    except Exception as error:  # as in `timing`: it is this model's result
        return {**entry, "error": one_line(error), "fault": "model"}
    finally:
        if was_enabled:
            gc.enable()
    return {**entry, "counts": counts}


def count_models(
    paths: Sequence[Path],
    counts: Path,
    settings: CountSettings,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Count the instructions of each model's runs, in one thread, in a process that a counting emulator runs.

    Each run is enclosed by two marker calls. After the second one, the emulator appends one JSON object of counts by
    class to the file `counts`. Returns a JSON-able report: runtime, versions, and under `models` one entry per path
    with counts (one object per run), or with error and fault ("model" or "device"). Without such an emulator every
    model has an error. Raises ValueError on wrong numbers or an unknown runtime, ImportError without the runtime.
    """
    if settings.runs < 1 or settings.warmup < 0:
        raise ValueError(
            f"runs >= 1 and warmup >= 0 must hold, but got {settings.runs} and {settings.warmup}; raise them"
        )
    runtime, counts_file = runtime_named(settings.runtime), _CountsFile(counts)
    entries = []
    for position, path in enumerate(paths):
        if progress is not None:
            progress(position)
        entries.append(_count_one(runtime, Path(path), settings, counts_file))
    return {**report_facts("counts", runtime.name, runtime.version, 1), "models": entries}
