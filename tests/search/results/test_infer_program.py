"""The bundle alone, in an environment without the project, sees photographs as training saw them."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import condensery
from search.pricing.pricer import Target
from search.results.bundle.export import pixel_input
from search.store import reader
from space.errors import InvalidSettings
from tests.search.photographs import (
    CONFIG,
    KINDS,
    MIXED,
    SENSOR,
    Save,
    Trained,
    bare_python,
    classes_from,
    images_of,
    write_photographs,
)
from tests.search.tiny_studies import sqlite_url
from tests.workers.arm_device import arm_device, arm_pillow
from tests.workers.export.test_export_contract import MISSING
from workers.bundled import infer
from workers.file_names import file_for
from workers.files import file_hash
from workers.images.batches import evaluation_batches, load
from workers.latency import FakeProbe
from workers.latency.agent.runtimes.onnx import import_onnxruntime
from workers.latency.emulated import arm_root
from workers.preprocessing import FORMATS, Preprocessing

NEEDED = {"onnxruntime": ("onnxruntime",), "ncnn": ("ncnn",), "litert": ("ai_edge_litert",), "native": ()}


GREY = replace(CONFIG, input_shape=(1, 16, 16))


def trained_on(folder: Path, kinds: Mapping[str, Save], of_each: tuple[int, int], **data: Any) -> Trained:
    write_photographs(folder / "photos", kinds, of_each)
    data = {"validation_fraction": 0.3, **data}
    return Trained(folder, data, GREY if data.get("channels") == 1 else CONFIG)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained_on(tmp_path_factory.mktemp("photographs"), KINDS, (4, 2))


@pytest.fixture(scope="module")
def sensor(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """16-bit greys of a camera, whose range is given: its brightest pixels are clipped."""
    return trained_on(tmp_path_factory.mktemp("sensor"), SENSOR, (24, 8), channels=1, range=[3400, 5200])


@pytest.fixture(params=["trained", "sensor"])
def either(request: pytest.FixtureRequest) -> Trained:
    found: Trained = request.getfixturevalue(request.param)
    return found


def run_alone(bundle: Path, scratch: Path, files: list[str], *options: str, packages: tuple[str, ...]) -> str:
    """Run a copy of the bundle's infer.py in a Python that has only numpy, Pillow and these packages."""
    copy = shutil.copytree(bundle, scratch / "alone")
    command = [*bare_python(scratch, "numpy", "PIL", *packages), str(copy / "infer.py"), *options, *files]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("INFO: ")]  # LiteRT says how it runs
    assert (done.returncode, complaints) == (0, [])
    return done.stdout


def test_the_bundle_alone_has_the_very_accuracy_that_is_claimed(either: Trained, tmp_path: Path):
    picked, bundle = either.bundled()
    assert picked.test_top1 > 0.8  # a network that has learnt something
    test, every = images_of(either.folder / "photos" / "test"), images_of(either.folder / "photos" / "train")
    printed = run_alone(bundle, tmp_path, [*test, *every], packages=("onnxruntime",))
    said = classes_from(printed)
    right = [said[file] == name for file, name in test.items()]
    claimed = tomllib.loads((bundle / "deploy.toml").read_text())["accuracy"]
    assert np.mean(right) == claimed["test_top1"] == picked.test_top1
    split = load(either.data, either.cache).validation
    held = [list(every.items())[place] for place in split.places]
    assert np.mean([said[file] == name for file, name in held]) == pytest.approx(claimed["validation_top1"])


def test_pixels_and_their_scaling_are_those_of_training_to_the_bit(either: Trained):
    _, bundle = either.bundled()
    rules = tomllib.loads((bundle / "deploy.toml").read_text())["preprocessing"]
    split = load(either.data, either.cache).test()
    files = list(images_of(either.folder / "photos" / "test"))
    pixels = np.stack([infer.read_pixels(file, rules) for file in files])
    np.testing.assert_array_equal(pixels, split.pixels(np.arange(len(files))))
    ((x, _),) = evaluation_batches(split, either.info, len(files))
    np.testing.assert_allclose(infer.scaled(pixels, rules), x.numpy(), rtol=0, atol=1e-6)


