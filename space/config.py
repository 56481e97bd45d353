"""One architecture: `CondenseNetConfig`, its rules and the shapes that follow from it.

Pure arithmetic (standard library only), because the search asks for thousands of configurations a second and the
read commands never wait for torch. The network, its cost and its export all walk the same `layer_shapes`.

Source of the rules: Huang, Liu, van der Maaten, Weinberger, "CondenseNet", CVPR 2018 (arXiv 1711.09224), sections 3-4.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from space.documents import UnreadableDocument, read_json, short_number
from space.errors import InvalidConfig

STRIDE_2_FROM_PIXELS = 96  # the stem halves the image from this size up
# Far beyond any network; without limits a number of a study file could ask for years of arithmetic.
WIDEST = 4_096
MOST = {"num_classes": 1_000_000, "input_shape": 65_536}


@dataclass(frozen=True)
class LayerShape:
    """Shapes of one dense layer: `in_channels` -> 1x1 -> `bottleneck_channels` -> 3x3 -> `growth`, all at H x W."""

    stage: int
    index: int  # within the stage
    in_channels: int
    bottleneck_channels: int
    growth: int
    height: int
    width: int

    @property
    def positions(self) -> int:
        """Spatial positions, H x W."""
        return self.height * self.width


@dataclass(frozen=True)
class CondenseNetConfig:
    """One CondenseNet. Building one that breaks a rule raises `InvalidConfig` with the rule and the value.

    Args:
        stages: dense layers in each stage, for example (14, 14, 14).
        growth: channels each layer adds, per stage; same length as `stages`.
        groups: G, groups of the learned 1x1 convolution.
        condense_factor: C; every group keeps 1/C of its input channels. May differ from `groups`; 1 never condenses.
        bottleneck: the 1x1 makes bottleneck * growth channels.
        groups_3x3: groups of the 3x3 convolution; None means `groups` (and is what an equal number is stored as).
        dropout: rate before each 1x1 during training.
        num_classes: outputs of the classifier.
        input_shape: (channels, height, width) of the images.
        classifier_keep: fraction of the features the deployed classifier reads.
    """

    stages: tuple[int, ...]
    growth: tuple[int, ...]
    groups: int = 4
    condense_factor: int = 4
    bottleneck: int = 4
    groups_3x3: int | None = None
    dropout: float = 0.0
    num_classes: int = 10
    input_shape: tuple[int, int, int] = (3, 32, 32)
    classifier_keep: float = 1.0

    def __post_init__(self) -> None:
        set_field = object.__setattr__  # the class is frozen; values are put into canonical form once, here
        set_field(self, "stages", _whole_numbers("stages", self.stages))
        set_field(self, "growth", _whole_numbers("growth", self.growth))
        set_field(self, "input_shape", _whole_numbers("input_shape", self.input_shape))
        for name in ("groups", "condense_factor", "bottleneck", "num_classes"):
            set_field(self, name, _whole_number(name, getattr(self, name)))
        if self.groups_3x3 is not None:
            number = _whole_number("groups_3x3", self.groups_3x3)
            set_field(self, "groups_3x3", None if number == self.groups else number)
        for name in ("dropout", "classifier_keep"):
            set_field(self, name, _real_number(name, getattr(self, name)))
        self._check_form()
        self._check_divisibility()

    def _check_form(self) -> None:
        if not self.stages or len(self.stages) != len(self.growth):
            raise InvalidConfig(
                "`stages` and `growth` must have the same length of at least 1, "
                f"but got stages={self.stages}, growth={self.growth}."
            )
        if len(self.input_shape) != 3:
            raise InvalidConfig(f"`input_shape` must be (channels, height, width), but got {self.input_shape}.")
        if not 0.0 <= self.dropout < 1.0:
            raise InvalidConfig(f"0 <= dropout < 1 must hold, but got dropout={self.dropout}.")
        if not 0.0 < self.classifier_keep <= 1.0:
            raise InvalidConfig(f"0 < classifier_keep <= 1 must hold, but got classifier_keep={self.classifier_keep}.")
        if self.classifier_inputs < 1:
            raise InvalidConfig(
                "the classifier must keep at least one feature, but got "
                f"classifier_keep={self.classifier_keep} of {self.num_features} features."
            )
        height, width = self.stem_size
        if min(height, width) >> (len(self.stages) - 1) < 1:
            raise InvalidConfig(
                f"every pooling between stages halves the image, so {height}x{width} pixels after the stem allow at "
                f"most {min(height, width).bit_length()} stages, but got {len(self.stages)} "
                f"(input_shape={self.input_shape})."
            )

    def _check_divisibility(self) -> None:
        if self._is_divisible():
            return
        for layer in self.layer_shapes:
            where = f"stage {layer.stage + 1}, layer {layer.index + 1}"
            width, factor, groups = layer.bottleneck_channels, self.condense_factor, self.groups
            rules = (
                ("in_channels", layer.in_channels, "groups", groups),
                ("in_channels", layer.in_channels, "condense_factor", factor),
                ("bottleneck * growth", width, "groups", groups),
                ("bottleneck * growth", width, "groups_3x3", self.conv3x3_groups),
                ("growth", layer.growth, "groups_3x3", self.conv3x3_groups),
            )
            for what, value, by, divisor in rules:
                if value % divisor:
                    raise InvalidConfig(
                        f"{what} must be divisible by {by} in every layer, but got "
                        f"{what}={value}, {by}={divisor} at {where}."
                    )

    def _is_divisible(self) -> bool:
        """Return whether every stem and growth is divisible, so that every layer is; others are looked at by layer."""
        grouped, of_3x3 = math.lcm(self.groups, self.condense_factor), self.conv3x3_groups
        return not any(value % grouped for value in (self.stem_channels, *self.growth)) and not any(
            growth % of_3x3 for growth in self.growth
        )

    @property
    def conv3x3_groups(self) -> int:
        """Groups of the 3x3 convolution, with None resolved to `groups`."""
        return self.groups if self.groups_3x3 is None else self.groups_3x3

    @property
    def stem_channels(self) -> int:
        """Channels after the stem: 2 * growth[0]."""
        return 2 * self.growth[0]

    @property
    def stem_stride(self) -> int:
        """2 for images of at least 96 x 96 pixels, else 1."""
        return 2 if min(self.input_shape[1:]) >= STRIDE_2_FROM_PIXELS else 1

    @property
    def stem_size(self) -> tuple[int, int]:
        """(height, width) after the stem's 3x3 convolution with padding 1."""
        _, height, width = self.input_shape
        return (height - 1) // self.stem_stride + 1, (width - 1) // self.stem_stride + 1

    @property
    def num_features(self) -> int:
        """F, the channels that reach the final batch norm."""
        return self.stem_channels + sum(n * g for n, g in zip(self.stages, self.growth, strict=True))

    @property
    def classifier_inputs(self) -> int:
        """floor(classifier_keep * F): the features the deployed classifier reads."""
        return math.floor(self.classifier_keep * self.num_features + 1e-9)  # 0.29 * 100 is 28.999...

    @property
    def last_size(self) -> tuple[int, int]:
        """(height, width) of the last stage, which global average pooling reduces."""
        height, width = self.stem_size
        halvings = len(self.stages) - 1
        return height >> halvings, width >> halvings

    @cached_property
    def layer_shapes(self) -> tuple[LayerShape, ...]:
        """The dense layers in order."""
        return tuple(self._walk())

    def _walk(self) -> Iterator[LayerShape]:
        height, width = self.stem_size
        channels = self.stem_channels
        for stage, (layers, growth) in enumerate(zip(self.stages, self.growth, strict=True)):
            if stage:  # 2x2 average pooling between stages; an odd last row or column is dropped
                height, width = height // 2, width // 2
            for index in range(layers):
                yield LayerShape(stage, index, channels, self.bottleneck * growth, growth, height, width)
                channels += growth

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, every field named."""
        return {
            f.name: list(value) if isinstance(value := getattr(self, f.name), tuple) else value
            for f in dataclasses.fields(self)
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CondenseNetConfig:
        """Build from `to_dict`'s form; an unknown or missing key raises `InvalidConfig`."""
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise InvalidConfig(f"unknown settings {', '.join(unknown)}; a config has {', '.join(sorted(known))}.")
        if missing := [name for name in ("stages", "growth") if name not in values]:
            raise InvalidConfig(f"a config needs {' and '.join(missing)}.")
        return cls(**values)

    def to_json(self) -> str:
        """Return canonical JSON: equal configs give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> CondenseNetConfig:
        """Build from JSON text; raises `InvalidConfig` when it is not a valid config."""
        try:
            values = read_json(text)
        except UnreadableDocument as error:
            raise InvalidConfig(f"a config must be a JSON object, but got {text[:60]!r} ({error}).") from None
        if not isinstance(values, dict):
            raise InvalidConfig(f"a config must be a JSON object, but got {text[:60]!r}.")
        return cls.from_dict(values)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of `to_json`: the same in every process and version of Python."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def __str__(self) -> str:
        return short_text(self.to_dict())


def code_legend(codes: Iterable[str]) -> str:
    """Return what the parts of configs' lines mean, as far as these lines have them; see `short_text`."""
    lines = tuple(codes)
    of_3x3 = any(" G3=" in line for line in lines)
    parts = [
        "3-1-1: dense layers of each stage",
        "growth: channels that each layer of a stage adds",
        "G: groups of a 1x1 convolution" if of_3x3 else "G: groups of each convolution",
        "C: each group of a 1x1 keeps 1/C of its inputs",
        "B: a 1x1 makes B times growth channels",
        *(["G3: groups of a 3x3 convolution"] if of_3x3 else []),
        *(["keep: share of the features that the classifier reads"] if any(" keep=" in line for line in lines) else []),
    ]
    return "; ".join(parts)


