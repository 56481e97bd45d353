"""The paper's accuracy on CIFAR-10: CondenseNet-50 or -86 by the paper's recipe, in pieces of ten minutes.

    python -m benchmarks.paper_accuracy --images cifar10.tar.gz --network 86 --work FOLDER [--minutes 10]
    while python -m benchmarks.paper_accuracy ...; test $? = 75; do :; done        (75: there is more to do)

A piece ends with a checkpoint in FOLDER/training, and the same command goes on from it, on another machine too if that
folder goes along. At the end the deployed network meets the test images, once, and its error stands beside the paper's.
FOLDER/test-….jsonl records that this begins and what comes out, so a figure isn't lost and a second look isn't hidden.

Notable choices:
- The recipe is the product's own: SGD with Nesterov momentum, a cosine per iteration, batches of 64, crops and flips.
- The images are `train` and `test` with a folder for each class, as a folder or a .tar.gz of it.
- A hundredth of the training images is held out for the learning curve, where the paper looks at the test images after
  every epoch. `--image-size`, `--train-images` and `--epochs` make what a CPU can do; the result says all differences.
- Only torch, numpy, pillow, pydantic, safetensors, filelock and rich are needed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from benchmarks import record
from benchmarks.arguments import at_least_one
from benchmarks.condensebench.journal import Journal, open_journal
from benchmarks.long_work import ends_clearly
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.errors import DataNotFound, UnreadableImage
from space.presets import PUBLISHED, PublishedNetwork
from workers.files import disk_errors, write_atomically
from workers.images.batches import ImageData, load
from workers.images.cache import prepare
from workers.settings import DataSettings, TrainingSettings
from workers.training import loop
from workers.training.checkpoint import model_tensors
from workers.training.device import autocast_on, check_device, pick_device
from workers.training.job import trial_identity
from workers.training.reporting import CurveRow, ProgressReport, TrainingStopped

PAPER = {"epochs": 300, "image_size": 32, "train_images": 50_000}
CROP_PADDING = 4  # pixels, at 32 x 32
MORE_TO_DO = 75  # the exit code of a piece that isn't the last
SAY_EVERY_S = 20.0


@dataclass(frozen=True)
class Options:
    """What is trained on what, where its files are, and how long this piece may take."""

    images: Path
    network: str
    work: Path
    epochs: int = PAPER["epochs"]
    minutes: float = 10.0
    device: str = "auto"
    seed: int = 0
    image_size: int = PAPER["image_size"]
    train_images: int | None = None  # how many are used, held-out ones included; None: all
    held_out: float = 0.01
    label: str = "CIFAR-10 (JPEG q75)"

    @property
    def published(self) -> PublishedNetwork:
        """The paper's row of this network."""
        return PUBLISHED[f"condensenet-{self.network}"]

    @property
    def training(self) -> TrainingSettings:
        """The paper's recipe."""
        return TrainingSettings(epochs=self.epochs, batch_size=64, learning_rate=0.1, momentum=0.9, weight_decay=1e-4)

    def data(self, folder: Path) -> DataSettings:
        """Return the settings of the images in `folder`."""
        return DataSettings(
            dataset=f"imagefolder:{folder}",
            image_size=self.image_size,
            channels=3,
            images=self.train_images,
            validation_fraction=self.held_out,
            crop_padding=round(CROP_PADDING * self.image_size / PAPER["image_size"]),
            flip=True,
        )

    def config(self, classes: int) -> CondenseNetConfig:
        """Return the paper's network for these images."""
        shape = (3, self.image_size, self.image_size)
        return replace(self.published.config, input_shape=shape, num_classes=classes)


