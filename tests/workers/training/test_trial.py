"""One trial from its job to its files."""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch

from space.config import CondenseNetConfig
from space.cost import cost_of
from space.errors import CheckpointCorrupt, DataNotFound, InvalidSettings, ReadOnlyFolder, TrainingFailed
from tests.workers.tiny import DIGITS, NET, STEPS_PER_EPOCH, TRAINING, Recorder, digits, equal_tensors, job
from workers.file_names import CHECKPOINTS, LOG_FILE, NETWORK_FILE, ONNX_FILE, SETTINGS_FILE
from workers.files import file_hash
from workers.images.batches import ImageData, evaluation_batches
from workers.judging import in_int8
from workers.metrics import METRICS, Predictions
from workers.settings import DataSettings, TrainingSettings
from workers.training.job import TrialJob, trial_identity
from workers.training.loop import evaluate
from workers.training.reporting import TrainingStopped
from workers.training.trial import _log_file, load_network, run_trial

TWO_EPOCHS = TRAINING.model_copy(update={"epochs": 2})
ONE_EPOCH = TRAINING.model_copy(update={"epochs": 1})


class Reporter(Recorder):
    """A reporter that obeys `at_step` as a worker obeys the controller's words."""

    def check(self) -> None:
        self.before_step(0.0)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def images(cache: Path) -> ImageData:
    return digits(cache)


@pytest.fixture(scope="module")
def finished(images: ImageData, cache: Path, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("files") / "trial-00000"
    reporter = Reporter()
    result = run_trial(job(folder, cache, training=TWO_EPOCHS), reporter)
    return folder, result, reporter


def test_a_trial_leaves_its_network_its_onnx_its_log_its_settings_and_its_checkpoints(finished):
    folder, _, _ = finished
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        [LOG_FILE, ONNX_FILE, NETWORK_FILE, SETTINGS_FILE, CHECKPOINTS]
    )


def test_a_trial_that_is_judged_in_int8_reports_what_its_file_says(finished, cache, tmp_path, monkeypatch):
    """It goes on from the finished trial's checkpoint, so nothing is trained again."""
    folder, before, _ = finished
    monkeypatch.setattr(in_int8, "fine_tuned", lambda quantized, batch: quantized)
    again = tmp_path / folder.name
    shutil.copytree(folder, again)
    files: list[Path] = []
    check = in_int8.check_int8_for
    monkeypatch.setattr(
        in_int8, "check_int8_for", lambda runtime, path, *rest: files.append(path) or check(runtime, path, *rest)
    )
    result = run_trial(job(again, cache, training=TWO_EPOCHS, int8_for="onnxruntime"), Reporter())
    assert files[0].name == "model.int8.onnx"
    assert result.fp32_predictions == before.predictions
    said = Predictions.from_bytes(base64.b64decode(result.predictions))
    assert result.top1 == said.right.mean()
    assert result.balanced_accuracy == said.metrics()["balanced_accuracy"]
    assert "in 8 bits for onnxruntime: top-1" in (again / LOG_FILE).read_text()
    assert {one.name for one in again.iterdir()} == {one.name for one in folder.iterdir()}  # no file of it is left


def test_the_result_carries_the_files_hashes_and_the_exact_cost(finished):
    folder, result, _ = finished
    assert result.onnx_sha256 == file_hash(folder / ONNX_FILE)
    assert result.network_sha256 == file_hash(folder / NETWORK_FILE)
    assert result.macs == cost_of(NET).macs
    assert result.export_difference < 1e-5
    assert result.peak_memory_mb > 50
    assert json.loads(json.dumps(result.to_dict())) == result.to_dict()


def test_the_result_is_the_last_row_of_the_curve(finished):
    _, result, reporter = finished
    assert [row.epoch for row in reporter.rows] == [1, 2]
    last = reporter.rows[-1]
    assert (last.form, last.val_top1, last.val_loss) == ("deployed", result.top1, result.val_loss)
    assert result.train_seconds == last.seconds > 0


