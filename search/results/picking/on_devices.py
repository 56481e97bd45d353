"""A trained network's file on every device of its study: measured again, recorded, and held to the budget."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from search.budget import Budget
from search.pricing.pricer import Target
from search.results.picking.verification import MEASURED_MOST, Standing, comparable, took_of, verify
from search.store import reader
from search.store.rows import TrialRow
from search.store.store import StudyStore
from space.deployed import DeployedCondenseNet
from space.errors import MeasurementFailed
from workers.export.model_files import save_for
from workers.file_names import MODEL, file_for, precision_of
from workers.files import file_hash
from workers.latency.measurement import FailedMeasurement, Measurement
from workers.latency.record import LatencyPurpose, LatencyRecord


@dataclass(frozen=True)
class OverLimit:
    """A limit that a network exceeded: by which share of it, and how, in words behind the network's name."""

    excess: float
    words: str


@dataclass(frozen=True)
class OnDevices:
    """What verifying a network gave."""

    measured: dict[str, Measurement]  # by the device's name in the study; incomplete where a limit was exceeded
    over: OverLimit | None = None
    undecided: tuple[str, ...] = ()  # limits that it could not be held to, because the machine was too busy


def verify_on_devices(
    store: StudyStore,
    row: TrialRow,
    trained: tuple[Path, DeployedCondenseNet],
    targets: Sequence[Target],
    budget: Budget,
    rounded: Callable[[str, Path], Path] | None = None,
) -> OnDevices:
    """Measure the trained (ONNX file, network) on every device of the study, and record what was measured.

    With `rounded`, which writes the file of a runtime into a folder, the network is measured in 8 or 16 bits.
    """
    measured: dict[str, Measurement] = {}
    undecided = []
    limits, statistic = budget.limits_ms(targets[0].name), budget.latency_statistic
    earlier = [one for one in reader.read_latencies(store.engine, row.id) if one.purpose == LatencyPurpose.VERIFY]
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        for target in targets:
            if rounded is None:
                path = _file_for(target, trained, Path(folder))
            else:
                path = rounded(target.probe.runtime, Path(folder))
            if (over := _over_in_size(path, budget)) is not None:
                return OnDevices(measured, over)
            sha256 = file_hash(path) if earlier else ""
            recorded = comparable(
                [one for one in earlier if one.target == target.name and one.model_hash == sha256],
                target.probe.device,
                target.probe.runtime,
            )
            limit = limits.get(target.name)
            found = verify(partial(_measure, store, row, target, path), recorded, limit, statistic)
            measured[target.name] = shown = found.shown
            where = "" if target is targets[0] else f" on {target.name}"
            took_ms, took = took_of(shown, statistic)
            if found.standing == Standing.OVER and limit is not None:
                return OnDevices(measured, OverLimit(took_ms / limit - 1, f"{took}{where} when measured again"))
            if found.standing == Standing.OPEN:
                undecided.append(f"it {took}{where}, in {MEASURED_MOST} measurements that other work disturbed")
            if (over := _over_in_memory([*recorded, shown], budget, target.name)) is not None:
                return OnDevices(measured, over)
    return OnDevices(measured, None, tuple(undecided))


def _over_in_size(path: Path, budget: Budget) -> OverLimit | None:
    file_mb = path.stat().st_size / 1e6
    if budget.max_file_mb is None or file_mb <= budget.max_file_mb:
        return None
    return OverLimit(file_mb / budget.max_file_mb - 1, f"has a file of {file_mb:.3g} MB ({path.name})")


def _over_in_memory(history: Sequence[LatencyRecord], budget: Budget, device: str) -> OverLimit | None:
    """Return whether it needs too much memory by its first measurement, which stays the first when picking again."""
    if budget.max_ram_mb is None:
        return None
    memory_mb = next((one.peak_memory_mb for one in history if one.peak_memory_mb is not None), None)
    if memory_mb is None:
        return OverLimit(float("inf"), f"can't be held to a limit on memory: {device} doesn't say what it used")
    if memory_mb <= budget.max_ram_mb:
        return None
    return OverLimit(memory_mb / budget.max_ram_mb - 1, f"used {memory_mb:.1f} MB of memory on {device}")


def _file_for(target: Target, trained: tuple[Path, DeployedCondenseNet], folder: Path) -> Path:
    """Return the file of a trained network for a device's runtime, which is written unless it is the ONNX file."""
    model, network = trained
    if target.probe.runtime == "onnxruntime":
        return model
    path = folder / file_for(target.probe.runtime, MODEL)
    save_for(target.probe.runtime, network, path)
    return path


def _measure(store: StudyStore, row: TrialRow, target: Target, path: Path) -> Measurement:
    """Measure a network's file once on a device; record and return its latency."""
    (result,) = target.probe.measure([path])
    if isinstance(result, FailedMeasurement):
        raise MeasurementFailed(f"trial {row.number} could not be measured on {target.name}: {result.reason}")
    verified = replace(result, target=target.name, purpose=LatencyPurpose.VERIFY, precision=precision_of(path))
    store.add_latency(row.number, verified)
    return verified
