"""The loss of images that have weights."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from workers.training.loss import training_loss

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0], [1.0, 1.0, 0.0], [-2.0, 0.0, 1.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 2, 1, 1])


def shares(weights: list[float]) -> torch.Tensor:
    return F.one_hot(LABELS, 3) * torch.tensor(weights, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_of_one_change_nothing(smoothing: float):
    plain = F.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing)
    assert training_loss(LOGITS, LABELS, None, smoothing) == plain
    assert training_loss(LOGITS, shares([1, 1, 1, 1]), None, smoothing).item() == pytest.approx(plain.item())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_image_counts_as_often_as_it_weighs(smoothing: float):
    each = F.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing, reduction="none")
    expected = (each * torch.tensor([0.0, 3.0, 1.0, 0.0])).sum() / 4
    assert training_loss(LOGITS, shares([0, 3, 1, 0]), None, smoothing).item() == pytest.approx(expected.item())
