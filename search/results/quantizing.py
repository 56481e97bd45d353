"""A trial's network in 8 or 16 bits: its file beside the trained network, and what is recorded of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from search.results.picking.testing import prepared_images, test_predictions, tested
from search.results.trained_files import trained_files
from search.store import reader
from search.store.rows import StudyRow, TrialRow
from search.store.store import StudyStore
from search.store.vocabulary import EvaluatedSplit
from search.study_file import settings_from
from workers.export.model_files import check_has
from workers.export.pixels import PixelInput
from workers.file_names import ONNX_FILE, Precision, file_for, known_runtime, precision_of, stem_for
from workers.images import batches
from workers.judging.in_int8 import Learned, write_in_int8
from workers.judging.written import WrittenFile, write_again, write_in_fp16
from workers.metrics import Predictions
from workers.quantization.network import PARTS, QuantizedNetwork
from workers.settings import TrainingSettings
from workers.training.trial import load_network

_COMPUTED = {  # in fp16
    "ncnn": "ncnn computes in 16 bits where the processor can, else in float",
    "litert": "litert computes in float",
}
_PART_NAMES = {
    "stem": "stem",
    "conv_1x1": "1x1 convolutions",
    "conv_3x3": "3x3 convolutions",
    "classifier": "classifier",
}


@dataclass(frozen=True)
class RoundedFile:
    """A network's file in 8 or 16 bits, with its accuracy on the validation images beside the trained network's."""

    trial: TrialRow
    runtime: str
    path: Path
    file_bytes: int
    fp32_top1: float  # of the trained network on the validation images
    written: WrittenFile

    @property
    def precision(self) -> Precision:
        """What its numbers are."""
        return precision_of(self.path)

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


def left_in_float(file: RoundedFile) -> str:
    """Return which parts of a network are not computed in 8 or 16 bits, as words."""
    form = file.written.form
    if not isinstance(form, QuantizedNetwork):
        return f"the weights of all convolutions and of the classifier are in 16 bits; {_COMPUTED[file.runtime]}"
    scheme = form.scheme
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
) -> RoundedFile:
    """Write a finished trial's network in 8 or 16 bits to `path`, and run it over the validation images.

    Args:
        store: the trial's study.
        study: its row.
        row: the trial.
        cache: the folder of decoded images.
        runtime: whose file is written.
        path: the file, whose name says the precision (`stem_for`).
        note: called with what is being done.

    Raises:
        InvalidSettings: there is no such runtime.
        PrecisionMissing: it has no files in this precision.
        QuantizationFailed: a value overflows, or the training images are of one class.
        ExportMismatch: the file doesn't give what its numbers say.
        DataNotFound: the study's images are gone.
    """
    check_has(known_runtime(runtime), precision_of(path))
    settings = settings_from(study.settings, "the stored settings")
    prepared_images(study, settings.data, cache)
    images = batches.load(settings.data, cache)
    _, weights = trained_files(store.engine, row)
    network = load_network(weights.parent, row.config)
    recipe = TrainingSettings.model_validate(row.training)
    learned = Learned(images, settings.data, recipe, row.number, fp32_top1(store, row))
    if precision_of(path) == "fp16":
        written = write_in_fp16(network, images, runtime, path)
    else:
        written = write_in_int8(network, learned, runtime, path, note)
    return RoundedFile(row, runtime, path, path.stat().st_size, learned.top1, written)


def fp32_top1(store: StudyStore, row: TrialRow) -> float:
    """Return the top-1 of a trained network on the validation images, also where its trial is judged in 8 bits."""
    trained = str(reader.read_artifacts(store.engine, row.id)[ONNX_FILE]["sha256"])
    said = reader.file_predictions_of(store.engine, row, trained, EvaluatedSplit.VALIDATION)
    return (row.top1 or 0.0) if said is None else float(said.right.mean())


def keep_predictions(store: StudyStore, file: RoundedFile, split: EvaluatedSplit, said: Predictions) -> None:
    """Record what a file in another precision says of a split's images."""
    store.add_file_predictions(file.trial.number, file.sha256, file.precision, split, said.to_bytes())


def write_rounded(file: RoundedFile, path: Path, pixels: PixelInput | None) -> str:
    """Write a file once more, perhaps taking whole pixels; return its SHA-256. See `judging.written.write_again`."""
    return write_again(file.written, file.runtime, path, pixels)


def tested_file(store: StudyStore, study: StudyRow, row: TrialRow, file: RoundedFile, cache: Path) -> TrialRow:
    """Return a trial's row as its file in 8 or 16 bits makes it, tested; the test split is used once for each file.

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
def _written_again(file: RoundedFile) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="test-") as folder:
        path = Path(folder) / file_for(file.runtime, stem_for(file.precision))
        write_rounded(file, path, None)
        yield path
