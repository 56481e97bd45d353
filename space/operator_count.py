"""The cost of a real module, counted operator by operator with fvcore.

Notable choices:
- Every operator fvcore meets is either counted (convolutions, linear), part of `paper_flops` (ReLU, average pooling)
  or on a short list of operators that cost no multiply-adds. Anything else raises `UncountableOperator`; fvcore alone
  would only warn and return too little.
- The module is counted in eval mode and left exactly as it was found: no patched methods, no moved statistics.

fvcore 0.1.5: `fvcore.nn.FlopCountAnalysis` (1 multiply-add = 1).
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from space.cost import Cost
from space.errors import UncountableOperator

# Moves or scales data without a multiply-add of a convolution or linear layer.
FREE_OPERATORS = (
    "aten::batch_norm aten::index_select aten::cat aten::view aten::view_as aten::reshape aten::transpose "
    "aten::permute aten::flatten aten::contiguous aten::clone aten::size aten::mul aten::add aten::add_ aten::dropout "
    "aten::unsqueeze aten::expand aten::floor_divide aten::arange aten::to aten::detach aten::slice aten::select"
).split()


def _shape(value: Any) -> list[int]:
    return list(value.type().sizes())


def _relu(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    return Counter(relu=math.prod(_shape(inputs[0])))


def _avg_pool(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    kernel = [size.toIValue() for size in inputs[1].node().inputs()]
    return Counter(avgpool=math.prod(_shape(outputs[0])) * kernel[0] * kernel[-1])


def _global_pool(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    (_, _, height, width), (_, _, out_height, out_width) = _shape(inputs[0]), _shape(outputs[0])
    area = (height // out_height) * (width // out_width)
    return Counter(avgpool=math.prod(_shape(outputs[0])) * area)


def _free(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    return Counter()


def _handlers() -> dict[str, Callable[..., Counter[str]]]:
    counted = dict.fromkeys(FREE_OPERATORS, _free)
    counted |= dict.fromkeys(("aten::relu", "aten::relu_"), _relu)
    return counted | {"aten::avg_pool2d": _avg_pool, "aten::adaptive_avg_pool2d": _global_pool}


def fvcore_cost(module: nn.Module, input_shape: tuple[int, int, int]) -> Cost:
    """Count `module` on one image of `input_shape` (C, H, W).

    Raises:
        UncountableOperator: the module runs an operator that is neither counted nor known to be free.
    """
    counts = _operator_counts(module, input_shape)
    linear_macs = int(counts.get("linear", 0))
    conv_macs = int(counts.get("conv", 0))
    relu, pooled = int(counts.get("relu", 0)), int(counts.get("avgpool", 0))
    other = set(counts) - {"linear", "conv", "relu", "avgpool"}
    if any(counts[name] for name in other):
        raise UncountableOperator(
            f"only convolutions and linear layers are counted, but fvcore counted {sorted(other)}."
        )
    biases = sum(m.bias.numel() for m in module.modules() if isinstance(m, nn.Linear) and m.bias is not None)
    macs = conv_macs + linear_macs
    return Cost(
        macs=macs,
        params=sum(p.numel() for p in module.parameters()),
        paper_flops=macs + relu + pooled + biases,
        conv_macs=conv_macs,
        relu_elements=relu,
        avgpool_ops=pooled,
    )


def _operator_counts(module: nn.Module, input_shape: tuple[int, int, int]) -> Mapping[str, float]:
    """Return what fvcore counts of each operator; raise UncountableOperator if one is unknown."""
    modes = {name: child.training for name, child in module.named_modules()}
    sample = next(module.parameters(), torch.empty(0))  # the image goes where the weights are
    module.eval()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch deprecates the tracer that fvcore is built on
            from fvcore.nn import FlopCountAnalysis  # here, because importing it warns as well

            analysis = FlopCountAnalysis(module, sample.new_zeros(1, *input_shape))
            analysis.set_op_handle(**_handlers())
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            counts: Mapping[str, float] = analysis.by_operator()
            unknown = sorted(analysis.unsupported_ops())
    finally:
        for name, child in module.named_modules():
            child.training = modes[name]
    if unknown:
        raise UncountableOperator(
            f"every operator must have a known cost, but {type(module).__name__} runs {', '.join(unknown)}."
        )
    return counts
