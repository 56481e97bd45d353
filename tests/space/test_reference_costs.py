"""Counts of published and odd networks, equal to the last digit to those of the authors' release."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from space.config import CondenseNetConfig
from space.cost import Cost, cost_of, parts_of
from space.deployed import DeployedCondenseNet
from space.network import CondenseNet
from space.operator_count import fvcore_cost
from space.presets import PUBLISHED

REFERENCE: list[dict[str, Any]] = json.loads(Path(__file__).with_name("reference.json").read_text())["networks"]
every_network = pytest.mark.parametrize("row", REFERENCE, ids=lambda row: row["name"])


def config_of(row: dict[str, Any], keep: float) -> CondenseNetConfig:
    return CondenseNetConfig.from_dict({**row["config"], "classifier_keep": keep})


def full_cost(row: dict[str, Any]) -> Cost:
    """The full classifier's cost: the other half of the features is read for every class."""
    half = row["half"]
    more = (row["features"] - row["features"] // 2) * row["config"]["num_classes"]
    counts = {**half, "macs": half["macs"] + more, "paper_flops": half["paper_flops"] + more}
    return Cost(**{**counts, "params": row["full_params"]})


def test_all_fifteen_reference_networks_are_here():
    assert len(REFERENCE) == 15
    assert sum(row["published"] is not None for row in REFERENCE) == 11


@every_network
def test_the_cost_with_half_the_classifier_is_the_reference(row):
    assert cost_of(config_of(row, 0.5)) == Cost(**row["half"])


@every_network
def test_the_cost_with_the_full_classifier_is_the_reference(row):
    assert cost_of(config_of(row, 1.0)) == full_cost(row)


@every_network
def test_the_number_of_features_is_the_reference(row):
    assert config_of(row, 1.0).num_features == row["features"]


@every_network
def test_the_training_form_stores_as_many_parameters_as_the_reference(row):
    with torch.device("meta"):  # shapes only
        network = CondenseNet(config_of(row, 0.5))
    assert sum(parameter.numel() for parameter in network.parameters()) == row["training_params"]


@pytest.mark.parametrize("name", ["CondenseNet-50 C10", "ImageNet-74 G=C=8", "odd 6-6-6 G=2 C=4"])
def test_fvcore_counts_the_reference_on_the_real_module(name):
    (row,) = [row for row in REFERENCE if row["name"] == name]
    config = config_of(row, 0.5)
    assert fvcore_cost(DeployedCondenseNet.random(config), config.input_shape) == Cost(**row["half"])


@every_network
def test_stem_and_layers_add_up_to_the_convolutions(row):
    config = config_of(row, 1.0)
    parts = parts_of(config)
    assert sum(part.macs for part in parts if part.kind in ("stem", "layer")) == row["half"]["conv_macs"]
    assert parts[0].macs == 9 * config.input_shape[0] * config.stem_channels * math.prod(config.stem_size)


PRESET_OF = {
    **{f"CondenseNet-{depth} C10": f"condensenet-{depth}" for depth in (50, 74, 86, 98, 110, 122, 182)},
    "ImageNet-74 G=C=4": "imagenet-74-g4",
    "ImageNet-74 G=C=8": "imagenet-74-g8",
}


def printed(count: int, like: str) -> str:
    """`count` in millions with as many decimals as the paper printed."""
    return f"{count / 1e6:.{len(like.rstrip('M').partition('.')[2])}f}M"


def test_every_published_network_is_a_preset():
    assert set(PUBLISHED) == set(PRESET_OF.values())


@pytest.mark.parametrize("reference_name", PRESET_OF)
def test_a_preset_is_the_published_row(reference_name):
    (row,) = [row for row in REFERENCE if row["name"] == reference_name]
    preset = PUBLISHED[PRESET_OF[reference_name]]
    assert preset.name == PRESET_OF[reference_name]
    assert preset.config == config_of(row, 0.5 if row["config"]["num_classes"] == 1000 else 1.0)
    assert (preset.flops, preset.params) == (row["published"]["flops"], row["published"]["params"])
    errors = [float(error) for error in row["published"]["error_pct"].split("/")]
    assert [preset.top1_error_pct, preset.top5_error_pct] == [*errors, None][:2]
    assert printed(cost_of(preset.config).paper_flops, preset.flops) == preset.flops


@pytest.mark.parametrize("depth", [86, 182])
def test_a_preset_with_a_cifar_100_error_carries_the_published_one(depth):
    (row,) = [row for row in REFERENCE if row["name"] == f"CondenseNet-{depth} C100"]
    preset = PUBLISHED[f"condensenet-{depth}"]
    assert preset.cifar100_error_pct == float(row["published"]["error_pct"])
    assert dataclasses.replace(preset.config, num_classes=100) == config_of(row, 1.0)
