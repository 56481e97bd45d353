"""Resizing is what Pillow does, and what the documents say of torchvision, OpenCV and C; on real photographs."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision.transforms import v2

from tests.test_docs import ROOT, fenced_blocks
from workers.bundled import infer
from workers.images.source import fit_image
from workers.preprocessing import Preprocessing

PHOTOS = [np.asarray(image) for image in load_sample_images().images]  # two of 640x427
SIZES = (32, 224)
DEPLOYING = (ROOT / "docs" / "deploying.md").read_text()


def middle(photo: np.ndarray) -> np.ndarray:
    """The middle of a photo, square, of whole pixels."""
    height, width = photo.shape[:2]
    left = (width - height) // 2
    return np.ascontiguousarray(photo[:, left : left + height])


def fitted(photo: np.ndarray, size: int) -> np.ndarray:
    return fit_image(Image.fromarray(photo), (3, size, size)).transpose(1, 2, 0)


def off(one: np.ndarray, other: np.ndarray) -> tuple[float, int]:
    """The mean and the largest difference in levels of 0 to 255."""
    difference = np.abs(one.astype(int) - other.astype(int))
    return float(difference.mean()), int(difference.max())


def documented(way: str) -> dict[int, tuple[float, int]]:
    """The differences that docs/deploying.md gives for a way of resizing: by size, the mean and the largest."""
    (row,) = re.findall(rf"^\| {re.escape(way)} \|(.*)\|$", DEPLOYING, re.MULTILINE)
    cells = [cell.split(",") for cell in row.split("|")]
    return {size: (float(mean), int(most)) for size, (mean, most) in zip(SIZES, cells, strict=True)}


def assert_as_documented(way: str, resize) -> None:
    """`resize(photo, size)` returns two images that should be the same."""
    for size, (mean, most) in documented(way).items():
        found = [off(*resize(photo, size)) for photo in PHOTOS]
        assert np.mean([one for one, _ in found]) == pytest.approx(mean, abs=0.06)
        assert max(largest for _, largest in found) == pytest.approx(most, abs=1)


def test_torchvision_resizes_pillows_images_to_the_very_pixels():
    for photo in map(middle, PHOTOS):
        for size in (8, 96, 427, 500):
            resized = v2.functional.resize(Image.fromarray(photo), [size, size], antialias=True)
            np.testing.assert_array_equal(np.asarray(resized), fitted(photo, size))


def on_tensors(photo: np.ndarray, size: int, antialias: bool) -> tuple[np.ndarray, np.ndarray]:
    square = middle(photo)
    pixels = torch.from_numpy(square).permute(2, 0, 1)
    resized = v2.functional.resize(pixels, [size, size], antialias=antialias)
    return resized.permute(1, 2, 0).numpy(), fitted(square, size)


def test_torchvision_on_tensors_rounds_otherwise_and_without_antialiasing_skips_pixels():
    assert_as_documented("torchvision on tensors", lambda photo, size: on_tensors(photo, size, antialias=True))
    way = "torchvision without antialiasing"
    assert_as_documented(way, lambda photo, size: on_tensors(photo, size, antialias=False))


def test_resizing_first_and_cropping_whole_pixels_then_is_not_the_same():
    def resized(photo: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        transform = v2.Compose([v2.Resize(size), v2.CenterCrop(size)])
        return np.asarray(transform(Image.fromarray(photo))), fitted(photo, size)

    assert_as_documented("torchvision's `Resize`, then `CenterCrop`", resized)


def test_exchanged_channels_are_the_largest_difference():
    way = "B and R exchanged"
    assert_as_documented(way, lambda photo, size: (fitted(middle(photo), size)[..., ::-1], fitted(middle(photo), size)))


if importlib.util.find_spec("cv2"):  # OpenCV is none of the project's packages: where it is, its figures are held

    @pytest.mark.parametrize(
        ("way", "name"), [("OpenCV `INTER_AREA`", "INTER_AREA"), ("OpenCV `INTER_LINEAR`", "INTER_LINEAR")]
    )
    def test_opencv_has_no_filter_like_it(way: str, name: str):
        cv2 = importlib.import_module("cv2")

        def resized(photo: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
            square = middle(photo)
            return cv2.resize(square, (size, size), interpolation=getattr(cv2, name)), fitted(square, size)

        assert_as_documented(way, resized)


# --- the program in C -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepare(tmp_path_factory: pytest.TempPathFactory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("c")
    (code,) = fenced_blocks(DEPLOYING, "c")
    (folder / "prepare.c").write_text(code)
    library = folder / "prepare.so"
    command = [compiler, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, folder / "prepare.c", "-lm"]
    subprocess.run(command, check=True)
    function = ctypes.CDLL(str(library)).prepare
    function.argtypes = [ctypes.c_void_p, *[ctypes.c_int] * 5, *[ctypes.c_void_p] * 3]
    return function


@pytest.mark.parametrize("shape", [(427, 640), (640, 427), (100, 333), (224, 224), (30, 20)])
@pytest.mark.parametrize("size", [(32, 32), (224, 224), (40, 64)])
def test_the_program_in_c_makes_the_same_input(prepare, shape: tuple[int, int], size: tuple[int, int]):
    photo = np.ascontiguousarray(np.resize(PHOTOS[0], (*shape, 3)))
    rules = Preprocessing((3, *size), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)).table()
    expected = infer.scaled(infer.pixels_of(Image.fromarray(photo), rules), rules)
    mean, std = (np.array(rules[name], np.float32) for name in ("mean", "std"))
    x = np.empty((3, *size), np.float32)
    addresses = [array.ctypes.data for array in (mean, std, x)]
    assert prepare(photo.ctypes.data, *shape, 3, *size, *addresses) == 0
    levels = np.abs(x - expected) * std[:, None, None] * 255
    assert levels.max() < 1.01  # where rounding falls the other way
    assert (levels > 0.01).mean() < (
        0.01 if shape[0] <= shape[1] else 0.25
    )  # of tall images Pillow may do columns first
