"""Data sets of a user's own Python code: what it may return, and what is said where it fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from space.errors import DataNotFound, InvalidSettings, UnreadableImage
from workers.images.batches import load
from workers.images.cache import outline, prepare
from workers.images.reading import read_through
from workers.settings import DataSettings

ARRAYS = """
import numpy as np

def dataset():
    images = np.arange(20, dtype=np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2) * 10
    return {"images": images, "labels": [number % 2 for number in range(20)], "class_names": ["even", "odd"]}
"""
TORCH = """
import torch

class Tens(torch.utils.data.Dataset):
    classes = ["even", "odd"]

    def __len__(self):
        return 20

    def __getitem__(self, place):
        if place >= 20:
            raise IndexError
        return torch.full((1, 8, 8), place * 10 / 255), place % 2

dataset = Tens
"""
PILLOW = """
from PIL import Image

def dataset():
    names = [f"{number}.png" for number in range(20)]
    images = [Image.new("L", (8, 8), 10 * number) for number in range(20)]
    return {"images": images, "labels": ["odd" if number % 2 else "even" for number in range(20)], "names": names}
"""


@pytest.fixture(autouse=True)
def _own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def settings_for(text: str, name: str, **values: object) -> DataSettings:
    Path(f"{name}.py").write_text(text)
    return DataSettings(dataset=f"python:{name}:dataset", image_size=8, channels=1, **values)


@pytest.mark.parametrize(("text", "name"), [(ARRAYS, "own_arrays"), (TORCH, "own_torch"), (PILLOW, "own_pillow")])
def test_arrays_datasets_and_pillows_images_are_read(tmp_path: Path, text: str, name: str):
    settings = settings_for(text, name)
    info = prepare(settings, tmp_path / "cache")
    data = load(settings, tmp_path / "cache")
    assert (info.dataset, info.class_names) == (f"{name}:dataset (python)", ("even", "odd"))
    assert (info.train_images, info.validation_images, info.test_images) == (12, 4, 4)
    for split in (data.train, data.validation, data.test()):
        values = split.pixels(np.arange(len(split)))[:, 0, 4, 4]
        assert np.array_equal(values // 10 % 2, split.labels)
    assert any(len(note.rpartition(" ")[2]) == 64 for note in info.notes if "SHA-256" in note)


def test_classes_are_in_the_order_of_their_numbers(tmp_path: Path):
    many = ARRAYS.replace("range(20)", "range(36)").replace("arange(20", "arange(36").replace("* 10", "* 5")
    by_number = many.replace("% 2", "% 12").replace(', "class_names": ["even", "odd"]', "")
    info = prepare(settings_for(by_number, "own_numbers"), tmp_path / "cache")
    assert info.class_names == tuple(map(str, range(12)))
    named = ARRAYS.replace('["even", "odd"]', '["small", "none", "big"]').replace("number % 2", "number % 2 * 2")
    settings = settings_for(named, "own_names")
    info = prepare(settings, tmp_path / "cache")
    assert info.class_names == ("small", "big")
    assert any("1 class of class_names (none) has no images, so networks have" in note for note in info.notes)
    data = load(settings, tmp_path / "cache").train
    assert np.array_equal(data.pixels(np.arange(len(data)))[:, 0, 4, 4] // 10 % 2, data.labels)


def test_splits_groups_and_weights_may_be_returned(tmp_path: Path):
    more = """ | {
        "splits": ["train"] * 12 + ["val"] * 4 + ["test"] * 4, "groups": [str(number // 4) for number in range(20)],
        "weights": [1.0] * 10 + [2.5] * 10,
    }
"""
    settings = settings_for(ARRAYS.rstrip() + more, "own_splits")
    prepare(settings, tmp_path / "cache")
    data = load(settings, tmp_path / "cache")
    assert data.validation.names == ("12", "13", "14", "15")
    assert data.test().names == ("16", "17", "18", "19")
    assert data.train.details is not None
    assert data.train.details.weights is not None
    assert data.train.details.weights.tolist() == [1.0] * 10 + [2.5] * 2
    with pytest.raises(DataNotFound, match=r"1 group of .* \(3\) is in both train and validation"):
        outline(settings_for((ARRAYS.rstrip() + more).replace("* 12", "* 14").replace("* 4 +", "* 2 +"), "own_across"))


def test_other_images_or_another_source_are_decoded_anew_and_the_same_pixels_are_the_same_data(tmp_path: Path):
    first = prepare(settings_for(ARRAYS, "own_first"), tmp_path / "cache")
    renamed = prepare(settings_for("# changed\n" + ARRAYS, "own_renamed"), tmp_path / "cache")
    brighter = prepare(settings_for(ARRAYS.replace("* 10", "* 11"), "own_brighter"), tmp_path / "cache")
    assert first.fingerprint == renamed.fingerprint != brighter.fingerprint


def test_depth_of_sixteen_bits_is_kept(tmp_path: Path):
    deep = ARRAYS.replace("np.uint8", "np.uint16").replace("* 10", "* 1000")
    settings = settings_for(deep, "own_deep")
    info = prepare(settings, tmp_path / "cache")
    assert info.pixel_type == "uint16"
    assert int(load(settings, tmp_path / "cache").train.images.max()) == 19_000


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_module_at_all", r"can't be imported \(ModuleNotFoundError: No module named 'no_such_module"),
        ("data = 1", r"can't be imported \(AttributeError: .*'dataset'\)"),
        ("dataset = 1", r"must be a function in a module: `dataset = \"python:MODULE:FUNCTION\"`"),
        (
            "def dataset():\n    raise OSError('the\\nserver is away')",
            r"didn't return a data set \(OSError: the.server",
        ),
        ("def dataset():\n    return None", r"didn't return a data set \(TypeError"),
        ("def dataset():\n    return {'images': []}", r"didn't return a data set \(KeyError: 'labels'\)"),
        ("import sys\nsys.exit(3)", r"can't be imported \(SystemExit: 3\)"),
        ("def dataset():\n    raise SystemExit", r"didn't return a data set \(SystemExit"),
        (ARRAYS.rstrip() + " | {'names': 20 * ['x.png']}", r"names must differ, but these are there twice: x\.png"),
        (
            ARRAYS.rstrip() + " | {'splits': 20 * ['held']}",
            r"each image of own_\d+:dataset \(python\) must say train",
        ),
        (ARRAYS.rstrip() + " | {'weights': 20 * [0]}", r"some image of own_\d+:dataset \(python\) must weigh more"),
        (
            ARRAYS.replace("number % 2", "number % 2 - 1"),
            r"from 0 to 1, the last of 2 .*, but these aren't: -1\)",
        ),
        (ARRAYS.replace("number % 2", "number % 3"), r"must be from 0 to 1, the last of 2 .*, but these aren't: 2\)"),
        (ARRAYS.replace("number % 2", "number * 0.4"), r"or all be whole numbers, but one is 0\.4\)"),
        (
            ARRAYS.replace("number % 2", "number % 2 or 'odd'"),
            r"or all be whole numbers, but one is 'odd'\)",
        ),
        (ARRAYS.replace("number % 2", "'odd?'"), r"each label must be a class's name, but these aren't: odd\?\)"),
        (ARRAYS.replace('"odd"', '"even"'), r"class names must differ, but these are there twice: even\)"),
        (ARRAYS.replace('"class_names"', '"class"'), r"the mapping must hold images, .* alone, but has 'class', did"),
        (ARRAYS.rstrip() + " | {'split': 20 * ['train']}", r"alone, but has 'split', did you mean 'splits'\?"),
        (ARRAYS.replace("range(20)]", "range(19)]"), r"images and labels must be as many, but are 20 and 19"),
        (ARRAYS.replace('"odd"', '""'), r"have a label, but 10 images don't \(image 1, 1; .*; write its class"),
        (
            ARRAYS.replace('"odd"', '"o\\ndd"'),
            r"a label without control characters, but 10 .*1: o\ufffddd; .* rename it",
        ),
        (ARRAYS.replace("number % 2", "0"), "at least 2 classes, but holds 1, 'even'"),
    ],
)
def test_what_is_no_data_set_is_one_clear_line(tmp_path: Path, text: str, reason: str, request):
    name = f"own_{abs(hash(request.node.name))}"
    with pytest.raises(DataNotFound, match=reason) as refusal:
        prepare(settings_for(text, name), tmp_path / "cache")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "cache").exists()


def test_an_image_of_another_form_is_named(tmp_path: Path):
    floats = ARRAYS.replace("np.uint8", "np.float64")
    with pytest.raises(
        UnreadableImage, match=r"20 files of 20 .*: 0 \(ValueError: an image must be \(H, W\) or .*float64"
    ):
        prepare(settings_for(floats, "own_floats"), tmp_path / "cache")
    with pytest.raises(InvalidSettings, match=r"data.group must be left out for python"):
        outline(settings_for(ARRAYS, "own_grouped", group="folder"))


HELPED = """
def dataset():
    from own_helper import Pictures

    return Pictures()
"""
HELPER = """
class Pictures:
    targets = [number % 2 for number in range(20)]

    def __len__(self):
        return 20

    def __getitem__(self, place):
        from own_painter import paint

        return paint(place), place % 2
"""
PAINTER = """
import numpy as np

def paint(place):
    return np.full((8, 8), place * 10, np.uint8)
"""


def test_what_is_imported_only_when_it_is_needed_is_found_beside_the_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The command `condensery` begins without the working directory on Python's path, as `python -P` does."""
    here = {"", str(tmp_path), str(Path.cwd())}
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder not in here])
    before = list(sys.path)
    Path("own_helper.py").write_text(HELPER)
    Path("own_painter.py").write_text(PAINTER)
    settings = settings_for(HELPED, "own_helped")
    assert not read_through(settings).unreadable  # the painter is first needed here
    del sys.modules["own_painter"]
    assert prepare(settings, tmp_path / "cache").train_images == 12
    assert sys.path == before
