"""A trial's network in 8 bits: the file's own accuracy, a fine-tune where much is lost, and the command."""

from __future__ import annotations

import io
import json
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

import condensery
from commands.opened import Opened
from condensery import load_bundle
from dashboards.data.column_reader import read_columns
from dashboards.data.columns import View
from dashboards.panels.study.front import front_info
from dashboards.panels.study.front_drawing import front_figure
from dashboards.terminal.documents import front_document
from dashboards.terminal.trial_tables import pareto_table
from search.budget import Budget
from search.pricing.pricer import Target, price
from search.results import points, quantizing
from search.results.bundle.options import BundleOptions
from search.results.bundle.samples import tolerance_of
from search.results.bundle.verifying import check_bundle
from search.results.bundle.writing import write_bundle
from search.results.latency_labels import doubts_text
from search.results.picking.picked import find_winner, pick
from search.results.picking.wish import Wish
from search.results.points import quantize
from search.results.quantizing import quantize_trial
from search.results.winning import front_rounded, rows_in, winning
from search.store.reader import count_test_evaluations, read_points
from search.store.rows import PointRow, StudyRow
from search.store.store import StudyStore
from space.errors import InvalidSettings, PrecisionMissing, QuantizationFailed, TrialNotFound, TrialNotReady
from tests.search.tiny_studies import INSIDE, CountingProbe, sqlite_url, tiny_settings
from tests.search.trained_study import trained_study
from tests.workers.export.test_export_contract import MISSING
from workers.export.int8_files import save_int8_for
from workers.file_names import precision_of
from workers.images.batches import load
from workers.images.cache import prepare
from workers.judging import in_int8
from workers.judging.file_predictions import split_predictions
from workers.latency import FakeProbe
from workers.latency.measurement import Measurement
from workers.latency.record import LatencyRecord
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
    again = split_predictions("onnxruntime", file.path, images.validation, images.info)
    assert file.top1 == float(again.right.mean())
    assert len(file.predictions) == len(images.validation)
    assert 0 <= file.written.difference < 0.05
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

    monkeypatch.setattr(in_int8, "fine_tuned", learn_nothing)  # a real one takes as long as a training
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

    monkeypatch.setattr(in_int8, "calibration_images", of_one_class)
    with pytest.raises(QuantizationFailed, match="must be of at least 2 classes"):
        quantize_trial(store, study, store.trial(0), folder / "cache", "onnxruntime", tmp_path / "model.int8.onnx")
    assert list(tmp_path.iterdir()) == []


def export(folder: Path, *words: str):
    return CliRunner().invoke(condensery.app, ["export", "0", "tiny", "--storage", sqlite_url(folder), *words])


