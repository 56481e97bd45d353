"""Batches that are made on the device are those that the processor makes, to the bit."""

from __future__ import annotations

import pytest
import torch

from tests.workers.tiny import DIGITS, digits
from workers.images.batches import ImageData, TrainingBatches
from workers.images.resident import ResidentBatches, batches_on

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    return digits(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize("flip", [False, True])
def test_they_are_the_same_bits_for_every_augmentation(images: ImageData, padding: int, flip: bool):
    settings = DIGITS.model_copy(update={"crop_padding": padding, "flip": flip})
    batches = TrainingBatches(images.train, images.info, settings, batch_size=50, seed=3)
    resident = ResidentBatches(batches, CPU)
    assert resident.steps_per_epoch == batches.steps_per_epoch
    for step in (0, 1, batches.steps_per_epoch, 7):  # in any order
        for mine, theirs in zip(resident.batch(step), batches.batch(step), strict=True):
            assert mine.dtype == theirs.dtype
            assert torch.equal(mine, theirs)


def test_a_processor_makes_its_batches_itself(images: ImageData):
    batches = TrainingBatches(images.train, images.info, DIGITS, batch_size=50, seed=3)
    assert batches_on(CPU, batches) is batches


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_they_lie_there(images: ImageData):
    batches = TrainingBatches(images.train, images.info, DIGITS, batch_size=50, seed=3)
    resident = batches_on(torch.device("cuda"), batches)
    x, y = resident.batch(5)
    assert x.is_cuda
    assert y.is_cuda
    assert torch.equal(x.cpu(), batches.batch(5)[0])
