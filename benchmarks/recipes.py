"""What each training setting beyond the paper's recipe is worth on small data of one's own.

    python -m benchmarks.recipes --work FOLDER [--seeds 3] [--epochs 16]

Three small data sets that come with packages: scikit-learn's digits; 1,500 images of Fashion-MNIST at 12x12; the same
with uneven classes, each with 0.7 times as many training images as the one before. Two networks of the digits preset's
space, one setting changed at a time; top-1 of the deployed network and the mean of the classes' recalls, on the
validation images. The earlier network that `start` goes on from has the same architecture and was trained on about
5,000 images of Fashion-MNIST's test split, of five of its ten classes: no image is in the data above, and its head is
new. Every finished training is a line in FOLDER, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch

from benchmarks.arguments import at_least_one
from benchmarks.long_work import CurveKeeper, ends_clearly
from benchmarks.record import save
from space.config import CondenseNetConfig
from space.search_space import SearchSpace
from workers.images.batches import ImageData, Split, load
from workers.images.cache import prepare
from workers.settings import DataSettings, TrainingSettings
from workers.training.checkpoint import model_tensors
from workers.training.loop import TrainingRun, train
from workers.training.start import StartNetwork

FASHION = DataSettings(dataset="fashion-mnist", folder="/usr/share/datasets", image_size=12, images=1_500)
DATA = {"digits": DataSettings(), "fashion-mnist": FASHION, "uneven": FASHION}
SHARE = 0.7  # of a class's images, as a share of those of the class before
START_CLASSES = 5  # those that the earlier network was trained on
PLAIN = "as it is"
RECIPES: dict[str, dict[str, Any]] = {  # epochs: as a multiple of --epochs
    PLAIN: {},
    "learning_rate 0.03": {"learning_rate": 0.03},
    "warmup 0.1": {"warmup": 0.1},
    "average 0.99": {"average": 0.99},
    "label_smoothing 0.1": {"label_smoothing": 0.1},
    "weight_decay 5e-4": {"weight_decay": 5e-4},
    "adamw 0.003": {"optimizer": "adamw", "learning_rate": 0.003, "weight_decay": 0.05},
    "mixup 0.2": {"mixup": 0.2},
    "cutmix 1": {"cutmix": 1.0},
    "crop_scale 0.6": {"crop_scale": 0.6},
    "rotation 10": {"rotation": 10.0},
    "colour 0.3": {"colour": 0.3},
    "randaugment 5": {"randaugment": 5},
    "balance weights": {"balance": "weights"},
    "balance sampling": {"balance": "sampling"},
    "learning_rate 0.3": {"learning_rate": 0.3},
    "batch_size 16": {"batch_size": 16},
    "three times the epochs": {"epochs": 3},
    "three times, randaugment 5": {"epochs": 3, "randaugment": 5},
    "three times, label_smoothing 0.1": {"epochs": 3, "label_smoothing": 0.1},
    "start": {"start": "trial:earlier/0"},
    "start, learning_rate 0.03": {"start": "trial:earlier/0", "learning_rate": 0.03},
}
NETWORKS = 2


def recipes_for(data: str) -> list[str]:
    """Return what is tried on a data set: where classes are even, balance changes nothing."""
    return [name for name in RECIPES if data == "uneven" or not name.startswith("balance")]


def settings_of(recipe: str, epochs: int) -> TrainingSettings:
    """Return the training settings of a recipe."""
    changed = RECIPES[recipe]
    return TrainingSettings.model_validate({**changed, "epochs": epochs * changed.get("epochs", 1)})


def uneven(images: ImageData) -> ImageData:
    """Return the data with fewer training images of every later class."""
    labels = images.train.labels
    kept = [np.flatnonzero(labels == c) for c in range(images.info.num_classes)]
    places = np.sort(np.concatenate([one[: max(2, round(len(one) * SHARE**c))] for c, one in enumerate(kept)]))
    split = Split(images.train.images, images.train.places[places], labels[places])
    return ImageData(images.info, split, images.validation, images.test())


def other_images(work: Path, size: int) -> ImageData:
    """Return the first classes of Fashion-MNIST's test split as training images, of size x size pixels."""
    settings = FASHION.model_copy(update={"image_size": size})
    prepare(settings, work / "images")
    images = load(settings, work / "images")
    info = replace(images.info, num_classes=START_CLASSES, class_names=images.info.class_names[:START_CLASSES])

    def first(split: Split) -> Split:
        kept = split.labels < START_CLASSES
        return Split(split.images, split.places[kept], split.labels[kept])

    return ImageData(info, first(images.test()), first(images.validation), first(images.test()))


