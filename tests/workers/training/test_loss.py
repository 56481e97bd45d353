"""The loss of images that have weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.workers.tiny import Recorder, digits, training_run
from workers.images.batches import ImageData, TrainingBatches
from workers.images.source import Details
from workers.settings import DataSettings, TrainingSettings
from workers.training import loop
from workers.training.loss import training_loss

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0], [1.0, 1.0, 0.0], [-2.0, 0.0, 1.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 2, 1, 1])


def shares(weights: list[float]) -> torch.Tensor:
    return F.one_hot(LABELS, 3) * torch.tensor(weights, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_of_one_change_nothing(smoothing: float):
    plain = F.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing)
    assert training_loss(LOGITS, LABELS, None, smoothing, weighted=False) == plain
    assert training_loss(LOGITS, shares([1, 1, 1, 1]), None, smoothing, weighted=True).item() == pytest.approx(
        plain.item()
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_image_counts_as_often_as_it_weighs(smoothing: float):
    each = F.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing, reduction="none")
    expected = (each * torch.tensor([0.0, 3.0, 1.0, 0.0])).sum() / 4
    assert training_loss(LOGITS, shares([0, 3, 1, 0]), None, smoothing, weighted=True).item() == pytest.approx(
        expected.item()
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights_count_the_same_in_numbers_shares_and_weighted_images(smoothing: float):
    weights = torch.tensor([2.0, 0.5, 3.0], dtype=torch.float64)
    wanted = F.one_hot(LABELS, 3) * (1 - smoothing) + smoothing / 3
    expected = -(wanted * weights * LOGITS.log_softmax(1)).sum() / 4
    ones = shares([1, 1, 1, 1])
    for labels, weighted in ((LABELS, False), (ones, False), (ones, True)):
        assert training_loss(LOGITS, labels, weights, smoothing, weighted).item() == pytest.approx(expected.item())


@pytest.fixture(scope="module")
def weighted(tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    """The digits, of which only zeros and ones weigh anything."""
    images = digits(tmp_path_factory.mktemp("cache"))
    labels = images.train.labels
    details = Details(tuple(map(str, range(len(labels)))), weights=(labels < 2).astype(np.float64))
    return ImageData(images.info, replace(images.train, details=details), images.validation, images.test())


def test_a_training_learns_nothing_of_images_that_weigh_nothing(tmp_path: Path, weighted: ImageData):
    run = training_run(tmp_path, training=TrainingSettings(epochs=12, batch_size=64))
    _, evaluation = loop.train(run, weighted, Recorder())
    assert set(np.flatnonzero(evaluation.predictions.confusion.sum(axis=0))) <= {0, 1}
    assert evaluation.predictions.confusion[:2, :2].trace() > 40  # of about 57


@pytest.mark.parametrize("recipe", [{"mixup": 0.5}, {"cutmix": 1.0}, {"label_smoothing": 0.1, "balance": "sampling"}])
def test_blended_images_weigh_what_their_parts_weigh(weighted: ImageData, recipe: dict[str, float]):
    settings = TrainingSettings(**recipe)
    batches = TrainingBatches(weighted.train, weighted.info, DataSettings(), 256, 0, settings)
    _, shares = batches.batch(0)
    assert shares.shape == (256, 10)
    assert shares[:, 2:].sum() == 0
    assert batches.weighted
    assert shares[:, :2].sum() > 0
    average = weighted.train.details.weights.mean()  # type: ignore[union-attr]
    assert shares.max().item() <= 1 / average + 1e-3
