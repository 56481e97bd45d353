"""Preprocessing baked into the model file: for every runtime pixels go in, and the network's logits come out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest

from space.errors import ExportMismatch
from tests.workers.export.test_export import BASE, trained_like
from tests.workers.export.test_export_contract import MISSING
from tests.workers.hasty_compiler import hasty_compiler
from workers.bundled.infer import open_model
from workers.export import tflite
from workers.export.model_files import check_for, save_for
from workers.export.pixels import PixelInput
from workers.file_names import INPUT, Runtime, file_for
from workers.latency.agent.runtimes import runtime_named
from workers.preprocessing import Preprocessing

EIGHT_BITS = Preprocessing(BASE.input_shape, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
SENSOR = replace(EIGHT_BITS, pixel_type="uint16", pixel_range=(2100.0, 13_000.0))
VIDEO = replace(EIGHT_BITS, pixel_range=(16.0, 235.0))
CASES = {"8 bits": EIGHT_BITS, "16 bits": SENSOR, "a range": VIDEO}


@pytest.fixture(autouse=True)
def compiles_in_haste(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take less than a second for a bundle's program to compile its kernel."""
    monkeypatch.setenv("CC", str(hasty_compiler(tmp_path)))


@pytest.fixture(params=get_args(Runtime))
def runtime(request: pytest.FixtureRequest) -> Runtime:
    if MISSING[request.param]:
        pytest.skip(f"needs what {request.param} runs with")
    return request.param


@pytest.mark.parametrize("case", CASES)
def test_a_file_that_takes_pixels_equals_the_network(runtime: Runtime, tmp_path: Path, case: str):
    network, path, pixels = trained_like(BASE), tmp_path / file_for(runtime, "model"), PixelInput.of(CASES[case])
    first = save_for(runtime, network, path, pixels)
    assert save_for(runtime, network, path, pixels) == first
    assert 0.0 <= check_for(runtime, path, network, pixels) <= 1e-5


def test_another_scaling_in_the_file_is_a_mismatch(runtime: Runtime, tmp_path: Path):
    network, path = trained_like(BASE), tmp_path / file_for(runtime, "model")
    save_for(runtime, network, path, PixelInput.of(replace(EIGHT_BITS, mean=(0.3, 0.4, 0.5))))
    with pytest.raises(ExportMismatch, match=r"off by \d\.\d\de-0\d"):
        check_for(runtime, path, network, PixelInput.of(EIGHT_BITS))


def test_a_file_without_the_scaling_is_a_mismatch(runtime: Runtime, tmp_path: Path):
    network, path = trained_like(BASE), tmp_path / file_for(runtime, "model")
    save_for(runtime, network, path)
    with pytest.raises(ExportMismatch):
        check_for(runtime, path, network, PixelInput.of(EIGHT_BITS))


def test_a_pixel_beyond_the_range_counts_as_its_end(runtime: Runtime, tmp_path: Path):
    path = tmp_path / file_for(runtime, "model")
    save_for(runtime, trained_like(BASE), path, PixelInput.of(SENSOR))
    run = open_model(path)
    white, beyond, grey = (run(np.full(BASE.input_shape, value, np.uint16)) for value in (13_000, 65_535, 9_000))
    np.testing.assert_array_equal(white, beyond)
    assert not np.allclose(white, grey)


def test_the_input_is_of_the_pixels_type_and_the_file_says_the_rules(tmp_path: Path):
    for case, kind in (("8 bits", "UINT8"), ("16 bits", "UINT16")):
        pixels, path = PixelInput.of(CASES[case]), tmp_path / "model.onnx"
        save_for("onnxruntime", trained_like(BASE), path, pixels)
        model = onnx.load(path)
        (given,) = model.graph.input
        assert (given.name, given.type.tensor_type.elem_type) == (INPUT, onnx.TensorProto.DataType.Value(kind))
        assert json.loads({entry.key: entry.value for entry in model.metadata_props}["preprocessing"]) == pixels.rules
        save_for("litert", trained_like(BASE), tmp_path / "model.tflite", pixels)
        told = json.loads(tflite.description_of((tmp_path / "model.tflite").read_bytes()))
        assert told["preprocessing"] == pixels.rules
        assert pixels.rules["in_model"] == ["scale"]
        assert pixels.rules["dtype"] == kind.lower()


def test_the_measuring_program_runs_files_that_take_pixels(runtime: Runtime, tmp_path: Path):
    path = tmp_path / file_for(runtime, "model")
    for case in ("8 bits", "16 bits"):
        save_for(runtime, trained_like(BASE), path, PixelInput.of(CASES[case]))
        runtime_named(runtime).load(path.read_bytes(), threads=1)()


def test_an_image_may_lie_in_memory_in_any_order(runtime: Runtime, tmp_path: Path):
    """Pixels that were turned to channels first are a view of the decoder's."""
    path = tmp_path / file_for(runtime, "model")
    save_for(runtime, trained_like(BASE), path)
    run, image = open_model(path), np.random.default_rng(0).standard_normal(BASE.input_shape, np.float32)
    expected = run(image)
    view = np.ascontiguousarray(image.transpose(1, 2, 0)).transpose(2, 0, 1)
    for _ in range(5):
        np.testing.assert_array_equal(run(view), expected)