def earlier_network(options: argparse.Namespace, config: CondenseNetConfig, network: int) -> StartNetwork:
    """Return the network that trainings of `config` start from, trained now or by an earlier call."""
    size = config.input_shape[1]
    file = options.work / f"start-{size}-{network}-{options.epochs}.safetensors"
    if not file.exists():
        images, folder = other_images(options.work, size), options.work / "run" / file.stem
        config = replace(config, num_classes=START_CLASSES)
        training = TrainingSettings(epochs=options.epochs)
        run = TrainingRun(config, training, FASHION, 100, folder, file.stem, device="cpu")
        trained_network, evaluation = train(run, images, CurveKeeper())
        print(f"{file.stem}: top-1 {100 * evaluation.top1:.2f} %", flush=True)
        weights = safetensors.torch.save(model_tensors(trained_network))
        file.write_bytes(StartNetwork.of_weights(config, images.info.class_names, weights).content)
    return StartNetwork.of_file(file.read_bytes())


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what isn't trained yet; print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=at_least_one, default=3)
    parser.add_argument("--epochs", type=at_least_one, default=16)
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    with ends_clearly():
        found = trained(options)
    table = compared(found)
    for data, rows in table.items():
        print(
            f"\n{data}: points of top-1 (standard error), of balanced accuracy, against the paper's recipe; trainings"
        )
        for name, row in rows.items():
            print(
                f"  {name:32} {row['top1']:+6.2f} ({row['top1_error']:.2f}) {row['balanced']:+6.2f}, {row['trainings']}"
            )
    save("recipes", {"epochs": options.epochs, "trainings": found, "compared": table})


def trained(options: argparse.Namespace) -> dict[str, list[float]]:
    """Return (top-1, balanced accuracy) of every training by its name; a seed of all of them before the next."""
    journal = options.work / f"trainings-{options.epochs}.jsonl"
    lines = journal.read_text().splitlines() if journal.exists() else []
    found = dict(json.loads(line) for line in lines)
    for seed in range(options.seeds):
        for data, settings in DATA.items():
            prepare(settings, options.work / "images")
            images = load(settings, options.work / "images")
            images = uneven(images) if data == "uneven" else images
            for network in range(NETWORKS):
                config = SearchSpace.preset("digits").sample(np.random.default_rng(10 + network))
                config = replace(config, input_shape=images.info.input_shape, num_classes=images.info.num_classes)
                start = earlier_network(options, config, network)
                for recipe in recipes_for(data):
                    name = f"{data}/{network}/{seed}/{recipe}"
                    if name in found:
                        continue
                    training = settings_of(recipe, options.epochs)
                    folder = options.work / "run" / name.replace(" ", "-")
                    given = start if training.start != "none" else None
                    run = TrainingRun(config, training, settings, seed, folder, name, device="cpu", start=given)
                    evaluation = train(run, images, CurveKeeper())[1]
                    found[name] = [evaluation.top1, float(evaluation.metrics["balanced_accuracy"] or 0.0)]
                    with journal.open("a") as file:
                        file.write(json.dumps([name, found[name]]) + "\n")
                    print(f"{name}: top-1 {100 * found[name][0]:.2f} %", flush=True)
    return found


def compared(found: dict[str, list[float]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return points gained over the paper's recipe, by data and recipe; pairs have the same network and seed."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for data in DATA:
        table[data] = {}
        plain = {name.removesuffix(PLAIN) for name in found if name.startswith(data) and name.endswith(f"/{PLAIN}")}
        for recipe in recipes_for(data):
            pairs = sorted(pair for pair in plain if pair + recipe in found)
            if len(pairs) < 2:
                continue
            scores = 100 * np.array([found[pair + recipe] for pair in pairs])  # (pairs, 2)
            gained = scores - 100 * np.array([found[pair + PLAIN] for pair in pairs])
            means, absolute = gained.mean(axis=0), scores.mean(axis=0)
            table[data][recipe] = {
                "trainings": len(pairs),
                "top1": float(means[0]),
                "top1_error": float(gained[:, 0].std(ddof=1) / len(pairs) ** 0.5),
                "balanced": float(means[1]),
                "mean_top1": float(absolute[0]),
                "mean_balanced": float(absolute[1]),
            }
    return table


if __name__ == "__main__":
    main()
