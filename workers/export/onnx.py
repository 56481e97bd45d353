"""ONNX written straight from the deployed network, with the batch norms that can fold folded.

Notable choices:
- The batch norm between the 1x1 and the 3x3 folds into the 1x1 (weight and bias), and its ReLU runs before the
  permutation, so a runtime can fuse convolution and ReLU; the permutation back is one Gather. Runtimes don't fold
  across that Gather by themselves.
- The first batch norm of a layer is before its ReLU, on a tensor with many readers, and can't fold. The last one
  folds into nothing either.
- A gather of all channels in order is left out.
- Operator set 17, IR version 8: read by every runtime of the last years, devices' older ones included.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from space.config import CondenseNetConfig
from space.deployed import DeployedCondenseNet, DeployedLayer
from workers.export.common import batch_difference, within_tolerance
from workers.export.pixels import PixelInput
from workers.file_names import INPUT, OUTPUT
from workers.files import write_atomically
from workers.latency.agent.runtimes.onnx import import_onnxruntime
from workers.latency.agent.sensors import usable_cores
from workers.quantization.network import CLASSIFIER_RANGE, INPUT_RANGE, Part, range_1x1, range_3x3

OPSET, IR_VERSION = 17, 8


@dataclass
class Graph:
    """Nodes and initializers as they are written; tensor names are made unique by counting.

    `read` and `features` are where `onnx_int8` rounds; here nothing is.
    """

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[TensorProto] = field(default_factory=list)

    def constant(self, value: Tensor | np.ndarray[Any, Any]) -> str:
        """Add an initializer; return its name."""
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        name = f"w{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node; return its output's name."""
        output = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def read(self, part: Part, x: str, name: str) -> str:
        """Return what a part of the network reads; `name` is that of its range."""
        return x

    def features(self, x: str, stage: int) -> str:
        """Return features as layers of a stage read them."""
        return x

    def gather(self, x: str, index: Tensor, channels: int) -> str:
        """Pick `index` out of `channels` on axis 1; nothing when that is all of them in order."""
        if torch.equal(index.cpu(), torch.arange(channels)):
            return x
        return self.add("Gather", x, self.constant(index.to(torch.int64)), axis=1)

    def norm_relu(self, x: str, norm: nn.BatchNorm2d) -> str:
        """Add a batch norm and a ReLU."""
        running = (cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var))
        constants = [self.constant(value) for value in (norm.weight, norm.bias, *running)]
        return self.add("Relu", self.add("BatchNormalization", x, *constants, epsilon=norm.eps))

    def weights(self, part: Part, name: str, weight: Tensor, bias: Tensor | None) -> list[str]:
        """Add the weights of a part, and its bias if there is one; `name` is that of the range of what it reads."""
        return [self.constant(value) for value in (weight, bias) if value is not None]

    def conv(self, x: str, conv: nn.Conv2d, weights: list[str]) -> str:
        """Add a convolution with weights of `weights`."""
        pad = cast(tuple[int, int], conv.padding)
        return self.add(
            "Conv",
            x,
            *weights,
            group=conv.groups,
            kernel_shape=list(conv.kernel_size),
            pads=[*pad, *pad],
            strides=list(conv.stride),
        )


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d, order: Tensor) -> tuple[Tensor, Tensor]:
    """Fold a batch norm over `order`ed outputs into the convolution before it: (weight, bias)."""
    scale = norm.weight / torch.sqrt(cast(Tensor, norm.running_var) + norm.eps)
    shift = norm.bias - cast(Tensor, norm.running_mean) * scale
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order))  # channel of the convolution -> channel of the norm
    return conv.weight * scale[back].view(-1, 1, 1, 1), shift[back]


def _dense_layer(graph: Graph, x: str, number: int, layer: DeployedLayer, stage: int) -> str:
    conv_1x1, conv_3x3 = layer.conv_1x1, layer.conv_3x3
    gathered = graph.gather(x, conv_1x1.index, layer.in_channels)
    y = graph.norm_relu(gathered if gathered == x else graph.features(gathered, stage), conv_1x1.norm)
    y = graph.read("conv_1x1", y, range_1x1(number))
    folded = _fold(conv_1x1.conv, layer.norm, conv_1x1.permutation)
    y = graph.conv(y, conv_1x1.conv, graph.weights("conv_1x1", range_1x1(number), *folded))
    y = graph.read("conv_3x3", graph.add("Relu", y), range_3x3(number))
    ordered = graph.gather(y, conv_1x1.permutation, conv_1x1.conv.out_channels)
    y = y if ordered == y else graph.read("conv_3x3", ordered, range_3x3(number))
    new = graph.conv(y, conv_3x3, graph.weights("conv_3x3", range_3x3(number), conv_3x3.weight, None))
    return graph.features(graph.add("Concat", x, graph.features(new, stage), axis=1), stage)


