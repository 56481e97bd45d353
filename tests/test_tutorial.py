"""The tutorial's programs run as they are printed, and its study file is a valid one."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.pricing.pricer import Target
from search.results.bundle import pick, write_bundle
from search.store import reader
from search.study_file import settings_from
from search.study_template import study_file
from space.config import CondenseNetConfig
from space.deployed import DeployedCondenseNet
from tests.search.tiny_studies import INSIDE, CountingProbe, tiny_settings
from tests.search.trained_study import trained_study
from workers.export.onnx import exported_network, save_onnx
from workers.images.cache import prepare
from workers.images.image_folder import find_image_folder
from workers.images.source import fit_image
from workers.latency.agent_file import NAME
from workers.settings import DataSettings

TUTORIAL = (Path(__file__).parent.parent / "docs" / "tutorial.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TUTORIAL, re.DOTALL | re.MULTILINE)


def program(file: str) -> str:
    """Return the program that the tutorial says to save as `file`."""
    (text,) = re.findall(rf"as `{file}`.*?^```python\n(.*?)^```", TUTORIAL, re.DOTALL | re.MULTILINE)
    return text


def run(code: str, *arguments: str, cwd: Path) -> str:
    words = [sys.executable, "-c", code, *arguments]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=True).stdout


def test_the_images_that_stand_in_for_photographs_are_an_image_folder(tmp_path: Path):
    run(program("make_images.py"), cwd=tmp_path)
    images = find_image_folder(tmp_path / "images", (1, 16, 16)).open()
    assert images.class_names == ("eight", "five", "four", "nine", "one", "seven", "six", "three", "two", "zero")
    assert len(images.train.labels) == 1797


def test_the_study_file_is_valid_with_the_tutorials_changes():
    document = tomllib.loads(study_file("digits", "my-search"))
    (changes,) = (tomllib.loads(block) for block in blocks("toml"))
    for part, values in changes.items():
        document[part].update(values)
    settings = settings_from(document, "the tutorial")
    assert (settings.study.trainings, settings.data.dataset) == (8, "imagefolder:images")


def test_no_hash_of_the_agent_is_printed_that_the_next_change_of_it_makes_wrong():
    lines = re.findall(r"^.*sha256sum --check$", TUTORIAL, re.MULTILINE)
    assert {line.lstrip(" $") for line in lines} == {f"echo '<sha256 of the file>  {NAME}' | sha256sum --check"}


def bundle_of(folder: Path, channels: int) -> Path:
    """A real bundle of a study on digits; for three channels its network and statistics are exchanged."""
    store = trained_study(folder, CountingProbe())
    store.transact(partial(store.set_data_info, prepare(DataSettings(), folder / "images").to_dict()))
    study = reader.find_study(store.engine, "tiny")
    targets = [Target("host", CountingProbe())]
    picked = pick(store, study, tiny_settings().search_budget(), targets, folder / "images")
    bundle = write_bundle(store, study, picked, folder / "bundle")
    store.engine.dispose()
    if channels == 3:
        config = CondenseNetConfig(**{**INSIDE.to_dict(), "input_shape": (3, 8, 8)})
        save_onnx(DeployedCondenseNet.random(config), bundle / "model.onnx")
        text = (bundle / "deploy.toml").read_text().replace('"batch", 1, 8, 8', '"batch", 3, 8, 8')
        for key, values in (("mean", [0.2, 0.4, 0.6]), ("std", [0.1, 0.2, 0.3])):
            text = re.sub(rf"^{key} = .*$", f"{key} = {values}", text, flags=re.MULTILINE)
        (bundle / "deploy.toml").write_text(text)
    return bundle


@pytest.mark.parametrize("channels", [1, 3])
def test_the_program_for_the_device_prepares_images_as_training_did(tmp_path: Path, channels: int):
    """A program that reads images in another way would still print classes, only worse ones."""
    bundle = bundle_of(tmp_path, channels)
    deploy = tomllib.loads((bundle / "deploy.toml").read_text())
    assert deploy["input"]["shape"][1:] == [channels, 8, 8]
    pixels = np.random.default_rng(0).integers(0, 256, (30, 41, 3), dtype=np.uint8)
    photo = Image.fromarray(pixels)
    photo.save(tmp_path / "photo.png")
    prepared = fit_image(photo, (channels, 8, 8)).astype(np.float32) / 255
    mean, std = (np.array(deploy["input"][key], dtype=np.float32).reshape(-1, 1, 1) for key in ("mean", "std"))
    (logits,) = exported_network(bundle / "model.onnx")(((prepared - mean) / std)[None])
    odds = np.exp(logits) / np.exp(logits).sum()
    name = deploy["classes"]["names"][int(np.argmax(logits))]
    assert run(program("classify.py"), "bundle", "photo.png", cwd=tmp_path) == f"photo.png: {name} ({odds.max():.1%})\n"