def said_on_arm(bundle: Path, model: str, files: list[str]) -> dict[str, str]:
    """The classes that the bundle's infer.py prints on the ARM device in software."""
    arm = arm_device()
    code = "import runpy, sys; sys.path.append(sys.argv.pop(1)); program = sys.argv[0] = sys.argv.pop(1); "
    code += "runpy.run_path(program, run_name='__main__')"
    words = [str(arm_pillow(arm)), str(bundle / "infer.py"), "--model", model, *files]
    done = subprocess.run([*arm.python_command(), "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return classes_from(done.stdout)


@pytest.mark.slow(seconds=12)
def test_on_the_arm_device_in_software_it_has_the_claimed_accuracy_too(sensor: Trained):
    arm_device()
    if shutil.which(arm_root.CROSS_COMPILER) is None:
        pytest.skip(f"needs {arm_root.CROSS_COMPILER}")
    picked, bundle = sensor.bundled(device_with("native"), bake=True)
    test = images_of(sensor.folder / "photos" / "test")
    said = said_on_arm(bundle, file_for("native", "model"), list(test))
    assert np.mean([said[file] == name for file, name in test.items()]) == picked.test_top1


@pytest.mark.slow(seconds=25)
def test_on_the_arm_device_onnxruntime_says_what_it_says_here_of_an_image_of_each_kind(trained: Trained):
    """Here it has the claimed accuracy; decoding every image in software would take a minute."""
    arm_device()
    _, bundle = trained.bundled()
    first = sorted(map(Path, images_of(trained.folder / "photos" / "test")), key=lambda file: (file.stem, file))
    first = [file for file in first if file.stem.endswith("0")]  # kind by kind, one of each of three classes
    of_each = [str(file) for place, file in enumerate(first) if place % 3 == place // 3 % 3]
    assert len(of_each) == len(KINDS)
    classifier = infer.Classifier(bundle)
    here = {file: classifier.classify(file)[0] for file in of_each}
    assert said_on_arm(bundle, file_for("onnxruntime", "model"), list(here)) == here


def test_a_set_with_16_bits_in_some_images_has_the_very_accuracy_too(tmp_path: Path):
    mixed = trained_on(tmp_path, MIXED, (3, 1))
    picked, bundle = mixed.bundled()
    assert mixed.info.pixel_type == "uint16"
    test, classifier = images_of(tmp_path / "photos" / "test"), infer.Classifier(bundle)
    assert np.mean([classifier.classify(file)[0] == name for file, name in test.items()]) == picked.test_top1
    mixed.store.engine.dispose()


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


def device_with(runtime: str) -> Target:
    """A device that runs networks with another runtime."""
    probe = FakeProbe(lambda path: 1.0, device=runtime)
    probe.runtime = runtime
    return Target(runtime, probe)


FORMS = [
    pytest.param("trained", True, id="trained-baked"),
    pytest.param("sensor", False, id="sensor-scaled outside"),
    pytest.param("trained", False, id="trained-scaled outside", marks=pytest.mark.long),
    pytest.param("sensor", True, id="sensor-baked", marks=pytest.mark.long),
]


@pytest.mark.slow(seconds=8)
@pytest.mark.parametrize(("either", "bake"), FORMS, indirect=["either"])
def test_every_runtimes_file_in_the_bundle_has_the_claimed_accuracy(either: Trained, tmp_path: Path, bake: bool):
    runtimes = [runtime for runtime in ("ncnn", "litert", "native") if not MISSING[runtime]]
    picked, bundle = either.bundled(*map(device_with, runtimes), bake=bake)
    deploy = tomllib.loads((bundle / "deploy.toml").read_text())
    assert deploy["model"]["sha256"] == file_hash(bundle / "model.onnx")
    assert (file_hash(bundle / "model.onnx") == file_hash(picked.files[0])) == (not bake)
    hashes = {name: file_hash(bundle / name) for name in deploy["model_files"]}
    assert deploy["model_files_sha256"] == hashes
    kind, channels = either.info.pixel_type if bake else "float32", either.info.input_shape[0]
    inputs = {"onnxruntime": f"{kind} (batch, {channels}, 16, 16)", "ncnn": f"float32 ({channels}, 16, 16)"}
    inputs |= {"litert": f"{kind} (1, 16, 16, {channels})", "native": f"{kind} ({channels}, 16, 16)"}
    assert deploy["model_files"] == {file_for(name, "model"): inputs[name] for name in ("onnxruntime", *runtimes)}
    assert deploy["preprocessing"]["in_model"] == (["scale"] if bake else [])
    assert ("The model files scale pixels themselves" in (bundle / "MODEL_CARD.md").read_text()) == bake
    test = images_of(either.folder / "photos" / "test")
    expected = ""
    for runtime in ("onnxruntime", *runtimes):
        scratch = tmp_path / runtime
        scratch.mkdir()
        options = ("--model", file_for(runtime, "model"))
        said = run_alone(bundle, scratch, list(test), *options, packages=NEEDED[runtime])
        assert np.mean([classes_from(said)[file] == name for file, name in test.items()]) == picked.test_top1
        expected = expected or said
        assert classes_from(said) == classes_from(expected)


def test_a_rule_that_the_program_does_not_know_ends_it(trained: Trained, tmp_path: Path):
    _, bundle = trained.bundled()
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    deploy = (copy / "deploy.toml").read_text()
    (copy / "deploy.toml").write_text(deploy.replace('channel_order = "RGB"', 'channel_order = "BGR"'))
    with pytest.raises(ValueError, match=r"channel_order must be one of \('L', 'RGB'\), but is 'BGR'"):
        infer.Classifier(copy)


PLAIN = Preprocessing((3, 16, 16), mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.2)).table()


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"blur": 3}, "a rule that this program doesn't know: blur"),
        ({"layout": "NHWC"}, r"layout must be one of \('NCHW',\), but is 'NHWC'"),
        ({"dtype": "float16"}, "dtype must be 'float32' beside the other rules, but is 'float16'"),
        ({"in_model": ["scale"]}, "dtype must be 'uint8' beside the other rules, but is 'float32'"),
        ({"sixteen_bit": "kept"}, "sixteen_bit must be 'high byte' beside"),
        ({"formats": ["PNG", "EPS"]}, "formats must be some of"),
        ({"formats": []}, "formats must be some of"),
        ({"formats": "PNG"}, "formats must be some of"),
        ({"size": [16.0, 16]}, "size must be whole numbers above 0"),
        ({"size": [16]}, "size must be 2 finite numbers"),
        ({"mean": [0.4]}, "mean must be 3 finite numbers"),
        ({"mean": [0.4, 0.5, True]}, "mean must be 3 finite numbers"),
        ({"std": [0.2, float("nan"), 0.2]}, "std must be 3 finite numbers"),
        ({"std": [0.2, 0, 0.2]}, "std must be above 0"),
        ({"pixel_range": [255, 0]}, "pixel_range must rise"),
    ],
)
def test_every_rule_that_is_not_followed_is_refused(changed: Mapping[str, Any], rule: str):
    infer.check_rules(PLAIN)
    with pytest.raises(ValueError, match=rule):
        infer.check_rules({**PLAIN, **changed})


