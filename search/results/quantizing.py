"""A trial's network in 8 bits: its file beside the trained network, and what is recorded of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from search.results.picking.testing import prepared_images, test_predictions, tested
from search.results.trained_files import trained_files
from search.store import reader
from search.store.rows import StudyRow, TrialRow
from search.store.store import StudyStore
from search.store.vocabulary import EvaluatedSplit
from search.study_file import settings_from
from workers.export.int8_files import check_int8_for, save_int8_for
from workers.export.pixels import PixelInput
from workers.file_names import ONNX_FILE, file_for, known_runtime, stem_for
from workers.images import batches
from workers.judging.in_int8 import Learned, WrittenInt8, write_in_int8
from workers.metrics import Predictions
from workers.quantization.network import PARTS
from workers.settings import TrainingSettings
from workers.training.trial import load_network

_CHECKED = 16  # inputs on which a file that takes pixels is compared with the rounded form
_PART_NAMES = {
    "stem": "stem",
    "conv_1x1": "1x1 convolutions",
    "conv_3x3": "3x3 convolutions",
    "classifier": "classifier",
}


@dataclass(frozen=True)
class Int8File:
    """A network's file in 8 bits, with its accuracy on the validation images beside the trained network's."""

    trial: TrialRow
    runtime: str
    path: Path
    file_bytes: int
    fp32_top1: float  # of the trained network on the validation images
    written: WrittenInt8

    @property
    def sha256(self) -> str:
        """The file's SHA-256."""
        return self.written.sha256

    @property
    def predictions(self) -> Predictions:
        """What the file says of the validation images."""
        return self.written.predictions

    @property
    def fine_tuned(self) -> bool:
        """Whether it learned with rounded numbers."""
        return self.written.fine_tuned

    @property
    def top1(self) -> float:
        """The file's accuracy on the validation images, a fraction."""
        return self.written.top1

    @property
    def lost_points(self) -> float:
        """How many points of top-1 the file lost; negative where it gained."""
        return 100 * (self.fp32_top1 - self.top1)

    @property
    def words(self) -> str:
        """What a person should know of the file, in a sentence."""
        tuned = ", after a short fine-tune" if self.fine_tuned else ""
        return (
            f"top-1 of the file on the validation images: {self.top1:.2%}, {self.lost_points:+.2f} points lost of "
            f"fp32's {self.fp32_top1:.2%}{tuned}; {self.file_bytes / 1e3:,.0f} kB; {left_in_float(self)}"
        )


def left_in_float(file: Int8File) -> str:
    """Return which parts of a network are not computed in 8 bits, as words."""
    scheme = file.written.quantized.scheme
    stored = [_PART_NAMES[part] for part in PARTS if part in scheme.stored]
    plain = [_PART_NAMES[part] for part in PARTS if part not in scheme.parts | scheme.stored]
    words = []
    if stored:
        words.append(f"{file.runtime} computes in float and has only the weights in 8 bits: {', '.join(stored)}")
    if plain:
        words.append(f"left in float: {', '.join(plain)}")
    return "; ".join(words) or "all convolutions and the classifier are in 8 bits"


def quantize_trial(
    store: StudyStore,
    study: StudyRow,
    row: TrialRow,
    cache: Path,
    runtime: str,
    path: Path,
    note: Callable[[str], None] = lambda text: None,
) -> Int8File:
    """Write a finished trial's network in 8 bits to `path`, and run it over the validation images.

    Args:
        store: the trial's study.
        study: its row.
        row: the trial.
        cache: the folder of decoded images.
        runtime: whose file is written.
        path: the file.
        note: called with what is being done.

    Raises:
        InvalidSettings: the runtime has no 8 bits.
        QuantizationFailed: a value overflows, or the training images are of one class.
        ExportMismatch: the file doesn't give what its rounded numbers say.
        DataNotFound: the study's images are gone.
    """
    known_runtime(runtime)
    settings = settings_from(study.settings, "the stored settings")
    prepared_images(study, settings.data, cache)
    images = batches.load(settings.data, cache)
    _, weights = trained_files(store.engine, row)
    network = load_network(weights.parent, row.config)
    recipe = TrainingSettings.model_validate(row.training)
    learned = Learned(images, settings.data, recipe, row.number, fp32_top1(store, row))
    written = write_in_int8(network, learned, runtime, path, note)
    return Int8File(row, runtime, path, path.stat().st_size, learned.top1, written)


def fp32_top1(store: StudyStore, row: TrialRow) -> float:
    """Return the top-1 of a trained network on the validation images, also where its trial is judged in 8 bits."""
    trained = str(reader.read_artifacts(store.engine, row.id)[ONNX_FILE]["sha256"])
    said = reader.file_predictions_of(store.engine, row, trained, EvaluatedSplit.VALIDATION)
    return (row.top1 or 0.0) if said is None else float(said.right.mean())


def keep_predictions(store: StudyStore, file: Int8File, split: EvaluatedSplit, said: Predictions) -> None:
    """Record what a file in 8 bits says of a split's images."""
    store.add_file_predictions(file.trial.number, file.sha256, "int8", split, said.to_bytes())


def write_int8(file: Int8File, path: Path, pixels: PixelInput | None) -> str:
    """Write an 8-bit file once more, perhaps taking whole pixels; return its SHA-256.

    One that takes pixels is compared with the rounded form.
    """
    sha256 = save_int8_for(file.runtime, file.written.quantized, path, pixels)
    if pixels is not None:
        check_int8_for(file.runtime, path, file.written.quantized, torch.from_numpy(pixels.random(_CHECKED)), pixels)
    return sha256


def tested_file(store: StudyStore, study: StudyRow, row: TrialRow, file: Int8File, cache: Path) -> TrialRow:
    """Return a trial's row as its file in 8 bits makes it, tested; the test split is used once for each file.

    A row that was judged by the file in the search keeps the file's figures as its own.
    """
    if not row.file_hash:
        with _written_again(file) as path:
            return tested(store, study, row, path, cache)
    said = reader.file_predictions_of(store.engine, row, file.sha256, EvaluatedSplit.TEST)
    if said is None:
        with _written_again(file) as path:
            said = test_predictions(study, path, cache)
    recorded = said

    def record() -> None:
        keep_predictions(store, file, EvaluatedSplit.VALIDATION, file.predictions)
        keep_predictions(store, file, EvaluatedSplit.TEST, recorded)

    store.transact(record)
    figures: dict[str, Any] = {**file.predictions.metrics(), "test_top1": float(recorded.right.mean())}
    return replace(row, file_hash=file.sha256, **figures)


@contextmanager
def _written_again(file: Int8File) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="test-") as folder:
        path = Path(folder) / file_for(file.runtime, stem_for("int8"))
        write_int8(file, path, None)
        yield path
