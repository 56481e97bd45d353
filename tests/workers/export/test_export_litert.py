"""LiteRT's model file is the deployed network, and says what it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from space.config import CondenseNetConfig
from space.cost import cost_of
from space.deployed import DeployedCondenseNet
from tests.workers.arm_device import arm_device
from tests.workers.export.test_export import BASE, trained_like, varied
from tests.workers.export.test_export_ncnn import CONFIGS
from tests.workers.latency.test_latency_contract import TINY
from workers.export import tflite
from workers.export.litert import check_litert, save_litert, to_litert
from workers.latency.agent.runtimes import LiteRt, installed_runtimes
from workers.latency.emulated.virtual_arm import Counts
from workers.latency.host_probe import HostProbe
from workers.latency.measurement import FailedMeasurement, Measurement

pytest.importorskip("ai_edge_litert")
schema = pytest.importorskip("ai_edge_litert.schema_py_generated")

OPERATORS = {  # by our name: the schema's name, its table of options
    "ADD": ("ADD", "AddOptionsT"),
    "AVERAGE_POOL": ("AVERAGE_POOL_2D", "Pool2DOptionsT"),
    "CONCATENATION": ("CONCATENATION", "ConcatenationOptionsT"),
    "CONV": ("CONV_2D", "Conv2DOptionsT"),
    "FULLY_CONNECTED": ("FULLY_CONNECTED", "FullyConnectedOptionsT"),
    "MULTIPLY": ("MUL", "MulOptionsT"),
    "RESHAPE": ("RESHAPE", "ReshapeOptionsT"),
    "PAD": ("PAD", "PadOptionsT"),
    "GATHER": ("GATHER", "GatherOptionsT"),
    "TRANSPOSE": ("TRANSPOSE", "TransposeOptionsT"),
    "MEAN": ("MEAN", "ReducerOptionsT"),
    "CAST": ("CAST", "CastOptionsT"),
    "MAXIMUM": ("MAXIMUM", "MaximumMinimumOptionsT"),
    "MINIMUM": ("MINIMUM", "MaximumMinimumOptionsT"),
    "DEPTHWISE_CONV": ("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptionsT"),
    "DEQUANTIZE": ("DEQUANTIZE", "DequantizeOptionsT"),
    "DEQUANTIZE_HALF": ("DEQUANTIZE", "DequantizeOptionsT"),
    "QUANTIZE": ("QUANTIZE", "QuantizeOptionsT"),
}
OPTIONS = {  # by our name: the schema's
    "padding": "padding",
    "stride_w": "strideW",
    "stride_h": "strideH",
    "filter_w": "filterWidth",
    "filter_h": "filterHeight",
    "activation": "fusedActivationFunction",
    "axis": "axis",
    "keep_dims": "keepDims",
    "multiplier": "depthMultiplier",
}


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_every_export_equals_the_network(tmp_path: Path, config: CondenseNetConfig):
    network = trained_like(config)
    save_litert(network, tmp_path / "model.tflite")
    assert 0.0 <= check_litert(tmp_path / "model.tflite", network) <= 1e-5


def test_every_operator_is_compared_with_the_schema():
    assert set(OPERATORS) == {name for name, value in vars(tflite).items() if isinstance(value, tflite.Kind)}


@pytest.mark.parametrize("name", OPERATORS)
def test_the_schema_that_litert_ships_reads_what_was_written(name: str):
    kind, (operator, table) = getattr(tflite, name), OPERATORS[name]
    graph, written = tflite.Graph(), {field: place + 1 for place, field in enumerate(kind.fields)}
    start = graph.tensor((1, 2))
    end = graph.add(kind, [start, graph.constant(np.arange(3, dtype="<i4"))], (2, 1), **written)
    model = schema.ModelT.InitFromPackedBuf(graph.to_bytes((start, end), ("x", "y"), "told"), 0)
    (code,), (subgraph,) = model.operatorCodes, model.subgraphs
    (read,) = subgraph.operators
    assert (model.version, model.description) == (3, b"told")
    assert code.builtinCode == code.deprecatedBuiltinCode == getattr(schema.BuiltinOperator, operator)
    assert code.version == kind.version
    assert type(read.builtinOptions).__name__ == table
    assert {field: getattr(read.builtinOptions, OPTIONS[field]) for field in written} == written
    assert (list(read.inputs), list(read.outputs)) == ([0, 1], [2])
    assert (list(subgraph.inputs), list(subgraph.outputs)) == ([0], [2])
    types = [schema.TensorType.FLOAT32, schema.TensorType.INT32, schema.TensorType.FLOAT32]
    assert [tensor.type for tensor in subgraph.tensors] == types
    assert [list(tensor.shape) for tensor in subgraph.tensors] == [[1, 2], [3], [2, 1]]
    assert [tensor.name for tensor in subgraph.tensors] == [b"x", b"t1", b"y"]
    assert bytes(model.buffers[subgraph.tensors[1].buffer].data) == np.arange(3, dtype="<i4").tobytes()


def test_paddings_and_activations_are_the_schemas():
    assert (tflite.SAME, tflite.VALID) == (schema.Padding.SAME, schema.Padding.VALID)
    activations = schema.ActivationFunctionType
    assert (tflite.NO_ACTIVATION, tflite.RELU) == (activations.NONE, activations.RELU)


def test_the_file_says_which_network_it_is():
    config = varied(groups_3x3=1)
    model = to_litert(DeployedCondenseNet.random(config))
    assert CondenseNetConfig.from_dict(json.loads(tflite.description_of(model))["config"]) == config


@pytest.mark.parametrize("damage", [b"", b"TFL3", b"\xff\xff\xff\x7fTFL3" + b"\xff" * 40])
def test_a_description_of_something_else_is_refused(damage: bytes):
    with pytest.raises(ValueError, match="model for LiteRT"):
        tflite.description_of(damage)


def test_threads_change_nothing_but_the_speed():
    network = trained_like(BASE)
    image = torch.randn(BASE.input_shape, generator=torch.Generator().manual_seed(1)).numpy()
    one, two = (LiteRt().open(to_litert(network), threads)(image) for threads in (1, 2))
    assert np.allclose(one, two, rtol=0, atol=1e-5 * np.abs(one).max())


@pytest.mark.slow
def test_on_arm_it_takes_few_instructions_beyond_its_multiply_adds(tmp_path: Path):
    config = varied(stages=(4, 4, 4), growth=(8, 16, 32))
    save_litert(DeployedCondenseNet.random(config), tmp_path / "model.tflite")
    (counted,) = arm_device().count([tmp_path / "model.tflite"], runs=3, runtime="litert")
    assert isinstance(counted, Counts)
    vectors = cost_of(config).macs / 4
    assert vectors < counted.median["vfma"] < 2 * vectors  # narrow groups are filled up
    assert counted.median["all"] < 6 * vectors  # it takes 4; gathering number by number 8


@pytest.mark.slow
def test_a_whole_batch_is_timed_under_litert_and_what_is_no_model_fails_alone(tmp_path: Path):
    policy = TINY.model_copy(update={"runtime": "litert"})
    models = [tmp_path / "model.tflite", tmp_path / "other.tflite"]
    save_litert(trained_like(BASE), models[0])
    models[1].write_bytes(b"\x1c\0\0\0TFL4" + bytes(64))
    found, refused = HostProbe(policy, models[0]).measure(models)
    assert isinstance(found, Measurement)
    assert (found.runtime, found.runtime_version) == ("litert", installed_runtimes()["litert"])
    assert isinstance(refused, FailedMeasurement)
    assert "must be a .tflite file" in refused.reason
