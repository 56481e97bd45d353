"""A file of a network in another precision than fp32, and what it says of the validation images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from space.deployed import DeployedCondenseNet
from workers.export.int8_files import check_int8_for, save_int8_for
from workers.export.model_files import check_half_for, save_half_for
from workers.export.pixels import PixelInput
from workers.images.batches import ImageData
from workers.judging.file_predictions import split_predictions
from workers.metrics import Predictions
from workers.quantization.network import QuantizedNetwork

_CHECKED = 16  # inputs on which a file in 8 bits that takes pixels is compared with the rounded form


@dataclass(frozen=True)
class WrittenFile:
    """A file in another precision, and what it says of the validation images."""

    sha256: str
    form: QuantizedNetwork | DeployedCondenseNet  # what is written: numbers of 8 bits, or those that fp16 rounds
    predictions: Predictions
    difference: float  # see `check_int8_for` and `check_half_for`
    fine_tuned: bool = False

    @property
    def top1(self) -> float:
        """Its accuracy on the validation images, a fraction."""
        return float(self.predictions.right.mean())


def write_in_fp16(network: DeployedCondenseNet, images: ImageData, runtime: str, path: Path) -> WrittenFile:
    """Write a trained network in fp16 to `path`, and run it over the validation images.

    Raises:
        PrecisionMissing: the runtime has no fp16.
        ExportMismatch: the file doesn't give what the network says, or can't be run here.
    """
    sha256 = save_half_for(runtime, network, path)
    difference = check_half_for(runtime, path, network)
    said = split_predictions(runtime, path, images.validation, images.info)
    return WrittenFile(sha256, network, said, difference)


def write_again(written: WrittenFile, runtime: str, path: Path, pixels: PixelInput | None) -> str:
    """Write a file once more, perhaps taking whole pixels; return its SHA-256.

    One that takes pixels is compared with what it should say.
    """
    form = written.form
    if isinstance(form, QuantizedNetwork):
        sha256 = save_int8_for(runtime, form, path, pixels)
        if pixels is not None:
            check_int8_for(runtime, path, form, torch.from_numpy(pixels.random(_CHECKED)), pixels)
        return sha256
    sha256 = save_half_for(runtime, form, path, pixels)
    if pixels is not None:
        check_half_for(runtime, path, form, pixels)
    return sha256
