"""The ways to train for less, each of them by the product's own loop.

Notable choices:
- Smaller images: the same network takes images of any size, so a training is stopped at a step, which leaves a
  checkpoint, and goes on from it with images of another size.
- A warm start is the full network built with a neighbour's weights in it. The neighbour's weights are those before its
  first columns were dropped, or those at its end.
- Seconds are the processor's, evaluations and checkpoints included.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import safetensors.torch

from benchmarks.cheaper_trainings.warm_start import start_from
from benchmarks.condensebench.presets import Bench
from space.config import CondenseNetConfig
from space.network import CondenseNet
from workers.files import write_atomically
from workers.images.batches import Augmentation, ImageData, Split, load
from workers.images.cache import prepare
from workers.settings import DataSettings
from workers.training import loop
from workers.training.checkpoint import model_tensors
from workers.training.job import trial_identity
from workers.training.reporting import CurveRow, ProgressReport, TrainingStopped

State = Literal["uncondensed", "trained"]  # of a neighbour: before its first columns were dropped, or at its end
STATES: tuple[State, ...] = ("uncondensed", "trained")


@dataclass(frozen=True)
class Variant:
    """One way to train; what is left as it is here is the full training."""

    name: str
    schedule: float = 1.0  # epochs, as a share of the full training's
    pixels: float = 1.0  # the side of the images in the first part of the schedule, as a share of the full side
    small_until: float = 0.0  # where this part ends, as a share of the schedule
    images: float = 1.0  # training images, as a share
    donor: State | None = None  # the neighbour's state that the training starts from
    seed: int = 0


FULL = Variant("full training")
AGAIN = Variant("full training, another seed", seed=1)
VARIANTS = (
    FULL,
    AGAIN,
    Variant("half the schedule", schedule=0.5),
    Variant("a quarter of the schedule", schedule=0.25),
    Variant("half the images", images=0.5),
    Variant("half-size images for half of it", pixels=0.5, small_until=0.5),
    Variant("half-size images for three quarters", pixels=0.5, small_until=0.75),
    Variant("half the schedule, half-size images for half", schedule=0.5, pixels=0.5, small_until=0.5),
    Variant("half the schedule from an uncondensed neighbour", schedule=0.5, donor="uncondensed"),
    Variant("half the schedule from a trained neighbour", schedule=0.5, donor="trained"),
    Variant("a quarter from a trained neighbour", schedule=0.25, donor="trained"),
)


class Trainer:
    """Trains networks of one table's space in every variant; its files are in `folder`."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.bench, self.folder = bench, folder
        self._images: dict[int, ImageData] = {}

    def train(self, variant: Variant, config: CondenseNetConfig, donor: CondenseNetConfig) -> dict[str, Any]:
        """Return the row of one training: its accuracy, its seconds, and which share of the weights it began with.

        Raises:
            TrainingFailed: the loss became NaN or infinite.
        """
        self.images(variant.pixels)  # decoded before the clock starts
        run = _Run(self, variant, config, donor)
        started = time.process_time()
        top1, loss = run.to_the_end()
        seconds = time.process_time() - started
        if variant == FULL:
            run.keep("trained")
        names = {"variant": variant.name, "config": config.to_dict(), "digest": config.digest}
        curve = [[row.progress, row.val_top1, row.seconds] for row in run.watch.rows.values()]
        figures = {"top1": top1, "val_loss": loss, "seconds": seconds, "share_that_fits": run.share_that_fits}
        return names | figures | {"curve": curve}

    def images(self, pixels: float) -> ImageData:
        """Return the images at a share of their full side."""
        size = round(pixels * self.bench.input_shape[1])
        if size not in self._images:
            settings = self.bench.data.model_copy(update={"image_size": size})
            prepare(settings, self.folder / "images")
            self._images[size] = load(settings, self.folder / "images")
        return self._images[size]

    def weights(self, config: CondenseNetConfig, state: State) -> Path:
        """Return the file of what the full training of `config` left."""
        return self.folder / "weights" / f"{config.digest[:16]}-{state}.safetensors"


