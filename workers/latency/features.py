"""What a deployed CondenseNet moves and multiplies, operator by operator; its latency is nearly linear in them.

A deployed dense layer is a gather, batch norm and ReLU, a 1x1 convolution in groups, the permutation back, a 3x3
convolution in groups and a concatenation. Each one's time is nearly linear in a few amounts; the amounts of a network
are their sums over its layers. Closed form, from the configuration alone, for thousands of networks a second.

Notable choices:
- Runtimes have blocked kernels for some shapes of convolution, on some processors. Their amounts are listed beside
  the plain ones, and a fit says which of them a device has. The rule is that of onnxruntime's layout pass.
- A 3x3 outside of blocked kernels is laid out as columns first: row by row, so short rows cost more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from space.config import CondenseNetConfig
from space.cost import parts_of

Array = NDArray[np.float64]

FEATURES = (
    "network",  # 1
    "layers",  # dense layers
    "ends",  # elements of stem, final norm and classifier
    "pooled",  # elements that the poolings between stages read
    "gather",  # elements copied by the channel gathers before the 1x1s
    "gather_dense",  # of these, those for a dense 1x1, whose blocked layout the gather breaks up
    "norm",  # elements of batch norm and ReLU on gathered channels
    "norm_channels",
    "spill",  # of these elements, those beyond what a core's cache holds
    "macs_1x1_dense",
    "macs_1x1_grouped",
    "macs_3x3_dense",
    "macs_3x3_grouped",
    "macs_3x3_blocked",  # channels rounded up to whole blocks, where blocked kernels can run
    "macs_3x3_narrow",  # grouped, and blocked kernels can't run
    "rows_3x3_dense",  # image rows copied to lay out a 3x3's input
    "rows_3x3_grouped",
    "weights",
    "middle",  # elements between 1x1 and 3x3
    "permuted",  # of these, elements put back into training order
    "permuted_channels",
    "reordered",  # elements moved into and out of the blocked layout
    "concat",  # elements of the concatenations
)
BLOCK = 16  # channels in a block of the widest kernels (AVX-512); on others it is 8, or there are none
CACHE_ELEMENTS = 2**17  # float32 values in half a MiB of cache a core


def features(config: CondenseNetConfig) -> Array:
    """Return the amounts of `FEATURES` in one network, for one image: (features,), all >= 0."""
    row: Array = feature_matrix([config])[0]
    return row


def feature_matrix(configs: Sequence[CondenseNetConfig]) -> Array:
    """Return `features` of each network: (networks, features)."""
    if not configs:
        return np.empty((0, len(FEATURES)))
    starts = np.cumsum([0, *(len(config.layer_shapes) for config in configs[:-1])])
    sums = {name: np.add.reduceat(values, starts) for name, values in _layer_columns(_layers(configs)).items()}
    sums["network"] = np.ones(len(configs))
    sums["ends"] = np.array([sum(_ends(config)) for config in configs])
    matrix: Array = np.stack([sums[name] for name in FEATURES], axis=1)
    return matrix


def part_matrix(config: CondenseNetConfig) -> Array:
    """Return the amounts in each part of one network: (parts + 1, features); the columns add up to `features`.

    The rows are those of `space.cost.parts_of`, and one more for what a run takes whatever the network.
    """
    parts = parts_of(config)
    columns = _layer_columns(_layers([config]))
    pooled = columns.pop("pooled")
    kinds = np.array([part.kind for part in parts] + ["run"])
    first_of_stage = [shape.stage > 0 and shape.index == 0 for shape in config.layer_shapes]
    matrix: Array = np.zeros((len(kinds), len(FEATURES)))
    for name, values in columns.items():
        matrix[kinds == "layer", FEATURES.index(name)] = values
    matrix[kinds == "pooling", FEATURES.index("pooled")] = pooled[first_of_stage]
    for kind, amount in zip(("stem", "norm", "classifier"), _ends(config), strict=True):
        matrix[kinds == kind, FEATURES.index("ends")] = amount
    matrix[kinds == "run", FEATURES.index("network")] = 1
    return matrix


def _ends(config: CondenseNetConfig) -> tuple[float, float, float]:
    """Elements of stem, final norm and classifier; eight multiply-adds of the stem count as one."""
    height, width = config.stem_size
    last_height, last_width = config.last_size
    stem = config.stem_channels * height * width * (9 * config.input_shape[0] / 8 + 1)
    return stem, config.num_features * last_height * last_width, config.classifier_inputs * config.num_classes


def _layers(configs: Sequence[CondenseNetConfig]) -> NDArray[np.int64]:
    """Return the layers of all networks, one below the other: (layers, 9)."""
    rows = []
    for config in configs:
        g, g3, c = config.groups, config.conv3x3_groups, config.condense_factor
        stage = 0
        for s in config.layer_shapes:
            rows.append((s.in_channels, s.bottleneck_channels, s.growth, s.height, s.width, g, g3, c, s.stage != stage))
            stage = s.stage
    return np.array(rows, dtype=np.int64)


def _layer_columns(layers: NDArray[np.int64]) -> dict[str, Array]:
    """Return the amounts of each layer by feature: (layers,) each."""
    channels, middle, growth, height, width, groups, groups_3x3, factor, pools = layers.T
    size = height * width
    inputs, outputs = channels // factor, middle // groups  # of the 1x1, per group
    inputs_3x3, outputs_3x3 = middle // groups_3x3, growth // groups_3x3
    gathered = inputs * groups * size
    dense, dense_3x3 = groups == 1, groups_3x3 == 1
    blocked = _blocked(groups, inputs, outputs)
    blocked_3x3 = _blocked(groups_3x3, inputs_3x3, outputs_3x3)
    permuted = ~dense & (outputs > 1)
    macs, macs_3x3 = inputs * middle * size, 9 * inputs_3x3 * growth * size
    whole_3x3 = 9 * _rounded_up(inputs_3x3) * _rounded_up(outputs_3x3) * groups_3x3 * size
    reordered = (
        gathered * (blocked & (inputs >= BLOCK))
        + _rounded_up(middle) * size * (blocked & (permuted | ~blocked_3x3))
        + middle * size * (blocked_3x3 & (permuted | ~blocked) & (inputs_3x3 >= BLOCK))
        + _rounded_up(growth) * size * blocked_3x3
    )
    amounts = {
        "layers": np.ones(len(layers)),
        "pooled": 4 * channels * size * pools,
        "gather": gathered * ~(dense & (factor == 1)),  # all channels in order are not gathered
        "gather_dense": gathered * (dense & (factor > 1)),
        "norm": gathered,
        "norm_channels": inputs * groups,
        "spill": np.maximum(0, gathered - CACHE_ELEMENTS),
        "macs_1x1_dense": macs * dense,
        "macs_1x1_grouped": macs * ~dense,
        "macs_3x3_dense": macs_3x3 * dense_3x3,
        "macs_3x3_grouped": macs_3x3 * ~dense_3x3,
        "macs_3x3_blocked": whole_3x3 * blocked_3x3,
        "macs_3x3_narrow": macs_3x3 * (~dense_3x3 & ~blocked_3x3),
        "rows_3x3_dense": 9 * middle * height * dense_3x3,
        "rows_3x3_grouped": 9 * middle * height * ~dense_3x3,
        "weights": inputs * middle + 9 * inputs_3x3 * growth,
        "middle": middle * size,
        "permuted": middle * size * permuted,
        "permuted_channels": middle * permuted,
        "reordered": reordered,
        "concat": (channels + growth) * size,
    }
    return {name: values.astype(np.float64) for name, values in amounts.items()}


def _blocked(groups: Any, inputs: Any, outputs: Any) -> Any:
    """Where blocked kernels can run: a dense convolution of few or whole channels, a group of whole blocks."""
    whole = (inputs % BLOCK == 0) & (outputs % BLOCK == 0)
    return np.where(groups == 1, (inputs < BLOCK) | (inputs % 4 == 0), whole)


def _rounded_up(channels: Any) -> Any:
    return -(-channels // BLOCK) * BLOCK
