"""LiteRT's model file (.tflite) written straight from the deployed network.

Notable choices:
- LiteRT's convolutions have channels last, so the input is images of shape (1, H, W, C), as cameras give them.
- The features of a stage have channels first, and what a layer gathers or adds is transposed, so that a gather copies
  whole channels. With channels last it copies single numbers, and the network takes 2.3 times the instructions.
- The second batch norm folds into the 1x1, whose activation is ReLU, as in the ONNX file. The first one is a multiply
  and an add with ReLU: its tensor has many readers.
- The permutation after the 1x1 is reshape, transpose, reshape; before a dense 3x3 it moves into the weights.
- In fp16 weights have 16 bits, and LiteRT makes float32 of them when it opens the file.
- With half a classifier the features are gathered before the last norm, so that norm and mean see half as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from space.deployed import DeployedCondenseNet, DeployedLayer
from workers.export import tflite
from workers.export.common import Array, affine, checked, doubles, folded_1x1, halves
from workers.export.pixels import PixelInput
from workers.export.tflite import NO_ACTIVATION, RELU, SAME, VALID, Graph, Tensor
from workers.file_names import INPUT, OUTPUT
from workers.files import write_atomically
from workers.latency.agent.runtimes import LiteRt
from workers.quantization.network import INPUT_RANGE, range_1x1, range_3x3, range_features


@dataclass
class Model:
    """The graph as it is written; `litert_int8` has one that writes numbers of 8 bits.

    Operators that only move numbers keep their kind. `name` is always that of the range of a tensor that is made.
    """

    graph: Graph = field(default_factory=Graph)

    def floats(self, values: Array) -> Tensor:
        """Add a constant of float32."""
        return self.graph.constant(values.astype("<f4"))

    def stored(self, weight: Array) -> Tensor:
        """Add the weights of a convolution or of the classifier, which are read as float32."""
        return self.floats(weight)

    def integers(self, values: Any) -> Tensor:
        """Add a constant of int32."""
        return self.graph.constant(np.asarray(values, "<i4"))

    def read(self, x: Tensor, name: str) -> Tensor:
        """Return the images as the first convolution reads them."""
        return x

    def real(self, x: Tensor) -> Tensor:
        """Return a tensor as float32."""
        return x

    def gather(self, x: Tensor, index: torch.Tensor) -> Tensor:
        """Pick channels of a tensor that has them first; return them last."""
        if not torch.equal(index.cpu(), torch.arange(x.shape[1])):
            inputs = [x, self.integers(index.cpu().numpy())]
            x = self.graph.add(tflite.GATHER, inputs, (1, len(index), *x.shape[2:]), like=x, axis=1)
        return self.turned(x, (0, 2, 3, 1))

    def turned(self, x: Tensor, order: tuple[int, ...]) -> Tensor:
        """Return a tensor with its axes in another order."""
        return self.graph.add(tflite.TRANSPOSE, [x, self.integers(order)], [x.shape[axis] for axis in order], like=x)

    def norm_relu(self, x: Tensor, scale: Array, shift: Array, name: str) -> Tensor:
        """Add a batch norm and a ReLU; channels are last."""
        scaled = self.graph.add(tflite.MULTIPLY, [x, self.floats(scale)], x.shape)
        return self.graph.add(tflite.ADD, [scaled, self.floats(shift)], x.shape, activation=RELU)

    def weights(self, x: Tensor, weight: Array, bias: Array) -> list[Tensor]:
        """Add a convolution's weights (out, h, w, in/groups) and bias; `x` is what it reads."""
        return [self.stored(weight), self.floats(bias)]

    def like(self, name: str) -> Tensor | None:
        """Return a tensor whose numbers are as those of the range; None for float32."""
        return None

    def conv(self, x: Tensor, conv: nn.Conv2d, weight: Array, bias: Array | None, name: str) -> Tensor:
        """Add a convolution, followed by ReLU where it has a bias; weights (out, in/groups, h, w) as torch has them."""
        size, stride, border = conv.kernel_size[0], conv.stride[0], cast(tuple[int, int], conv.padding)[0]
        _, height, width, channels = x.shape
        positions = (1, (height + 2 * border - size) // stride + 1, (width + 2 * border - size) // stride + 1)
        padding = SAME if stride == 1 else VALID
        if border and padding == VALID:  # SAME is lopsided with a stride of 2
            edges = self.integers([[0, 0], [border, border], [border, border], [0, 0]])
            padded = (1, height + 2 * border, width + 2 * border, channels)
            x = self.graph.add(tflite.PAD, [x, edges], padded, like=x)
        added = np.zeros(conv.out_channels) if bias is None else bias
        inputs = [x, *self.weights(x, weight.transpose(0, 2, 3, 1), added)]
        activation = NO_ACTIVATION if bias is None else RELU
        options = {"padding": padding, "stride_w": stride, "stride_h": stride, "activation": activation}
        shape = (*positions, conv.out_channels)
        return self.graph.add(tflite.CONV, inputs, shape, like=self.like(name), **options)

    def shuffle(self, x: Tensor, groups: int) -> Tensor:
        """Put channels that come group by group back into training order."""
        _, height, width, channels = x.shape
        split, turned = (1, height, width, groups, channels // groups), (1, height, width, channels // groups, groups)
        x = self.graph.add(tflite.RESHAPE, [x, self.integers(split)], split, like=x)
        x = self.graph.add(tflite.TRANSPOSE, [x, self.integers([0, 1, 2, 4, 3])], turned, like=x)
        whole = (1, height, width, channels)
        return self.graph.add(tflite.RESHAPE, [x, self.integers(whole)], whole, like=x)

    def halve(self, x: Tensor) -> Tensor:
        """Add the average pooling between stages: 2x2, stride 2, odd edges dropped."""
        _, height, width, channels = x.shape
        options = {"padding": VALID, "stride_w": 2, "stride_h": 2, "filter_w": 2, "filter_h": 2}
        return self.graph.add(tflite.AVERAGE_POOL, [x], (1, height // 2, width // 2, channels), like=x, **options)


def _dense_layer(model: Model, x: Tensor, number: int, layer: DeployedLayer, stage: int) -> Tensor:
    conv_1x1 = layer.conv_1x1
    y = model.norm_relu(model.gather(x, conv_1x1.index), *affine(conv_1x1.norm), range_1x1(number))
    y = model.conv(y, conv_1x1.conv, *folded_1x1(layer), range_3x3(number))
    weight = doubles(layer.conv_3x3.weight)
    if layer.conv_3x3.groups == 1:
        turned = np.empty_like(weight)
        turned[:, conv_1x1.permutation.cpu().numpy()] = weight  # to group order
        weight = turned
    elif conv_1x1.groups > 1:
        y = model.shuffle(y, conv_1x1.groups)
    new = model.turned(model.conv(y, layer.conv_3x3, weight, None, range_features(stage)), (0, 3, 1, 2))
    channels = x.shape[1] + new.shape[1]
    return model.graph.add(tflite.CONCATENATION, [x, new], (1, channels, *x.shape[2:]), like=x, axis=1)


def _scaled(model: Model, images: Tensor, pixels: PixelInput) -> Tensor:
    """Add what makes the network's input of pixels."""
    x = model.graph.add(tflite.CAST, [images], images.shape)
    if pixels.limits is not None:
        for kind, limit in zip((tflite.MAXIMUM, tflite.MINIMUM), pixels.limits, strict=True):
            x = model.graph.add(kind, [x, model.floats(np.array([limit]))], x.shape)
    scale, shift = map(model.floats, pixels.factors)
    scaled = model.graph.add(tflite.MULTIPLY, [x, scale], x.shape)
    return model.graph.add(tflite.ADD, [scaled, shift], x.shape)


class _HalfModel(Model):
    def stored(self, weight: Array) -> Tensor:
        numbers = self.graph.constant(halves(weight))
        return self.graph.add(tflite.DEQUANTIZE_HALF, [numbers], numbers.shape)


def to_litert(network: DeployedCondenseNet, pixels: PixelInput | None = None, half: bool = False) -> bytes:
    """Return the model file, equal for equal networks: images (1, H, W, C) float32 -> logits (1, classes).

    With `pixels` the images are of its type, and the model scales them. With `half` its weights are in fp16.
    """
    return file_of(_HalfModel(), network, pixels, {"precision": "fp16"}) if half else file_of(Model(), network, pixels)


@torch.no_grad()
def file_of(
    model: Model, network: DeployedCondenseNet, pixels: PixelInput | None, facts: Mapping[str, str] | None = None
) -> bytes:
    """Write a network into an empty model; return the file, see `to_litert`, which says `facts` of itself as well."""
    config = network.config
    channels, height, width = config.input_shape
    images = model.graph.tensor((1, height, width, channels), "float32" if pixels is None else pixels.pixel_type)
    x = model.read(images if pixels is None else _scaled(model, images, pixels), INPUT_RANGE)
    x = model.conv(x, network.stem, doubles(network.stem.weight), None, range_features(0))
    x = model.turned(x, (0, 3, 1, 2))
    stage = 0
    for number, (shape, layer) in enumerate(zip(config.layer_shapes, network.layers, strict=True)):
        if shape.stage != stage:
            x, stage = model.turned(model.halve(model.turned(x, (0, 2, 3, 1))), (0, 3, 1, 2)), shape.stage
        x = _dense_layer(model, x, number, cast(DeployedLayer, layer), stage)
    logits = _classifier(model, model.real(x), network)
    baked = {} if pixels is None else {"preprocessing": pixels.rules}
    description = json.dumps({"config": config.to_dict(), **baked, **(facts or {})}, sort_keys=True)
    return model.graph.to_bytes((images, logits), (INPUT, OUTPUT), description)


def _classifier(model: Model, x: Tensor, network: DeployedCondenseNet) -> Tensor:
    """Add the last norm, which like all that follows is in float32, the mean of each channel, and the classifier."""
    picked = network.classifier_index.cpu().numpy()
    scale, shift = affine(network.norm)
    x = Model.norm_relu(model, model.gather(x, network.classifier_index), scale[picked], shift[picked], "")
    x = model.graph.add(tflite.MEAN, [x, model.integers([1, 2])], (1, len(picked)), keep_dims=0)
    weight, bias = doubles(network.classifier.weight), doubles(network.classifier.bias)
    classifier = [model.stored(weight), model.floats(bias)]
    return model.graph.add(tflite.FULLY_CONNECTED, [x, *classifier], (1, network.config.num_classes))


def save_litert(network: DeployedCondenseNet, path: Path, pixels: PixelInput | None = None, half: bool = False) -> str:
    """Write `network` to `path` atomically; return the file's SHA-256."""
    return write_atomically(path, to_litert(network, pixels, half))


def check_litert(path: Path, network: DeployedCondenseNet, images: int = 4) -> float:
    """Run the file in LiteRT beside torch.

    Returns:
        The largest difference of a logit, as a fraction of the largest logit.

    Raises:
        ExportMismatch: LiteRT can't run the file, or the difference is above `TOLERANCE`.
    """
    return checked(path, lambda model: LiteRt().open(model, threads=1), network, images)