@pytest.mark.parametrize("key", PLAIN)
def test_a_rule_that_is_missing_is_named(key: str):
    with pytest.raises(ValueError, match=f"lacks {key}"):
        infer.check_rules({name: value for name, value in PLAIN.items() if name != key})


def test_every_table_that_the_project_writes_is_followed():
    for pixel_type in ("uint8", "uint16"):
        for in_model in (False, True):
            info = {"pixel_type": pixel_type, "mean": [0.5], "std": [0.25]}
            infer.check_rules(Preprocessing.of((1, 8, 8), info, in_model).table())
    assert infer.FORMATS == FORMATS


def test_a_model_file_that_is_not_the_one_that_was_written_is_refused(trained: Trained, tmp_path: Path):
    _, bundle = trained.bundled()
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    (copy / "model.onnx").write_bytes((bundle / "model.onnx").read_bytes() + b"\0")
    with pytest.raises(ValueError, match=r"model.onnx is damaged or was replaced"):
        infer.Classifier(copy)


def test_a_model_file_outside_of_the_bundle_is_refused(trained: Trained, tmp_path: Path):
    _, bundle = trained.bundled()
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    shutil.move(copy / "model.onnx", tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=r"must be one of this bundle's \(model.onnx\), but is \.\./model.onnx"):
        infer.Classifier(copy, "../model.onnx")
    deploy = (copy / "deploy.toml").read_text()
    (copy / "deploy.toml").write_text(deploy.replace('"model.onnx"', '"../model.onnx"'))  # its hash as well
    with pytest.raises(ValueError, match=r"must be one of this bundle's"):
        infer.Classifier(copy)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--model", "model.bin"], "the bundle can't be used: the model file must be one of this bundle's (model."),
        (["--model", "gone.onnx"], "the bundle can't be used: "),
        (["--model", "model.tflite"], "No module named 'ai_edge_litert'; install it with pip"),
    ],
)
def test_what_keeps_the_program_from_running_is_one_line(trained: Trained, tmp_path: Path, words, line):
    _, written = trained.bundled()
    bundle = shutil.copytree(written, tmp_path / "bundle")
    (bundle / "model.tflite").write_bytes(b"a network for another runtime")
    deploy, table = (bundle / "deploy.toml").read_text(), "[model_files_sha256]\n"
    assert table in deploy
    added = f'{table}"model.tflite" = "{file_hash(bundle / "model.tflite")}"\n'
    (bundle / "deploy.toml").write_text(deploy.replace(table, added))
    command = [*bare_python(tmp_path, "numpy", "PIL", "onnxruntime"), str(bundle / "infer.py"), *words, "photo.jpg"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


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


# --- exports ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "file", "kind"),
    [
        (["--format", "onnx"], "model.onnx", "tensor(float)"),
        (["--format", "onnx", "--bake-preprocessing"], "model.onnx", "tensor(uint8)"),
        (["--out", "net.onnx", "--bake-preprocessing"], "net.onnx", "tensor(uint8)"),
        (["--runtime", "onnxruntime", "--out", "net.onnx"], "net.onnx", "tensor(float)"),
    ],
)
def test_an_export_is_of_what_was_asked(trained: Trained, tmp_path, monkeypatch, words, file, kind):
    monkeypatch.chdir(tmp_path)
    storage = ["--storage", sqlite_url(trained.folder)]
    done = CliRunner().invoke(condensery.app, ["export", "0", "tiny", *storage, *words])
    assert (done.exit_code, done.stdout.strip()) == (0, f"wrote {file}")
    said = "the model takes whole pixels as uint8 (batch, 3, 16, 16), RGB, and scales them" in done.stderr
    assert said == (kind == "tensor(uint8)")
    (given,) = import_onnxruntime().InferenceSession(file).get_inputs()
    assert given.type == kind


