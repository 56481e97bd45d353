"""Splits, batches and the cache they are read from. The data sets themselves are in test_image_sources."""

import json
import mmap
import os
import resource
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from space.errors import DataNotFound, DiskFull, ReadOnlyFolder
from workers.images.batches import Augmentation, Split, TrainingBatches, augment, evaluation_batches, load
from workers.images.cache import prepare
from workers.images.data_info import DataInfo, Published, describe
from workers.images.pixel_values import PixelStatistics
from workers.images.progress import progress
from workers.images.source import Details
from workers.images.splits import (
    Stream,
    folds_of,
    grouped_holdout,
    place,
    random_words,
    stratified_holdout,
    stratified_subset,
)
from workers.settings import DataSettings

DIGITS = DataSettings(dataset="digits")
STILL = DataSettings(dataset="digits", crop_padding=0, flip=False)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    prepare(DIGITS, folder)
    return folder


def numbered_split(count: int) -> tuple[Split, DataInfo]:
    """A split whose image number i has all pixels i, at a normalisation that leaves them i / 255."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 1, 4, 4))
    info = DataInfo("numbers", (1, 4, 4), 2, ("even", "odd"), count, 0, 0, (count, count), (0.0,), (1.0,))
    return Split(images, np.arange(count), np.arange(count) % 2), info


def numbers_in(images: torch.Tensor) -> list[int]:
    return torch.round(images[:, 0, 0, 0] * 255).int().tolist()


# --- splits -----------------------------------------------------------------------------------------------------


@given(
    labels=st.lists(st.integers(0, 5), max_size=60).map(lambda values: np.array(values, dtype=np.int64)),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**40),
)
def test_a_holdout_parts_every_class_and_loses_no_image(labels, fraction, seed):
    words = random_words(seed, Stream.VALIDATION_SPLIT, 0, len(labels))
    kept, held = stratified_holdout(labels, fraction, words)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    for label in np.unique(labels):
        of_class, of_held = np.sum(labels == label), np.sum(labels[held] == label)
        if of_class == 1:
            assert of_held == 0
        else:
            assert 1 <= of_held <= of_class - 1
            assert abs(of_held - of_class * fraction) <= 1


@pytest.mark.parametrize("split_seed", [0, 1])
def test_train_validation_and_test_share_no_image_and_leave_none_out(cache, split_seed):
    choice = DataSettings(dataset="digits", split_seed=split_seed)
    info = prepare(choice, cache)
    data = load(choice, cache)
    parts = [data.train, data.validation, data.test()]
    assert sorted(np.concatenate([part.places for part in parts])) == list(range(1797))
    assert [len(part) for part in parts] == [info.train_images, info.validation_images, info.test_images]
    published = np.bincount(np.concatenate([part.labels for part in parts]))
    assert np.array_equal(np.bincount(data.test().labels), np.rint(published * 0.2))
    assert np.array_equal(np.bincount(data.validation.labels), np.rint(np.array(info.class_counts) * 0.2))


@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=80).map(lambda values: np.array(values, dtype=np.int64)),
    share=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**40),
)
def test_a_subset_has_the_size_asked_for_and_each_classs_share_of_it(labels, share, seed):
    size = round(share * len(labels))
    chosen = stratified_subset(labels, size, random_words(seed, Stream.SUBSET, 0, len(labels)))
    assert len(chosen) == size
    assert np.array_equal(chosen, np.unique(chosen))
    for label in np.unique(labels):
        proportional = size * np.mean(labels == label)
        assert abs(np.sum(labels[chosen] == label) - proportional) <= 2


def test_fewer_images_are_a_part_of_those_there_are_and_leave_the_test_split_as_it_is(cache):
    few = DIGITS.model_copy(update={"images": 300, "validation_fraction": 1 / 3})
    info, data, whole = prepare(few, cache), load(few, cache), load(DIGITS, cache)
    assert (info.train_images, info.validation_images, info.test_images) == (200, 100, len(whole.test()))
    assert sum(info.class_counts) == 300
    assert np.array_equal(data.test().places, whole.test().places)
    used = np.concatenate([data.train.places, data.validation.places])
    assert len(np.unique(used)) == 300
    assert not set(used) & set(data.test().places)
    other = few.model_copy(update={"split_seed": 1})
    prepare(other, cache)
    assert not np.array_equal(load(other, cache).train.places, data.train.places)


def test_more_images_than_there_are_means_all_of_them(cache):
    many = DIGITS.model_copy(update={"images": 10**6})
    prepare(many, cache)
    assert np.array_equal(load(many, cache).train.places, load(DIGITS, cache).train.places)


def test_too_few_images_for_a_validation_split_name_the_setting_to_raise(tmp_path):
    with pytest.raises(DataNotFound, match=r"raise data\.images"):
        prepare(DIGITS.model_copy(update={"images": 5}), tmp_path)


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=80).map(lambda values: np.array(values, dtype=np.int64)),
    folds=st.integers(2, 7),
    seed=st.integers(0, 2**40),
)
def test_folds_share_out_every_class_and_each_image_is_validated_once(labels, folds, seed):
    fold = folds_of(labels, None, folds, random_words(seed, Stream.VALIDATION_SPLIT, 0, len(labels)))
    only = np.bincount(labels)[labels] == 1
    assert np.array_equal(fold == -1, only)
    sizes = np.bincount(fold[~only], minlength=folds)
    assert sizes.max() - sizes.min() <= 1
    for label in np.unique(labels[~only]):
        of_class = np.bincount(fold[labels == label], minlength=folds)
        assert of_class.max() - of_class.min() <= 1


@given(
    groups=st.lists(st.integers(0, 12), min_size=1, max_size=80).map(lambda values: np.array(values, dtype=np.int64)),
    folds=st.integers(2, 5),
    fraction=st.floats(0.05, 0.5),
    seed=st.integers(0, 2**40),
)
def test_no_split_and_no_fold_parts_a_group(groups, folds, fraction, seed):
    labels = groups % 3
    words = random_words(seed, Stream.VALIDATION_SPLIT, 0, len(labels))
    kept, held = grouped_holdout(labels, groups, fraction, words)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert not set(groups[kept]) & set(groups[held])
    assert set(labels[held]) <= set(labels[kept])
    fold = folds_of(labels, groups, folds, words)
    for group in np.unique(groups):
        assert len(set(fold[groups == group])) == 1
    for number in range(folds):
        assert set(labels[fold == number]) <= set(labels[fold != number])


def test_groups_are_held_out_near_the_fraction_of_every_class():
    groups = np.repeat(np.arange(200), 5)
    labels = groups % 4
    _, held = grouped_holdout(labels, groups, 0.2, random_words(0, Stream.VALIDATION_SPLIT, 0, len(labels)))
    assert np.bincount(labels[held]) / np.bincount(labels) == pytest.approx([0.2] * 4, abs=0.02)


def test_each_fold_is_the_validation_split_of_its_own_settings(cache):
    held = []
    for fold in range(4):
        choice = DIGITS.model_copy(update={"folds": 4, "fold": fold})
        prepare(choice, cache)
        data = load(choice, cache)
        assert len(data.test()) == len(load(DIGITS, cache).test())
        held.append(data.validation.places)
    assert sorted(np.concatenate(held)) == sorted(
        np.concatenate([load(DIGITS, cache).train.places, load(DIGITS, cache).validation.places])
    )
    with pytest.raises(ValueError, match="fold must be below folds, 4, but got 4"):
        DataSettings(folds=4, fold=4)


def test_images_and_labels_are_those_that_were_published(cache):
    images, labels = load_digits(return_X_y=True)
    data = load(DIGITS, cache)
    for split in (data.train, data.validation, data.test()):
        pixels = split.pixels(np.arange(len(split)))  # (N, 1, 8, 8)
        assert np.array_equal(np.rint(pixels.reshape(-1, 64) / 255 * 16), images[split.places])
        assert np.array_equal(split.labels, labels[split.places])


def test_another_split_seed_gives_other_splits_from_the_same_decoded_images(cache):
    other = DIGITS.model_copy(update={"split_seed": 7})
    folders = sorted(path for path in cache.iterdir() if path.is_dir())
    prepare(other, cache)
    assert sorted(path for path in cache.iterdir() if path.is_dir()) == folders
    assert not np.array_equal(load(other, cache).test().places, load(DIGITS, cache).test().places)


def test_random_words_are_the_same_in_every_version_so_that_studies_keep_their_splits():
    words = random_words(3, Stream.EPOCH_ORDER, 5, 2).tolist()
    assert words == [13878714451076519919, 1308956982163961520]
    _, held = stratified_holdout(np.arange(40) % 4, 0.2, random_words(0, Stream.TEST_SPLIT, 0, 40))
    assert held.tolist() == [7, 9, 16, 23, 28, 30, 37, 38]


# --- what is known of a data set --------------------------------------------------------------------------------


def test_the_info_counts_describes_and_survives_json(cache):
    info = prepare(DIGITS, cache)
    pixels = load(DIGITS, cache).train.pixels(np.arange(info.train_images)) / 255
    assert (info.dataset, info.input_shape, info.num_classes) == ("Digits (scikit-learn)", (1, 8, 8), 10)
    assert info.class_names == tuple("0123456789")
    assert sum(info.class_counts) == info.train_images + info.validation_images
    assert info.mean == pytest.approx([pixels.mean()], rel=1e-12)
    assert info.std == pytest.approx([pixels.std()], rel=1e-12)
    assert info.imbalance == max(info.class_counts) / min(info.class_counts)
    assert DataInfo.from_dict(json.loads(json.dumps(info.to_dict()))) == info == load(DIGITS, cache).info


def test_size_and_channels_convert_a_built_in_set_and_its_label_says_so(tmp_path):
    choice = DataSettings(dataset="digits", image_size=16, channels=3)
    info = prepare(choice, tmp_path)
    assert info.dataset == "Digits (scikit-learn) at 3×16×16"
    pixels = load(choice, tmp_path).train.pixels(np.arange(5))
    assert pixels.shape == (5, *info.input_shape) == (5, 3, 16, 16)
    assert np.array_equal(pixels[:, 0], pixels[:, 2])


# --- the cache --------------------------------------------------------------------------------------------------


def test_preparing_twice_changes_no_file(cache):
    def state() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in cache.rglob("*")}

    first, before = prepare(DIGITS, cache), state()
    assert prepare(DIGITS, cache) == first
    assert state() == before


def test_loaded_images_are_mapped_not_copied_and_cannot_be_written(cache):
    images = load(DIGITS, cache).train.images
    owner = images
    while isinstance(owner, np.ndarray):
        owner = owner.base
    assert isinstance(owner, mmap.mmap)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


def test_loading_what_was_not_prepared_says_so(tmp_path):
    with pytest.raises(DataNotFound, match=r"'digits' isn't prepared in .*: run prepare"):
        load(DIGITS, tmp_path)
    prepare(DIGITS, tmp_path)
    for folder in filter(Path.is_dir, tmp_path.iterdir()):
        shutil.rmtree(folder)
    with pytest.raises(DataNotFound, match="isn't prepared"):
        load(DIGITS, tmp_path)
    assert prepare(DIGITS, tmp_path) == load(DIGITS, tmp_path).info


def cut_off(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1000)


def change_a_pixel(file: Path) -> None:
    with file.open("r+b") as pixels:
        pixels.seek(-100, os.SEEK_END)
        byte = pixels.read(1)
        pixels.seek(-100, os.SEEK_END)
        pixels.write(bytes([byte[0] ^ 1]))


def change_a_pixel_unseen(file: Path) -> None:
    """As a failing disk does it: size and time stay."""
    before = file.stat()
    change_a_pixel(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def change_the_shape(file: Path) -> None:
    np.save(file, np.load(file)[None])


DAMAGES = {
    "cut off": ("train_images.npy", cut_off),
    "other pixels": ("train_images.npy", change_a_pixel),
    "other pixels, unseen": ("train_images.npy", change_a_pixel_unseen),
    "another shape": ("train_images.npy", change_the_shape),
    "emptied": ("train_labels.npy", lambda file: file.write_bytes(b"")),
    "removed": ("train_labels.npy", Path.unlink),
    "no content": ("content.json", lambda file: file.write_text("{")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_made_anew_with_the_same_images(tmp_path: Path, damage: str):
    before = prepare(DIGITS, tmp_path)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    name, harm = DAMAGES[damage]
    whole = (folder / "train_images.npy").read_bytes()
    harm(folder / name)
    if damage == "other pixels, unseen":
        assert prepare(DIGITS, tmp_path) == before  # the controller's; a worker looks at sizes and times
    else:
        load(DIGITS, tmp_path)  # a worker's, in the middle of a study
    assert (folder / "train_images.npy").read_bytes() == whole
    assert prepare(DIGITS, tmp_path) == before


def test_a_cache_that_was_copied_is_used_and_not_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = prepare(DIGITS, tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)  # with other times
    monkeypatch.setattr("workers.images.cache._write_data_set", None)
    load(DIGITS, tmp_path / "b")
    assert prepare(DIGITS, tmp_path / "b") == before


def test_a_pointer_that_is_damaged_is_written_again(tmp_path: Path):
    before = prepare(DIGITS, tmp_path)
    (pointer,) = tmp_path.glob("*.json")
    for content in ("", "[1]", "{}"):
        pointer.write_text(content)
        assert prepare(DIGITS, tmp_path) == before


def test_processes_that_prepare_at_once_do_it_once_and_clear_what_a_killed_one_left(tmp_path):
    info = prepare(DIGITS, tmp_path)
    (folder,) = filter(Path.is_dir, tmp_path.iterdir())
    partial = folder.rename(folder.with_suffix(".partial"))  # as after a kill: part of the files, under the other name
    (partial / "train_images.npy").write_bytes(b"half")
    with ThreadPoolExecutor(4) as pool:  # file locks part threads as they part processes
        assert list(pool.map(lambda _: prepare(DIGITS, tmp_path), range(4))) == [info] * 4
    assert [path.suffix for path in sorted(tmp_path.iterdir()) if path.suffix not in {".json", ".lock"}] == [""]
    assert len(load(DIGITS, tmp_path).train) == info.train_images


def test_no_room_is_an_error_of_its_own_and_leaves_nothing_half_written(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))  # bytes; the images need 115,136
    try:
        with pytest.raises(DiskFull, match="no space is left to write"):
            prepare(DIGITS, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
    assert prepare(DIGITS, tmp_path).train_images > 0


@pytest.mark.parametrize("place", ["a file", "a system folder"])
def test_a_cache_that_cannot_be_written_is_named(tmp_path, place):
    folder = tmp_path / "cache" if place == "a file" else Path("/sys/condensery")
    if place == "a file":
        folder.write_text("in the way")
    elif not folder.parent.is_dir():
        pytest.skip("needs Linux's /sys, which not even root can write")
    with pytest.raises(ReadOnlyFolder, match=f"{folder}.* can't be written"):
        prepare(DIGITS, folder)


def test_progress_is_lines_in_a_log_and_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    with progress("Decoding", "Letters", 3000, interval_s=0.0) as advance:
        advance(1000)
    assert capsys.readouterr().err == "Decoding Letters: 1,000 of 3,000 images\n"
    with progress("Decoding", "Letters", 3000, interval_s=3600.0) as advance:
        advance(1000)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes stderr for a terminal
    with progress("Decoding", "Letters[/b]", 3000) as advance:  # a folder's name is no markup
        advance(3000)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Decoding Letters[/b]" in shown.err
    assert "100%" in shown.err


# --- batches ----------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**63), steps=st.lists(st.integers(0, 10**9) | st.integers(0, 40), max_size=6))
def test_a_batch_depends_on_seed_and_step_alone(cache, seed, steps):
    data = load(DIGITS, cache)
    walking = TrainingBatches(data.train, data.info, DIGITS, 64, seed)
    for step in steps:
        images, labels = walking.batch(step)
        fresh_images, fresh_labels = TrainingBatches(data.train, data.info, DIGITS, 64, seed).batch(step)
        assert torch.equal(images, fresh_images)
        assert torch.equal(labels, fresh_labels)


def test_other_seeds_and_other_steps_give_other_batches(cache):
    data = load(DIGITS, cache)
    first = TrainingBatches(data.train, data.info, DIGITS, 64, 0)
    other = TrainingBatches(data.train, data.info, DIGITS, 64, 1)
    batches = [first.batch(0), first.batch(1), first.batch(first.steps_per_epoch), other.batch(0)]
    for index, (images, _) in enumerate(batches):
        assert not any(torch.equal(images, later) for later, _ in batches[index + 1 :])


@given(count=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 9))
def test_an_epoch_takes_no_image_twice_and_drops_only_the_ragged_batch(count, batch_size, seed):
    split, info = numbered_split(count)
    batches = TrainingBatches(split, info, STILL, batch_size, seed)
    seen: list[int] = []
    for step in range(batches.steps_per_epoch):
        images, labels = batches.batch(step)
        assert labels.tolist() == [number % 2 for number in numbers_in(images)]
        assert len(labels) == min(batch_size, count)
        seen += numbers_in(images)
    assert len(set(seen)) == len(seen)
    assert count - len(seen) < min(batch_size, count)


def test_the_images_an_epoch_drops_come_back_in_others():
    split, info = numbered_split(10)
    batches = TrainingBatches(split, info, STILL, 8, seed=0)  # each epoch drops 2 of 10
    seen = {number for step in range(20) for number in numbers_in(batches.batch(step)[0])}
    assert seen == set(range(10))


def test_a_batch_is_normalised_float32_with_int64_labels(cache):
    data = load(DIGITS, cache)
    images, labels = TrainingBatches(data.train, data.info, DIGITS, 64, 0).batch(3)
    assert (images.dtype, images.shape) == (torch.float32, (64, 1, 8, 8))
    assert (labels.dtype, labels.shape) == (torch.int64, (64,))
    assert images.min().item() == pytest.approx(-data.info.mean[0] / data.info.std[0])  # black


@pytest.mark.parametrize(("images", "batch_size"), [(0, 4), (4, 0)])
def test_batches_need_images(images, batch_size):
    split, info = numbered_split(images)
    with pytest.raises(ValueError, match=f"got {images} images and batch_size={batch_size}"):
        TrainingBatches(split, info, STILL, batch_size, 0)


def test_steps_count_from_zero():
    split, info = numbered_split(4)
    with pytest.raises(ValueError, match="step=-1"):
        TrainingBatches(split, info, STILL, 2, 0).batch(-1)


def test_evaluation_goes_through_the_whole_split_in_order(cache):
    data = load(DIGITS, cache)
    batches = list(evaluation_batches(data.train, data.info, 100))
    images, labels = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    assert [len(y) for _, y in batches][-2:] == [100, data.info.train_images % 100]
    assert torch.equal(labels, torch.from_numpy(data.train.labels))
    pixels = data.train.pixels(np.arange(len(data.train))) / 255
    assert np.allclose(images.numpy(), (pixels - data.info.mean[0]) / data.info.std[0], atol=1e-5)
    assert images.mean().item() == pytest.approx(0, abs=1e-5)
    assert images.std(correction=0).item() == pytest.approx(1, abs=1e-5)


# --- augmentation -----------------------------------------------------------------------------------------------


def shifted_and_mirrored(image: np.ndarray, padding: int, flip: bool, words: np.ndarray) -> np.ndarray:
    """The definition, a pixel at a time: (C, H, W) and its three words."""
    _, height, width = image.shape
    down, right = (int(word) % (2 * padding + 1) - padding for word in words[:2])
    result = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            from_row = row + down
            from_column = (width - 1 - column if flip and int(words[2]) >= 2**63 else column) + right
            if 0 <= from_row < height and 0 <= from_column < width:
                result[:, row, column] = image[:, from_row, from_column]
    return result


@given(padding=st.integers(0, 4), flip=st.booleans(), seed=st.integers(0, 10**6))
def test_augmentation_is_a_crop_out_of_a_black_border_and_a_mirror(padding, flip, seed):
    images = np.random.default_rng(seed).integers(0, 256, (5, 3, 4, 5), dtype=np.uint8)
    words = random_words(seed, Stream.AUGMENTATION, 0, (3, 5))
    expected = [shifted_and_mirrored(images[i], padding, flip, words[:, i]) for i in range(5)]
    assert np.array_equal(augment(images.copy(), Augmentation(padding, flip), words), expected)


@pytest.mark.parametrize(
    ("dataset", "usual"),
    [
        ("digits", Augmentation(crop_padding=1, flip=False)),
        ("fashion-mnist", Augmentation(crop_padding=2, flip=False)),
        ("cifar10", Augmentation(crop_padding=4, flip=True)),
        ("cifar100", Augmentation(crop_padding=4, flip=True)),
        ("imagefolder:somewhere", Augmentation(crop_padding=8, flip=True)),
    ],
)
def test_each_data_set_has_its_usual_augmentation_and_settings_overrule_it(dataset, usual):
    info = DataInfo("a set", (3, 64, 64), 2, ("a", "b"), 2, 2, 2, (2, 2), (0.5,) * 3, (0.2,) * 3)
    assert Augmentation.of(DataSettings(dataset=dataset), info) == usual
    chosen = DataSettings(dataset=dataset, crop_padding=0, flip=not usual.flip)
    assert Augmentation.of(chosen, info) == Augmentation(crop_padding=0, flip=not usual.flip)


def details_of(count: int, **known: object) -> Details:
    return Details(tuple(map(str, range(count))), **known)


@pytest.mark.parametrize(
    ("groups", "most"),
    [
        (None, 16),  # of 12 + 8 images, 2 + 2 of them for the test
        ([number // 2 for number in range(12)] + [number // 2 + 6 for number in range(8)], 5),  # 5 + 3 remain
    ],
)
def test_more_folds_than_can_be_filled_are_refused_with_how_many_can_be(groups: list[int] | None, most: int):
    labels = np.array([0] * 12 + [1] * 8)
    details = details_of(20, groups=None if groups is None else tuple(map(str, groups)))
    published = Published(labels, None, details, None)
    names = {"label": "pets", "shape": (1, 4, 4), "class_names": ("a", "b")}
    unknown = PixelStatistics((0.0,), (1.0,))
    with pytest.raises(DataNotFound, match=rf"data\.folds must be at most {most}, as many as the (images|groups) of"):
        describe(DataSettings(folds=20), names, published, lambda places: unknown)
    for fold in range(most):
        info = describe(DataSettings(folds=most, fold=fold), names, published, lambda places: unknown)
        assert info.validation_images > 0


@pytest.mark.parametrize("images", [2, 4, 6, 10, 30])
def test_fewer_images_leave_a_split_made_by_hand_its_share(images: int):
    labels = np.array([0] * 20 + [1] * 20)
    by_hand = np.array(([False] * 16 + [True] * 4) * 2)
    details = details_of(40, validation=by_hand)
    places = place(labels, DataSettings(images=images), True, details)
    assert len(places.train) + len(places.validation) == images
    assert len(places.validation) == max(1, round(images * 0.2))
    assert by_hand[places.validation].all()
    assert not by_hand[places.train].any()
    for split in (places.train, places.validation):
        assert abs(labels[split].sum() * 2 - len(split)) <= 1
