"""ncnn's model written straight from the deployed network: one zip of model.param, model.bin and model.json.

Notable choices:
- The first of a dense layer's two gathers is a layer of its own, `ChannelGather`, which ncnn doesn't have: the program
  that runs the model registers it. Its only parameter, 0, is the number of channels picked; its weights are their
  indices as int32. ncnn's own Slice and Concat would take five times the instructions of the whole network, and zero
  weights in an ungrouped 1x1 half as many again (docs/experiments.md).
- The permutation after the 1x1 is ncnn's ShuffleChannel.
- The second batch norm folds into the 1x1, whose activation is ReLU, as in the ONNX file.
- With half a classifier the features are gathered before the last norm, so that norm and pooling see half as well.

Format: the `.param` text (magic, counts, one layer a line) and the raw `.bin` of ncnn since 2017; convolution and
inner product weights follow a flag: zero, which says fp32, or that of float16. Biases and norms are always float32.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from space.config import CondenseNetConfig
from space.deployed import DeployedCondenseNet, DeployedLayer
from workers.export.common import Array, affine, checked, doubles, folded_1x1, halves, model_facts, stored_zip
from workers.export.pixels import PixelInput
from workers.file_names import INPUT, OUTPUT, Precision
from workers.files import write_atomically
from workers.latency.agent.runtimes import Ncnn
from workers.quantization.network import CLASSIFIER_RANGE, INPUT_RANGE, Part, range_1x1, range_3x3

GATHER = Ncnn.GATHER  # the layer's name
_PARAM_MAGIC = 7767517
_FP32 = b"\0\0\0\0"  # the flag before weights
_FP16 = (0x01306B47).to_bytes(4, "little")  # the same


@dataclass
class Model:
    """Layers and weights as they are written; a blob is named after the layer that makes it."""

    lines: list[str] = field(default_factory=list)
    weights: list[bytes] = field(default_factory=list)
    blobs: int = 0

    def add(self, kind: str, inputs: list[str], outputs: list[str], parameters: dict[int, int | str]) -> None:
        """Append one layer; parameters by ncnn's numbers."""
        numbered = " ".join(f"{key}={value}" for key, value in parameters.items())
        name = f"{kind.lower()}{len(self.lines)}"
        self.lines.append(
            f"{kind} {name} {len(inputs)} {len(outputs)} {' '.join(inputs + outputs)} {numbered}".rstrip()
        )
        self.blobs += len(outputs)

    def layer(self, kind: str, x: str, parameters: dict[int, int | str], output: str = "") -> str:
        """Append a layer of one input and one output; return the output's name."""
        output = output or f"blob{self.blobs}"
        self.add(kind, [x], [output], parameters)
        return output

    def data(self, *arrays: Array) -> None:
        """Append numbers as they are."""
        self.weights += [np.ascontiguousarray(array, dtype="<f4").tobytes() for array in arrays]

    def add_weights(self, part: Part, name: str, weight: Array, bias: Array | None) -> dict[int, int | str]:
        """Append the weights of a convolution or of the classifier; return the parameters that say how they are."""
        self.weights.append(_FP32)
        self.data(weight, *([] if bias is None else [bias]))
        return {}

    def gather(self, x: str, index: Tensor, channels: int) -> str:
        """Pick `index` out of `channels`; nothing when that is all of them in order."""
        if torch.equal(index.cpu(), torch.arange(channels)):
            return x
        self.weights.append(index.cpu().numpy().astype("<i4").tobytes())
        return self.layer(GATHER, x, {0: len(index)})

    def norm_relu(self, x: str, norm: nn.BatchNorm2d, index: Tensor | None = None) -> str:
        """Append a batch norm, of the channels `index` alone, and ReLU."""
        scale, shift = affine(norm)
        if index is not None:
            scale, shift = scale[index.cpu().numpy()], shift[index.cpu().numpy()]
        self.data(scale, np.zeros_like(scale), np.ones_like(scale), shift)  # slope, mean, variance, bias
        return self.layer("ReLU", self.layer("BatchNorm", x, {0: len(scale), 1: 0}), {})

    def conv(self, part: Part, name: str, x: str, conv: nn.Conv2d, weight: Array, bias: Array | None = None) -> str:
        """Append a convolution, followed by ReLU where it has a bias; `name` is that of its input's range."""
        return self.convolution(part, name, x, conv, (weight, bias), conv.groups)

    def convolution(
        self, part: Part, name: str, x: str, conv: nn.Conv2d, values: tuple[Array, Array | None], groups: int
    ) -> str:
        """Append a convolution of weights and biases as `conv` has it, in so many groups."""
        weight, bias = values
        of_weights = self.add_weights(part, name, weight, bias)
        size = {1: conv.kernel_size[0], 3: conv.stride[0], 4: cast(tuple[int, int], conv.padding)[0]}
        parameters: dict[int, int | str] = {0: len(weight), **size, 5: int(bias is not None), 6: weight.size}
        parameters |= of_weights
        if bias is not None:
            parameters[9] = 1
        if groups == 1:
            return self.layer("Convolution", x, parameters)
        return self.layer("ConvolutionDepthWise", x, {**parameters, 7: groups})


