"""A bundle read back: verified step by step, and used as a function."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from condensery import load_bundle
from dashboards.terminal.bundle_tables import report_document, report_panel
from search.budget import Budget
from search.pricing.pricer import Target
from search.results.bundle.verifying import check_bundle, measure_bundle, what_to_measure
from search.results.bundle.writing import write_bundle
from search.results.picking.picked import pick
from search.store import reader
from space import errors
from tests.command_line import run_command
from tests.search.tiny_studies import CountingProbe, tiny_settings
from tests.search.trained_study import trained_study
from tests.workers.latencies import without_samples
from workers.bundled import infer
from workers.bundled.reading import DEPLOY_FILE, SUMS_FILE, read_samples, sums_text
from workers.images.cache import prepare
from workers.latency.measurement import FakeProbe
from workers.metrics import Predictions


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bundle whose budget is 2 ms; no test changes it."""
    folder = tmp_path_factory.mktemp("verifying")
    store = trained_study(folder, CountingProbe())
    info = prepare(tiny_settings().data, folder / "images")
    store.set_data_info(info.to_dict())
    labels = np.repeat(np.arange(10), info.validation_counts)
    store.add_predictions(0, "validation", Predictions.of(np.eye(10)[labels], labels).to_bytes())
    study, targets = reader.find_study(store.engine, "tiny"), (Target("host", CountingProbe()),)
    picked = pick(store, study, Budget(max_latency_ms=2.0), targets, folder / "images")
    yield write_bundle(store, study, picked, folder / "bundle", folder / "images")
    store.engine.dispose()


