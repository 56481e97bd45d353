"""The tutorial's programs run as they are printed, and its study file is a valid one."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from search.pricing.pricer import Target
from search.results.bundle.writing import write_bundle
from search.results.picking.picked import pick
from search.store import reader
from search.study_file import settings_from
from search.study_template import study_file
from tests.search.tiny_studies import CountingProbe, tiny_settings
from tests.search.trained_study import trained_study
from workers.images.cache import prepare
from workers.images.datasets import find_source
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
    images = find_source(DataSettings(dataset=f"imagefolder:{tmp_path / 'images'}")).open()
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


def test_what_the_tutorial_runs_on_the_device_is_in_the_bundle_and_prints_such_lines(tmp_path: Path):
    store = trained_study(tmp_path, CountingProbe())
    store.transact(partial(store.set_data_info, prepare(DataSettings(), tmp_path / "images").to_dict()))
    study = reader.find_study(store.engine, "tiny")
    targets = [Target("host", CountingProbe())]
    picked = pick(store, study, tiny_settings().search_budget(), targets, tmp_path / "images")
    write_bundle(store, study, picked, tmp_path / "bundle", tmp_path / "images")
    store.engine.dispose()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 41, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    ((program, *photos),) = re.findall(r"^\$ python3 \S+/(\S+) (\S+) (\S+) (\S+)$", TUTORIAL, re.MULTILINE)
    command = [sys.executable, f"bundle/{program}", "photo.png"]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(r"photo\.png: \d \(\d+\.\d%\)\n", printed)
    for photo in photos:
        assert re.search(rf"^{photo}: \w+ \(\d+\.\d%\)$", TUTORIAL, re.MULTILINE)
