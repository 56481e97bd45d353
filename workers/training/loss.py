"""What a training minimises: cross-entropy, with weights of classes and of images."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def training_loss(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None, smoothing: float, weighted: bool
) -> Tensor:
    """Return the mean loss of a batch over its N images, whatever they and their classes weigh.

    So an image counts the same whichever others are in its batch, and whether labels are numbers or shares.

    Args:
        logits: (N, classes).
        labels: (N,), or shares of the classes times the images' weights, (N, classes).
        class_weights: (classes,), or None.
        smoothing: the share of each label that is spread over all classes.
        weighted: whether images have weights, so that shares needn't add up to 1: then of each its weight is spread.
    """
    if smoothing and weighted:
        spread = labels.sum(dim=1, keepdim=True) / labels.shape[1]
        labels, smoothing = (1 - smoothing) * labels + smoothing * spread, 0.0
    if class_weights is None or labels.is_floating_point():
        return F.cross_entropy(logits, labels, class_weights, label_smoothing=smoothing)
    # The mean of torch would be over the weights of the batch's labels here, and only here.
    return F.cross_entropy(logits, labels, class_weights, label_smoothing=smoothing, reduction="sum") / len(labels)
