"""The runtimes of the agent: which are there, that ncnn computes what onnxruntime does, and what it refuses."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.workers.latency.test_latency_contract import TINY, sha256, write_corrupt
from workers.latency import FailedMeasurement, HostProbe, Measurement
from workers.latency.agent.__main__ import main
from workers.latency.agent.runtimes import LiteRt, Native, Ncnn, OnnxRuntime, installed_runtimes
from workers.latency.agent.runtimes.model_zip import unzip_model
from workers.latency.agent.timing import measure_models

LAYERS = ((3, 16, 3, 1), (16, 16, 3, 1), (16, 24, 1, 4), (24, 24, 3, 24))  # channels in, out, kernel, groups
SHAPE = [3, 12, 12]
FACTS = {"input": "images", "output": "blob4", "shape": SHAPE, "layers": []}


def weights() -> list[np.ndarray]:
    """Draw each layer's kernel so that values stay near 1, (out, in / groups, kernel, kernel)."""
    rng = np.random.default_rng(4)
    shapes = [(out, into // groups, kernel, kernel) for into, out, kernel, groups in LAYERS]
    return [(rng.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5).astype(np.float32) for shape in shapes]


def ncnn_param() -> str:
    lines = ["7767517", f"{len(LAYERS) + 1} {len(LAYERS) + 1}", "Input images 0 1 images"]
    for number, (into, out, kernel, groups) in enumerate(LAYERS, start=1):
        source = "images" if number == 1 else f"blob{number - 1}"
        size = out * into // groups * kernel * kernel
        kind = "Convolution" if groups == 1 else "ConvolutionDepthWise"
        shape = f"0={out} 1={kernel} 4={kernel // 2} 5=0 6={size} 7={groups}"
        lines.append(f"{kind} conv{number} 1 1 {source} blob{number} {shape} 9=1")  # 9=1: with ReLU
    return "\n".join(lines) + "\n"


def ncnn_bin() -> bytes:
    return b"".join(bytes(4) + kernel.tobytes() for kernel in weights())  # four zeros: fp32 follows


def write_ncnn(path: Path, facts: dict | None = None, compression: int = zipfile.ZIP_STORED, **files: bytes) -> Path:
    """Write four convolutions with ReLU as an ncnn model; `files` replaces members (None leaves one out)."""
    members = {
        "model.param": ncnn_param().encode(),
        "model.bin": ncnn_bin(),
        "model.json": json.dumps(FACTS if facts is None else facts).encode(),
        **{name.replace("_", "."): content for name, content in files.items()},
    }
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            if content is not None:
                archive.writestr(name, content)
    return path


def onnx_model() -> bytes:
    """Return the same network for onnxruntime."""
    nodes, initializers, source = [], [], "images"
    for number, (kernel, (_, _, size, groups)) in enumerate(zip(weights(), LAYERS, strict=True), start=1):
        initializers.append(numpy_helper.from_array(kernel, f"weight{number}"))
        pads = [size // 2] * 4
        nodes.append(helper.make_node("Conv", [source, f"weight{number}"], [f"sum{number}"], pads=pads, group=groups))
        nodes.append(helper.make_node("Relu", [f"sum{number}"], [f"blob{number}"]))
        source = f"blob{number}"
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, *SHAPE])],
        [helper.make_tensor_value_info("blob4", TensorProto.FLOAT, [1, LAYERS[-1][1], *SHAPE[1:]])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


@pytest.fixture(scope="module")
def ncnn() -> Ncnn:
    pytest.importorskip("ncnn")
    return Ncnn()


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    """What onnxruntime makes of the agent's fixed input."""
    (batch,) = OnnxRuntime().load(onnx_model(), 1)()
    return batch[0]


@pytest.mark.parametrize("threads", [1, 2])
def test_ncnn_computes_in_fp32_what_onnxruntime_does(tmp_path, ncnn, expected, threads):
    run = ncnn.load(write_ncnn(tmp_path / "model.ncnn").read_bytes(), threads)
    for _ in range(2):
        np.testing.assert_allclose(np.array(run()), expected, rtol=0, atol=1e-5 * expected.max())
    assert expected.std() > 0.1  # so that the tolerance means something


def test_a_loaded_ncnn_model_needs_its_file_no_more_and_every_run_is_a_whole_forward(tmp_path, ncnn, expected):
    path = write_ncnn(tmp_path / "model.ncnn")
    run = ncnn.load(path.read_bytes(), 1)
    path.unlink()
    first = np.array(run())
    first[:] = 0  # what a run gave is not what the next one gives
    np.testing.assert_allclose(np.array(run()), expected, rtol=0, atol=1e-5 * expected.max())


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"compression": zipfile.ZIP_DEFLATED}, "but model.param is compressed"),
        ({"model_bin": None}, "no item named 'model.bin'"),
        ({"model_json": b"[]"}, "gives no input"),
        ({"facts": {**FACTS, "shape": "3x12x12"}}, "gives no shape"),
        ({"model_json": b"{"}, "Expecting property name"),
        ({"facts": {**FACTS, "layers": ["Mystery"]}}, "it needs ['Mystery']"),
        ({"facts": {**FACTS, "output": "nowhere"}}, "must reach 'nowhere'"),
        ({"model_param": b"nonsense"}, "model.param must be one that ncnn"),
    ],
)
def test_what_is_no_ncnn_model_is_refused_in_one_line(tmp_path, ncnn, changes, complaint):
    path = write_ncnn(tmp_path / "model.ncnn", **changes)
    policy = {**TINY.model_dump(mode="json"), "runtime": "ncnn"}
    (entry,) = measure_models([path], policy)["models"]
    assert complaint in entry["error"]
    assert "\n" not in entry["error"]