def _scaled(graph: Graph, pixels: PixelInput) -> str:
    """Add what makes the network's input of pixels."""
    x = graph.add("Cast", INPUT, to=TensorProto.FLOAT)
    if pixels.limits is not None:
        x = graph.add("Clip", x, *(graph.constant(np.array(limit, np.float32)) for limit in pixels.limits))
    scale, shift = (graph.constant(values.reshape(1, -1, 1, 1)) for values in pixels.factors)
    return graph.add("Add", graph.add("Mul", x, scale), shift)


def to_onnx(network: DeployedCondenseNet, pixels: PixelInput | None = None) -> onnx.ModelProto:
    """Return the ONNX model: images (batch, C, H, W) float32, normalised as in training -> logits (batch, classes).

    With `pixels` the images are of its type, and the model scales them.
    """
    return model_in(Graph(), network, pixels)


@torch.no_grad()
def model_in(graph: Graph, network: DeployedCondenseNet, pixels: PixelInput | None) -> onnx.ModelProto:
    """Write a network into an empty graph; return the model, see `to_onnx`."""
    config = network.config
    x = graph.read("stem", INPUT if pixels is None else _scaled(graph, pixels), INPUT_RANGE)
    x = graph.features(graph.conv(x, network.stem, graph.weights("stem", INPUT_RANGE, network.stem.weight, None)), 0)
    stage = 0
    for number, (shape, layer) in enumerate(zip(config.layer_shapes, network.layers, strict=True)):
        if shape.stage != stage:
            stage = shape.stage
            x = graph.features(graph.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2]), stage)
        x = _dense_layer(graph, x, number, cast(DeployedLayer, layer), stage)
    x = graph.norm_relu(x, network.norm)
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    x = graph.read("classifier", graph.gather(x, network.classifier_index, config.num_features), CLASSIFIER_RANGE)
    classifier = network.classifier
    weights = graph.weights("classifier", CLASSIFIER_RANGE, classifier.weight, classifier.bias)
    graph.add("Gemm", x, *weights, output=OUTPUT, transB=1)
    return _model(graph, config, pixels)


def _model(graph: Graph, config: CondenseNetConfig, pixels: PixelInput | None) -> onnx.ModelProto:
    kind = TensorProto.FLOAT if pixels is None else TensorProto.DataType.Value(pixels.pixel_type.upper())
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "CondenseNet",
            [helper.make_tensor_value_info(INPUT, kind, ["batch", *config.input_shape])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", config.num_classes])],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="condensery",
    )
    baked = {} if pixels is None else {"preprocessing": json.dumps(pixels.rules)}
    helper.set_model_props(model, {"config": config.to_json(), **baked})
    return model


def save_onnx(network: DeployedCondenseNet, path: Path, pixels: PixelInput | None = None) -> str:
    """Write `network` to `path` atomically; return the file's SHA-256."""
    return write_atomically(path, to_onnx(network, pixels).SerializeToString())


def check_onnx(path: Path, network: DeployedCondenseNet, images: int = 4) -> float:
    """Check the file with onnx.checker and run it in onnxruntime beside torch.

    Returns:
        The largest difference of a logit, as a fraction of the largest logit.

    Raises:
        ExportMismatch: the file is not valid ONNX, or the difference is above `TOLERANCE`.
    """
    return within_tolerance(path, lambda: batch_difference(network, partial(_checked_run, path), images))


def _checked_run(path: Path, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the logits of a file that onnx.checker accepts, from onnxruntime on the CPU."""
    onnx.checker.check_model(str(path), full_check=True)
    return exported_network(path)(images)


def exported_network(path: Path) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """Load an exported file into onnxruntime on the CPU; return the function from images (N, C, H, W) to logits.

    It uses as many threads as torch does here, and no more than there are cores for this thread.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    # Without a number, onnxruntime starts a thread for every core of the machine and moves each to its core, the
    # measuring one included, whatever this process was given.
    options.intra_op_num_threads = min(torch.get_num_threads(), len(usable_cores()))
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def logits_of(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        (logits,) = session.run([OUTPUT], {INPUT: images})
        return cast("np.ndarray[Any, Any]", logits)

    return logits_of