@pytest.mark.parametrize(
    ("words", "needed", "taken"),
    [
        (["--format", "ncnn"], "ncnn", "float32 (3, 16, 16), RGB"),
        (["--out", "net.tflite"], "litert", "uint8 (1, 16, 16, 3), RGB"),
        (["--format", "native", "--out", "folder"], "native", "uint8 (3, 16, 16), RGB"),
    ],
)
def test_an_export_says_the_type_and_the_layout_that_its_runtime_takes(
    trained: Trained, tmp_path, monkeypatch, words, needed, taken
):
    if MISSING[needed]:
        pytest.skip(f"needs what {needed} runs with")
    monkeypatch.chdir(tmp_path)
    words = ["export", "0", "tiny", "--storage", sqlite_url(trained.folder), "--bake-preprocessing", *words]
    done = CliRunner().invoke(condensery.app, words)
    assert done.exit_code == 0
    assert f"the model takes whole pixels as {taken}, and scales them" in done.stderr


def test_a_name_of_another_format_than_was_asked_is_refused(trained: Trained, tmp_path: Path):
    words = ["--format", "onnx", "--out", str(tmp_path / "net.tflite"), "--storage", sqlite_url(trained.folder)]
    done = CliRunner().invoke(condensery.app, ["export", "0", "tiny", *words])
    assert isinstance(done.exception, InvalidSettings)
    assert "a file for onnxruntime must end in .onnx" in str(done.exception)
    assert not (tmp_path / "net.tflite").exists()


def test_baking_needs_a_bundle(trained: Trained):
    words = ["pick", "tiny", "--bake-preprocessing", "--storage", sqlite_url(trained.folder)]
    done = CliRunner().invoke(condensery.app, words)
    assert isinstance(done.exception, InvalidSettings)
    assert "name its folder with --out" in str(done.exception)


def test_a_study_that_does_not_know_its_images_can_not_bake(trained: Trained):
    study, row = reader.find_study(trained.store.engine, "tiny"), trained.store.trial(0)
    with pytest.raises(InvalidSettings, match="resume it once"):
        pixel_input(replace(study, data_info=None), row)