def test_export_writes_8_bits_and_says_what_is_lost(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(in_int8, "fine_tuned", lambda quantized, batch: quantized)
    monkeypatch.chdir(tmp_path)
    done = export(folder, "--precision", "int8", "--bake-preprocessing")
    assert (done.exit_code, done.stdout.strip()) == (0, "wrote model.int8.onnx"), done.exception
    assert "points lost of fp32's 50.00%" in done.stderr
    model = onnx.load(tmp_path / "model.int8.onnx")
    assert {one.key: one.value for one in model.metadata_props}["precision"] == "int8"
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


# --- points -----------------------------------------------------------------------------------------------------


def point(number: int, score: float, median_ms: float, **changes: Any) -> PointRow:
    values = {"kind": "measured", "policy": "quick", "device": "fake", "runtime": "onnxruntime"}
    values |= {"runtime_version": "0", "threads": 1, "p90_ms": None, "steady": True, "precision": "int8"}
    values |= {"median_ms": median_ms, "interval_low_ms": median_ms, "interval_high_ms": median_ms, **changes}
    return PointRow(number, LatencyRecord(**values), score, score, 1000, False)


@pytest.fixture
def quick(monkeypatch) -> None:
    monkeypatch.setattr(in_int8, "fine_tuned", lambda quantized, batch: quantized)


def test_a_network_in_8_bits_is_a_point_with_its_own_accuracy_and_key(folder, store, study, tmp_path, quick) -> None:
    probe = FakeProbe(lambda path: 0.25 if precision_of(path) == "int8" else 1.0)
    on = [Target("host", probe, None, local=True)]
    (made,) = quantize(store, study, store.trials(), on, folder / "cache", tmp_path, lambda text: None)
    assert made.latency.precision == "int8"
    (row,) = read_points(store.engine, store.study_id)
    assert (row.number, row.latency.precision, row.latency.target) == (0, "int8", "host")
    assert row.latency.model_hash == made.file.sha256
    assert row.top1 == row.score == made.file.top1
    assert row.file_bytes == made.file.file_bytes
    (trial,) = store.trials()
    assert all(latency.precision == "fp32" for latency in trial.latencies.values())  # the trial is judged as before
    columns = read_columns(store.engine, "tiny")
    assert [one.latency.precision for one in columns.points] == ["int8"]
    assert list(quantize(store, study, store.trials(), on, folder / "cache", tmp_path, lambda text: None))
    assert len(read_points(store.engine, store.study_id)) == 1  # the newest


def test_a_network_that_cant_be_put_into_8_bits_keeps_no_other_from_it(
    folder, store, study, tmp_path, quick, monkeypatch
) -> None:
    (row,) = store.trials()
    make = points.quantize_trial

    def refuse_the_first(store, study, row, *rest):
        if row.number == 7:
            raise QuantizationFailed("a value overflows")
        return make(store, study, row, *rest)

    monkeypatch.setattr(points, "quantize_trial", refuse_the_first)
    on, notes = [Target("host", FakeProbe(lambda path: 1.0), None)], []
    both = [replace(row, number=7), row]
    (made,) = quantize(store, study, both, on, folder / "cache", tmp_path, notes.append)
    assert made.file.trial.number == 0
    assert "trial 7 is left out on host: a value overflows" in notes
    with pytest.raises(QuantizationFailed):  # where it is the only one
        list(quantize(store, study, both[:1], on, folder / "cache", tmp_path, notes.append))


def test_a_point_wins_only_where_nothing_is_as_accurate_and_as_fast(store, study) -> None:
    (row,) = store.trials()  # 50 %
    assert row.latency is not None
    ms = row.latency.median_ms
    slow, fast, poor = point(0, 0.5, 1.1 * ms), point(1, 0.4, 0.5 * ms), point(2, 0.3, 0.6 * ms)
    elsewhere = point(3, 0.1, 9 * ms, device="another")
    assert winning([slow, fast, poor, elsewhere], [row]) == [fast, elsewhere]
    (shown,) = front_rounded([row], [point(0, 0.4, 0.5 * ms, model_hash="1" * 64)], "host")
    assert (shown.number, shown.score, shown.file_hash) == (0, 0.4, "1" * 64)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(pareto_table([row, shown]))
    text = console.export_text()
    assert [line.count(" i8") for line in text.splitlines() if line.startswith("0 ")] == [0, 1]
    assert "i8: of its file in 8 bits (int8), and so is its score" in text
    assert [one["score"] for one in front_document([row, shown])["front_int8"]] == [0.4]
    assert front_rounded([row], [slow], "host") == []
    better = point(4, 0.6, 2 * ms)
    assert winning([better], [row]) == [better]


def test_the_front_shows_a_winning_point_with_a_mark_of_its_own_and_says_so(store) -> None:
    columns = read_columns(store.engine, "tiny")
    (latency,) = [one.latency for one in store.trials()]
    assert latency is not None
    view = View(columns.default_group)

    def shown(*points: PointRow):
        return front_info(replace(columns, points=points), view)

    fast, slow = point(0, 0.49, 0.5 * latency.median_ms), point(0, 0.49, 2 * latency.median_ms)
    info = shown(fast)
    assert info.int8.score_pct.tolist() == [49.0]
    assert any("a network in 8 bits (int8) that none in fp32 beats" in note for note in info.notes)
    (mark,) = [trace for trace in front_figure(info).data if trace.name == "in 8 bits"]
    (front,) = [trace for trace in front_figure(info).data if trace.name == "on the front"]
    assert (mark.marker.symbol, mark.marker.color) != (front.marker.symbol, front.marker.color)
    assert mark.marker.symbol == "square"
    assert any(row[0] == "in 8 bits" for row in info.table().rows)
    half = shown(replace(fast, latency=replace(fast.latency, precision="fp16")))
    assert (len(half.int8), half.fp16.score_pct.tolist()) == (0, [49.0])
    assert any("a network in 16 bits (fp16) that none in fp32 beats" in note for note in half.notes)
    (other,) = [trace for trace in front_figure(half).data if trace.name == "in 16 bits"]
    assert other.marker.symbol not in (front.marker.symbol, mark.marker.symbol)
    assert len(shown(slow).int8) == 0
    assert not [trace for trace in front_figure(shown(slow)).data if trace.name == "in 8 bits"]


def test_the_command_refuses_what_are_no_trials(folder) -> None:
    storage = ["--storage", sqlite_url(folder)]
    for numbers, error in (("x", InvalidSettings), ("7", TrialNotFound)):
        done = CliRunner().invoke(condensery.app, ["quantize", "tiny", "--trials", numbers, *storage])
        assert isinstance(done.exception, error)


def test_pick_in_int8_ships_the_file_that_was_measured_with_its_own_accuracy(
    folder, store, study, tmp_path, quick, monkeypatch
) -> None:
    with pytest.raises(TrialNotReady, match="run `condensery quantize` first"):
        rows_in("int8", study, store.trials(), [], "host")
    probe = FakeProbe(lambda path: 0.25 if precision_of(path) == "int8" else 1.0)
    on = [Target("host", probe, None, local=True)]
    budget = Budget(max_latency_ms=0.5)  # no network in fp32 is inside
    list(quantize(store, study, store.trials(), on, folder / "cache", tmp_path, lambda text: None))
    evaluated = count_test_evaluations(store.engine, store.study_id)
    picked = pick(store, study, budget, on, folder / "cache", precision="int8")
    file = picked.rounded["onnxruntime"]
    assert (picked.verified.precision, picked.verified.model_hash) == ("int8", file.sha256)
    assert picked.verified.interval_high_ms < 0.5
    bundle = write_bundle(store, study, picked, tmp_path / "bundle", folder / "cache", BundleOptions(samples=1))
    deploy = tomllib.loads((bundle / "deploy.toml").read_text())
    assert deploy["latency"]["file"] == "model.int8.onnx"
    assert deploy["model_files_sha256"]["model.int8.onnx"] == file.sha256
    expected = json.loads((bundle / "samples" / "expected.json").read_text())
    assert expected["tolerances"] == {"model.int8.onnx": 0.1}  # other processors have some levels off by one
    assert tolerance_of(Path("model.int8.native.zip")) == tolerance_of(Path("model.onnx")) == 1e-3
    assert (deploy["model"]["file"], deploy["model"]["precision"]) == ("model.int8.onnx", "int8")
    assert not (bundle / "model.onnx").exists()  # it is neither what was measured nor tested
    assert deploy["accuracy"]["test_top1"] == picked.test_top1
    assert deploy["accuracy"]["validation_top1"] == pytest.approx(file.top1)
    worth = deploy["int8"]["model.int8.onnx"]
    assert worth["validation_top1"] == pytest.approx(file.top1)
    assert worth["test_top1"] == picked.test_top1
    assert worth["fp32_validation_top1"] == 0.5
    assert "only the weights in 8 bits" in worth["left_in_float"]
    card = (bundle / "MODEL_CARD.md").read_text()
    assert "`model.int8.onnx` is in 8 bits: its top-1 is" in card
    assert any("in int8 for onnxruntime: top-1 of the file" in text for text in picked.reasons)
    assert check_bundle(bundle).failure is None
    images = load(DataSettings(dataset="digits", images=300), folder / "cache")
    said = split_predictions("onnxruntime", bundle / "model.int8.onnx", images.test(), images.info)
    assert picked.test_top1 == float(said.right.mean())
    assert load_bundle(bundle)([bundle / "samples" / one.name for one in (bundle / "samples").glob("*.png")]).shape
    # The test split is used once, for this file alone, and whatever is said of it later is what it said then.
    assert store.trial(0).test_top1 is None
    assert count_test_evaluations(store.engine, store.study_id) == evaluated + 1
    monkeypatch.setattr(quantizing, "test_predictions", lambda *_: pytest.fail("the test split was used again"))
    again = pick(store, study, budget, on, folder / "cache", Wish(within=0.01), precision="int8")
    assert (again.test_top1, again.seen.test, again.seen.validation) == (picked.test_top1, said, file.predictions)


def test_a_network_in_fp16_is_a_point_of_its_own_that_is_picked_and_shipped(folder, store, study, tmp_path) -> None:
    if MISSING["ncnn"]:
        pytest.skip("needs ncnn")

    class OfNcnn(FakeProbe):
        runtime = "ncnn"

    class OfNative(FakeProbe):
        runtime = "native"

    (row,) = store.trials()
    assert row.latency is not None
    on = [Target("host", OfNcnn(lambda path: 0.2 if precision_of(path) == "fp16" else 1.0), None, local=True)]
    native = [Target("phone", OfNative(lambda path: 1.0), None)]
    notes: list[str] = []
    with pytest.raises(
        TrialNotReady, match="put into 16 bits for host yet; run `condensery quantize --precision fp16`"
    ):
        rows_in("fp16", study, [row], read_points(store.engine, store.study_id), "host")
    with pytest.raises(PrecisionMissing, match="native has no model files in fp16"):
        list(quantize(store, study, [row], native, folder / "cache", tmp_path, notes.append, "fp16"))
    (made,) = quantize(store, study, [row], [*native, *on], folder / "cache", tmp_path, notes.append, "fp16")
    assert notes[0].startswith("phone is left out: native has no model files in fp16")
    assert (made.latency.precision, made.file.precision, made.target) == ("fp16", "fp16", "host")
    assert "the weights of all convolutions and of the classifier are in 16 bits; ncnn computes" in made.file.words
    assert made.file.written.difference < 2e-3
    both = [*read_points(store.engine, store.study_id), point(0, 0.4, 0.3, runtime="ncnn")]
    (judged,) = rows_in("fp16", study, [row], both, "host")
    assert [one.precision for one in judged.latencies.values()] == ["fp16"]
    picked = pick(store, study, Budget(max_latency_ms=0.5), on, folder / "cache", precision="fp16")
    assert (picked.verified.precision, picked.precision) == ("fp16", "fp16")
    bundle = write_bundle(store, study, picked, tmp_path / "bundle", folder / "cache", BundleOptions(samples=1))
    deploy = tomllib.loads((bundle / "deploy.toml").read_text())
    assert (deploy["model"]["file"], deploy["model"]["precision"]) == ("model.fp16.ncnn.zip", "fp16")
    assert deploy["fp16"]["model.fp16.ncnn.zip"]["test_top1"] == picked.test_top1
    assert "float32" in deploy["model_files"]["model.fp16.ncnn.zip"]
    assert "`model.fp16.ncnn.zip` is in 16 bits: its top-1 is" in (bundle / "MODEL_CARD.md").read_text()
    report = check_bundle(bundle)
    assert [(run.file, run.agrees, run.tolerance) for run in report.samples] == [("model.fp16.ncnn.zip", True, 0.02)]


def test_export_in_fp16_writes_a_file_for_a_runtime_that_has_it_and_names_those_elsewhere(
    folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    refused = export(folder, "--precision", "fp16", "--runtime", "native")
    assert isinstance(refused.exception, PrecisionMissing)
    assert list(tmp_path.iterdir()) == []
    if not MISSING["ncnn"]:
        done = export(folder, "--precision", "fp16", "--runtime", "ncnn")
        assert (done.exit_code, done.stdout.strip()) == (0, "wrote model.fp16.ncnn.zip"), done.exception
        assert "points lost of fp32's" in done.stderr


@pytest.mark.slow(seconds=8)
def test_a_network_picked_in_int8_is_retrained_and_put_into_8_bits_again(
    folder, store, study, tmp_path, quick, monkeypatch
) -> None:
    probe = FakeProbe(lambda path: 0.25 if precision_of(path) == "int8" else 1.0)
    on = [Target("host", probe, None, local=True)]
    list(quantize(store, study, store.trials(), on, folder / "cache", tmp_path, lambda text: None))
    monkeypatch.setattr(Opened, "targets", lambda self: tuple(on))
    monkeypatch.setattr("search.launch.targets_of", lambda *rest, **more: tuple(on))  # a real one times this machine
    words = ["pick", "tiny", "--precision", "int8", "--retrain", "--retrain-epochs", "1", "--max-latency-ms", "0.5"]
    words += ["--out", str(tmp_path / "bundle"), "--json", "--storage", sqlite_url(folder)]
    done = CliRunner().invoke(condensery.app, words)
    assert done.exit_code == 0, done.exception
    picked = json.loads(done.stdout)
    assert picked["retrains"] == "tiny/0"
    assert picked["verified_latency"]["precision"] == "int8"
    assert store.trial(0).test_top1 is None  # the one that it was chosen as isn't shipped
    deploy = tomllib.loads((tmp_path / "bundle" / "deploy.toml").read_text())
    worth = deploy["int8"][deploy["model"]["file"]]
    assert worth["test_top1"] == picked["test_top1"]
    assert "points_lost" not in worth  # it has learned from the validation images
    assert "is in 8 bits: " in (tmp_path / "bundle" / "MODEL_CARD.md").read_text()


# --- prices -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fp32_ms", "int8_ms", "best"), [(1.0, 0.25, "int8"), (0.25, 1.0, "fp32")])
def test_the_price_of_a_candidate_is_that_of_its_best_precision(tmp_path, fp32_ms, int8_ms, best) -> None:
    probe = FakeProbe(lambda path: int8_ms if precision_of(path) == "int8" else fp32_ms)
    (latency,) = price([INSIDE], probe, tmp_path, precisions=("fp32", "int8"))
    assert isinstance(latency, Measurement)
    assert latency.precision == best
    assert latency.median_ms == pytest.approx(0.25, rel=0.02)
    assert doubts_text(latency) == (", int8, quick" if best == "int8" else ", quick")
    (plain,) = price([INSIDE], probe, tmp_path)
    assert isinstance(plain, Measurement)
    assert plain.precision == "fp32"


def test_the_precisions_of_a_search_are_part_of_its_identity_only_where_int8_is_among_them() -> None:
    plain = tiny_settings()
    assert "precision" not in plain.model_dump(mode="json")["search"]
    both = tiny_settings(search__precision=["fp32", "int8"])
    assert both.model_dump(mode="json")["search"]["precision"] == ["fp32", "int8"]
    with pytest.raises(InvalidSettings, match=r'must be \["fp32"\] or \["fp32", "int8"\]'):
        tiny_settings(search__precision=["int8"])


def test_a_network_that_was_priced_in_int8_is_picked_in_int8(folder, store, study, quick) -> None:
    (row,) = store.trials()
    assert row.latency is not None
    judged = replace(row.latency, precision="int8", median_ms=0.25, interval_high_ms=0.26)
    priced = replace(row, latency=judged)
    probe = FakeProbe(lambda path: 0.25 if precision_of(path) == "int8" else 1.0)
    on = [Target("host", probe, None, local=True)]

    class Priced(StudyStore):
        def trials(self, *args, **kwargs):
            return [priced]

    winner = find_winner(
        Priced(store.engine, store.study_id), study, Budget(max_latency_ms=0.5), on, cache=folder / "cache"
    )
    assert winner.on_devices.measured["host"].precision == "int8"
    assert winner.rounded.keys() == {"onnxruntime"}