def run(options: Options, clock: Callable[[], float] = time.monotonic) -> dict[str, Any] | None:
    """Train for one piece; return the result once it is the last, and None while there is more to do.

    Raises:
        DataNotFound, UnreadableImage: the images are missing, or not laid out in class folders.
        InvalidSettings: there is no such device here, or another process does this training in the same folder.
        TrainingFailed: the loss became NaN or infinite.
    """
    started = clock()
    check_device(options.device)
    settings = options.data(find_images(options.images, options.work / "images"))
    prepare(settings, options.work / "decoded")
    images = load(settings, options.work / "decoded")
    config = options.config(images.info.num_classes)
    # Where the images lie doesn't matter, only what they are: a piece may run on another machine.
    same = settings.model_copy(update={"dataset": f"images {images.info.fingerprint}"})
    identity = trial_identity(config, options.training, same, options.seed)
    name = identity[:16]  # of this training's files: another network's stay
    with open_journal(options.work / f"test-{name}.jsonl") as journal:
        result_file = options.work / f"result-{name}.json"
        result = recorded(journal, result_file)
        if result is None:
            piece = _Piece(options, images.info.validation_images, started + 60 * options.minutes, clock)
            training = loop.TrainingRun(
                config=config,
                training=options.training,
                data=settings,
                seed=options.seed,
                checkpoints=options.work / "training" / name,
                identity=identity,
                device=options.device,
                clock=clock,
                note=lambda text: print(text, flush=True),
            )
            try:
                network, _ = loop.train(training, images, piece)
            except TrainingStopped:
                write_atomically(options.work / "curve.json", as_json([asdict(row) for row in piece.rows]))
                print(f"stopped at {100 * piece.progress:.1f} %; the same command goes on")
                return None
            tensors = safetensors.torch.save(model_tensors(network))
            write_atomically(options.work / "network.safetensors", tensors)
            result = tested(network, images, as_result(options, config, images, piece.rows), journal)
        write_atomically(result_file, as_json(result))
    return result


def recorded(journal: Journal, result_file: Path) -> dict[str, Any] | None:
    """Return the result that was recorded: the test images are met once."""
    results: list[dict[str, Any]] = [row["result"] for row in journal.rows() if "result" in row]
    if not results and result_file.exists():  # of a version that kept no journal
        results = [json.loads(result_file.read_text())]
    return results[-1] if results else None


def tested(network: nn.Module, images: ImageData, about: dict[str, Any], journal: Journal) -> dict[str, Any]:
    """Return `about` the training with the test error, which is on the disk before this returns.

    What could fail for another reason is done before: from here on nothing but a kill or a full disk keeps the figure
    from being recorded. After such an end the test images are met again, and the result says how often they were.
    """
    journal.append({"test_begins": datetime.now(UTC).isoformat(timespec="seconds")})
    test = loop.evaluate(network, images.test(), images.info, next(network.parameters()).device)
    result = about | {
        "test_error_pct": 100 * (1 - test.top1),
        "test_images": test.images,
        "test_evaluations": sum("test_begins" in row for row in journal.rows()),
    }
    journal.append({"result": result})
    return result


@dataclass
class _Piece:
    """Watches a training: prints how far it is, keeps the curve, and stops it when this piece's time is over."""

    options: Options
    held_out_images: int
    ends_at: float
    clock: Callable[[], float]
    rows: list[CurveRow] = field(default_factory=list)
    steps: int = 0  # of this piece
    progress: float = 0.0
    said_at: float = float("-inf")

    def earlier(self, rows: Sequence[CurveRow]) -> None:
        self.rows += rows

    def curve(self, row: CurveRow) -> None:
        self.rows = [known for known in self.rows if known.epoch < row.epoch] + [row]
        self._say(ProgressReport(row.progress, row.seconds, row.images_per_s))
        held_out = f"top-1 {row.val_top1:.4f} on only {self.held_out_images} held-out images"
        error = 100 * sqrt(row.val_top1 * (1 - row.val_top1) / self.held_out_images)
        print(
            f"  epoch {row.epoch}: {held_out} (standard error {error:.1f} points), loss {row.train_loss:.4f}",
            flush=True,
        )

    def under_way(self, report: ProgressReport) -> None:
        if self.clock() - self.said_at >= SAY_EVERY_S:
            self._say(report)

    def before_step(self, seconds: float) -> None:
        if self.steps and self.clock() >= self.ends_at:  # at least one step a piece, or it would never end
            raise TrainingStopped
        self.steps += 1

    def _say(self, report: ProgressReport) -> None:
        self.said_at, self.progress = self.clock(), report.progress
        speed = "" if report.images_per_s is None else f", {report.images_per_s:,.0f} images/s"
        left = report.left_s
        if left:
            pieces = ceil(left / (60 * self.options.minutes))
            speed += f", about {timedelta(seconds=round(left))} left ({pieces} × {self.options.minutes:g} minutes)"
        print(f"{report.progress * self.options.epochs:.2f} of {self.options.epochs} epochs{speed}", flush=True)


def as_result(
    options: Options, config: CondenseNetConfig, images: ImageData, rows: Sequence[CurveRow]
) -> dict[str, Any]:
    """Return what is saved of a training, its test error aside."""
    device = pick_device(options.device)
    return {
        "network": options.published.name,
        "images": options.label,
        "macs": cost_of(config).macs,
        "paper_test_error_pct": options.published.top1_error_pct,
        "differs_from_the_paper": differences(options, images, autocast_on(device, True)[0]),
        "seconds": rows[-1].seconds,
        "device": name_of(device),
        "train_images": images.info.train_images,
        "held_out_images": images.info.validation_images,
        "epochs": options.epochs,
        "image_size": options.image_size,
        "seed": options.seed,
        "curve": [asdict(row) for row in rows],
    }


