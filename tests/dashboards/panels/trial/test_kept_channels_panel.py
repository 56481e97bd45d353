"""What each group kept, read from real network files: a small training's, condensed ones, damaged ones."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboards.data.trial_detail import TrainedNetwork, gathered_channels
from dashboards.panels.trial.kept_channels import kept_channels_figure, kept_channels_info, kept_layer_figure, ranges
from space.config import CondenseNetConfig
from space.deployed import DeployedCondenseNet, deploy
from space.presets import PUBLISHED
from tests.space.strategies import SEEDS, configs, used_network
from tests.workers.tiny import NET, TRAINING, Recorder, digits, job
from workers.file_names import NETWORK_FILE
from workers.training.checkpoint import model_tensors
from workers.training.trial import load_network, run_trial

ROOT = Path(__file__).parents[4]
CONFIG = CondenseNetConfig(
    stages=(2, 2), growth=(8, 8), groups=4, condense_factor=4, bottleneck=2, input_shape=(1, 8, 8)
)


class Reporter(Recorder):
    def check(self) -> None:
        self.before_step(0.0)


def read_back(content: bytes) -> TrainedNetwork:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / NETWORK_FILE
        path.write_bytes(content)
        return gathered_channels(path)


def file_of(network: DeployedCondenseNet) -> TrainedNetwork:
    return read_back(safetensors.torch.save(model_tensors(network)))


def test_the_picture_of_a_real_training_is_what_its_file_gathers(tmp_path: Path):
    digits(tmp_path / "images")
    one_epoch = TRAINING.model_copy(update={"epochs": 1})
    run_trial(job(tmp_path / "trial", tmp_path / "images", training=one_epoch), Reporter())
    info = kept_channels_info(NET, gathered_channels(tmp_path / "trial" / NETWORK_FILE))
    assert info.reason is None
    for layer, loaded in zip(info.layers, load_network(tmp_path / "trial", NET).layers, strict=True):
        assert layer.kept.reshape(-1).tolist() == loaded.conv_1x1.index.tolist()


@settings(max_examples=20)
@given(configs(), SEEDS)
def test_each_group_kept_the_columns_that_condensing_left_it(config, seed):
    network = used_network(config, seed)
    info = kept_channels_info(config, file_of(deploy(network)))
    for layer, conv in zip(info.layers, network.learned_convs(), strict=True):
        assert torch.equal(torch.from_numpy(layer.kept), conv.kept_columns())
        assert (
            layer.by_group.sum(axis=1).tolist() == [layer.shape.in_channels // config.condense_factor] * config.groups
        )
        assert layer.times.sum() == layer.by_group.sum()


@settings(max_examples=20)
@given(configs(), SEEDS)
def test_shares_by_source_add_up_to_what_a_layer_keeps(config, seed):
    info = kept_channels_info(config, file_of(DeployedCondenseNet.random(config, seed)))
    sizes = np.diff([*(first for _, first in info.sources), info.layers[-1].shape.in_channels])
    for row, layer in zip(info.shares, info.layers, strict=True):
        assert np.isnan(row).sum() == len(info.layers) - 1 - info.layers.index(layer)
        assert np.nansum(row * sizes) == pytest.approx(layer.shape.in_channels / config.condense_factor, rel=1e-5)


def test_the_layers_picture_colours_what_a_group_kept():
    info = kept_channels_info(CONFIG, file_of(DeployedCondenseNet.random(CONFIG)))
    (heatmap,) = kept_layer_figure(info, 1).data
    cells = np.asarray(heatmap.z)
    assert cells.shape == (4, 24)
    for group, row in enumerate(cells):
        assert np.flatnonzero(row).tolist() == info.layers[1].kept[group].tolist()
        assert set(row.tolist()) == {0, group + 1}
    assert list(heatmap.y) == ["group 1", "group 2", "group 3", "group 4"]


def test_a_layer_that_there_is_not_shows_the_nearest():
    info = kept_channels_info(CONFIG, file_of(DeployedCondenseNet.random(CONFIG)))
    for asked, shown in ((-3, "stage 1, layer 1"), (99, "stage 2, layer 2")):
        assert shown in kept_layer_figure(info, asked).layout.xaxis.title.text


def test_the_table_tells_every_groups_channels_as_ranges():
    info = kept_channels_info(CONFIG, file_of(DeployedCondenseNet.random(CONFIG)))
    rows = info.table().rows
    assert len(rows) == 4 * 4
    assert rows[0] == ("stage 1, layer 1", "1", "4 of 16", ranges(info.layers[0].kept[0].tolist()))
    assert info.layer_table(2).rows == rows[8:12]


@given(st.sets(st.integers(0, 60)))
def test_ranges_name_exactly_the_numbers(numbers):
    text, found = ranges(sorted(numbers)), set()
    for part in filter(None, text.split(", ")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    assert found == numbers


def test_what_never_condenses_says_so():
    config = CondenseNetConfig(**{**CONFIG.to_dict(), "condense_factor": 1})
    info = kept_channels_info(config, file_of(DeployedCondenseNet.random(config)))
    assert info.sentence() == "With C=1 nothing is condensed: every group reads all of its inputs."
    assert float(np.nanmin(info.shares)) == float(np.nanmax(info.shares)) == 1


def tampered(change) -> TrainedNetwork:
    tensors = model_tensors(DeployedCondenseNet.random(CONFIG))
    change(tensors)
    return read_back(safetensors.torch.save(tensors))


def drop_a_layer(tensors):
    del tensors["layers.1.conv_1x1.index"]


def repeat_a_channel(tensors):
    tensors["layers.0.conv_1x1.index"][:] = 3


def name_no_channel(tensors):
    tensors["layers.0.conv_1x1.index"][-1] = 10_000


def cut_short(tensors):
    tensors["layers.0.conv_1x1.index"] = tensors["layers.0.conv_1x1.index"][:-1].clone()


@pytest.mark.parametrize("change", [drop_a_layer, repeat_a_channel, name_no_channel, cut_short])
def test_a_file_that_holds_something_else_is_called_damaged(change):
    info = kept_channels_info(CONFIG, tampered(change))
    assert "the file is damaged (" in (info.reason or "")
    (text,) = kept_channels_figure(info).layout.annotations
    assert "damaged" in text.text.replace("<br>", " ")
    assert info.table().rows == info.layer_table(0).rows == ()


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"<script>" * 50])
def test_a_file_that_is_no_network_is_called_damaged(content: bytes):
    info = kept_channels_info(CONFIG, read_back(content))
    assert "damaged" in (info.reason or "")
    assert "<script" not in kept_layer_figure(info, 0).to_json()


def test_why_there_is_no_file_stands_in_place_of_the_picture():
    reason = "Trial 3 is failed (<b>nan</b>); only a done trial has a network."
    info = kept_channels_info(CONFIG, TrainedNetwork(None, reason))
    assert info.reason == f"The kept channels can't be shown. {reason}"
    assert "<b>nan" not in kept_channels_figure(info).to_json()
    assert "No trial is chosen" in (kept_channels_info(None, None).reason or "")


def test_the_largest_published_networks_have_whole_pictures():
    for name in ("condensenet-182", "imagenet-74-g8"):
        config = PUBLISHED[name].config
        info = kept_channels_info(config, file_of(DeployedCondenseNet.random(config)))
        assert info.reason is None
        assert info.shares.shape == (sum(config.stages), sum(config.stages))
        assert len(info.table().rows) == 200
        assert info.table().left_out == config.groups * sum(config.stages) - 200


def test_reading_a_network_file_loads_no_torch(tmp_path: Path):
    path = tmp_path / NETWORK_FILE
    path.write_bytes(safetensors.torch.save(model_tensors(DeployedCondenseNet.random(CONFIG))))
    script = f"""
import sys
import tempfile
from pathlib import Path
from dashboards.panels.trial.kept_channels import kept_channels_figure, kept_channels_info
from dashboards.data.trial_detail import gathered_channels
from space.config import CondenseNetConfig
config = CondenseNetConfig.from_json({CONFIG.to_json()!r})
info = kept_channels_info(config, gathered_channels(Path({str(path)!r})))
assert info.reason is None and kept_channels_figure(info).data
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