class _Run:
    """One training: its settings, and the network while it is trained."""

    def __init__(self, trainer: Trainer, variant: Variant, config: CondenseNetConfig, donor: CondenseNetConfig) -> None:
        self.trainer, self.variant, self.config, self.donor = trainer, variant, config, donor
        full = trainer.bench.training
        self.training = full.model_copy(update={"epochs": max(1, round(variant.schedule * full.epochs))})
        self.data = trainer.bench.data
        self.full_images = _thinned(trainer.images(1.0), variant.images)
        self.steps = self.training.epochs * max(1, len(self.full_images.train) // self.training.batch_size)
        self.checkpoints = trainer.folder / "checkpoints"
        self.network: CondenseNet | None = None
        self.share_that_fits = 0.0
        self.watch = _Watch()

    def to_the_end(self) -> tuple[float, float]:
        """Train; return top-1 and loss of the deployed network on the full-size validation images."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        variant = self.variant
        if variant == FULL and self.config.condense_factor > 1:
            first_drop = -(-self.steps // (2 * (self.config.condense_factor - 1)))
            self._until(first_drop, self.config, self.full_images)
            self.keep("uncondensed")
        if variant.small_until:
            images = _thinned(self.trainer.images(variant.pixels), variant.images)
            small = replace(self.config, input_shape=images.info.input_shape)
            self._until(round(variant.small_until * self.steps), small, images)
        _, evaluation = loop.train(self._run(self.config, self.data), self.full_images, self.watch)
        if variant == FULL and self.config.condense_factor == 1:
            self.keep("uncondensed")  # it never drops anything: its end
        return evaluation.top1, evaluation.loss

    def keep(self, state: State) -> None:
        """Write the network's tensors for its neighbours."""
        path = self.trainer.weights(self.config, state)
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.network is not None:
            write_atomically(path, safetensors.torch.save(model_tensors(self.network)))

    def _until(self, step: int, config: CondenseNetConfig, images: ImageData) -> None:
        """Train up to a step; the checkpoint is what the next part goes on from."""
        padding = Augmentation.of(self.data, images.info).crop_padding  # the data set's usual, at its full size
        size = config.input_shape[1]
        scaled = round(padding * size / self.config.input_shape[1])
        settings = self.data.model_copy(update={"image_size": size, "crop_padding": scaled})
        self.watch.stop_at = step
        try:
            loop.train(self._run(config, settings), images, self.watch)
        except TrainingStopped:
            self.watch.stop_at = None
            return
        raise AssertionError(f"the training was over before step {step}")

    def _run(self, config: CondenseNetConfig, settings: DataSettings) -> loop.TrainingRun:
        return loop.TrainingRun(
            config=config,
            training=self.training,
            data=settings,
            seed=self.variant.seed,
            checkpoints=self.checkpoints,
            identity=trial_identity(self.config, self.training, self.data, self.variant.seed),
            device="cpu",
            build=self._build,
            clock=time.process_time,
        )

    def _build(self, config: CondenseNetConfig) -> CondenseNet:
        self.network = CondenseNet(config)
        if self.variant.donor is not None:
            donor = CondenseNet(self.donor)
            path = self.trainer.weights(self.donor, self.variant.donor)
            donor.load_state_dict(safetensors.torch.load_file(path))
            self.share_that_fits = start_from(self.network, donor)
        return self.network


class _Watch:
    """Keeps the curve, and stops the training before the step `stop_at`."""

    def __init__(self) -> None:
        self.stop_at: int | None = None
        self.steps = 0  # done in all of its parts
        self.rows: dict[int, CurveRow] = {}  # by epoch

    def earlier(self, rows: Sequence[CurveRow]) -> None:
        """The earlier part was watched too."""

    def curve(self, row: CurveRow) -> None:
        self.rows[row.epoch] = row

    def under_way(self, report: ProgressReport) -> None:
        """Trainings take seconds."""

    def before_step(self, seconds: float) -> None:
        if self.steps == self.stop_at:
            raise TrainingStopped
        self.steps += 1


def _thinned(images: ImageData, share: float) -> ImageData:
    """Return the same data with a share of its training images: every second one for a half."""
    if share == 1.0:
        return images
    train, every = images.train, round(1 / share)
    fewer = Split(train.images, train.places[::every], train.labels[::every])
    return ImageData(images.info, fewer, images.validation, images.test())