def test_the_network_that_is_loaded_has_the_accuracy_that_was_reported(finished, images: ImageData):
    folder, result, _ = finished
    network = load_network(folder, NET, result.network_sha256)
    found = evaluate(network, images.validation, images.info, torch.device("cpu"))
    assert (found.top1, found.loss) == (result.top1, result.val_loss)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    onnx.checker.check_model(onnx.load(folder / ONNX_FILE), full_check=True)


def test_the_result_carries_what_the_network_said_of_every_validation_image(finished, images: ImageData):
    folder, result, reporter = finished
    network = load_network(folder, NET)
    found = Predictions.from_bytes(base64.b64decode(result.predictions))
    with torch.no_grad():
        batches = evaluation_batches(images.validation, images.info, len(images.validation))
        x, y = next(batches)
        predicted = network(x).argmax(1).numpy()
    order = np.argsort(y.numpy(), kind="stable")
    assert (found.predicted == predicted[order]).all()
    assert (found.labels == y.numpy()[order]).all()
    figures = {name: getattr(result, name) for name in METRICS}
    assert figures == found.metrics()
    assert None not in figures.values()
    last = reporter.rows[-1]
    assert (last.val_balanced_accuracy, last.val_macro_f1) == (result.balanced_accuracy, result.macro_f1)


def test_the_log_tells_the_trial_epoch_by_epoch(finished):
    folder, result, _ = finished
    lines = (folder / LOG_FILE).read_text().splitlines()
    assert len(lines) == 5
    assert f"trial 0 of tiny, attempt 1: {NET}" in lines[0]
    assert "training from step 0 of" in lines[1]
    assert "epoch 1: train loss" in lines[2]
    assert "(deployed)" in lines[3]
    assert f"done: top-1 {result.top1:.4f}, balanced accuracy {result.balanced_accuracy:.4f}, " in lines[4]
    assert f"macro-F1 {result.macro_f1:.4f} on validation, {result.macs} macs" in lines[4]


def test_the_settings_beside_the_network_are_the_job(finished):
    folder, _, _ = finished
    read = TrialJob.from_dict(json.loads((folder / SETTINGS_FILE).read_text()))
    assert (read.config, read.training, read.data, read.seed) == (NET, TWO_EPOCHS, DIGITS, 5)


def test_a_job_survives_json(tmp_path: Path):
    full = job(tmp_path, tmp_path, number=7, attempt=3, time_limit_s=12.5)
    again = TrialJob.from_dict(json.loads(json.dumps(full.to_dict())))
    assert again == full
    assert again.identity == full.identity


OTHER: dict[str, Any] = {
    "config": CondenseNetConfig(**{**NET.to_dict(), "bottleneck": 4}),
    "training": TRAINING.model_copy(update={"epochs": 4}),
    "data": DIGITS.model_copy(update={"split_seed": 1}),
    "seed": 6,
}


def test_the_identity_differs_with_each_ingredient(tmp_path: Path):
    plain = job(tmp_path, tmp_path)
    identities = {plain.identity, *(replace(plain, **{name: value}).identity for name, value in OTHER.items())}
    assert len(identities) == 1 + len(OTHER)


def test_the_identity_is_blind_to_where_and_how_often_a_trial_runs(tmp_path: Path):
    plain = job(tmp_path, tmp_path)
    moved = replace(plain, number=3, attempt=9, folder="elsewhere", device="cuda", time_limit_s=1.0, study="other")
    assert moved.identity == plain.identity == trial_identity(NET, TRAINING, DIGITS, 5)


def test_the_identity_never_changes_between_versions():
    """Every study on disk depends on it; a change needs a migration."""
    settings = TrainingSettings(epochs=1), DataSettings(dataset="digits")
    expected = "f80d2dc99ec70bc554064db66f5265cb4d8ef516af131f6267aafd1ec821e210"
    assert trial_identity(NET, *settings, 0) == expected


def test_a_file_that_is_not_the_recorded_one_is_refused(finished, tmp_path: Path):
    folder, result, _ = finished
    content = bytearray((folder / NETWORK_FILE).read_bytes())
    content[-1] ^= 1
    (tmp_path / NETWORK_FILE).write_bytes(bytes(content))
    with pytest.raises(CheckpointCorrupt, match="SHA-256 differs"):
        load_network(tmp_path, NET, result.network_sha256)