class _HalfModel(Model):
    """Weights in 16 bits; what ncnn computes with is its own choice on each processor."""

    def add_weights(self, part: Part, name: str, weight: Array, bias: Array | None) -> dict[int, int | str]:
        numbers = halves(weight).tobytes()
        self.weights += [_FP16, numbers, bytes(-len(numbers) % 4)]
        self.data(*([] if bias is None else [bias]))
        return {}


def _dense_layer(model: Model, x: str, number: int, layer: DeployedLayer) -> str:
    conv_1x1 = layer.conv_1x1
    kept, gathered = f"blob{model.blobs}", f"blob{model.blobs + 1}"
    model.add("Split", [x], [kept, gathered], {})
    y = model.norm_relu(model.gather(gathered, conv_1x1.index, layer.in_channels), conv_1x1.norm)
    y = model.conv("conv_1x1", range_1x1(number), y, conv_1x1.conv, *folded_1x1(layer))
    if conv_1x1.groups > 1:
        y = model.layer("ShuffleChannel", y, {0: conv_1x1.groups})
    new = model.conv("conv_3x3", range_3x3(number), y, layer.conv_3x3, doubles(layer.conv_3x3.weight))
    output = f"blob{model.blobs}"
    model.add("Concat", [kept, new], [output], {})
    return output


def _scaled(model: Model, pixels: PixelInput) -> str:
    """Add what makes the network's input of pixels, which ncnn takes as float32."""
    x, (scale, shift) = INPUT, pixels.factors
    if pixels.limits is not None:
        x = model.layer("Clip", x, dict(enumerate(map(str, pixels.limits))))
    model.data(scale, shift)
    return model.layer("Scale", x, {0: len(scale), 1: 1})


@torch.no_grad()
def to_ncnn(network: DeployedCondenseNet, pixels: PixelInput | None = None, half: bool = False) -> bytes:
    """Return the model file, equal for equal networks: images (C, H, W) float32 -> logits (classes,), one at a time.

    With `pixels` the images hold those, still as float32: `ncnn::Mat::from_pixels` makes such. The model scales them.
    With `half` its weights are in fp16.
    """
    return file_of(_HalfModel(), network, pixels, "fp16") if half else file_of(Model(), network, pixels)


def file_of(
    model: Model, network: DeployedCondenseNet, pixels: PixelInput | None, precision: Precision = "fp32"
) -> bytes:
    """Return the model file of a network, whose layers `model` appends in a precision."""
    config = network.config
    channels, height, width = config.input_shape
    model.add("Input", [], [INPUT], {0: width, 1: height, 2: channels})
    x = INPUT if pixels is None else _scaled(model, pixels)
    x = model.conv("stem", INPUT_RANGE, x, network.stem, doubles(network.stem.weight))
    stage = 0
    for number, (shape, layer) in enumerate(zip(config.layer_shapes, network.layers, strict=True)):
        if shape.stage != stage:
            x = model.layer("Pooling", x, {0: 1, 1: 2, 2: 2, 5: 1})  # average, 2x2, stride 2, odd edges dropped
            stage = shape.stage
        x = _dense_layer(model, x, number, cast(DeployedLayer, layer))
    x = model.gather(x, network.classifier_index, config.num_features)
    x = model.norm_relu(x, network.norm, network.classifier_index)
    x = model.layer("Pooling", x, {0: 1, 4: 1})  # average of everything
    weight, bias = doubles(network.classifier.weight), doubles(network.classifier.bias)
    of_weights = model.add_weights("classifier", CLASSIFIER_RANGE, weight, bias)
    model.layer("InnerProduct", x, {0: config.num_classes, 1: 1, 2: weight.size, **of_weights}, output=OUTPUT)
    return stored_zip(_files(model, config, pixels, precision))


def _files(
    model: Model, config: CondenseNetConfig, pixels: PixelInput | None, precision: Precision
) -> dict[str, bytes]:
    lines = [str(_PARAM_MAGIC), f"{len(model.lines)} {model.blobs}", *model.lines]
    layers = [GATHER] if any(line.startswith(GATHER) for line in model.lines) else []
    return {
        "model.param": "".join(f"{line}\n" for line in lines).encode(),
        "model.bin": b"".join(model.weights),
        "model.json": model_facts(config, layers, None if pixels is None else pixels.rules, precision),
    }


def save_ncnn(network: DeployedCondenseNet, path: Path, pixels: PixelInput | None = None, half: bool = False) -> str:
    """Write `network` to `path` atomically; return the file's SHA-256."""
    return write_atomically(path, to_ncnn(network, pixels, half))


def check_ncnn(path: Path, network: DeployedCondenseNet, images: int = 4) -> float:
    """Run the file in ncnn beside torch.

    Returns:
        The largest difference of a logit, as a fraction of the largest logit.

    Raises:
        ExportMismatch: ncnn can't run the file, or the difference is above `TOLERANCE`.
    """
    return checked(path, lambda model: Ncnn().open(model, threads=1), network, images)
