"""Data sets as they lie on disk: folders of images, IDX files and CIFAR's pickles, small but of the real formats."""

import gzip
import hashlib
import os
import pickle
import shutil
import struct
import tarfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets as torchvision_datasets

from space.errors import DataNotFound, UnknownDataset, UnreadableImage
from workers.images import datasets
from workers.images.batches import TrainingBatches, load
from workers.images.cache import prepare
from workers.images.datasets import find_source, read_cifar, read_idx
from workers.images.listing.walk import SUFFIXES
from workers.images.source import fit_image
from workers.preprocessing import FORMATS
from workers.settings import DataSettings

COLOURS = {"cat": (200, 10, 30), "dog": (0, 120, 250)}


def save_class_folders(folder: Path, images_per_class: int, size: tuple[int, int] = (12, 10)) -> None:
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for index in range(images_per_class):
            Image.new("RGB", size, colour).save(folder / name / f"{index:02}.png")


def folder_settings(folder: Path, **values: object) -> DataSettings:
    return DataSettings(dataset=f"imagefolder:{folder}", image_size=8, **values)


# --- folders of images ------------------------------------------------------------------------------------------


def test_a_folder_with_train_and_test_is_read_as_it_is_split(tmp_path):
    save_class_folders(tmp_path / "pets" / "train", 10)
    save_class_folders(tmp_path / "pets" / "test", 3)
    (tmp_path / "pets" / "train" / "dog" / "00.png").unlink()
    choice = folder_settings(tmp_path / "pets")
    info = prepare(choice, tmp_path / "cache")
    data = load(choice, tmp_path / "cache")
    assert (info.dataset, info.class_names) == ("pets (image folder)", ("cat", "dog"))
    assert (info.class_counts, info.imbalance) == ((10, 9), 10 / 9)
    assert (info.train_images, info.validation_images, info.test_images) == (15, 4, 6)
    for split in (data.train, data.validation, data.test()):
        expected = [COLOURS[info.class_names[label]] for label in split.labels]
        assert np.array_equal(split.pixels(np.arange(len(split)))[:, :, 4, 4], expected)
    assert not set(data.train.places) & set(data.validation.places)
    images, _ = TrainingBatches(data.train, info, choice, 4, 0).batch(0)
    assert images.shape == (4, 3, 8, 8)


def test_class_folders_alone_get_a_test_split_of_their_own(tmp_path):
    save_class_folders(tmp_path / "pets", 10)
    choice = folder_settings(tmp_path / "pets", test_fraction=0.3)
    info = prepare(choice, tmp_path / "cache")
    data = load(choice, tmp_path / "cache")
    assert np.bincount(data.test().labels).tolist() == [3, 3]
    assert info.class_counts == (7, 7)
    assert sorted(np.concatenate([s.places for s in (data.train, data.validation, data.test())])) == list(range(20))


def test_a_class_may_be_called_train_where_it_lies_beside_other_classes(tmp_path):
    save_class_folders(tmp_path, 2)
    for name in ("train", "test"):
        shutil.copytree(tmp_path / "cat", tmp_path / name)
    assert find_source(folder_settings(tmp_path)).open().class_names == ("cat", "dog", "test", "train")


def test_a_classs_name_must_be_text_and_an_images_need_not(tmp_path):
    save_class_folders(tmp_path, 2)
    (tmp_path / "cat" / "00.png").rename(tmp_path / "cat" / os.fsdecode(b"\xff.png"))
    assert len(find_source(folder_settings(tmp_path)).open().train.labels) == 4
    (tmp_path / "cat").rename(tmp_path / os.fsdecode(b"cat\xff"))
    with pytest.raises(DataNotFound, match=r"class folder b'cat\\xff' in .* isn't UTF-8; rename it"):
        find_source(folder_settings(tmp_path))


