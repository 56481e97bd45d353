"""What each table holds: its networks, its images, how they are trained, and in which order.

- The networks of a table are all of a small space, or are drawn from a large one so that log(macs) is covered evenly.
- They are trained in an order in which every beginning is spread over cost, so a table that isn't finished yet covers
  the whole space, only more thinly.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from space.config import CondenseNetConfig
from space.cost import cost_of
from space.search_space import SearchSpace
from workers.images.datasets import IMAGE_FOLDER, KNOWN
from workers.settings import DataSettings, TrainingSettings
from workers.training.job import trial_identity

DRAWN_PER_NETWORK = 8  # candidates for each network of a table that doesn't hold its whole space


class Training(NamedTuple):
    """One row to be: a network and the seed of its training."""

    config: CondenseNetConfig
    seed: int


@dataclass(frozen=True)
class Bench:
    """One table: a space of networks and how each of them is trained."""

    name: str
    space: dict[str, Any]  # as a study file's [space]
    data: DataSettings
    training: TrainingSettings
    networks: int | None = None  # how many; None: the whole space
    repeated: int = 150  # networks that are trained again with each further seed
    first: int = 200  # trainings with seed 0 before those with further seeds come in between
    seeds: int = 2

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        return SearchSpace.from_settings(self.space).input_shape

    def configs(self) -> list[CondenseNetConfig]:
        """Return the table's distinct networks, every beginning of the list spread over cost."""
        space = SearchSpace.from_settings(self.space)
        chosen = whole(space) if self.networks is None else drawn(space, self.networks)
        return spread(by_cost(chosen))

    def trainings(self) -> list[Training]:
        """Return every training in the order in which they are done; one of a further seed after each of seed 0."""
        configs = self.configs()
        once = [Training(config, 0) for config in configs]
        again = [Training(config, seed) for seed in range(1, self.seeds) for config in configs[: self.repeated]]
        mixed = itertools.chain.from_iterable(itertools.zip_longest(once[self.first :], again))
        return once[: self.first] + [training for training in mixed if training is not None]

    def identity(self, training: Training) -> str:
        """Return the hash of everything that decides a training's result, as the product's trials have it."""
        return trial_identity(training.config, self.training, self.data, training.seed)

    def with_images(self, folder: Path | None, download: bool, images: Path | None) -> Bench:
        """Return the table on torchvision's data in `folder`, or on the image folder `images`."""
        if images is not None:
            usual = KNOWN[self.data.dataset]
            same = {"channels": self.input_shape[0], "image_size": self.input_shape[1]}
            same |= {"crop_padding": usual.crop_padding, "flip": usual.flip}
            dataset = f"{IMAGE_FOLDER}:{images.absolute()}"
            return replace(self, data=self.data.model_copy(update={"dataset": dataset, **same}))
        where = {} if folder is None else {"folder": str(folder)}
        return replace(self, data=self.data.model_copy(update={"download": download, **where}))


def whole(space: SearchSpace) -> list[CondenseNetConfig]:
    """Return every config of a space without real-valued ranges."""
    names, values = list(space.domains), [domain.enumerate() or () for domain in space.domains.values()]
    configs = (space.from_params(dict(zip(names, chosen, strict=True))) for chosen in itertools.product(*values))
    return list(dict.fromkeys(configs))


def drawn(space: SearchSpace, count: int) -> list[CondenseNetConfig]:
    """Return `count` distinct configs drawn at random, those nearest to evenly spaced values of log(macs)."""
    rng, candidates = np.random.default_rng(0), dict[CondenseNetConfig, None]()
    while len(candidates) < DRAWN_PER_NETWORK * count:
        candidates.setdefault(space.sample(rng))
    left = by_cost(list(candidates))
    logs = [math.log(cost_of(config).macs) for config in left]
    chosen = []
    for wanted in np.linspace(logs[0], logs[-1], count):
        nearest = min(range(len(left)), key=lambda place: abs(logs[place] - wanted))
        chosen.append(left.pop(nearest))
        logs.pop(nearest)
    return chosen


def by_cost(configs: Sequence[CondenseNetConfig]) -> list[CondenseNetConfig]:
    """Sort by macs; equal ones by their digest, so that the order depends on nothing else."""
    return sorted(configs, key=lambda config: (cost_of(config).macs, config.digest))


def spread(configs: Sequence[CondenseNetConfig]) -> list[CondenseNetConfig]:
    """Reorder so that every beginning is spread evenly over the given order (van der Corput's, base 2)."""
    bits = max(len(configs) - 1, 1).bit_length()
    reversed_bits = (int(f"{place:0{bits}b}"[::-1], 2) for place in range(1 << bits))
    return [configs[place] for place in reversed_bits if place < len(configs)]


BENCHES = {
    bench.name: bench
    for bench in (
        Bench(
            "fashion-mnist",
            space={
                "num_classes": 10,
                "input_shape": [1, 14, 14],
                "num_stages": 2,
                "groups": [1, 2, 4],
                "condense_factor": [1, 2, 4],
                "bottleneck": [2, 4],
                "layers": [1, 2, 3],
                "growth": [[4, 8], [8, 16]],
            },
            data=DataSettings(dataset="fashion-mnist", image_size=14, images=12_000, validation_fraction=1 / 3),
            training=TrainingSettings(epochs=8, batch_size=64, learning_rate=0.1),
        ),
        Bench(
            "cifar10",
            space={
                "num_classes": 10,
                "input_shape": [3, 32, 32],
                "num_stages": 3,
                "groups": [1, 2, 4, 8],
                "condense_factor": [1, 2, 4, 8],
                "bottleneck": [2, 4],
                "layers": {"low": 2, "high": 14, "step": 2},
                "growth": [[8, 16], [8, 16, 32], [16, 32, 64]],
            },
            data=DataSettings(dataset="cifar10", validation_fraction=0.1),
            training=TrainingSettings(epochs=40, batch_size=64, learning_rate=0.1),
            networks=1_000,
        ),
        Bench(  # seconds in all: to see how a table is made
            "digits",
            space={
                "num_classes": 10,
                "input_shape": [1, 8, 8],
                "num_stages": 2,
                "groups": [1, 2],
                "condense_factor": [1, 4],
                "bottleneck": 2,
                "layers": 1,
                "growth": 4,
            },
            data=DataSettings(dataset="digits", images=400),
            training=TrainingSettings(epochs=3, batch_size=64, learning_rate=0.1),
            repeated=2,
            first=2,
        ),
    )
}