def test_a_policy_names_the_runtime_of_a_whole_batch(tmp_path, ncnn):
    policy = TINY.model_copy(update={"runtime": "ncnn"})
    models = [write_ncnn(tmp_path / "model.ncnn"), write_corrupt(tmp_path / "corrupt.ncnn")]
    probe = HostProbe(policy, write_ncnn(tmp_path / "anchor.ncnn"))
    measured, refused = probe.measure(models)
    assert isinstance(measured, Measurement)
    assert (measured.runtime, measured.runtime_version) == (probe.runtime, ncnn.version) == ("ncnn", ncnn.version)
    assert measured.model_hash == sha256(models[0])
    assert isinstance(refused, FailedMeasurement)
    assert "must be an uncompressed zip" in refused.reason


def test_installed_runtimes_are_named_with_the_versions_they_report(ncnn):
    litert = pytest.importorskip("ai_edge_litert.interpreter") and LiteRt().version
    imported = {"onnxruntime": onnxruntime.__version__, "ncnn": ncnn.version, "litert": litert}
    assert installed_runtimes() == {**imported, "native": Native.VERSION}


def test_a_runtime_that_is_not_installed_is_not_listed_and_can_not_be_asked_for(monkeypatch, tmp_path, capsys):
    gone = (Ncnn.MODULE, LiteRt.MODULE)
    monkeypatch.setattr(importlib.util, "find_spec", hide(gone, importlib.util.find_spec))
    monkeypatch.setitem(sys.modules, "ncnn", None)  # what an absent module looks like to `import`
    monkeypatch.setattr(Native, "installed", lambda: None)  # as without a compiler
    assert list(installed_runtimes()) == ["onnxruntime"]
    model = str(write_ncnn(tmp_path / "model.ncnn"))
    policy = TINY.model_dump_json()
    assert main(["measure", "--policy", policy, "--runtime", "ncnn", model]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def hide(names: Sequence[str], find: Callable) -> Callable:
    return lambda wanted, *rest: None if wanted in names else find(wanted, *rest)


def test_listing_the_runtimes_imports_none_of_them(monkeypatch):
    modules = {runtime.MODULE for runtime in (OnnxRuntime, Ncnn, LiteRt)}
    for name in modules:
        monkeypatch.delitem(sys.modules, name, raising=False)
    installed_runtimes()
    assert not modules & set(sys.modules)


def test_an_unknown_runtime_in_a_policy_is_refused_with_the_ones_there_are(tmp_path):
    policy = {**TINY.model_dump(mode="json"), "runtime": "abacus"}
    with pytest.raises(
        ValueError, match=r"must be one of \['litert', 'native', 'ncnn', 'onnxruntime'\], but got 'abacus'"
    ):
        measure_models([tmp_path / "model"], policy)


def test_an_ncnn_model_is_read_from_its_bytes_alone(tmp_path):
    facts, files = unzip_model(io.BytesIO(write_ncnn(tmp_path / "model.ncnn").read_bytes()).getvalue())
    assert facts == FACTS
    assert files == {"model.param": ncnn_param().encode(), "model.bin": ncnn_bin()}