@pytest.mark.parametrize("damage", ["not an image", "cut short"])
def test_a_corrupt_image_is_named_and_leaves_nothing_half_written(tmp_path, damage):
    save_class_folders(tmp_path / "pets", 3)
    victim = tmp_path / "pets" / "dog" / "01.png"
    good = victim.read_bytes()
    victim.write_bytes(b"no image" if damage == "not an image" else good[: len(good) // 2])
    with pytest.raises(UnreadableImage, match=r"1 file of 6 of pets .* can't be read as an image: dog/01\.png \("):
        prepare(folder_settings(tmp_path / "pets"), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    victim.write_bytes(good)
    assert prepare(folder_settings(tmp_path / "pets"), tmp_path / "cache").num_classes == 2


@pytest.mark.parametrize(
    "content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n", b"P3 8 8 255\n" + b"0 " * 192]
)
def test_a_file_of_another_kind_starts_no_program(tmp_path, monkeypatch, content):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", refuse)
    save_class_folders(tmp_path / "images", 6)
    (tmp_path / "images" / "cat" / "photo.png").write_bytes(content)
    if content.startswith(b"%!"):
        with pytest.raises(UnreadableImage, match=r"photo\.png"):
            prepare(folder_settings(tmp_path / "images"), tmp_path / "cache")
    else:  # a documented format under the name of another
        prepare(folder_settings(tmp_path / "images"), tmp_path / "cache")


def test_every_suffix_has_its_decoder_and_no_other_is_open():
    Image.init()
    assert set(SUFFIXES) == set(FORMATS)
    also = {".dib": "BMP", ".mpo": "JPEG"}  # Pillow names the kind, which these decoders read
    for decoder, suffixes in SUFFIXES.items():
        assert {also.get(suffix, Image.EXTENSION[suffix]) for suffix in suffixes} == {decoder}


def test_a_changed_file_is_seen_at_the_next_prepare_and_not_by_workers_before(tmp_path):
    save_class_folders(tmp_path / "pets", 4)
    choice = folder_settings(tmp_path / "pets")
    before = prepare(choice, tmp_path / "cache")
    changed = tmp_path / "pets" / "cat" / "00.png"
    Image.new("RGB", (12, 10), "white").save(changed)
    os.utime(changed, ns=(0, 0))
    assert load(choice, tmp_path / "cache").info == before
    after = prepare(choice, tmp_path / "cache")
    pixels = load(choice, tmp_path / "cache").train.images
    assert (pixels[0] == 255).all()
    assert load(choice, tmp_path / "cache").info == after


def test_folders_that_cannot_be_used_are_told_apart(tmp_path):
    with pytest.raises(DataNotFound, match="nowhere' doesn't exist"):
        find_source(folder_settings(tmp_path / "nowhere"))
    with pytest.raises(DataNotFound, match="images of at least 2 classes, but holds 0; lay them out"):
        find_source(folder_settings(tmp_path))
    save_class_folders(tmp_path / "train", 2)
    save_class_folders(tmp_path / "test", 2)
    (tmp_path / "test" / "dog").rename(tmp_path / "test" / "wolf")
    with pytest.raises(DataNotFound, match=r"1 class of the test split \(wolf\) has none; move some there"):
        find_source(folder_settings(tmp_path))


def test_splits_without_class_folders_are_not_taken_for_classes(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / split / "0.png")
    with pytest.raises(
        DataNotFound, match=r"the folder 'test' of .* must hold class folders of images, but holds none"
    ):
        find_source(folder_settings(tmp_path))


def test_one_image_a_class_is_too_few_to_hold_any_out(tmp_path):
    save_class_folders(tmp_path / "pets", 1)
    with pytest.raises(DataNotFound, match="needs a class with at least 3 images"):
        prepare(folder_settings(tmp_path / "pets"), tmp_path / "cache")


# --- making an image fit ----------------------------------------------------------------------------------------


def test_the_longer_side_is_cut_off_evenly_after_shrinking():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)
    wide = Image.fromarray(pixels)
    shrunk = wide.resize((20, 10), Image.Resampling.BILINEAR).crop((5, 0, 15, 10))
    assert np.array_equal(fit_image(wide, (3, 10, 10)), np.asarray(shrunk).transpose(2, 0, 1))
    tall = wide.transpose(Image.Transpose.TRANSPOSE)
    assert np.array_equal(fit_image(tall, (3, 10, 10)), np.asarray(shrunk).transpose(2, 1, 0))


def test_shrinking_averages_instead_of_skipping_pixels():
    checks = np.indices((64, 64)).sum(axis=0) % 2 * 255
    shrunk = fit_image(Image.fromarray(checks.astype(np.uint8)), (1, 8, 8))
    assert np.abs(shrunk.astype(int) - 127).max() <= 2


# --- names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("cifar-10", "did you mean 'cifar10'"),
        ("Fashion_MNIST", "did you mean 'fashion-mnist'"),
        ("imagefolder", "did you mean 'imagefolder:PATH'"),
        ("imagefolder:", "did you mean 'imagefolder:PATH'"),
        ("digits:8", "did you mean 'digits'"),
        ("zzz", "imagefolder:PATH, manifest:PATH or python:MODULE:FUNCTION, but got 'zzz'$"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, hint):
    with pytest.raises(UnknownDataset, match=hint):
        find_source(DataSettings(dataset=name))


# --- Fashion-MNIST ----------------------------------------------------------------------------------------------


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def save_fashion_mnist(folder: Path, packed: bool) -> None:
    folder.mkdir(parents=True)
    for split, count in (("train", 30), ("t10k", 10)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = np.broadcast_to(labels[:, None, None], (count, 28, 28))
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            data = idx_bytes(array)
            name = f"{split}-{kind}-ubyte" + (".gz" if packed else "")
            (folder / name).write_bytes(gzip.compress(data) if packed else data)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("place", ["debian", "torchvision"])
def test_fashion_mnist_is_found_where_debian_and_torchvision_put_it(tmp_path, monkeypatch, place, packed):
    monkeypatch.setattr(datasets, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    save_fashion_mnist(tmp_path / ("debian" if place == "debian" else "data/FashionMNIST/raw"), packed)
    choice = DataSettings(dataset="fashion-mnist", folder=str(tmp_path / "data"))
    info = prepare(choice, tmp_path / "cache")
    test = load(choice, tmp_path / "cache").test()
    assert (info.input_shape, info.class_names[9], info.test_images) == ((1, 28, 28), "Ankle boot", 10)
    assert (test.pixels(np.arange(10)) == test.labels[:, None, None, None]).all()


def test_missing_fashion_mnist_says_what_to_set(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    with pytest.raises(DataNotFound, match=r"fashion-mnist is not in folder .*`folder`.*`download = true`"):
        prepare(DataSettings(dataset="fashion-mnist", folder=str(tmp_path)), tmp_path / "cache")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.gz", b"not gzip"),
        ("a.gz", gzip.compress(idx_bytes(np.zeros(100, np.uint8)), mtime=0)[:-12]),
        ("a", b"\x00"),
        ("a", b"\x89PNG" + b"\x00" * 20),
        ("a", idx_bytes(np.zeros(100, np.uint8))[:-1]),
    ],
)
def test_a_broken_idx_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableImage, match=f"{tmp_path / name} should be an IDX file"):
        read_idx(tmp_path / name)


# --- CIFAR ------------------------------------------------------------------------------------------------------


class PythonTwoDtype:
    """Pickles as Python 2's NumPy wrote the dtype of CIFAR's arrays: with 0 and 1 where booleans are meant."""

    def __reduce__(self):
        return np.dtype, ("u1", 0, 1)


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where a web server on this machine hands out tmp_path."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path)) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def small_cifar(folder: Path, address: str = "http://127.0.0.1:9") -> type[torchvision_datasets.CIFAR10]:
    """A CIFAR-10 of 8 + 4 images in an archive, and the torchvision class that knows its checksums and address."""
    inside = folder / "cifar-10-batches-py"
    inside.mkdir(parents=True)
    contents = {
        "data_batch_1": {"data": np.arange(8, dtype=np.uint8).repeat(3072).reshape(8, 3072), "labels": [0, 1] * 4},
        "test_batch": {"data": np.arange(4, dtype=np.uint8).repeat(3072).reshape(4, 3072), "labels": [1, 0] * 2},
        "batches.meta": {"label_names": ["plane", "car"]},
    }
    for name, content in contents.items():
        (inside / name).write_bytes(pickle.dumps(content | {"dtype": PythonTwoDtype()}))
    with tarfile.open(folder / "small.tar.gz", "w:gz") as archive:
        archive.add(inside, inside.name)
    md5 = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in [*inside.iterdir(), *folder.glob("*.gz")]}

    class SmallCifar(torchvision_datasets.CIFAR10):
        url = f"{address}/{folder.name}/small.tar.gz"
        filename = "small.tar.gz"
        tgz_md5 = md5["small.tar.gz"]
        train_list = [["data_batch_1", md5["data_batch_1"]]]  # noqa: RUF012  (torchvision's own declaration)
        test_list = [["test_batch", md5["test_batch"]]]  # noqa: RUF012
        meta = {"filename": "batches.meta", "key": "label_names", "md5": md5["batches.meta"]}  # noqa: RUF012

    return SmallCifar


