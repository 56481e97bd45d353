"""The bundle alone, in an environment without the project, sees photographs as training saw them."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest

from tests.search.photographs import Trained, bare_python, classes_from, images_of, write_photographs
from workers.bundled import infer
from workers.images.batches import load

NEEDED = {"onnxruntime": ("onnxruntime",), "ncnn": ("ncnn",), "litert": ("ai_edge_litert",), "native": ()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder / "photos")
    return Trained(folder, {"validation_fraction": 0.3})


def run_alone(bundle: Path, scratch: Path, files: list[str], *options: str, packages: tuple[str, ...]) -> str:
    """Run a copy of the bundle's infer.py in a Python that has only numpy, Pillow and these packages."""
    copy = shutil.copytree(bundle, scratch / "alone")
    command = [*bare_python(scratch, "numpy", "PIL", *packages), str(copy / "infer.py"), *options, *files]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_bundle_alone_has_the_very_accuracy_that_is_claimed(trained: Trained, tmp_path: Path):
    picked, bundle = trained.bundled()
    assert picked.test_top1 > 0.8  # a network that has learnt something
    test, every = images_of(trained.folder / "photos" / "test"), images_of(trained.folder / "photos" / "train")
    printed = run_alone(bundle, tmp_path, [*test, *every], packages=("onnxruntime",))
    said = classes_from(printed)
    right = [said[file] == name for file, name in test.items()]
    claimed = tomllib.loads((bundle / "deploy.toml").read_text())["accuracy"]
    assert np.mean(right) == claimed["test_top1"] == picked.test_top1
    split = load(trained.data, trained.cache).validation
    held = [list(every.items())[place] for place in split.places]
    assert np.mean([said[file] == name for file, name in held]) == pytest.approx(claimed["validation_top1"])


def test_pixels_and_their_scaling_are_those_of_training_to_the_bit(trained: Trained):
    _, bundle = trained.bundled()
    rules = tomllib.loads((bundle / "deploy.toml").read_text())["preprocessing"]
    split = load(trained.data, trained.cache).test()
    files = list(images_of(trained.folder / "photos" / "test"))
    pixels = np.stack([infer.read_pixels(file, rules) for file in files])
    np.testing.assert_array_equal(pixels, split.pixels(np.arange(len(files))))


def test_other_channels_or_photographs_as_they_lie_would_be_seen_in_the_accuracy(trained: Trained, monkeypatch):
    """So that the accuracies above prove something."""
    picked, bundle = trained.bundled()
    test = images_of(trained.folder / "photos" / "test")

    def accuracy() -> float:
        classifier = infer.Classifier(bundle)
        return float(np.mean([classifier.classify(file)[0] == name for file, name in test.items()]))

    assert accuracy() == picked.test_top1
    read = infer.read_pixels
    with monkeypatch.context() as patch:
        patch.setattr(infer, "read_pixels", lambda file, rules: read(file, rules)[::-1])
        assert accuracy() < picked.test_top1 - 0.2
    monkeypatch.setattr(infer, "upright", lambda image: image)
    assert accuracy() < picked.test_top1


def test_a_rule_that_the_program_does_not_know_ends_it(trained: Trained, tmp_path: Path):
    _, bundle = trained.bundled()
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    deploy = (copy / "deploy.toml").read_text()
    (copy / "deploy.toml").write_text(deploy.replace('channel_order = "RGB"', 'channel_order = "BGR"'))
    with pytest.raises(ValueError, match=r"channel_order must be one of \('L', 'RGB'\), but is 'BGR'"):
        infer.Classifier(copy)


def test_what_is_no_image_is_one_line_and_the_others_are_classified(trained: Trained, tmp_path: Path):
    _, bundle = trained.bundled()
    (tmp_path / "notes.jpg").write_text("no image")
    photo = next(iter(images_of(trained.folder / "photos" / "test")))
    command = [*bare_python(tmp_path, "numpy", "PIL", "onnxruntime"), str(bundle / "infer.py")]
    done = subprocess.run([*command, str(tmp_path / "notes.jpg"), photo], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "notes.jpg: can't be read as an image" in done.stderr
    assert done.stdout.startswith(f"{photo}: ")
