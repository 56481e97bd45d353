"""What is trained: the lines of the plot, a few networks of rising cost on each, the same images and recipe for all."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import NamedTuple

from examples.ablation.variations import VARIATIONS, Variation
from space.config import CondenseNetConfig
from space.cost import Cost
from workers.settings import DataSettings, TrainingSettings
from workers.training.job import trial_identity

STAGES = 3
DOUBLING, CONSTANT = (8, 16, 32), (12, 12, 12)  # about the same macs at the same depth


@dataclass(frozen=True)
class Line:
    """One line of the plot: networks that differ in depth alone."""

    label: str
    depths: tuple[int, ...]  # layers of each of the three stages
    variation: str = "condensenet"  # see `VARIATIONS`
    growth: tuple[int, ...] = DOUBLING
    groups: int = 4
    condense_factor: int = 4


LINES = {
    "condensenet": Line("learned groups, G = C = 4", (1, 2, 3, 4)),
    "dense": Line("dense 1×1, C = 1", (1, 2, 3), groups=1, condense_factor=1),
    "permuted": Line("plain groups, permuted", (1, 2, 4), "plain groups, permuted"),
    "ordered": Line("plain groups, in order", (1, 2, 4), "plain groups, in order"),
    "constant": Line("constant growth", (1, 2, 4), growth=CONSTANT),
    "within": Line("within blocks", (1, 2, 4), "within blocks"),
    "light": Line("within blocks, constant growth", (1, 2, 4), "within blocks", CONSTANT),
    "C2": Line("C = 2", (1, 2, 3), condense_factor=2),
    "C8": Line("C = 8", (1, 2, 5), condense_factor=8),
}


@dataclass(frozen=True)
class Comparison:
    """One panel of the plot: its lines, the first of which is what the others are compared with."""

    title: str
    lines: dict[str, str]  # key in LINES -> label in this panel

    @property
    def reference(self) -> str:
        """The key of the line that the others are compared with."""
        return next(iter(self.lines))


COMPARISONS = {
    "convolution": Comparison(
        "The 1×1 convolution",
        {
            "condensenet": "learned groups (G = C = 4)",
            "dense": "dense",
            "permuted": "plain groups, inputs permuted",
            "ordered": "plain groups, inputs in order",
        },
    ),
    "growth": Comparison("Growth", {"condensenet": "doubling: 8-16-32", "constant": "constant: 12-12-12"}),
    "connectivity": Comparison(
        "Dense connectivity",
        {
            "condensenet": "across blocks",
            "within": "within blocks",
            "light": "within blocks, constant growth",
        },
    ),
    "factor": Comparison(
        "Condense factor, G = 4", {"dense": "C = 1", "C2": "C = 2", "condensenet": "C = 4", "C8": "C = 8"}
    ),
}


class Training(NamedTuple):
    """One training: a network of a line, and a seed."""

    line: str  # key in LINES
    config: CondenseNetConfig
    seed: int

    @property
    def variation(self) -> Variation:
        """How the config becomes a network."""
        return VARIATIONS[LINES[self.line].variation]

    @property
    def cost(self) -> Cost:
        """What the deployed network costs."""
        return self.variation.cost(self.config)


@dataclass(frozen=True)
class Plan:
    """What is trained on which images, and how."""

    name: str
    data: DataSettings
    training: TrainingSettings
    input_shape: tuple[int, int, int]
    lines: tuple[str, ...] = tuple(LINES)
    depths: tuple[int, ...] | None = None  # None: those of each line

    def configs(self, line: str) -> list[CondenseNetConfig]:
        """Return a line's networks, by rising cost."""
        about = LINES[line]
        return [
            CondenseNetConfig(
                stages=(depth,) * STAGES,
                growth=about.growth,
                groups=about.groups,
                condense_factor=about.condense_factor,
                groups_3x3=4,
                input_shape=self.input_shape,
            )
            for depth in about.depths
            if self.depths is None or depth in self.depths
        ]

    def trainings(self, seeds: int) -> list[Training]:
        """Return every training, seed by seed, so that what is finished early is a whole plot."""
        networks = [(line, config) for line in self.lines for config in self.configs(line)]
        return [Training(line, config, seed) for seed in range(seeds) for line, config in networks]

    def identity(self, training: Training) -> str:
        """Return the hash of everything that decides a training's result."""
        common = trial_identity(training.config, self.training, self.data, training.seed)
        return hashlib.sha256(f"{LINES[training.line].variation} {common}".encode()).hexdigest()


FASHION = Plan(
    "fashion-mnist",
    DataSettings(dataset="fashion-mnist", image_size=14, images=6_000, validation_fraction=1 / 6, crop_padding=0),
    TrainingSettings(epochs=8, batch_size=32, learning_rate=0.1),
    (1, 14, 14),
)
PLANS = {
    plan.name: plan
    for plan in (
        FASHION,
        replace(  # three times as long: learned groups have time to recover from what was dropped
            FASHION,
            name="fashion-mnist-longer",
            training=FASHION.training.model_copy(update={"epochs": 24}),
            lines=("condensenet", "permuted", "ordered"),
            depths=(2,),
        ),
        Plan(  # seconds in all: to see how it goes
            "digits",
            DataSettings(dataset="digits", images=400),
            TrainingSettings(epochs=2, batch_size=16, learning_rate=0.1),
            (1, 8, 8),
            lines=("condensenet", "permuted", "within"),
            depths=(1,),
        ),
    )
}
