"""The ONNX file is the deployed network, with what folds folded."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from torch import nn

from space.config import CondenseNetConfig
from space.deployed import DeployedCondenseNet, deploy
from space.errors import ExportMismatch, InvalidConfig
from space.network import CondenseNet
from workers.export.onnx import check_onnx, save_onnx, to_onnx

BASE = CondenseNetConfig(stages=(2, 1), growth=(8, 16), groups=4, condense_factor=4, input_shape=(3, 16, 16))


def varied(**values) -> CondenseNetConfig:
    return CondenseNetConfig(**{**BASE.to_dict(), **values})


def trained_like(config: CondenseNetConfig, seed: int = 0) -> DeployedCondenseNet:
    """A deployed network whose batch norms are as uneven as training leaves them."""
    torch.manual_seed(seed)
    model = CondenseNet(config)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.1, 3.0)
    nn.init.normal_(model.classifier.bias)
    model.condense(1.0)
    return deploy(model)


def in_onnxruntime(model: onnx.ModelProto, x: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": x.numpy()})
    return logits


def disagreement(network: DeployedCondenseNet, batch: int) -> float:
    """Largest difference of a logit between onnxruntime and torch, as a fraction of the largest logit."""
    x = torch.randn(batch, *network.config.input_shape)
    expected = network(x).numpy()
    actual = in_onnxruntime(to_onnx(network), x)
    assert actual.shape == expected.shape == (batch, network.config.num_classes)
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


@st.composite
def configs(draw: st.DrawFn) -> CondenseNetConfig:
    stages = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    try:
        return CondenseNetConfig(
            stages=tuple(stages),
            growth=tuple(draw(st.sampled_from([4, 8, 12, 16])) for _ in stages),
            groups=draw(st.sampled_from([1, 2, 4, 8])),
            condense_factor=draw(st.sampled_from([1, 2, 4, 8])),
            bottleneck=draw(st.sampled_from([1, 2, 4])),
            groups_3x3=draw(st.sampled_from([None, 1, 2, 4])),
            dropout=draw(st.sampled_from([0.0, 0.2])),
            num_classes=draw(st.integers(1, 12)),
            input_shape=(draw(st.sampled_from([1, 3])), draw(st.integers(4, 21)), draw(st.integers(4, 21))),
            classifier_keep=draw(st.sampled_from([1.0, 0.5, 0.29])),
        )
    except InvalidConfig:
        assume(False)
        raise


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(config=configs(), batch=st.sampled_from([1, 3, 7]), seed=st.integers(0, 1000))
@example(config=varied(groups=2, condense_factor=8), batch=3, seed=0)
@example(config=varied(groups=8, condense_factor=2), batch=3, seed=0)
@example(config=varied(condense_factor=1), batch=3, seed=0)
@example(config=varied(groups=1, condense_factor=4), batch=3, seed=0)
@example(config=varied(groups=1, condense_factor=1), batch=3, seed=0)
@example(config=varied(classifier_keep=0.5), batch=1, seed=0)
@example(config=varied(groups_3x3=1), batch=7, seed=0)
@example(config=varied(groups_3x3=8), batch=7, seed=0)
@example(config=varied(input_shape=(3, 96, 96)), batch=1, seed=0)
@example(config=varied(input_shape=(3, 97, 101)), batch=1, seed=0)
@example(config=varied(input_shape=(1, 7, 13), stages=(1, 1, 1), growth=(8, 8, 8)), batch=3, seed=0)
def test_every_export_is_valid_and_equals_the_network(config: CondenseNetConfig, batch: int, seed: int):
    network = trained_like(config, seed)
    onnx.checker.check_model(to_onnx(network), full_check=True)
    assert disagreement(network, batch) < 1e-5


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_one_file_serves_every_batch_size(batch: int):
    assert disagreement(trained_like(BASE), batch) < 1e-5


def test_a_network_priced_before_training_has_the_operators_of_the_trained_one():
    random, trained = (to_onnx(network) for network in (DeployedCondenseNet.random(BASE), trained_like(BASE)))
    assert [node.op_type for node in random.graph.node] == [node.op_type for node in trained.graph.node]
    shapes = [[list(tensor.dims) for tensor in model.graph.initializer] for model in (random, trained)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_a_layer_has_one_gather_for_its_index_and_one_for_its_permutation(keep: float):
    config = varied(stages=(3, 2), classifier_keep=keep)
    counts = Counter(node.op_type for node in to_onnx(trained_like(config)).graph.node)
    layers = 5
    assert counts["Gather"] == 2 * layers + (keep < 1.0)
    assert counts["BatchNormalization"] == layers + 1  # the one between the 1x1 and the 3x3 is in the 1x1
    assert counts["Relu"] == 2 * layers + 1
    assert counts["Conv"] == 2 * layers + 1
    assert counts["Concat"] == layers
    assert counts["AveragePool"] == 1
    assert not {"Reshape", "Transpose", "Add", "Mul"} & counts.keys()


def test_a_single_group_that_keeps_every_channel_needs_no_gather():
    config = varied(groups=1, condense_factor=1)
    assert "Gather" not in {node.op_type for node in to_onnx(trained_like(config)).graph.node}


def test_the_activation_follows_its_convolution_so_that_a_runtime_can_fuse_them():
    nodes = to_onnx(trained_like(BASE)).graph.node
    after_1x1 = [b.op_type for a, b in itertools.pairwise(nodes) if a.op_type == "Conv" and len(a.input) == 3]
    assert after_1x1 == ["Relu"] * 3


def test_the_file_says_which_config_it_is(tmp_path: Path):
    save_onnx(trained_like(BASE), tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert CondenseNetConfig.from_json(properties["config"]) == BASE
    assert [entry.version for entry in model.opset_import] == [17]


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-500])


def without_a_node(path: Path) -> None:
    model = onnx.load(path)
    del model.graph.node[3]
    path.write_bytes(model.SerializeToString())


def of_another_shape(path: Path) -> None:
    model = onnx.load(path)
    model.graph.initializer[0].dims[0] *= 2
    path.write_bytes(model.SerializeToString())


def with_inputs_of_another_size(path: Path) -> None:
    save_onnx(trained_like(varied(input_shape=(3, 32, 32))), path)


def with_other_classes(path: Path) -> None:
    save_onnx(trained_like(varied(num_classes=5)), path)


DAMAGES = [cut_short, without_a_node, of_another_shape, with_inputs_of_another_size, with_other_classes]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_a_mismatch_that_names_it_in_one_line(tmp_path: Path, damage):
    network = trained_like(BASE)
    path = tmp_path / "model.onnx"
    save_onnx(network, path)
    damage(path)
    with pytest.raises(ExportMismatch, match=r"model\.onnx") as caught:
        check_onnx(path, network)
    assert "\n" not in str(caught.value)
