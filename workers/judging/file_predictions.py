"""A model file, run over a whole split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from workers.export.common import Array
from workers.export.int8_files import opened
from workers.export.onnx import exported_network
from workers.images.batches import Split, evaluation_batches
from workers.images.data_info import DataInfo
from workers.metrics import Predictions, PredictionTally


def split_predictions(runtime: str, path: Path, split: Split, info: DataInfo) -> Predictions:
    """Return what a model file says of the images of a split."""
    logits_of = exported_network(path) if runtime == "onnxruntime" else _one_by_one(opened(runtime, path))
    tally = PredictionTally(info.num_classes)
    for x, y in evaluation_batches(split, info, 256):
        tally.add(logits_of(x.numpy()), y.numpy())
    return tally.predictions()


def _one_by_one(run: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda images: np.stack([run(image) for image in images])
