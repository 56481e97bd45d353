"""A trained network in 8 bits for one runtime: calibrated on training images, written, run over the validation images.

Its accuracy is that of the written file. Where the file loses more than half a point of top-1, a short fine-tune is
tried, and the better of both files counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from space.deployed import DeployedCondenseNet
from workers.export.int8_files import check_int8_for, save_int8_for, scheme_for
from workers.images.batches import ImageData, TrainingBatches
from workers.judging.file_predictions import split_predictions
from workers.judging.written import WrittenFile
from workers.quantization.calibration import calibrate
from workers.quantization.calibration_images import calibration_images
from workers.quantization.fine_tuning import LOST_MOST, fine_tuned
from workers.quantization.network import QuantizedNetwork
from workers.settings import DataSettings, TrainingSettings

_CHECKED = 16  # calibration images on which a file is compared with the rounded form


@dataclass(frozen=True)
class Learned:
    """What a network learned from, and how: a fine-tune goes on with it."""

    images: ImageData
    data: DataSettings
    training: TrainingSettings
    number: int  # of its trial, the seed of a fine-tune's batches
    top1: float  # of the network in fp32 on the validation images


def write_in_int8(
    network: DeployedCondenseNet,
    learned: Learned,
    runtime: str,
    path: Path,
    note: Callable[[str], None] = lambda text: None,
) -> WrittenFile:
    """Write a trained network in 8 bits to `path`, and run it over the validation images.

    Args:
        network: the network in fp32.
        learned: what it learned from.
        runtime: whose file is written.
        path: the file.
        note: called with what is being done.

    Raises:
        QuantizationFailed: a value overflows, or the training images are of one class.
        ExportMismatch: the file doesn't give what its rounded numbers say, or can't be run here.
    """
    images = learned.images
    chosen, labels = calibration_images(images, network.config)
    note(f"calibrating on {len(chosen)} training images")
    quantized = calibrate(network, chosen, labels, scheme_for(runtime, network.config))

    def write(rounded: QuantizedNetwork) -> WrittenFile:
        sha256 = save_int8_for(runtime, rounded, path)
        difference = check_int8_for(runtime, path, rounded, chosen[:_CHECKED])
        said = split_predictions(runtime, path, images.validation, images.info)
        return WrittenFile(sha256, rounded, said, difference)

    written = write(quantized)
    lost = learned.top1 - written.top1
    if lost <= LOST_MOST:
        return written
    note(f"{100 * lost:.2f} points of top-1 are lost; fine-tuning with rounded numbers")
    recipe = learned.training
    batches = TrainingBatches(images.train, images.info, learned.data, recipe.batch_size, learned.number, recipe)
    better = replace(write(fine_tuned(quantized, batches.batch)), fine_tuned=True)
    return better if better.top1 > written.top1 else replace(written, sha256=save_int8_for(runtime, quantized, path))
