"""Exporting: a finished trial's network as one file for a runtime, run and compared before it is written."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from search.results.quantizing import RoundedFile, quantize_trial, write_rounded
from search.results.trained_files import trained_files
from search.store.rows import StudyRow, TrialRow
from search.store.store import StudyStore
from space.errors import InvalidSettings
from workers.export.model_files import check_for, save_for
from workers.export.pixels import PixelInput
from workers.file_names import MODEL, SUFFIXES, Precision, Runtime, file_for, known_runtime, runtime_of, stem_for
from workers.files import STDOUT, is_replaceable, write_atomically
from workers.preprocessing import Preprocessing
from workers.training.trial import load_network


def pixel_input(study: StudyRow, row: TrialRow) -> PixelInput:
    """Return the input of a trial's network where its model files scale pixels themselves.

    Raises:
        InvalidSettings: the study doesn't know its images yet.
    """
    if not (study.data_info or {}).get("std"):
        raise InvalidSettings(
            "preprocessing can be baked in where the study knows its images' mean and deviation, but this one doesn't; "
            "resume it once."
        )
    return PixelInput.of(Preprocessing.of(row.config.input_shape, study.data_info or {}))


def export_trial(
    store: StudyStore, row: TrialRow, out: Path, runtime: str | None = None, pixels: PixelInput | None = None
) -> Path:
    """Write a finished trial's network for a runtime to `out`, after running what is written; return the path.

    Args:
        store: the trial's study.
        row: the trial.
        out: a file, or a folder that gets model.onnx or what the runtime's files are called.
        runtime: None = as the name of the file says; onnxruntime where it is a folder or no file of its own.
        pixels: what the file scales itself; None = nothing.

    Raises:
        InvalidSettings: the name of the file is another runtime's, or none's.
    """
    target, runtime = export_target(out, runtime)
    _, weights = trained_files(store.engine, row)
    network = load_network(weights.parent, row.config)
    with tempfile.TemporaryDirectory(prefix="export-") as folder:
        checked = Path(folder) / file_for(runtime, MODEL)
        save_for(runtime, network, checked, pixels)
        check_for(runtime, checked, network, pixels)
        write_atomically(target, checked.read_bytes(), retry="export it again")
    return target


def export_rounded(
    store: StudyStore,
    study: StudyRow,
    row: TrialRow,
    out: Path,
    runtime: str | None,
    cache: Path,
    pixels: PixelInput | None = None,
    note: Callable[[str], None] = lambda text: None,
    precision: Precision = "int8",
) -> tuple[Path, RoundedFile]:
    """Write a finished trial's network in 8 or 16 bits to `out`; return the path, and what the file is worth.

    For the arguments and errors see `export_trial` and `quantizing.quantize_trial`.
    """
    target, runtime = export_target(out, runtime, precision)
    with tempfile.TemporaryDirectory(prefix="export-") as folder:
        plain, baked = (Path(folder) / file_for(runtime, stem_for(precision, stem)) for stem in (MODEL, "baked"))
        file = quantize_trial(store, study, row, cache, runtime, plain, note)
        if pixels is not None:
            write_rounded(file, baked, pixels)
        write_atomically(target, (plain if pixels is None else baked).read_bytes(), retry="export it again")
    return target, file


def export_target(out: Path, runtime: str | None, precision: Precision = "fp32") -> tuple[Path, Runtime]:
    """Return the file that `export_trial` or `export_rounded` writes, and its runtime; raises as they do."""
    if out == STDOUT or (not is_replaceable(out) and not out.is_dir()):
        return out, known_runtime(runtime or "onnxruntime")
    if out.is_dir() or not out.suffix:
        name = file_for(runtime or "onnxruntime", stem_for(precision))
        return out / name, known_runtime(runtime or "onnxruntime")
    named = runtime_of(out)
    if runtime is not None and known_runtime(runtime) != named:
        raise InvalidSettings(f"a file for {runtime} must end in {SUFFIXES[known_runtime(runtime)]}, not as {out}.")
    return out, named