def test_a_missing_network_is_named(tmp_path: Path):
    with pytest.raises(CheckpointCorrupt, match=r"network\.safetensors is missing"):
        load_network(tmp_path, NET)


def test_a_stopped_trial_keeps_its_checkpoint_and_finishes_as_if_it_never_stopped(
    finished, cache: Path, tmp_path: Path
):
    def stop(step: int) -> None:
        if step == 11:
            raise TrainingStopped

    first, second = Reporter(stop), Reporter()
    the_job = job(tmp_path / "trial", cache, training=TWO_EPOCHS)
    with pytest.raises(TrainingStopped):
        run_trial(the_job, first)
    assert list((tmp_path / "trial" / "checkpoints").glob("*.safetensors"))
    assert "stopped on request" in (tmp_path / "trial" / LOG_FILE).read_text()
    result = run_trial(replace(the_job, attempt=2), second)
    assert second.steps == 2 * STEPS_PER_EPOCH - 11
    assert result.network_sha256 == finished[1].network_sha256
    assert result.onnx_sha256 == finished[1].onnx_sha256
    log = (tmp_path / "trial" / LOG_FILE).read_text()
    assert "attempt 1" in log
    assert "attempt 2" in log


def test_a_finished_job_that_runs_again_trains_nothing_and_gives_the_same(
    cache: Path, images: ImageData, tmp_path: Path
):
    """Its result may have been lost on the way to the database."""
    first, again = Reporter(), Reporter()
    result = run_trial(job(tmp_path, cache, training=TWO_EPOCHS), first)
    repeated = run_trial(job(tmp_path, cache, training=TWO_EPOCHS, attempt=2), again)
    assert (first.steps, again.steps) == (2 * STEPS_PER_EPOCH, 0)
    assert (repeated.onnx_sha256, repeated.top1) == (result.onnx_sha256, result.top1)


def test_other_images_than_the_study_began_with_are_refused(cache: Path, images: ImageData, tmp_path: Path):
    run_trial(job(tmp_path / "same", cache, data_fingerprint=images.info.fingerprint), Reporter())
    with pytest.raises(DataNotFound, match="not those this study began with"):
        run_trial(job(tmp_path / "other", cache, data_fingerprint="0" * 16), Reporter())


def test_where_the_images_are_is_no_part_of_the_identity():
    here = job(Path("a"), Path("a"))
    there = replace(here, data=DIGITS.model_copy(update={"folder": "elsewhere", "download": True}))
    assert here.identity == there.identity


def test_the_time_limit_ends_a_trial_and_says_which_setting_to_raise(cache: Path, images: ImageData, tmp_path: Path):
    with pytest.raises(TrainingFailed, match=r"time limit of 1e-06 s; raise limits\.trial_time_s"):
        run_trial(job(tmp_path, cache, time_limit_s=1e-6), Reporter())
    assert "TrainingFailed" in (tmp_path / LOG_FILE).read_text()
    assert not (tmp_path / NETWORK_FILE).exists()


def test_the_time_of_earlier_attempts_counts_towards_the_limit(cache: Path, images: ImageData, tmp_path: Path):
    def stop(step: int) -> None:
        if step == 3:
            raise TrainingStopped

    with pytest.raises(TrainingStopped):
        run_trial(job(tmp_path, cache), Reporter(stop))
    (document,) = (tmp_path / "checkpoints").glob("*.json")
    spent = json.loads(document.read_text())
    document.write_text(json.dumps(spent | {"seconds": 1000.0}))
    with pytest.raises(TrainingFailed, match="time limit of 999 s"):
        run_trial(job(tmp_path, cache, time_limit_s=999.0), Reporter())


