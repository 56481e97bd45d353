"""The bundle of a picked network, from a study whose one training is made up."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from dashboards.terminal.pick_tables import picked_panel
from search.budget import Budget
from search.pricing.pricer import Target
from search.results import trained_files
from search.results.bundle.export import export_trial
from search.results.bundle.writing import check_bundle_folder, write_bundle
from search.results.picking.picked import Picked, pick
from search.store import reader
from search.store.vocabulary import EvaluatedSplit
from space.errors import DataNotFound, InvalidSettings, ReadOnlyFolder
from tests.search.tiny_studies import CountingProbe, tiny_settings
from tests.search.trained_study import files_of_trial, trained_study
from tests.workers.latencies import without_samples
from workers.bundled.infer import Classifier, difference, read_pixels
from workers.bundled.reading import VERSION, check_files, read_deploy, read_samples, version_of
from workers.export.model_files import check_for
from workers.export.onnx import exported_network
from workers.file_names import NETWORK_FILE, ONNX_FILE, SUFFIXES
from workers.files import file_hash
from workers.images import batches
from workers.images.cache import prepare
from workers.images.data_info import Published
from workers.latency.measurement import never
from workers.metrics import Predictions, precisions, recalls
from workers.training.trial import load_network


def picked_and_bundled(
    folder: Path, probe: CountingProbe, further: tuple[Target, ...] = (), known: bool = False
) -> tuple[Picked, Path]:
    store = trained_study(folder, probe)
    if known:
        store.set_data_info(prepare(tiny_settings().data, folder / "images").to_dict())
    study = reader.find_study(store.engine, "tiny")
    picked = pick(store, study, tiny_settings().search_budget(), (Target("host", probe), *further), folder / "images")
    written = write_bundle(store, study, picked, folder / "bundle", folder / "images")
    store.engine.dispose()
    return picked, written


def test_a_picked_networks_files_are_hashed_once_and_the_bundle_says_the_hash(tmp_path: Path, monkeypatch):
    hashed: Counter[str] = Counter()

    def counting(path: Path) -> str:
        hashed[path.name] += 1
        return file_hash(path)

    monkeypatch.setattr(trained_files, "file_hash", counting)
    picked, folder = picked_and_bundled(tmp_path, CountingProbe())
    assert hashed == {ONNX_FILE: 1, NETWORK_FILE: 1}
    deploy = tomllib.loads((folder / "deploy.toml").read_text())
    assert deploy["model"]["sha256"] == file_hash(folder / ONNX_FILE)
    assert picked.verified.p90_ms is not None
    assert deploy["latency"]["p90_ms"] == picked.verified.p90_ms


def test_a_bundle_goes_where_a_symbolic_link_leads_and_the_link_stays(tmp_path: Path):
    (tmp_path / "bundle").symlink_to("released")
    picked_and_bundled(tmp_path, CountingProbe())
    assert (tmp_path / "bundle").is_symlink()
    assert (tmp_path / "released/deploy.toml").is_file()
    check_bundle_folder(tmp_path / "bundle")
    (tmp_path / "released/thesis.tex").write_text("mine")
    for path in (Path("-"), tmp_path / "bundle", tmp_path / "released/thesis.tex", Path("/dev/null")):
        with pytest.raises(ReadOnlyFolder):
            check_bundle_folder(path)


@pytest.mark.parametrize("name", ["splits.csv", "model.onnx", "infer.py"])
def test_a_folder_with_a_users_own_file_of_a_bundles_name_is_no_bundle(tmp_path: Path, name: str):
    (tmp_path / "mine").mkdir()
    assert check_bundle_folder(tmp_path / "mine") == (tmp_path / "mine").resolve()
    (tmp_path / "mine" / name).write_text("mine")
    with pytest.raises(ReadOnlyFolder, match="holds something else than a bundle"):
        check_bundle_folder(tmp_path / "mine")


@pytest.mark.parametrize("runtime", SUFFIXES)
def test_an_export_is_of_the_format_that_its_name_says(tmp_path: Path, runtime: str):
    store = trained_study(tmp_path, CountingProbe())
    written = export_trial(store, store.trial(0), tmp_path / f"net{SUFFIXES[runtime]}")
    network = load_network(files_of_trial(tmp_path), store.trial(0).config)
    assert check_for(runtime, written, network) < 1e-5
    in_folder = export_trial(store, store.trial(0), tmp_path / "folder", runtime)
    assert in_folder == tmp_path / "folder" / f"model{SUFFIXES[runtime]}"
    assert in_folder.read_bytes() == written.read_bytes()


@pytest.mark.parametrize(
    ("name", "runtime", "rule"),
    [
        ("net.pt", None, "must end in one of .onnx, .ncnn.zip, .tflite, .native.zip, but net.pt doesn't"),
        ("net.tflite", "onnxruntime", "a file for onnxruntime must end in .onnx, not as"),
        ("net.onnx", "tensorrt", "a runtime must be one of"),
        ("folder", "tensorrt", "a runtime must be one of"),
    ],
)
def test_a_name_of_no_or_of_another_format_is_refused(tmp_path: Path, name: str, runtime: str | None, rule: str):
    store = trained_study(tmp_path, CountingProbe())
    with pytest.raises(InvalidSettings, match=re.escape(rule)):
        export_trial(store, store.trial(0), tmp_path / name, runtime)
    assert not (tmp_path / name).exists()


def test_a_network_is_exported_into_a_pipe_and_checked_before(tmp_path: Path):
    store = trained_study(tmp_path, CountingProbe())
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    taking = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    taking.start()
    export_trial(store, store.trial(0), pipe)
    taking.join()
    assert got == [export_trial(store, store.trial(0), tmp_path / "out").read_bytes()]
    assert pipe.is_fifo()
    store.engine.dispose()


def test_a_bundle_whose_latency_is_estimated_has_no_p90(tmp_path: Path):
    summary = without_samples(2.0, 1.5, 3.0)

    class Estimating(CountingProbe):
        def measure(self, models, stop=never):
            found = super().measure(models, stop)
            return [replace(one, kind="estimated", **summary) for one in found]

    _, folder = picked_and_bundled(tmp_path, Estimating())
    deploy = tomllib.loads((folder / "deploy.toml").read_text())
    assert (deploy["latency"]["kind"], deploy["latency"]["median_ms"]) == ("estimated", 2.0)
    assert "p90_ms" not in deploy["latency"]
    assert "p90" not in (folder / "MODEL_CARD.md").read_text()


class Quick(CountingProbe):
    """A device that was busy, with the quick policy."""

    def measure(self, models, stop=never):
        return [replace(one, policy="quick", steady=False) for one in super().measure(models, stop)]


class Extrapolating(CountingProbe):
    """A virtual device to which every network is unlike the calibrated ones."""

    def measure(self, models, stop=never):
        summary = without_samples(2.0, 1.5, 3.0)
        changed = {"kind": "estimated", "policy": "counts", "extrapolates": True, **summary}
        return [replace(one, device="virtual:a", **changed) for one in super().measure(models, stop)]


def test_what_a_latency_is_worth_is_said_for_every_device(tmp_path: Path):
    picked, folder = picked_and_bundled(tmp_path, Quick(), (Target("virtual:a", Extrapolating()),))
    card, deploy = (folder / "MODEL_CARD.md").read_text(), tomllib.loads((folder / "deploy.toml").read_text())
    assert "| latency, measured, quick, not steady |" in card
    assert "| latency, estimated, extrapolated, on virtual:a" in card
    assert "with the quick policy: fewer runs than a standard measurement; the machine did not keep still" in card
    assert "The latency on virtual:a is estimated from instructions counted in" in card
    assert "outside the range it was calibrated on" in card
    assert deploy["latency"]["steady"] is False
    assert deploy["latency_on"]["virtual:a"]["extrapolates"] is True
    file = io.StringIO()
    Console(file=file, width=200).print(picked_panel(picked, None))
    shown = file.getvalue()
    assert "(measured, quick, not steady)" in shown
    assert "(estimated, extrapolated) on virtual:a" in shown


class Busy(CountingProbe):
    """A machine that is busy for its first measurements, and says so."""

    def __init__(self, measurements: int) -> None:
        super().__init__()
        self.left = measurements

    def measure(self, models, stop=never):
        found, busy = super().measure(models, stop), self.left > 0
        self.left -= 1
        return [replace(one, steady=False, **without_samples(4.0, 3.5, 4.5)) if busy else one for one in found]


def test_a_network_is_not_passed_over_for_a_disturbed_verification(tmp_path: Path):
    store = trained_study(tmp_path, CountingProbe())
    study, probe = reader.find_study(store.engine, "tiny"), Busy(2)
    target = Target("host", probe)
    picked = pick(store, study, Budget(max_latency_ms=2.0), (target,), tmp_path / "images")
    assert len(probe.batches) == 3
    assert (picked.verified.steady, picked.passed_over, picked.undecided) == (True, (), ())
    store.engine.dispose()


def test_a_network_whose_every_verification_is_disturbed_is_kept_and_the_bundle_says_so(tmp_path: Path):
    store = trained_study(tmp_path, CountingProbe())
    study = reader.find_study(store.engine, "tiny")
    target = Target("host", Busy(99))
    picked = pick(store, study, Budget(max_latency_ms=2.0), (target,), tmp_path / "images")
    folder = write_bundle(store, study, picked, tmp_path / "bundle", tmp_path / "images")
    assert "Not verified inside the budget: it took up to 4.5 ms" in (folder / "MODEL_CARD.md").read_text()
    assert tomllib.loads((folder / "deploy.toml").read_text())["checks"]["verified"] is False
    store.engine.dispose()


# -- accuracy by class --


def test_the_bundle_has_every_figure_of_both_splits_and_of_each_class(tmp_path: Path):
    """The network wasn't trained: it recognises hardly a digit, and the card says so."""
    store = trained_study(tmp_path, CountingProbe())
    study, images = reader.find_study(store.engine, "tiny"), tmp_path / "images"
    info = prepare(tiny_settings().data, images)
    store.set_data_info(info.to_dict())
    naming_one = np.eye(10)[np.full(info.validation_images, 3)]
    labels = np.repeat(np.arange(10), info.validation_counts)
    store.add_predictions(0, "validation", Predictions.of(naming_one, labels).to_bytes())
    study = reader.find_study(store.engine, "tiny")
    target = Target("host", CountingProbe())
    picked = pick(store, study, tiny_settings().search_budget(), (target,), images)
    folder = write_bundle(store, study, picked, tmp_path / "bundle", tmp_path / "images")
    tested = reader.class_predictions_of(store.engine, store.trial(0), EvaluatedSplit.TEST)
    assert tested is not None
    assert len(tested) == info.test_images
    logits_of, x = exported_network(picked.files[0]), batches.load(tiny_settings().data, images).test()
    ((pixels, classes),) = batches.evaluation_batches(x, info, info.test_images)
    expected = Predictions.of(logits_of(pixels.numpy()), classes.numpy())
    np.testing.assert_array_equal(tested.predicted, expected.predicted)
    assert tested.metrics() == pytest.approx(expected.metrics())
    assert picked.test_top1 == tested.metrics()["top1"] == store.trial(0).test_top1
    accuracy = tomllib.loads((folder / "deploy.toml").read_text())["accuracy"]
    assert accuracy["objective"] == "top1"
    assert accuracy["test_macro_f1"] == tested.metrics()["macro_f1"]
    assert accuracy["validation_balanced_accuracy"] == pytest.approx(0.1)
    assert accuracy["test_recall"] == recalls(tested.confusion).tolist()
    np.testing.assert_array_equal(accuracy["test_precision"], precisions(tested.confusion))  # nan where none was named
    card = (folder / "MODEL_CARD.md").read_text()
    assert "9 classes are never recognised by trial 0: 0 (0 of 28)" in card
    assert "trial 0 is not above chance: its top-1 is" in card
    assert "## Classes, the least recognised first" in card
    assert card.count("\n| 3 | 37 |") == 1  # the class, with its test images
    file = io.StringIO()
    Console(file=file, width=200).print(picked_panel(picked, folder))
    assert "test macro-F1" in file.getvalue()
    assert "is not above chance" in file.getvalue()
    store.engine.dispose()


