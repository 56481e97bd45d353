"""A trial's network in 8 bits: the file's own accuracy, a fine-tune where much is lost, and the command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from typer.testing import CliRunner

import condensery
from search.results import quantizing
from search.results.quantizing import predictions_of, quantize_trial
from search.store.rows import StudyRow
from search.store.store import StudyStore
from space.errors import InvalidSettings, QuantizationFailed
from tests.search.tiny_studies import CountingProbe, sqlite_url
from tests.search.trained_study import trained_study
from workers.export.int8_files import save_int8_for
from workers.images.batches import load
from workers.images.cache import prepare
from workers.quantization import calibration_images
from workers.quantization.network import QuantizedNetwork
from workers.settings import DataSettings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    store = trained_study(folder, CountingProbe(), data__images=300)
    info = prepare(DataSettings(dataset="digits", images=300), folder / "cache")
    store.set_data_info(info.to_dict())
    return folder


@pytest.fixture
def store(folder: Path) -> StudyStore:
    import sqlalchemy as sa

    return StudyStore(sa.create_engine(sqlite_url(folder)), 1)


@pytest.fixture
def study(store: StudyStore) -> StudyRow:
    from search.store import reader

    return reader.find_study(store.engine, "tiny")


def test_the_accuracy_is_that_of_the_written_file(folder, store, study, tmp_path) -> None:
    file = quantize_trial(store, study, store.trial(0), folder / "cache", "onnxruntime", tmp_path / "model.int8.onnx")
    images = load(DataSettings(dataset="digits", images=300), folder / "cache")
    assert file.path.stat().st_size == file.file_bytes
    again = predictions_of("onnxruntime", file.path, images)
    assert file.top1 == float(again.right.mean())
    assert len(file.predictions) == len(images.validation)
    assert 0 <= file.difference < 0.05
    assert "computes in float and has only the weights in 8 bits: stem, 1x1 convolutions" in file.words


def test_where_more_than_half_a_point_is_lost_it_is_fine_tuned_and_the_better_file_stays(
    folder, store, study, tmp_path, monkeypatch
) -> None:
    noted: list[str] = []
    tuned: list[QuantizedNetwork] = []

    def learn_nothing(quantized: QuantizedNetwork, batch: Callable[[int], tuple[torch.Tensor, torch.Tensor]]):
        images, labels = batch(0)
        assert len(images) == len(labels) > 0
        tuned.append(quantized)
        return quantized

    monkeypatch.setattr(quantizing, "fine_tuned", learn_nothing)  # a real one takes as long as a training
    path = tmp_path / "model.int8.onnx"
    file = quantize_trial(store, study, store.trial(0), folder / "cache", "onnxruntime", path, noted.append)
    assert file.trial.top1 == 0.5  # of a network that has learnt nothing
    assert file.lost_points > 0.5
    assert len(tuned) == 1
    assert "points of top-1 are lost; fine-tuning" in noted[-1]
    assert not file.fine_tuned
    assert file.sha256 == save_int8_for("onnxruntime", tuned[0], tmp_path / "same.onnx")


def test_calibration_images_of_one_class_end_with_a_line(folder, store, study, tmp_path, monkeypatch) -> None:
    chosen = calibration_images.calibration_images

    def of_one_class(images, config):
        pixels, labels = chosen(images, config)
        return pixels, torch.full_like(labels, 4)

    monkeypatch.setattr(quantizing, "calibration_images", of_one_class)
    with pytest.raises(QuantizationFailed, match="must be of at least 2 classes"):
        quantize_trial(store, study, store.trial(0), folder / "cache", "onnxruntime", tmp_path / "model.int8.onnx")
    assert list(tmp_path.iterdir()) == []


def export(folder: Path, *words: str):
    return CliRunner().invoke(condensery.app, ["export", "0", "tiny", "--storage", sqlite_url(folder), *words])


def test_export_writes_8_bits_and_says_what_is_lost(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(quantizing, "fine_tuned", lambda quantized, batch: quantized)
    monkeypatch.chdir(tmp_path)
    done = export(folder, "--precision", "int8", "--bake-preprocessing")
    assert (done.exit_code, done.stdout.strip()) == (0, "wrote model.int8.onnx"), done.exception
    assert "points lost of fp32's 50.00%" in done.stderr
    model = onnx.load(tmp_path / "model.int8.onnx")
    assert {one.key: one.value for one in model.metadata_props}["precision"] == "int8"
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    refused = export(folder, "--precision", "int8", "--format", "ncnn")
    assert isinstance(refused.exception, InvalidSettings)
    assert "onnxruntime, litert and native" in str(refused.exception)