def test_another_trainings_checkpoint_is_not_used_and_stays_until_there_is_one_of_its_own(
    finished, cache: Path, images: ImageData, tmp_path: Path
):
    """As of a study that was deleted and launched again under its name with another learning rate."""
    other = TWO_EPOCHS.model_copy(update={"learning_rate": 0.2})
    run_trial(job(tmp_path, cache, training=other), Reporter())
    theirs = sorted(path.name for path in (tmp_path / CHECKPOINTS).iterdir())
    (tmp_path / LOG_FILE).unlink()
    seen: list[list[str]] = []
    watching = Reporter(lambda step: seen.append(sorted(path.name for path in (tmp_path / CHECKPOINTS).iterdir())))
    result = run_trial(job(tmp_path, cache, training=TWO_EPOCHS), watching)
    assert result.network_sha256 == finished[1].network_sha256
    assert watching.steps == 2 * STEPS_PER_EPOCH  # from the first step
    assert all(names == theirs for names in seen)
    log = (tmp_path / LOG_FILE).read_text()
    assert "checkpoint-000000016.00001 is not used: it is of a training with another config, other settings" in log
    assert "Traceback" not in log


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_worker_without_the_device_says_which_setting_to_change(cache: Path, images: ImageData, tmp_path: Path):
    with pytest.raises(InvalidSettings, match=r"engine\.device .* 'cuda', and here torch sees no CUDA device"):
        run_trial(job(tmp_path, cache, device="cuda"), Reporter())


def test_images_that_were_never_prepared_are_data_not_found(tmp_path: Path):
    with pytest.raises(DataNotFound):
        run_trial(job(tmp_path / "trial", tmp_path / "nowhere"), Reporter())


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ReadOnlyFolder, match="file"):
        run_trial(job(tmp_path / "file" / "trial", tmp_path), Reporter())


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_running_out_of_memory_is_a_reason_not_a_crash(
    cache: Path, images: ImageData, tmp_path: Path, error: Exception
):
    def exhaust(step: int) -> None:
        raise error

    with pytest.raises(TrainingFailed, match=r"out of memory \(batch size 128\)"):
        run_trial(job(tmp_path, cache), Reporter(exhaust))


def test_any_other_error_goes_through_and_is_in_the_log(cache: Path, images: ImageData, tmp_path: Path):
    def fail(step: int) -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        run_trial(job(tmp_path, cache), Reporter(fail))
    assert "ZeroDivisionError: a bug" in (tmp_path / LOG_FILE).read_text()


def test_two_trials_side_by_side_write_to_their_own_logs_only(cache: Path, images: ImageData, tmp_path: Path):
    inner = job(tmp_path / "inner", cache, number=2, training=TWO_EPOCHS)

    def run_another(step: int) -> None:
        if step == 3:
            run_trial(inner, Reporter())

    run_trial(job(tmp_path / "outer", cache, number=1, training=TWO_EPOCHS), Reporter(run_another))
    for name, number in (("outer", 1), ("inner", 2)):
        lines = (tmp_path / name / LOG_FILE).read_text().splitlines()
        assert len(lines) == 5
        assert f"trial {number} of" in lines[0]
    networks = [safetensors.torch.load_file(tmp_path / name / NETWORK_FILE) for name in ("outer", "inner")]
    assert all(torch.equal(value, networks[1][key]) for key, value in networks[0].items())


def resident_mb() -> float:
    """Memory of this process's own; of the libraries' files as much is resident as the system likes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) * 1024 / 1e6


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize("trials", [8, pytest.param(50, marks=pytest.mark.long)])
def test_a_worker_does_not_grow_from_trial_to_trial(cache: Path, images: ImageData, tmp_path: Path, trials: int):
    sizes = []
    for number in range(trials):
        config = CondenseNetConfig(**{**NET.to_dict(), "stages": [1 + number % 3, 2], "growth": [8, 8]})
        run_trial(job(tmp_path / str(number), cache, config=config, number=number, training=ONE_EPOCH), Reporter())
        sizes.append(resident_mb())
    assert sizes[-1] - sizes[1] < 40.0, sizes


def test_equal_jobs_give_equal_files(finished, cache: Path, tmp_path: Path):
    result = run_trial(job(tmp_path, cache, training=TWO_EPOCHS), Reporter())
    assert result.network_sha256 == finished[1].network_sha256
    assert equal_tensors(load_network(tmp_path, NET), load_network(finished[0], NET))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_log_for_which_there_is_no_space_neither_ends_a_trial_nor_hides_what_did(capfd: pytest.CaptureFixture[str]):
    def run() -> None:
        with _log_file(Path("/dev/full")) as log:
            log.info("a line")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert capfd.readouterr() == ("", "")
