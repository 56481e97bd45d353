"""The trained network that a training starts from: its file, and which of its layers fit another network.

The file holds the deployed network's tensors, and as metadata its config and the names of its classes. The first digits
of its SHA-256 are its pin: they end the setting `training.start`, so that a study never goes on from another network.

Notable choices:
- A network begins with the stem and the layers up to the first that differs. Behind that one the same channel numbers
  would mean other features, so nothing that is there would fit.
- Layers that differ in groups, condensing factor or bottleneck never fit: their weights are cut otherwise.
- The classifier fits if all layers do and the classes have the same names in the same order.

No torch here, because `check` and the controller only look.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import safetensors.numpy

from space.config import CondenseNetConfig
from space.cost import parts_of
from space.documents import UnreadableDocument, read_json
from space.errors import CheckpointCorrupt
from workers.settings import NO_START, START
from workers.wording import counted

PIN_DIGITS = 16


@dataclass(frozen=True)
class Fit:
    """How much of a network begins as it is in another one."""

    layers: int  # dense layers; 0 if the stem doesn't fit
    of_layers: int
    params: int  # deployed
    of_params: int
    head: bool  # whether the classifier begins so too

    def __str__(self) -> str:
        what = f"the stem and {self.layers} of {counted(self.of_layers, 'layer')}" if self.layers else "no layer"
        head = "the classifier too" if self.head else "the classifier is new"
        return f"{what}, {self.params:,} of {counted(self.of_params, 'parameter')}; {head}"


def fit_of(config: CondenseNetConfig, source: CondenseNetConfig, same_classes: bool) -> Fit:
    """Return how much of `config`'s network can begin as in `source`'s; see the module."""
    layers = _layers_alike(config, source)
    whole = layers == len(config.layer_shapes) == len(source.layer_shapes)
    head = whole and same_classes and config.num_classes == source.num_classes
    taken = params = 0
    for part in parts_of(config):
        taken += part.kind == "layer"
        fits = {"stem": layers > 0, "layer": taken <= layers, "norm": whole, "classifier": head}
        params += part.params * fits.get(part.kind, False)
    of_params = sum(part.params for part in parts_of(config))
    return Fit(layers, len(config.layer_shapes), params, of_params, head)


def _layers_alike(config: CondenseNetConfig, source: CondenseNetConfig) -> int:
    """Return how many dense layers are alike before the first that differs; 0 if the stems differ."""
    if _kind(config) != _kind(source) or config.stem_channels != source.stem_channels:
        return 0
    pairs = zip(config.layer_shapes, source.layer_shapes, strict=False)
    differing = (
        place for place, (one, other) in enumerate(pairs) if (one.stage, one.growth) != (other.stage, other.growth)
    )
    return next(differing, min(len(config.layer_shapes), len(source.layer_shapes)))


def _kind(config: CondenseNetConfig) -> tuple[int, ...]:
    """Return what all layers of a network have in common, and the channels of its images."""
    return config.groups, config.condense_factor, config.bottleneck, config.conv3x3_groups, config.input_shape[0]


@dataclass(frozen=True)
class StartNetwork:
    """A trained network as a training's start: its config, its classes, and the file that carries all of it."""

    config: CondenseNetConfig
    class_names: tuple[str, ...]
    content: bytes  # a safetensors file

    @classmethod
    def of_weights(cls, config: CondenseNetConfig, class_names: Sequence[str], weights: bytes) -> StartNetwork:
        """Return the start that a deployed network's safetensors file makes; the same network always has the same pin.

        Raises:
            CheckpointCorrupt: it isn't such a file, or of a network of another config.
        """
        document = json.dumps([config.to_dict(), list(class_names)], sort_keys=True)
        try:
            tensors = safetensors.numpy.load(weights)
        except (safetensors.SafetensorError, ValueError, KeyError) as error:
            raise CheckpointCorrupt(f"its weights are no safetensors file ({type(error).__name__})") from None
        shapes = {name: tensor.shape for name, tensor in tensors.items() if not name.endswith(_COUNTER)}
        if shapes != tensor_shapes(config):
            raise CheckpointCorrupt(f"its weights are not those of a {config}: they have other names or shapes")
        return cls(config, tuple(class_names), safetensors.numpy.save(tensors, {_DOCUMENT: document}))

    @classmethod
    def of_file(cls, content: bytes) -> StartNetwork:
        """Read the file of a start again.

        Raises:
            CheckpointCorrupt: it isn't one.
        """
        try:
            length = int.from_bytes(content[:8], "little")
            header: Any = read_json(content[8 : 8 + length].decode())
            config, class_names = json.loads(header["__metadata__"][_DOCUMENT])
            return cls(CondenseNetConfig.from_dict(config), tuple(class_names), content)
        except (UnreadableDocument, ValueError, KeyError, TypeError) as error:
            raise CheckpointCorrupt(f"it is no network to start from ({type(error).__name__})") from None

    @property
    def pin(self) -> str:
        """The first digits of the file's SHA-256."""
        return hashlib.sha256(self.content).hexdigest()[:PIN_DIGITS]


_DOCUMENT = "start"  # the key of the config and the classes among the file's metadata
_COUNTER = ".num_batches_tracked"  # of a batch norm: no figure of the network depends on it


def tensor_shapes(config: CondenseNetConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a deployed network by its name, as in `space.deployed`; no counters."""
    features, inputs = config.num_features, config.classifier_inputs
    shapes: dict[str, tuple[int, ...]] = {
        "stem.weight": (config.stem_channels, config.input_shape[0], 3, 3),
        **_norm("norm", features),
        "classifier_index": (inputs,),
        "classifier.weight": (config.num_classes, inputs),
        "classifier.bias": (config.num_classes,),
    }
    for place, layer in enumerate(config.layer_shapes):
        name, kept, width = f"layers.{place}", layer.in_channels // config.condense_factor, layer.bottleneck_channels
        shapes |= _norm(f"{name}.conv_1x1.norm", config.groups * kept) | _norm(f"{name}.norm", width)
        shapes[f"{name}.conv_1x1.index"] = (config.groups * kept,)
        shapes[f"{name}.conv_1x1.conv.weight"] = (width, kept, 1, 1)
        shapes[f"{name}.conv_3x3.weight"] = (layer.growth, width // config.conv3x3_groups, 3, 3)
    return shapes


def _norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{of}": (channels,) for of in ("weight", "bias", "running_mean", "running_var")}


def pin_of(start: str) -> str | None:
    """Return the pin of a setting `training.start`; None if it has none."""
    named = START.fullmatch(start)
    return None if named is None else named["pin"]


def without_pin(start: str) -> str:
    """Return a setting `training.start` as a user writes it."""
    return start if pin_of(start) is None else start[: -PIN_DIGITS - 1]


def start_file(training: Mapping[str, Any]) -> str | None:
    """Return the name of the file, among a study's, that holds what a trial with these settings starts from.

    None: it starts from random weights.
    """
    pin = pin_of(str(training.get("start", NO_START)))
    return None if pin is None else f"start-{pin}.safetensors"
