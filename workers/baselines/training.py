"""Training any network by a study's recipe: the same batches, optimizer, schedule, loss and average, no condensing."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from space.config import CondenseNetConfig
from space.errors import TrainingFailed
from workers.images.batches import ImageData, TrainingBatches
from workers.images.resident import batches_on
from workers.latency.measurement import never
from workers.settings import DataSettings, TrainingSettings
from workers.training.device import use_device
from workers.training.loop import TrainingRun, evaluate, train
from workers.training.loss import training_loss
from workers.training.optimizer import WeightAverage, class_weights, clear_gradients, optimizer_of, take_step
from workers.training.reporting import CurveRow, Evaluation, ProgressReport, TrainingStopped
from workers.training.schedule import learning_rate_at

Report = Callable[[int, int], None]


def train_by_recipe(
    network: nn.Module,
    training: TrainingSettings,
    data: DataSettings,
    images: ImageData,
    seed: int,
    device: str = "auto",
    report: Report = lambda epoch, epochs: None,
    stop: Callable[[], bool] = never,
) -> Evaluation:
    """Train a network in place; return what it says of the validation images.

    Args:
        network: to train.
        training: the recipe; what is a CondenseNet's alone (group lasso, a start) is left out.
        data: the study's.
        images: of the study.
        seed: of batches and augmentation, as a trial's.
        device: to train on.
        report: is told after each epoch, (its number, how many there are).
        stop: asked before each step.

    Raises:
        TrainingStopped: `stop` said so. TrainingFailed: the loss is no number.
    """
    place = use_device(device)
    torch.manual_seed(seed)
    network = network.to(place).to(memory_format=torch.channels_last).train()
    optimizer = optimizer_of(list(network.parameters()), training)
    average = WeightAverage(network, training.average) if training.average else None
    weights = None
    if training.balance == "weights":
        weights = class_weights(images.train.labels, images.info.num_classes, place)
    batches = TrainingBatches(images.train, images.info, data, training.batch_size, seed, training)
    weighted, batches_there = batches.weighted, batches_on(place, batches)
    steps = training.epochs * batches_there.steps_per_epoch
    for step in range(steps):
        if stop():
            raise TrainingStopped
        x, y = batches_there.batch(step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, steps, training.learning_rate, training.warmup)
        logits = network(x.to(place, memory_format=torch.channels_last))
        loss = training_loss(logits.float(), y.to(place), weights, training.label_smoothing, weighted)
        clear_gradients(network)
        torch.autograd.backward(loss)
        take_step(optimizer)
        if average is not None:
            average.update(step)
        if (step + 1) % batches_there.steps_per_epoch == 0:
            if not math.isfinite(float(loss.detach())):
                raise TrainingFailed(f"the loss became {float(loss.detach())} by step {step + 1}.")
            report((step + 1) // batches_there.steps_per_epoch, training.epochs)
    with contextlib.nullcontext() if average is None else average.in_place():
        return evaluate(network.eval(), images.validation, images.info, place)


class _Watcher:
    """Watches a CondenseNet's training: passes its epochs on, and stops it."""

    def __init__(self, epochs: int, report: Report, stop: Callable[[], bool]) -> None:
        self._epochs, self._report, self._stop = epochs, report, stop

    def earlier(self, rows: Sequence[CurveRow]) -> None:
        pass

    def curve(self, row: CurveRow) -> None:
        self._report(row.epoch, self._epochs)

    def under_way(self, report: ProgressReport) -> None:
        pass

    def before_step(self, seconds: float) -> None:
        if self._stop():
            raise TrainingStopped


def train_condensenet(
    config: CondenseNetConfig,
    training: TrainingSettings,
    data: DataSettings,
    images: ImageData,
    seed: int,
    device: str,
    report: Report,
    stop: Callable[[], bool],
) -> Evaluation:
    """Train a CondenseNet as a trial is trained, and return what its deployed network says of the validation images.

    For the arguments and errors see `train_by_recipe`.
    """
    with tempfile.TemporaryDirectory(prefix="baseline-") as folder:
        run = TrainingRun(config, training, data, seed, Path(folder), "baseline", device)
        return train(run, images, _Watcher(training.epochs, report, stop))[1]
