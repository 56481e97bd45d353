"""Images with 16-bit greys keep their depth, from file to batch; data sets without such images stay as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from space.errors import DataNotFound
from tests.search.photographs import KINDS, MIXED, SENSOR, write_photographs
from workers.bundled import infer
from workers.images.array_files import write_splits
from workers.images.batches import Augmentation, TrainingBatches, evaluation_batches, load
from workers.images.cache import prepare
from workers.images.datasets import find_source
from workers.images.resident import ResidentBatches
from workers.images.source import BLOCK, read_image
from workers.preprocessing import Preprocessing
from workers.settings import DataSettings, TrainingSettings


@pytest.fixture(scope="module")
def sensor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sensor") / "photos"
    write_photographs(folder, SENSOR)
    return folder


def settings_of(folder: Path, **values: object) -> DataSettings:
    return DataSettings(dataset=f"imagefolder:{folder}", image_size=16, channels=1, **values)


def test_greys_keep_their_16_bits_and_are_scaled_by_the_range_that_they_use(sensor: Path, tmp_path: Path):
    info = prepare(settings_of(sensor), tmp_path)
    split = load(settings_of(sensor), tmp_path).train
    pixels = split.pixels(np.arange(len(split)))
    assert (pixels.dtype, info.pixel_type) == (np.uint16, "uint16")
    assert info.pixel_range == (pixels.min(), pixels.max())
    unit = (pixels - info.pixel_range[0]) / (info.pixel_range[1] - info.pixel_range[0])
    assert info.mean == pytest.approx([unit.mean()], rel=1e-12)
    assert info.std == pytest.approx([unit.std()], rel=1e-12)
    ((x, _),) = evaluation_batches(split, info, len(split))
    assert len(torch.unique(x)) > 256
    assert x.mean().item() == pytest.approx(0, abs=1e-5)
    assert x.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    rules = Preprocessing.of(info.input_shape, info.to_dict()).table()
    np.testing.assert_allclose(x.numpy(), infer.scaled(pixels, rules), rtol=0, atol=1e-6)


def test_resizing_averages_16_bit_pixels_and_not_their_halves(tmp_path: Path):
    greys = np.random.default_rng(0).integers(1000, 5000, (32, 32)).astype(np.uint16)
    Image.fromarray(greys).save(tmp_path / "grey.png")
    small = read_image(tmp_path / "grey.png", (1, 1, 1), "uint16")
    assert small.item() == pytest.approx(greys.mean(), rel=0.05)
    halved = read_image(tmp_path / "grey.png", (1, 16, 16), "uint16").astype(float)
    weights = np.array([1, 3, 3, 1]) / 8  # of a triangle as wide as two pixels of the result
    inner = greys[1:5, 1:5].astype(float)
    assert halved[0, 1, 1] == pytest.approx(weights @ inner @ weights, abs=1)


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_a_pixel_is_read_as_it_is_in_the_file(tmp_path: Path, suffix: str):
    greys = np.random.default_rng(0).integers(0, 65_536, (8, 8)).astype(np.uint16)
    Image.fromarray(greys).save(tmp_path / f"grey.{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"grey.{suffix}", (3, 8, 8), "uint16"), [greys] * 3)


def test_8_bit_images_among_16_bit_ones_reach_the_same_white(tmp_path: Path):
    Image.fromarray(np.array([[0, 1], [128, 255]], np.uint8)).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png", (1, 2, 2), "uint16").tolist() == [[[0, 257], [32_896, 65_535]]]


def test_one_16_bit_image_makes_the_whole_set_of_16_bits_unless_8_are_asked_for(tmp_path: Path):
    write_photographs(tmp_path / "photos", MIXED)
    info = prepare(settings_of(tmp_path / "photos"), tmp_path / "cache")
    cut = prepare(settings_of(tmp_path / "photos", bits=8), tmp_path / "cache")
    assert (info.pixel_type, cut.pixel_type, cut.pixel_range) == ("uint16", "uint8", (0.0, 255.0))
    assert [any("kept with 16 bits" in note for note in one.notes) for one in (info, cut)] == [True, False]
    shallow = load(settings_of(tmp_path / "photos", bits=8), tmp_path / "cache")
    deep = load(settings_of(tmp_path / "photos"), tmp_path / "cache")
    assert shallow.train.names == deep.train.names
    at = [place for place, name in enumerate(deep.train.names or ()) if "grey" in name]
    np.testing.assert_array_equal(deep.train.pixels(np.array(at)), shallow.train.pixels(np.array(at)) * np.uint16(257))


def test_progress_never_counts_an_image_twice(tmp_path: Path):
    """The only image with 16 bits lies in the second block, so that the first block is decoded twice."""
    for name, start in (("bright", 200), ("dark", 10)):
        (tmp_path / "greys" / name).mkdir(parents=True)
        for number in range(BLOCK // 2 + 2):
            Image.new("L", (4, 4), start + number % 50).save(tmp_path / "greys" / name / f"{number:04}.png")
    Image.fromarray(np.full((4, 4), 3000, np.uint16)).save(tmp_path / "greys" / "dark" / "deep.png")
    choice = DataSettings(dataset=f"imagefolder:{tmp_path / 'greys'}", image_size=4, channels=1)
    opened, said = find_source(choice).open(), []
    assert opened.test is None
    (tmp_path / "written").mkdir()
    write_splits({"train": opened.train}, (1, 4, 4), None, tmp_path / "written", said.append)
    counts, total = np.cumsum(said), BLOCK + 5
    assert len(opened.train.labels) == total == counts[-1] == counts.max()
    assert min(said) == -BLOCK


def test_a_set_of_8_bits_is_decoded_as_before(tmp_path: Path):
    write_photographs(tmp_path / "photos", KINDS)
    info = prepare(settings_of(tmp_path / "photos"), tmp_path / "cache")
    assert (info.pixel_type, info.pixel_range) == ("uint8", (0.0, 255.0))
    asked = prepare(settings_of(tmp_path / "photos", bits=8), tmp_path / "cache")
    assert asked.fingerprint == info.fingerprint
    assert asked.to_dict() == info.to_dict()


def test_pixels_beyond_a_given_range_are_its_ends(sensor: Path, tmp_path: Path):
    choice = settings_of(sensor, range=(4000, 4300))
    info = prepare(choice, tmp_path)
    split = load(choice, tmp_path).validation
    ((x, _),) = evaluation_batches(split, info, len(split))
    assert info.pixel_range == (4000, 4300)
    assert x.min().item() == pytest.approx((0 - info.mean[0]) / info.std[0], rel=1e-4)
    assert x.max().item() == pytest.approx((1 - info.mean[0]) / info.std[0], rel=1e-4)


def test_a_range_is_of_use_for_8_bits_as_well_and_must_be_one_that_pixels_have(tmp_path: Path):
    choice = DataSettings(dataset="digits", range=(0, 128))
    info = prepare(choice, tmp_path)
    assert (info.pixel_type, info.pixel_range) == ("uint8", (0.0, 128.0))
    assert info.mean[0] > prepare(DataSettings(dataset="digits"), tmp_path).mean[0]
    with pytest.raises(DataNotFound, match=r"data.range must lie within 0 to 255"):
        prepare(DataSettings(dataset="digits", range=(0, 4095)), tmp_path)
    for wrong in ((5, 5), (9, 3), (-1, 8), (0, 70_000)):
        with pytest.raises(ValidationError, match="0 <= low < high <= 65535"):
            DataSettings(range=wrong)


def test_any_data_set_can_be_kept_with_16_bits(tmp_path: Path):
    deep, plain = (DataSettings(dataset="digits", bits=bits) for bits in (16, None))
    info = prepare(deep, tmp_path)
    assert prepare(plain, tmp_path).pixel_type == "uint8"
    assert (info.pixel_type, info.pixel_range) == ("uint16", (0.0, 65_535.0))
    assert info.mean == pytest.approx(prepare(plain, tmp_path).mean)
    splits = [load(choice, tmp_path).validation for choice in (deep, plain)]
    pixels = [split.pixels(np.arange(len(split))) for split in splits]
    np.testing.assert_array_equal(pixels[0], pixels[1] * np.uint16(257))


def test_depth_and_range_change_an_identity_only_where_they_are_set():
    plain = DataSettings()
    assert not {"bits", "range"} & plain.model_dump().keys()
    assert len({one.digest() for one in (plain, DataSettings(bits=16), DataSettings(range=(0, 9)))}) == 3


@pytest.mark.parametrize("recipe", [{}, {"rotation": 20.0, "crop_scale": 0.5}, {"randaugment": 9}, {"colour": 0.5}])
def test_augmented_batches_stay_within_the_range_and_around_their_black(sensor: Path, tmp_path: Path, recipe):
    choice = settings_of(sensor, crop_padding=3)
    info = prepare(choice, tmp_path)
    split = load(choice, tmp_path).train
    batches = TrainingBatches(split, info, choice, 16, 0, TrainingSettings(**recipe))
    x, _ = batches.batch(0)
    black, white = ((end - info.mean[0]) / info.std[0] for end in (0, 1))
    assert x.dtype == torch.float32
    assert black - 1e-4 <= x.min().item() < x.max().item() <= white + 1e-4
    assert Augmentation.of(choice, info).black == info.pixel_range[0]
    assert torch.equal(batches.batch(0)[0], x)


def test_batches_made_on_the_device_are_the_same(sensor: Path, tmp_path: Path):
    choice = settings_of(sensor, crop_padding=2)
    info = prepare(choice, tmp_path)
    batches = TrainingBatches(load(choice, tmp_path).train, info, choice, 8, 3)
    resident = ResidentBatches(batches, torch.device("cpu"))
    for step in (0, 1, 5):
        assert torch.equal(resident.batch(step)[0], batches.batch(step)[0])