def short_text(values: Mapping[str, Any]) -> str:
    """Return the line that a config is called by, from `to_dict`'s form; nothing is checked, which saves time."""
    three = "" if values["groups_3x3"] is None else f" G3={values['groups_3x3']}"
    stages, growth = ("-".join(map(str, values[name])) for name in ("stages", "growth"))
    widths = f"G={values['groups']} C={values['condense_factor']} B={values['bottleneck']}"
    kept = values.get("classifier_keep", 1.0)
    return f"{stages} growth {growth} {widths}{three}" + ("" if kept == 1 else f" keep={kept:g}")


def _whole_number(name: str, value: Any) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise InvalidConfig(f"`{name}` must be a whole number, but got {value!r}.") from None
    if number < 1:
        raise InvalidConfig(f"`{name}` must be at least 1, but got {number}.")
    if number > MOST.get(name, WIDEST):
        raise InvalidConfig(f"`{name}` must be at most {MOST.get(name, WIDEST)}, but got {short_number(number)}.")
    return number


def _whole_numbers(name: str, values: Any) -> tuple[int, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InvalidConfig(f"`{name}` must be a list of whole numbers, but got {values!r}.")
    return tuple(_whole_number(name, value) for value in values)


def _real_number(name: str, value: Any) -> float:
    try:
        if isinstance(value, bool | str):
            raise TypeError
        return float(value) + 0.0  # -0.0 becomes 0.0, or equal configs would have different JSON
    except (TypeError, ValueError, OverflowError):
        raise InvalidConfig(f"`{name}` must be a number, but got {value!r}.") from None