def test_cifar_is_read_through_torchvision(tmp_path):
    choice = DataSettings(dataset="cifar10", folder=str(tmp_path))
    images = read_cifar(small_cifar(tmp_path), choice, (3, 32, 32))
    assert images.class_names == ("plane", "car")
    assert images.train.labels.tolist() == [0, 1] * 4
    assert images.test is not None
    (block,) = images.test.blocks("uint8")
    assert block.images.shape == (4, 3, 32, 32)
    assert block.images[:, 2, 31, 31].tolist() == [0, 1, 2, 3]


def test_cifar_is_downloaded_only_where_that_is_allowed(tmp_path, address):
    maker = small_cifar(tmp_path / "maker", address)
    choice = DataSettings(dataset="cifar10", folder=str(tmp_path / "data"))
    with pytest.raises(DataNotFound, match=r"cifar10 is not in folder .*`folder`.*`download = true`"):
        read_cifar(maker, choice, (3, 32, 32))
    assert not (tmp_path / "data").exists()
    images = read_cifar(maker, choice.model_copy(update={"download": True}), (3, 32, 32))
    assert len(images.train.labels) == 8


def test_a_download_that_fails_says_why(tmp_path, address):
    maker = small_cifar(tmp_path / "maker", address)
    (tmp_path / "maker" / "small.tar.gz").unlink()
    choice = DataSettings(dataset="cifar10", folder=str(tmp_path / "data"), download=True)
    with pytest.raises(DataNotFound, match=r"cifar10 could not be downloaded to .*404"):
        read_cifar(maker, choice, (3, 32, 32))


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_missing_cifar_says_what_to_set(tmp_path, dataset):
    with pytest.raises(DataNotFound, match=f"{dataset} is not in folder .*`folder`.*`download = true`"):
        prepare(DataSettings(dataset=dataset, folder=str(tmp_path)), tmp_path / "cache")


@pytest.mark.skipif(not datasets.DEBIAN_FASHION_MNIST.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_debians_fashion_mnist_is_found_without_a_download(tmp_path: Path):
    settings = DataSettings(dataset="fashion-mnist", folder=str(tmp_path / "empty"))
    info = prepare(settings, tmp_path / "cache")
    assert (info.train_images + info.validation_images, info.test_images) == (60_000, 10_000)
    assert info.input_shape == (1, 28, 28)
    assert set(info.class_counts) == {6_000}
    assert info.mean == pytest.approx((0.286,), abs=0.001)  # as everybody finds it


def test_copied_or_touched_files_are_the_same_images_and_another_one_is_not(tmp_path: Path):
    save_class_folders(tmp_path / "pets", 4)
    cache = tmp_path / "cache"

    def fingerprint() -> str:
        return prepare(DataSettings(dataset=f"imagefolder:{tmp_path / 'pets'}"), cache).fingerprint

    before = fingerprint()
    some = sorted((tmp_path / "pets").rglob("*.*"))
    for path in some:
        os.utime(path, (1, 1))
    assert fingerprint() == before
    Image.new("RGB", (9, 9), (200, 10, 10)).save(some[0])
    assert fingerprint() != before
