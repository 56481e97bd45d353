"""What the tests of `space` draw from: valid configs, search spaces and condensed networks."""

from __future__ import annotations

import math
from typing import Any

import torch
from hypothesis import strategies as st

from space.config import CondenseNetConfig
from space.network import CondenseNet

SMALL = st.sampled_from((1, 2, 3, 4))
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def configs(draw: st.DrawFn, keep: float | None = None) -> CondenseNetConfig:
    """Small valid configs: G != C, ones, odd sizes, one or three channels, stride-2 inputs of 96 pixels and more.

    The last stage may hold a single layer whose growth C does not divide. `keep` fixes classifier_keep.
    """
    groups, condense_factor, groups_3x3, bottleneck = (draw(SMALL) for _ in range(4))
    unit = math.lcm(groups, condense_factor, groups_3x3)
    depth = draw(st.integers(1, 3))
    stages = [draw(st.integers(1, 3)) for _ in range(depth)]
    growth = [unit * draw(st.integers(1, 2)) for _ in range(depth)]
    if depth > 1 and draw(st.booleans()):
        stages[-1] = 1
        growth[-1] = math.lcm(groups_3x3, groups // math.gcd(groups, bottleneck)) * draw(st.integers(1, 3))
    low = 1 << (depth - 1)
    sides = st.integers(96, 98) if draw(st.integers(0, 4)) == 0 else st.integers(low, 11)
    return CondenseNetConfig(
        stages=tuple(stages),
        growth=tuple(growth),
        groups=groups,
        condense_factor=condense_factor,
        bottleneck=bottleneck,
        groups_3x3=draw(st.sampled_from((None, groups_3x3))) if groups_3x3 % groups == 0 else groups_3x3,
        dropout=draw(st.sampled_from((0.0, 0.1))),
        num_classes=draw(st.integers(1, 5)),
        input_shape=(draw(st.sampled_from((1, 3))), draw(sides), draw(sides)),
        classifier_keep=draw(st.sampled_from((1.0, 0.5, 0.71))) if keep is None else keep,
    )


def images(config: CondenseNetConfig, count: int, seed: int = 0) -> torch.Tensor:
    """Random images for `config`: (count, C, H, W)."""
    return torch.randn(count, *config.input_shape, generator=torch.Generator().manual_seed(seed))


def used_network(config: CondenseNetConfig, seed: int, progress: float = 1.0) -> CondenseNet:
    """A network whose weights, batch norms and running statistics are all far from their initial values.

    It has seen random batches in train mode while condensing up to `progress`, and is handed over in eval mode.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = CondenseNet(config)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if "norm" in name or name == "classifier.bias":
                    parameter.copy_(torch.randn_like(parameter))  # negative scales too: ReLU must follow the norm
            for step in range(3):
                network(2.0 * images(config, 4, seed + step) + 0.5, progress=progress * step / 2)
    return network.eval()


@st.composite
def space_settings(draw: st.DrawFn) -> dict[str, Any]:
    """The [space] table of a small study: choices and ranges, both growth rules, settings for every stage or each."""
    depth = draw(st.integers(1, 3))
    rule = draw(st.sampled_from(("free", "doubling")))
    return {
        "num_classes": draw(st.integers(1, 20)),
        "input_shape": [draw(st.sampled_from((1, 3))), draw(st.integers(4, 12)), draw(st.integers(4, 12))],
        "groups": draw(_some(1, 2, 4)),
        "condense_factor": draw(_some(1, 2, 3)),
        "bottleneck": draw(st.sampled_from((2, [1, 4], {"low": 1, "high": 2}))),
        "groups_3x3": draw(_some("same", 1, 2)),
        "num_stages": draw(st.sampled_from((depth, list(range(1, depth + 1)), {"low": 1, "high": depth}))),
        "layers": draw(_per_stage(st.sampled_from(([1], [1, 2], {"low": 1, "high": 3, "step": 2})), depth)),
        "growth": draw(_per_stage(_growths(), 1 if rule == "doubling" else depth)),
        "growth_rule": rule,
        "dropout": draw(st.sampled_from((0.0, [0.0, 0.1]))),
        "classifier_keep": draw(st.sampled_from((1.0, [0.5, 1.0]))),
    }


def _some(*values: int | str) -> st.SearchStrategy[list[int | str]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True)


def _growths() -> st.SearchStrategy[Any]:
    choices = st.sets(st.sampled_from((4, 6, 8, 24)), max_size=2).map(lambda values: [12, *sorted(values - {12})])
    return st.one_of(choices, st.just({"low": 6, "high": 24, "step": 6}), st.just({"low": 4, "high": 12, "step": 4}))


def _per_stage(one: st.SearchStrategy[Any], depth: int) -> st.SearchStrategy[Any]:
    return st.one_of(one, st.lists(one, min_size=depth, max_size=depth))
