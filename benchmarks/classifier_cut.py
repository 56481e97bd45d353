"""Cutting the classifier at half of the schedule or after it: what each costs in accuracy, beside a whole classifier.

    python -m benchmarks.classifier_cut [--networks 8] [--seeds 3] [--epochs 8] [--keep 0.5]

Fashion-MNIST at 14x14, 2,500 images, networks sampled from the digits preset's space. With each seed a network is
trained three times: with the whole classifier; with one that is cut at half of the schedule and trained on, as the
product does; with the same one cut after the last step. Top-1 is that of the deployed network.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.arguments import at_least_one
from benchmarks.long_work import CurveKeeper, ends_clearly
from benchmarks.record import save
from space.config import CondenseNetConfig
from space.network import CondenseNet, CutClassifier
from space.search_space import SearchSpace
from workers.images.batches import ImageData, load
from workers.images.cache import prepare
from workers.settings import DataSettings, TrainingSettings
from workers.training.loop import TrainingRun, train

DATA = DataSettings(dataset="fashion-mnist", folder="/usr/share/datasets", image_size=14, images=2_500)
WAYS = ("whole", "cut at half", "cut at the end")


def _cut_at_the_end(config: CondenseNetConfig) -> CondenseNet:
    """Return a network whose classifier is left alone until it is deployed."""
    network = CondenseNet(config)
    cast(Any, cast(CutClassifier, network.classifier)).cut = lambda: None
    return network


def top1_of(config: CondenseNetConfig, way: str, images: ImageData, seed: int, epochs: int) -> float:
    """Return a deployed network's top-1 on the validation images."""
    build = _cut_at_the_end if way == "cut at the end" else CondenseNet
    with tempfile.TemporaryDirectory() as folder:
        training = TrainingSettings(epochs=epochs)
        run = TrainingRun(config, training, DATA, seed, Path(folder), "", device="cpu", build=build)
        return train(run, images, CurveKeeper())[1].top1


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("networks", 8), ("seeds", 3), ("epochs", 8)):
        parser.add_argument(f"--{name}", type=at_least_one, default=default)
    parser.add_argument("--keep", type=float, default=0.5, help="the share of the features that stays")
    options = parser.parse_args(arguments)
    with ends_clearly("the same command begins again"), tempfile.TemporaryDirectory() as cache:
        prepare(DATA, Path(cache))
        images = load(DATA, Path(cache))
        save("classifier_cut", {**vars(options), "data": DATA.model_dump()} | _compared(options, images))


def _compared(options: argparse.Namespace, images: ImageData) -> dict[str, Any]:
    shape, classes = images.info.input_shape, images.info.num_classes
    space, rng = SearchSpace.preset("digits"), np.random.default_rng(0)
    top1: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for number in range(options.networks):
        config = replace(space.sample(rng), input_shape=shape, num_classes=classes)
        for way in WAYS:
            keep = 1.0 if way == "whole" else options.keep
            kept = replace(config, classifier_keep=keep)
            top1[way].append([top1_of(kept, way, images, seed, options.epochs) for seed in range(options.seeds)])
        means = ", ".join(f"{way} {100 * np.mean(top1[way][-1]):.2f} %" for way in WAYS)
        print(f"{number + 1}/{options.networks}  {config}: {means}", flush=True)
    lost = {way: 100 * (np.array(top1["whole"]) - np.array(top1[way])).mean(axis=1) for way in WAYS[1:]}
    for way, points in lost.items():
        error = points.std(ddof=1) / len(points) ** 0.5 if len(points) > 1 else float("nan")
        print(f"{way}: {points.mean():.2f} points lost (standard error {error:.2f}), at most {points.max():.2f}")
    return {"top1": top1, "points_lost": {way: points.tolist() for way, points in lost.items()}}


if __name__ == "__main__":
    main()