def test_a_study_whose_test_split_is_empty_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store, places_of = trained_study(tmp_path, CountingProbe()), Published.places
    with monkeypatch.context() as earlier:  # an earlier version looked at the other splits alone
        earlier.setattr(Published, "places", lambda self, data: places_of(self, data)._replace(test=None))
        info = prepare(tiny_settings().data, tmp_path / "images")
    store.set_data_info(info.to_dict())
    monkeypatch.setattr(Published, "places", lambda self, data: places_of(self, data)._replace(test=np.arange(0)))
    with pytest.raises(DataNotFound, match=r"the test split of study 'tiny' has no image, so .*; export a trial"):
        pick(
            store,
            reader.find_study(store.engine, "tiny"),
            tiny_settings().search_budget(),
            (Target("host", CountingProbe()),),
            tmp_path / "images",
        )
    assert store.trial(0).test_top1 is None
    store.engine.dispose()


def test_a_bundle_has_samples_of_the_validation_split_that_say_what_was_recorded(tmp_path: Path):
    _, folder = picked_and_bundled(tmp_path, CountingProbe(), known=True)
    samples = read_samples(folder)
    assert len({sample.label for sample in samples.images}) == 6
    images = batches.load(tiny_settings().data, tmp_path / "images")
    validation = {content_of(pixels) for pixels in images.validation.pixels(np.arange(len(images.validation)))}
    run = Classifier(folder)
    for sample in samples.images:
        assert content_of(read_pixels(folder / sample.file, run.rules)) in validation
        assert difference(run.logits(folder / sample.file), sample.logits["model.onnx"]) < 1e-5
    done = subprocess.run([sys.executable, folder / "infer.py", "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("as recorded")) == (0, 6), done.stderr


def content_of(pixels: np.ndarray) -> bytes:
    return pixels.tobytes()


def test_a_bundle_says_its_version_and_the_hash_of_every_file(tmp_path: Path):
    _, folder = picked_and_bundled(tmp_path, CountingProbe(), known=True)
    assert version_of(read_deploy(folder)) == VERSION
    assert subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=folder, check=False).returncode == 0
    assert check_files(folder) == len(list(folder.rglob("*.*"))) > 10
    card = (folder / "MODEL_CARD.md").read_text()
    for part in ("## Trained on", "| learning_rate |", "95 % interval", "infer.py --check"):
        assert part in card