def name_of(device: torch.device) -> str:
    """Return what to call a device: a GPU by its model, where torch knows it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def differences(options: Options, images: ImageData, bfloat16: bool) -> list[str]:
    """Return, in words, where a training is not the paper's."""
    used, held = images.info.train_images, images.info.validation_images
    per_epoch = max(1, used // options.training.batch_size)
    said = [
        f"{options.label} instead of the published pixels",
        f"{held} of {used + held} training images are held out; the paper trains on all {PAPER['train_images']}",
        f"the last ragged batch of an epoch is left out: {per_epoch} steps an epoch, in the paper 782",
    ]
    if options.epochs != PAPER["epochs"]:
        said.append(f"{options.epochs} epochs instead of {PAPER['epochs']}")
    if options.image_size != PAPER["image_size"]:
        said.append(f"images of {options.image_size} pixels instead of {PAPER['image_size']}")
    if bfloat16:
        said.append("bfloat16 autocast instead of float32")
    return said


def find_images(path: Path, unpacked: Path) -> Path:
    """Return the folder that holds `train` and `test`; a .tar.gz is unpacked, once, into `unpacked`.

    Raises:
        DataNotFound: there is nothing there, or no train and test in it.
        UnreadableImage: the archive is damaged.
    """
    folder = path
    if path.is_file():
        folder = unpacked
        if not unpacked.is_dir():
            partial = unpacked.with_name(f"{unpacked.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            try:
                with disk_errors(partial, "run the same command again"), tarfile.open(path) as archive:
                    archive.extractall(partial, filter="data")
            except (tarfile.TarError, EOFError) as error:
                raise UnreadableImage(f"{path} must be a .tar.gz of images, but {error}; fetch it again") from error
            partial.rename(unpacked)
    elif not path.is_dir():
        raise DataNotFound(f"--images must be a folder or a .tar.gz, but {str(path)!r} doesn't exist")
    inside = [folder, *sorted(part for part in folder.iterdir() if part.is_dir())]
    for candidate in inside:  # an archive often holds one folder that holds everything
        if (candidate / "train").is_dir() and (candidate / "test").is_dir():
            return candidate
    raise DataNotFound(
        f"--images must hold train/CLASS/IMAGE and test/CLASS/IMAGE, but {str(path)!r} holds "
        f"{', '.join(sorted(part.name for part in folder.iterdir())[:6]) or 'nothing'}"
    )


def as_json(content: object) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()


def parsed() -> tuple[Options, str | None]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="train and test: a folder, or a .tar.gz of it")
    parser.add_argument("--network", choices=["50", "86"], required=True)
    parser.add_argument("--work", type=Path, required=True, help="the folder of everything this makes")
    parser.add_argument("--epochs", type=at_least_one, default=Options.epochs)
    parser.add_argument("--minutes", type=float, default=Options.minutes, help="of this piece, decoding included")
    parser.add_argument("--device", default=Options.device, help="auto, cpu, cuda or mps")
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument("--image-size", type=at_least_one, default=Options.image_size, help="reduced: fewer pixels")
    parser.add_argument("--train-images", type=at_least_one, help="reduced: only so many, held-out ones included")
    parser.add_argument("--held-out", type=float, default=Options.held_out, help="share for the learning curve")
    parser.add_argument("--label", default=Options.label, help="what to call the images in the result")
    parser.add_argument("--record", metavar="NAME", help="save the result as benchmarks/results/NAME.json as well")
    values = vars(parser.parse_args())
    name = values.pop("record")
    if values["minutes"] <= 0:
        parser.error(f"--minutes must be more than 0, but got {values['minutes']:g}")
    return Options(**values), name


def main() -> None:
    options, name = parsed()
    with ends_clearly("the same command goes on from the last checkpoint"):
        result = run(options)
    if result is None:
        sys.exit(MORE_TO_DO)
    paper = f"the paper's {result['paper_test_error_pct']} %"
    error = f"test error {result['test_error_pct']:.2f} % of {result['test_images']:,} images"
    print(f"{result['network']} on {result['images']}: {error}; {paper}")
    if result.get("test_evaluations", 1) > 1:
        print(f"  the test images were met {result['test_evaluations']} times: earlier ones were cut off")
    print("\n".join(f"  {line}" for line in ["what differs:", *result["differs_from_the_paper"]]))
    if name is not None:
        record.save(name, result)


if __name__ == "__main__":
    main()
