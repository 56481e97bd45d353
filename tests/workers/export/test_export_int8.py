"""Files in 8 and 16 bits: they give what the rounded form says, really compute in 8 bits, and are smaller."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from space.config import CondenseNetConfig
from space.errors import ExportMismatch, PrecisionMissing
from tests.workers.export.test_export import BASE, trained_like, varied
from tests.workers.export.test_export_contract import MISSING
from workers.export.common import stored_zip
from workers.export.int8_files import check_int8_for, rms_difference, save_int8_for, scheme_for
from workers.export.litert import save_litert
from workers.export.model_files import check_half_for, save_for, save_half_for
from workers.export.ncnn import save_ncnn
from workers.export.onnx import save_onnx
from workers.export.onnx_int8 import to_onnx_int8
from workers.export.pixels import PixelInput
from workers.file_names import file_for
from workers.latency.agent.runtimes import Ncnn
from workers.latency.agent.runtimes.model_zip import unzip_model
from workers.latency.agent.runtimes.onnx import import_onnxruntime
from workers.preprocessing import Preprocessing
from workers.quantization.calibration import calibrate
from workers.quantization.network import QuantizedNetwork

UNGROUPED = varied(groups=1, condense_factor=2, groups_3x3=1)
CONFIGS = {"grouped": BASE, "ungrouped": UNGROUPED, "half": varied(classifier_keep=0.5)}


def some_images(config: CondenseNetConfig) -> tuple[Tensor, Tensor]:
    images = torch.randn(12, *config.input_shape, generator=torch.Generator().manual_seed(5))
    return images, torch.arange(12) % 3


def quantized_for(runtime: str, config: CondenseNetConfig) -> QuantizedNetwork:
    return calibrate(trained_like(config), *some_images(config), scheme_for(runtime, config))


@pytest.fixture(params=["onnxruntime", "litert", "native", "ncnn"])
def runtime(request: pytest.FixtureRequest) -> str:
    if MISSING[request.param]:
        pytest.skip(f"needs what {request.param} runs with")
    return request.param


@pytest.mark.parametrize("name", CONFIGS)
def test_a_file_in_8_bits_gives_what_the_rounded_form_says(runtime: str, name: str, tmp_path: Path):
    config, path = CONFIGS[name], tmp_path / file_for(runtime, "model")
    quantized = quantized_for(runtime, config)
    first = save_int8_for(runtime, quantized, path)
    assert 0.0 <= check_int8_for(runtime, path, quantized, some_images(config)[0]) < 0.05
    assert save_int8_for(runtime, quantized, path) == first


def test_a_file_of_another_network_is_a_mismatch(runtime: str, tmp_path: Path):
    path, quantized = tmp_path / file_for(runtime, "model"), quantized_for(runtime, BASE)
    save_int8_for(runtime, quantized, path)
    quantized.network.layers[0].conv_3x3.weight.neg_()
    with pytest.raises(ExportMismatch, match="off by"):
        check_int8_for(runtime, path, quantized, some_images(BASE)[0])


def test_onnxruntime_really_runs_convolutions_of_8_bits(tmp_path: Path):
    model = to_onnx_int8(quantized_for("onnxruntime", UNGROUPED)).SerializeToString()
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(tmp_path / "optimized.onnx").graph
    operators = Counter(node.op_type for node in graph.node)
    layers = sum(UNGROUPED.stages)
    assert operators["QLinearConv"] == 2 * layers + 1
    assert operators["Conv"] == operators["FusedConv"] == 0
    assert operators["QGemm"] == 1
    kinds = {one.name: one.data_type for one in graph.initializer}
    weights = {kinds[node.input[3]] for node in graph.node if node.op_type == "QLinearConv"}
    assert weights == {onnx.TensorProto.UINT8}  # int8 saturates on x86 without VNNI


def test_group_convolutions_of_onnxruntime_stay_in_float_with_weights_of_8_bits(tmp_path: Path):
    save_onnx(trained_like(BASE), tmp_path / "fp32.onnx")
    quantized = quantized_for("onnxruntime", BASE)
    save_int8_for("onnxruntime", quantized, tmp_path / "int8.onnx")
    model = onnx.load(tmp_path / "int8.onnx")
    assert not any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    weights = [onnx.numpy_helper.to_array(one) for one in model.graph.initializer]
    assert sum(array.dtype == np.int8 and array.ndim > 1 for array in weights) == 2 * len(quantized.network.layers) + 2
    assert {one.key: one.value for one in model.metadata_props}["precision"] == "int8"


def test_litert_computes_in_8_bits_up_to_the_last_features(tmp_path: Path):
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    save_litert(trained_like(BASE), tmp_path / "fp32.tflite")
    save_int8_for("litert", quantized_for("litert", BASE), tmp_path / "int8.tflite")
    model = schema.ModelT.InitFromPackedBuf((tmp_path / "int8.tflite").read_bytes(), 0)
    (graph,) = model.subgraphs
    codes = [model.operatorCodes[one.opcodeIndex].builtinCode for one in graph.operators]
    convs = [one for one, code in zip(graph.operators, codes, strict=True) if code == schema.BuiltinOperator.CONV_2D]
    assert len(convs) == 2 * len(BASE.layer_shapes) + 1
    assert {graph.tensors[place].type for one in convs for place in (one.inputs[0], one.inputs[1], one.outputs[0])} == {
        schema.TensorType.INT8
    }
    weights = graph.tensors[convs[1].inputs[1]]
    assert len(weights.quantization.scale) == weights.shape[0]  # one for each output channel


def test_ncnn_computes_every_convolution_in_8_bits_and_each_group_by_itself(tmp_path: Path):
    path = tmp_path / "model.int8.ncnn.zip"
    save_int8_for("ncnn", quantized_for("ncnn", BASE), path)
    facts, files = unzip_model(path.read_bytes())
    assert facts["precision"] == "int8"
    lines = files["model.param"].decode().splitlines()[2:]
    convolutions = [line.split() for line in lines if line.startswith(("Convolution", "InnerProduct"))]
    assert not any(words[0] == "ConvolutionDepthWise" for words in convolutions)
    assert all("8=1" in words for words in convolutions)
    assert len(convolutions) == 2 + sum(BASE.groups + BASE.conv3x3_groups for _ in BASE.layer_shapes)
    save_ncnn(trained_like(BASE), tmp_path / "fp32.zip")
    _, exact = unzip_model((tmp_path / "fp32.zip").read_bytes())
    assert len(files["model.bin"]) < 0.6 * len(exact["model.bin"])


def test_ncnn_refuses_a_precision_that_it_doesnt_know(tmp_path: Path):
    facts = {"input": "images", "output": "logits", "shape": [1, 8, 8], "layers": [], "precision": "int4"}
    packed = stored_zip({"model.param": b"", "model.bin": b"", "model.json": json.dumps(facts).encode()})
    with pytest.raises(ValueError, match=r"computes in \['fp16', 'fp32', 'int8'\] here, not 'int4'; update the agent"):
        Ncnn().open(packed, threads=1)


def test_the_difference_is_a_share_of_the_logits():
    assert rms_difference(np.array([1.0, 1.1]), np.array([1.0, 1.0])) == pytest.approx(0.0707, abs=1e-4)
    with pytest.raises(ValueError, match="shape"):
        rms_difference(np.zeros(2), np.zeros(3))


# --- fp16 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("runtime", ["ncnn", "litert"])
def test_a_file_in_16_bits_is_smaller_and_equals_the_network_but_for_rounding(runtime: str, name: str, tmp_path: Path):
    if MISSING[runtime]:
        pytest.skip(f"needs what {runtime} runs with")
    network, path = trained_like(CONFIGS[name]), tmp_path / file_for(runtime, "model.fp16")
    pixels = PixelInput.of(Preprocessing(network.config.input_shape, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3)))
    first = save_half_for(runtime, network, path)
    assert 0.0 < check_half_for(runtime, path, network) < 2e-3  # it isn't fp32 under another name
    assert save_half_for(runtime, network, path) == first
    save_for(runtime, network, plain := tmp_path / file_for(runtime, "model"))
    weights = sum(values.numel() for values in network.parameters() if values.ndim > 1)
    assert plain.stat().st_size - path.stat().st_size == pytest.approx(2 * weights, rel=0.1, abs=4000)
    save_half_for(runtime, network, path, pixels)
    assert check_half_for(runtime, path, network, pixels) < 2e-3
    with torch.no_grad():
        network.layers[0].conv_3x3.weight.neg_()
    with pytest.raises(ExportMismatch, match=r"fp16 must equal the trained one to 0.01 .* is off by"):
        check_half_for(runtime, path, network, pixels)


def test_fp16_is_refused_in_one_line_by_runtimes_without_it_and_where_a_weight_is_too_large(tmp_path: Path):
    network = trained_like(BASE)
    for runtime in ("native", "onnxruntime"):
        with pytest.raises(
            PrecisionMissing, match=f"^{runtime} has no model files in fp16; .* are ncnn and litert:"
        ) as refused:
            save_half_for(runtime, network, tmp_path / file_for(runtime, "model.fp16"))
        assert refused.value.exit_code == 82
    with torch.no_grad():
        network.classifier.weight[0, 0] = 7e4
    with pytest.raises(ExportMismatch, match="at most 65504, but one is 70000; use fp32"):
        save_half_for("ncnn", network, tmp_path / file_for("ncnn", "model.fp16"))
    assert list(tmp_path.iterdir()) == []
