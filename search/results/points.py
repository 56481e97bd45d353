"""Networks in 8 bits as points of their own: measured on the study's devices, and offered only where they win."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from search.pricing.pricer import Target, in_int8
from search.results.pareto import latency_key, non_dominated
from search.results.quantizing import Int8File, keep_predictions, quantize_trial
from search.store.rows import PointRow, StudyRow, TrialRow
from search.store.store import StudyStore
from search.store.vocabulary import EvaluatedSplit
from space.errors import CheckpointCorrupt, ExportMismatch, QuantizationFailed, TrialNotReady
from workers.file_names import file_for, stem_for
from workers.latency.measurement import FailedMeasurement, Measurement
from workers.latency.record import LatencyPurpose
from workers.metrics import METRICS


@dataclass(frozen=True)
class Quantized:
    """One network's file in 8 bits on one device: its latency, or why there is none."""

    file: Int8File
    target: str
    latency: Measurement | FailedMeasurement


def quantize(
    store: StudyStore,
    study: StudyRow,
    rows: Sequence[TrialRow],
    targets: Sequence[Target],
    cache: Path,
    scratch: Path,
    note: Callable[[str], None],
) -> Iterator[Quantized]:
    """Write each trial's network in 8 bits for every device, measure the file, and record it as a point.

    A network that can't be put into 8 bits is left out, with a note.

    Raises:
        ExportMismatch, QuantizationFailed, CheckpointCorrupt: none of the networks could be put into 8 bits.
    """
    made, problem = 0, None
    for row in rows:
        files: dict[str, Int8File] = {}
        for target in targets:
            runtime = target.probe.runtime
            try:
                if runtime not in files:
                    path = scratch / file_for(runtime, stem_for("int8", f"trial-{row.number}"))
                    files[runtime] = quantize_trial(store, study, row, cache, runtime, path, note)
            except (ExportMismatch, QuantizationFailed, CheckpointCorrupt) as error:  # others may do
                note(f"trial {row.number} is left out on {target.name}: {error}")
                problem = error
                continue
            latency = measured(target, files[runtime].path)
            if isinstance(latency, Measurement):
                _record(store, files[runtime], latency)
            made += 1
            yield Quantized(files[runtime], target.name, latency)
    if problem is not None and not made:
        raise problem


def measured(target: Target, path: Path) -> Measurement | FailedMeasurement:
    """Return the latency of a file in 8 bits on a device, with its own key."""
    (latency,) = target.probe.measure([path])
    labelled = in_int8(latency)
    if isinstance(labelled, FailedMeasurement):
        return labelled
    return replace(labelled, target=target.name, purpose=LatencyPurpose.VERIFY)


def _record(store: StudyStore, file: Int8File, latency: Measurement) -> None:
    score = file.predictions.metrics()[file.trial.objective]
    keep_predictions(store, file, EvaluatedSplit.VALIDATION, file.predictions)
    store.add_point(
        file.trial.number,
        latency,
        top1=file.top1,
        score=file.top1 if score is None else score,
        file_bytes=file.file_bytes,
        fine_tuned=file.fine_tuned,
    )


def rows_in_int8(study: StudyRow, rows: Sequence[TrialRow], points: Sequence[PointRow], device: str) -> list[TrialRow]:
    """Return the trials whose networks were put into 8 bits, with the score, top-1 and latencies of their files.

    Raises:
        TrialNotReady: none was, on this device.
    """
    trials = {row.number: row for row in rows}
    judged = []
    for one in points:
        if one.latency.target == device and one.number in trials:
            row = trials[one.number]
            others = tuple(other.latency for other in points if other.number == one.number and other is not one)
            score: dict[str, Any] = {
                **dict.fromkeys(METRICS),
                row.objective: one.score,
                "top1": one.top1,
                "test_top1": None,
            }
            file_hash = one.latency.model_hash
            judged.append(replace(row, latency=one.latency, others=others, file_hash=file_hash, **score))
    if not judged:
        raise TrialNotReady(
            f"no network of study {study.name!r} was put into 8 bits for {device} yet; run `condensery quantize` first."
        )
    return judged


class Int8Files:
    """Writes the files in 8 bits of one trial's network, once for each runtime, and keeps what they are worth."""

    def __init__(self, store: StudyStore, study: StudyRow, row: TrialRow, cache: Path) -> None:
        self._of, self.by_runtime = (store, study, row, cache), dict[str, Int8File]()

    def __call__(self, runtime: str, folder: Path) -> Path:
        """Write the file for a runtime into a folder; return its path."""
        path = folder / file_for(runtime, stem_for("int8"))
        self.by_runtime[runtime] = quantize_trial(*self._of, runtime, path)
        return path


def winning(points: Sequence[PointRow], rows: Sequence[TrialRow]) -> list[PointRow]:
    """Return the points that no trained network, and no other point, beats in score and latency at once.

    Only latencies that can be compared are: of one kind, device, runtime and number of threads.
    """
    winners = []
    for key in {latency_key(one.latency) for one in points}:
        own = [one for one in points if latency_key(one.latency) == key]
        latencies = [(row.score, latency) for row in rows for latency in row.latencies.values()]
        others = [(score, one.median_ms) for score, one in latencies if score is not None and latency_key(one) == key]
        costs = [(one.score, one.latency.median_ms) for one in own] + others
        kept = non_dominated(np.array([[-score, median_ms] for score, median_ms in costs]))
        winners += [one for one, stays in zip(own, kept, strict=False) if stays]
    return sorted(winners, key=lambda one: (one.latency.target, one.latency.median_ms))
