"""Networks in 8 bits as points of their own: measured on the study's devices, and offered only where they win."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from search.pricing.pricer import Target, in_int8
from search.results.quantizing import Int8File, keep_predictions, quantize_trial
from search.store.rows import StudyRow, TrialRow
from search.store.store import StudyStore
from search.store.vocabulary import EvaluatedSplit
from space.errors import CheckpointCorrupt, ExportMismatch, QuantizationFailed
from workers.file_names import file_for, stem_for
from workers.latency.measurement import FailedMeasurement, Measurement
from workers.latency.record import LatencyPurpose


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


class Int8Files:
    """Writes the files in 8 bits of one trial's network, once for each runtime, and keeps what they are worth."""

    def __init__(self, store: StudyStore, study: StudyRow, row: TrialRow, cache: Path) -> None:
        self._of, self.by_runtime = (store, study, row, cache), dict[str, Int8File]()

    def __call__(self, runtime: str, folder: Path) -> Path:
        """Write the file for a runtime into a folder; return its path."""
        path = folder / file_for(runtime, stem_for("int8"))
        self.by_runtime[runtime] = quantize_trial(*self._of, runtime, path)
        return path