@pytest.fixture
def copied(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copied"))


def of_speed(latency_ms: float) -> FakeProbe:
    return FakeProbe(lambda path: latency_ms)


def test_a_whole_bundle_passes_and_says_by_what_it_was_verified(bundle: Path):
    report = check_bundle(bundle)
    assert [(run.file, run.images, run.agrees) for run in report.samples] == [("model.onnx", 6, True)]
    report = measure_bundle(report, what_to_measure(bundle, None, None), of_speed(1.0))
    assert (report.verdict, report.verified_by) == ("PASS", "measured on fake")
    document = report_document(report)
    assert (document["exit_code"], document["limit_ms"], document["failure"]) == (0, 2.0, None)
    assert report_panel(report)


def test_a_latency_over_the_budget_fails_and_one_that_was_disturbed_decides_nothing(bundle: Path):
    class Disturbed(FakeProbe):
        def measure(self, models, stop=lambda: False):
            return [
                replace(one, steady=False, **without_samples(9.0, 8.0, 10.0)) for one in super().measure(models, stop)
            ]

    report, wanted = check_bundle(bundle), what_to_measure(bundle, None, None)
    over = measure_bundle(report, wanted, of_speed(3.0))
    assert isinstance(over.failure, errors.BundleOverBudget)
    assert "ms on fake (measured), over the budget of 2 ms" in str(over.failure)
    assert (over.verdict, over.verified_by) == ("FAIL", "measured on fake")
    busy = measure_bundle(report, wanted, Disturbed(lambda path: 1.0))
    assert isinstance(busy.failure, errors.BundleUndecided)
    assert (busy.verdict, busy.verified_by) == ("UNDECIDED", "")
    far = measure_bundle(report, what_to_measure(bundle, None, 1e-4), Disturbed(lambda path: 1.0))
    assert isinstance(far.failure, errors.BundleOverBudget)  # no other work makes it so many times slower
    assert (far.verdict, far.failure.exit_code) == ("FAIL", 93)
    assert measure_bundle(report, what_to_measure(bundle, None, 4.0), of_speed(3.0)).verdict == "PASS"


def test_another_device_is_held_to_the_limit_of_the_first_and_the_report_says_so(bundle: Path):
    wanted = what_to_measure(bundle, "pi5", None)
    assert (wanted.target, wanted.limit_ms, wanted.limit_of) == ("pi5", 2.0, "host")
    assert what_to_measure(bundle, "pi5", 3.0).limit_of == "pi5"


@pytest.mark.parametrize("file", ["model.onnx", "infer.py", "deploy.toml", "samples/expected.json", SUMS_FILE])
def test_a_changed_byte_is_found_in_whatever_file_it_is(copied: Path, file: str):
    content = bytearray((copied / file).read_bytes())
    content[10] = ord("0") if content[10] != ord("0") else ord("1")
    (copied / file).write_bytes(content)
    failure = check_bundle(copied).failure
    assert isinstance(failure, errors.BundleDamaged)
    assert failure.exit_code == 90
    assert "\n" not in str(failure)


def test_a_file_too_many_and_one_too_few_are_named(copied: Path):
    (copied / "notes.txt").write_text("mine")
    (copied / "infer.py").unlink()
    with pytest.raises(errors.BundleDamaged, match=r"infer.py is missing, notes.txt was added; copy the bundle again"):
        raise check_bundle(copied).failure or AssertionError


def test_other_outputs_than_those_recorded_are_told(copied: Path):
    file = copied / "samples" / "expected.json"
    document = json.loads(file.read_text())
    document["images"][0]["logits"]["model.onnx"][0] += 1.0
    file.write_text(json.dumps(document))
    (copied / SUMS_FILE).write_text(sums_text(copied))
    assert isinstance(check_bundle(copied).failure, errors.BundleDisagrees)
    assert check_bundle(copied).verdict == "FAIL"


def test_bundles_of_other_versions_are_refused_or_read_in_one_line(copied: Path):
    deploy = (copied / DEPLOY_FILE).read_text()
    (copied / DEPLOY_FILE).write_text(deploy.replace("[bundle]\nversion = 2", ""))
    failure = check_bundle(copied).failure
    assert isinstance(failure, errors.BundleVersion)
    assert "of version 1, which has no samples and no hashes to verify; write it again" in str(failure)
    assert load_bundle(copied).class_names[3] == "3"
    (copied / DEPLOY_FILE).write_text(deploy.replace("version = 2", "version = 3"))
    with pytest.raises(errors.BundleVersion, match="version 3, but this program reads versions up to 2; update it"):
        load_bundle(copied)


def test_a_loaded_bundle_takes_files_images_and_arrays(bundle: Path):
    network, samples = load_bundle(bundle), read_samples(bundle)
    files = [bundle / sample.file for sample in samples.images]
    expected = np.stack([sample.logits["model.onnx"] for sample in samples.images])
    images = [Image.open(file) for file in files]
    for given in (files, map(str, files), images, [np.asarray(image) for image in images]):
        assert infer.difference(network(given), expected) < 1e-5
    assert network([]).shape == (0, 10)
    (name, probability), *_ = network.predict(files)
    assert name == network.class_names[expected[0].argmax()]
    assert 0.1 <= probability <= 1
    with pytest.raises(errors.UnreadableImage, match=r"deploy.toml can't be read as an image"):
        network([bundle / "deploy.toml"])


def test_a_folder_that_is_no_bundle_is_refused_by_name(tmp_path: Path):
    with pytest.raises(errors.BundleDamaged, match=r"holds no bundle: it has no deploy.toml"):
        load_bundle(tmp_path)


@pytest.mark.slow
def test_verify_ends_with_the_code_of_what_it_found(copied: Path):
    done = run_command("verify", copied, "--no-measuring", cwd=copied.parent)
    assert (done.returncode, "PASS, latency not measured" in done.stdout) == (0, True), done.stderr
    missing = run_command("verify", copied, "--device", "pi5", cwd=copied.parent)
    assert (missing.returncode, missing.stderr.count("\n")) == (errors.DatabaseUnavailable.exit_code, 1)
    assert not (copied.parent / "condensery.db").exists()
    (copied / "infer.py").write_text("pass\n")
    damaged = run_command("verify", copied, "--json", cwd=copied.parent)
    assert (damaged.returncode, json.loads(damaged.stdout)["verdict"]) == (90, "FAIL")
    assert damaged.stderr.splitlines() == [f"error: {json.loads(damaged.stdout)['failure']}"]
