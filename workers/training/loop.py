"""Training one CondenseNet: SGD with Nesterov momentum, a cosine per iteration, condensing on schedule.

Notable choices:
- Everything random is a function of (seed, step): which images, their crops and flips, and dropout. So a training that
  is stopped at any step and resumed from its checkpoint ends with the same bits as one that never stopped (CPU).
- The learning rate follows 0.5 * (1 + cos(pi * step / steps)) per iteration, from its full value to almost 0.
- The group lasso is on while columns are still being condensed, for any G and C (the original tied it to G).
- The dense layers run in the compiled kernel where there is one (`workers.training.forward`).
- With a network to start from, its layers that fit are the first step's (`workers.training.transfer`); a checkpoint
  holds everything, so a training that goes on needs it no more.
- Mixed precision is bfloat16 autocast, on CUDA devices that support it; nothing else needs to know.

Source: CondenseNet (CVPR 2018), section 4.1; the authors' release for the per-iteration cosine.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from space.condensing_schedule import cut_due, stages_due
from space.config import CondenseNetConfig
from space.deployed import DeployedCondenseNet, deploy
from space.errors import TrainingFailed
from space.network import CondenseNet
from workers.images.batches import ImageData, Split, TrainingBatches, evaluation_batches
from workers.images.data_info import DataInfo
from workers.images.resident import batches_on
from workers.metrics import PredictionTally
from workers.settings import DataSettings, Kernel, TrainingSettings
from workers.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from workers.training.device import autocast_on, use_device
from workers.training.forward import CPU_EVALUATION_BATCH, EVALUATION_BATCH, Forward, ForwardSettings, forward_of
from workers.training.loss import training_loss
from workers.training.optimizer import WeightAverage, class_weights, clear_gradients, optimizer_of, take_step
from workers.training.reporting import CurveRow, Evaluation, Form, Observer, ProgressReport, TrainingStopped
from workers.training.schedule import learning_rate_at as learning_rate_at  # also for importers
from workers.training.start import StartNetwork, without_pin
from workers.training.transfer import begin_with

REPORT_EVERY_S = 1.0  # how often a training says how far it is within an epoch


@dataclass(frozen=True)
class TrainingRun:
    """What one training needs to know, beside the images."""

    config: CondenseNetConfig
    training: TrainingSettings
    data: DataSettings
    seed: int
    checkpoints: Path
    identity: str  # see `workers.training.checkpoint.Progress`
    device: str = "auto"
    kernel: Kernel = "auto"  # see `workers.training.forward`
    recompute: bool = False
    build: Callable[[CondenseNetConfig], CondenseNet] = CondenseNet  # what is trained: it, or a variation
    deploy: Callable[[CondenseNet], DeployedCondenseNet] = deploy  # what `build` returned
    start: StartNetwork | None = None  # a trained network whose layers it begins with
    attempt: int = 0  # of the trial; its number is part of the checkpoints' names
    checkpoint_every_s: float = 30.0
    clock: Callable[[], float] = time.monotonic  # seconds, without the pauses for measurements
    note: Callable[[str], None] = field(default=lambda text: None)  # called with lines for the trial's log


@torch.no_grad()
def evaluate(
    model: nn.Module, split: Split, info: DataInfo, device: torch.device, forward: Forward | None = None
) -> Evaluation:
    """Return what the network predicts over `split` and its mean cross-entropy, run by `forward` where given.

    The model's mode is put back afterwards.
    """
    was_training = model.training
    model.eval()
    loss, tally = 0.0, PredictionTally(info.num_classes)
    largest = CPU_EVALUATION_BATCH if device.type == "cpu" else EVALUATION_BATCH
    batch_size = largest if forward is None else min(forward.largest_batch, largest)
    for x, y in evaluation_batches(split, info, batch_size):
        logits = (forward or model)(x.to(device)).float()
        labels = y.to(device)
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        tally.add(logits.cpu().numpy(), y.numpy())
    model.train(was_training)
    predictions = tally.predictions()
    return Evaluation(loss / len(predictions), predictions)


def train(run: TrainingRun, images: ImageData, observer: Observer) -> tuple[DeployedCondenseNet, Evaluation]:
    """Train to the end of the schedule; return the deployed network and its validation accuracy.

    Goes on from the newest intact checkpoint in `run.checkpoints`.

    Raises:
        TrainingStopped: the observer asked to stop; a checkpoint holds every step done.
        TrainingFailed: the loss became NaN or infinite, or the observer ended it.
    """
    loop = _Loop(run, images, observer)
    for _ in loop.epochs():
        pass
    return loop.finish()


class _Loop:
    """The state of one training while it runs."""

    def __init__(self, run: TrainingRun, images: ImageData, observer: Observer) -> None:
        self.run, self.images, self.observer = run, images, observer
        self.device = use_device(run.device)
        torch.manual_seed(run.seed)
        self.model = run.build(run.config).to(self.device)
        if run.start is not None:
            fit = begin_with(self.model, run.start, images.info.class_names)
            run.note(f"begins as {without_pin(run.training.start)} ({run.start.config}): {fit}")
        settings = run.training
        capacity = min(settings.batch_size, len(images.train))
        self.forward = forward_of(self.model, ForwardSettings(run.kernel, run.recompute, capacity, run.note))
        self.optimizer = optimizer_of(list(self.model.parameters()), settings)
        self.average = WeightAverage(self.model, settings.average) if settings.average else None
        self.class_weights = None
        if settings.balance == "weights":
            self.class_weights = class_weights(images.train.labels, images.info.num_classes, self.device)
        batches = TrainingBatches(images.train, images.info, run.data, settings.batch_size, run.seed, settings)
        self.weighted = batches.weighted
        self.batches = batches_on(self.device, batches)
        self.steps = settings.epochs * self.batches.steps_per_epoch
        self.autocast, precision = autocast_on(self.device, settings.mixed_precision)
        if self.device.type != "cpu":
            run.note(f"computing in {precision} on {self.device}")
        averaged = self.average.tensors if self.average else {}
        restored = load_checkpoint(run.checkpoints, self.model, self.optimizer, run.identity, run.note, averaged)
        self.forward.masks_changed()
        self.step = restored.step if restored else 0
        # Summed on the device, step by step: reading it every step would wait for it, and a sum of parts would depend
        # on where a training was interrupted.
        dtype = torch.float32 if self.device.type == "mps" else torch.float64  # MPS has no double
        self.loss_sum = torch.tensor(restored.loss_sum if restored else 0.0, dtype=dtype, device=self.device)
        self.loss_count = restored.loss_count if restored else 0
        self.seconds_before = restored.seconds if restored else 0.0
        self.curve = [CurveRow(**row) for row in restored.curve] if restored else []  # as far as a checkpoint needs it
        if self.curve:
            observer.earlier(self.curve)
        self.epoch_seconds = restored.epoch_seconds if restored else 0.0  # spent in the steps of the current epoch
        self.started = self.saved_at = self.lap_at = self.reported_at = run.clock()
        run.note(f"training from step {self.step} of {self.steps}, by {self.forward.name}")

    @property
    def seconds(self) -> float:
        return self.seconds_before + self.run.clock() - self.started

    def epochs(self) -> Iterator[None]:
        """Run steps, yielding after each epoch but the last (which `finish` closes)."""
        self.model.train()
        unread = 0  # steps since the loss was looked at
        per_epoch = self.batches.steps_per_epoch
        while self.step < self.steps:
            self._interruptible()
            self.loss_sum += self._one_step()
            self.loss_count += 1
            self.step += 1
            unread += 1
            ends = self.step % per_epoch == 0
            due = self.run.clock() - self.saved_at >= self.run.checkpoint_every_s
            if ends or due or unread >= 50:
                self._check_loss()
                unread = 0
            if ends:
                self._lap()
            elif self.run.clock() - self.reported_at >= REPORT_EVERY_S:
                self._report_step()
            if ends and self.step < self.steps:
                with self._averaged():
                    self._end_epoch(self.model, self._form(), self.forward)
                yield
            if due or self.step == self.steps:
                self._save()

    def _lap(self) -> None:
        """Count the time since the last step, evaluation or checkpoint as time spent in steps."""
        now = self.run.clock()
        self.epoch_seconds += now - self.lap_at
        self.lap_at = now

    def _images_per_s(self) -> float | None:
        """The images that the current epoch has trained in a second; None as long as that took no time."""
        images = self.loss_count * min(self.run.training.batch_size, len(self.images.train))
        return images / self.epoch_seconds if self.epoch_seconds > 0 else None

    def _report_step(self) -> None:
        self._lap()
        self.reported_at = self.lap_at
        self.observer.under_way(ProgressReport(self.step / self.steps, self.seconds, self._images_per_s()))

    def _interruptible(self) -> None:
        try:
            self.observer.before_step(self.seconds)
        except TrainingStopped:
            self._check_loss()
            self._save()
            raise

    def _one_step(self) -> Tensor:
        settings, progress = self.run.training, self.step / self.steps
        x, y = self.batches.batch(self.step)
        x, y = x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)
        if self.run.config.dropout:
            torch.manual_seed(self.run.seed * 1_000_003 + self.step)
        rate = self._rate_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self._condensing_due(progress):
            self.model.condense(progress)
            self.forward.masks_changed()
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False) if self.autocast else contextlib.nullcontext():
            logits = self.forward(x)
        loss = training_loss(logits.float(), y, self.class_weights, settings.label_smoothing, self.weighted)
        total = loss
        if settings.group_lasso and stages_due(progress, self.run.config.condense_factor) < self._last_stage:
            total = loss + settings.group_lasso * self.model.group_lasso()
        clear_gradients(self.model)
        torch.autograd.backward(total)
        take_step(self.optimizer)
        if self.average is not None:
            self.average.update(self.step)
        return loss.detach()

    def _rate_at(self, step: int) -> float:
        return learning_rate_at(step, self.steps, self.run.training.learning_rate, self.run.training.warmup)

    def _averaged(self) -> AbstractContextManager[None]:
        """Let the network have its averaged weights, if an average is kept."""
        return contextlib.nullcontext() if self.average is None else self.average.in_place()

    @property
    def _last_stage(self) -> int:
        return self.run.config.condense_factor - 1

    def _condensing_due(self, progress: float) -> bool:
        """Whether more is to be dropped than at the last step; asking the layers would wait for the device."""
        factor, before = self.run.config.condense_factor, (self.step - 1) / self.steps
        due, was_due = ((stages_due(at, factor), cut_due(at)) for at in (progress, before))
        return self.step == 0 or due > was_due

    def _check_loss(self) -> None:
        """Raise TrainingFailed if the loss is not a finite number."""
        value = float(self.loss_sum)
        if not math.isfinite(value):
            rate = self._rate_at(max(self.step - 1, 0))
            raise TrainingFailed(
                f"the loss became {value} by step {self.step} of {self.steps} (learning rate {rate:.4g}); "
                "try a smaller learning rate."
            )

    def _form(self) -> Form:
        return "condensed" if self.model.fully_condensed else "training"

    def _end_epoch(self, model: nn.Module, form: Form, forward: Forward | None = None) -> Evaluation:
        evaluation = evaluate(model, self.images.validation, self.images.info, self.device, forward)
        if not math.isfinite(evaluation.loss):
            raise TrainingFailed(
                f"the validation loss became {evaluation.loss} at step {self.step} of {self.steps} ({form} network); "
                "try a smaller learning rate."
            )
        per_epoch = self.batches.steps_per_epoch
        row = CurveRow(
            epoch=self.step // per_epoch,
            progress=self.step / self.steps,
            train_loss=float(self.loss_sum) / max(self.loss_count, 1),
            val_loss=evaluation.loss,
            val_top1=evaluation.top1,
            learning_rate=self._rate_at(self.step - 1),
            condensing_stage=self.model.condensing_stage,
            form=form,
            seconds=self.seconds,
            images_per_s=self._images_per_s(),
            val_balanced_accuracy=evaluation.metrics["balanced_accuracy"],
            val_macro_f1=evaluation.metrics["macro_f1"],
        )
        self.observer.curve(row)
        self.curve.append(row)
        if self.step < self.steps:
            self.loss_sum.zero_()
            self.loss_count = 0
            self.epoch_seconds = 0.0
        self.lap_at = self.run.clock()
        return evaluation

    def _save(self) -> None:
        self._lap()
        sums, curve = (float(self.loss_sum), self.loss_count), tuple(map(asdict, self.curve))
        progress = Progress(self.step, *sums, self.seconds, self.run.identity, curve, self.epoch_seconds)
        averaged = self.average.tensors if self.average else {}
        save_checkpoint(self.run.checkpoints, self.model, self.optimizer, progress, self.run.attempt, averaged)
        self.saved_at = self.lap_at = self.run.clock()

    def finish(self) -> tuple[DeployedCondenseNet, Evaluation]:
        """Perform any stage a very short schedule never reached, deploy, and close the curve with its accuracy."""
        self.model.condense(1.0)
        with self._averaged():
            deployed = self.run.deploy(self.model.eval()).to(memory_format=torch.channels_last)  # runs twice as fast
        return deployed, self._end_epoch(deployed, "deployed")
