"""Networks in 8 or 16 bits as points of their own: measured on the study's devices, and offered only where they win."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from search.pricing.pricer import Target, in_precision
from search.results.quantizing import RoundedFile, keep_predictions, quantize_trial
from search.store.rows import StudyRow, TrialRow
from search.store.store import StudyStore
from search.store.vocabulary import EvaluatedSplit
from space.errors import CheckpointCorrupt, ExportMismatch, PrecisionMissing, QuantizationFailed
from workers.export.model_files import check_has
from workers.file_names import Precision, file_for, precision_of, stem_for
from workers.latency.measurement import FailedMeasurement, Measurement
from workers.latency.record import LatencyPurpose


@dataclass(frozen=True)
class Quantized:
    """One network's file in 8 or 16 bits on one device: its latency, or why there is none."""

    file: RoundedFile
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
    precision: Precision = "int8",
) -> Iterator[Quantized]:
    """Write each trial's network in 8 or 16 bits for every device, measure the file, and record it as a point.

    A network that can't be put into the precision, and a device whose runtime lacks it, is left out, with a note.

    Raises:
        PrecisionMissing: no device's runtime has the precision.
        ExportMismatch, QuantizationFailed, CheckpointCorrupt: none of the networks could be put into it.
    """
    made, problem = 0, None
    targets = _that_have(precision, targets, note)
    for row in rows:
        files: dict[str, RoundedFile] = {}
        for target in targets:
            runtime = target.probe.runtime
            try:
                if runtime not in files:
                    path = scratch / file_for(runtime, stem_for(precision, f"trial-{row.number}"))
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


def _that_have(precision: Precision, targets: Sequence[Target], note: Callable[[str], None]) -> list[Target]:
    able: list[Target] = []
    for target in targets:
        try:
            check_has(target.probe.runtime, precision)
            able.append(target)
        except PrecisionMissing as error:
            if len(targets) == 1 or (target is targets[-1] and not able):
                raise
            note(f"{target.name} is left out: {error}")
    return able


def measured(target: Target, path: Path) -> Measurement | FailedMeasurement:
    """Return the latency of a file in 8 or 16 bits on a device, with its own key."""
    (latency,) = target.probe.measure([path])
    labelled = in_precision(latency, precision_of(path))
    if isinstance(labelled, FailedMeasurement):
        return labelled
    return replace(labelled, target=target.name, purpose=LatencyPurpose.VERIFY)


def _record(store: StudyStore, file: RoundedFile, latency: Measurement) -> None:
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


class RoundedFiles:
    """Writes the files in 8 or 16 bits of one trial's network, once for each runtime, and keeps what they are worth."""

    def __init__(self, store: StudyStore, study: StudyRow, row: TrialRow, cache: Path, precision: Precision) -> None:
        self._precision: Precision = precision
        self._of, self.by_runtime = (store, study, row, cache), dict[str, RoundedFile]()

    def __call__(self, runtime: str, folder: Path) -> Path:
        """Write the file for a runtime into a folder; return its path."""
        path = folder / file_for(runtime, stem_for(self._precision))
        self.by_runtime[runtime] = quantize_trial(*self._of, runtime, path)
        return path
