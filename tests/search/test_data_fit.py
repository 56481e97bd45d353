"""What can't be trained on a study's images, or on this machine, is refused in one line before it is recorded."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from dashboards.terminal.answers import balance_text, outline_document, outline_panel, search_lines
from search.data_fit import check_engine_device, describe_data, fit_to_data
from search.launch import launch
from search.loop.callbacks import SilentCallback
from search.samplers.price_aware import whole_until
from search.settings import StudySettings
from search.time_estimate import outline_study
from space.errors import CondenseryError, DataNotFound, InvalidSettings, UnreadableImage
from tests.search.tiny_studies import SPACE, sqlite_url, tiny_settings
from workers.compiled.library import NotCompiled
from workers.images.cache import prepare
from workers.images.data_info import DataInfo
from workers.settings import DataSettings

GREY = DataInfo(
    dataset="Greys",
    input_shape=(1, 8, 8),
    num_classes=2,
    class_names=("a", "b"),
    train_images=40,
    validation_images=10,
    test_images=10,
    class_counts=(25, 25),
    mean=(0.5,),
    std=(0.25,),
)
COLOUR = GREY.from_dict(
    {**GREY.to_dict(), "input_shape": (3, 32, 32), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}
)

Paint = Callable[[int], Any]  # the image of this number, as Pillow takes it


def study(**changes: Any) -> StudySettings:
    """The tiny study, whose file says neither the shape of the images nor their classes, with batches of 8."""
    space = {key: value for key, value in SPACE.items() if key not in ("input_shape", "num_classes")}
    return tiny_settings(**{"space": space, "training__batch_size": 8, **changes})


def images(folder: Path, paint: Paint, **classes: int) -> DataSettings:
    """Write a folder of so many 8x8 images of each class."""
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            image = Image.fromarray(paint(number))
            image.save(folder / name / f"{number}.{'tiff' if image.mode == 'F' else 'png'}")
    return DataSettings(dataset=f"imagefolder:{folder}", image_size=8)


def speckled(number: int) -> Any:
    return np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def refused_everywhere(settings: StudySettings, folder: Path, error: type[CondenseryError], rule: str) -> None:
    """`check` and `launch` refuse the study with the same line, and nothing is recorded."""
    with pytest.raises(error, match=rule):
        outline_study(settings)
    refused_at_launch(settings, folder, error, rule)


def refused_at_launch(settings: StudySettings, folder: Path, error: type[CondenseryError], rule: str) -> None:
    with pytest.raises(error, match=rule) as refusal:
        launch(settings, sqlite_url(folder), False, SilentCallback())
    assert "\n" not in str(refusal.value)
    assert not list(folder.glob("*.db"))
    assert not (folder / "study-files" / "tiny").exists()


def test_the_spaces_shape_follows_the_images():
    fitted = fit_to_data(study(), COLOUR)
    assert (fitted.space["input_shape"], fitted.space["num_classes"]) == ([3, 32, 32], 2)
    assert fitted.search_space().sample(np.random.default_rng(0)).num_classes == 2
    assert fit_to_data(fitted, COLOUR) == fitted  # a study's stored settings fit too


@pytest.mark.parametrize(
    ("space", "info", "advice"),
    [
        ({"input_shape": [3, 8, 8]}, GREY, r"\[1, 8, 8\], but is \[3, 8, 8\]; .* convert .* with data.channels = 3\."),
        ({"input_shape": [1, 32, 32]}, COLOUR, r"but is \[1, 32, 32\]; leave it out, or .* data.channels = 1\."),
        ({"input_shape": [3, 16, 16]}, COLOUR, r"leave it out, or convert the images with data.image_size = 16\."),
        ({"input_shape": [1, 16, 16]}, COLOUR, "with data.channels = 1 and data.image_size = 16"),
        ({"num_classes": 3}, GREY, "num_classes must be the images' own, 2, but is 3; leave it out"),
    ],
)
def test_a_network_for_other_images_is_refused_with_the_setting_that_converts_them(space, info, advice: str):
    settings = study()
    with pytest.raises(InvalidSettings, match=advice):
        fit_to_data(settings.model_copy(update={"space": {**settings.space, **space}}), info)


@pytest.mark.parametrize("sizes", [41, [8, 41], {"low": 8, "high": 48, "step": 8}])
def test_a_batch_larger_than_the_training_split_is_refused(sizes):
    with pytest.raises(
        InvalidSettings, match=r"batch_size must be at most the number of training images, 40, but .* 4"
    ):
        fit_to_data(study(training__batch_size=sizes), GREY)
    assert fit_to_data(study(training__batch_size=40), GREY).training["batch_size"] == 40


def test_a_batch_larger_than_the_digits_is_refused_by_check_and_launch(tmp_path: Path):
    settings = study(training__batch_size=5000)
    refused_everywhere(settings, tmp_path, InvalidSettings, "1151, but is 5000; lower it")


def test_images_of_one_class_are_refused(tmp_path: Path):
    settings = study(data=images(tmp_path / "one", speckled, a=9).model_dump())
    refused_everywhere(settings, tmp_path, DataNotFound, "images of at least 2 classes, but holds 1")


def test_a_training_split_of_one_class_is_refused(tmp_path: Path):
    few = images(tmp_path / "few", speckled, a=90, b=1).model_copy(update={"images": 4})
    settings = study(data=few.model_dump())
    refused_everywhere(
        settings, tmp_path, DataNotFound, "at least 2 classes, but all 3 are of 'a'; .* raise data.images"
    )


def test_too_few_images_for_a_validation_split_are_refused(tmp_path: Path):
    settings = study(data=images(tmp_path / "pairs", speckled, a=2, b=2).model_dump())
    refused_everywhere(settings, tmp_path, DataNotFound, "a class with at least 3 images")


@pytest.mark.parametrize("colour", [0, 255, 77])
def test_images_that_are_all_one_colour_are_refused(tmp_path: Path, colour: int):
    flat = images(tmp_path / "flat", lambda _: np.full((8, 8, 3), colour, np.uint8), a=9, b=9)
    refused_at_launch(study(data=flat.model_dump()), tmp_path, DataNotFound, "all pixels .* are the same")


def test_pixels_that_are_no_numbers_are_refused_with_the_file(tmp_path: Path):
    holes = images(tmp_path / "holes", lambda _: np.full((8, 8), np.nan, np.float32), a=9, b=9)
    refused_at_launch(
        study(data=holes.model_dump()), tmp_path, UnreadableImage, r"can't be read .*a/0\.tiff .* 8 or 16 bits"
    )


def test_grey_images_in_colour_are_named_and_colour_images_in_grey_are_converted(tmp_path: Path):
    grey = images(tmp_path / "grey", lambda number: speckled(number)[..., 0], a=9, b=9)
    said = describe_data(prepare(grey, tmp_path / "cache"))
    assert "3x8x8" in said
    assert said.endswith("the images are grey, so data.channels = 1 gives the same for fewer macs")
    colour = images(tmp_path / "colour", speckled, a=9, b=9)
    assert "grey" not in describe_data(prepare(colour, tmp_path / "cache"))
    as_grey = describe_data(prepare(colour.model_copy(update={"channels": 1}), tmp_path / "cache"))
    assert "1x8x8" in as_grey
    assert "grey" not in as_grey


def test_classes_of_which_no_image_is_used_are_named():
    said = describe_data(GREY.from_dict({**GREY.to_dict(), "class_counts": (50, 0)}))
    assert said.endswith("2 classes, of which 1 class (b) no image is used")


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((25, 25), None),
        ((104, 100), None),
        ((11, 10), "the largest class is 1.1 times the smallest"),
        ((30, 10), "the largest class is 3.0 times the smallest"),
        ((50, 0), "no image of 1 class is used"),
    ],
)
def test_check_says_how_unequal_classes_are_where_they_are(counts: tuple[int, int], said: str | None):
    assert balance_text(GREY.from_dict({**GREY.to_dict(), "class_counts": counts})) == said


def test_check_has_no_line_about_the_balance_of_equal_classes(tmp_path: Path):
    console = Console(file=io.StringIO(), width=200)
    for b in (9, 18):
        data = images(tmp_path / str(b), speckled, a=9, b=b).model_dump()
        console.print(outline_panel(outline_study(study(data=data))))
    lines = console.file.getvalue().splitlines()
    assert sum(line.startswith("study") for line in lines) == 2
    assert [line.split() for line in lines if line.startswith("balance")] == [
        "balance the largest class is 2.0 times the smallest".split()
    ]


@pytest.mark.parametrize(
    ("sampler", "layers", "said"),
    [
        (
            "price-aware",
            [1],
            ("6 trainings spread over the costs", "latency on host, from", "looks at every candidate"),
        ),
        (
            "price-aware",
            [1, 2, 3, 4, 5, 6, 7, 8],
            ("price-aware", "modelled: accuracy", "looks at a sample of candidates"),
        ),
        ("tpe", [1], ("tpe (Optuna's)", "first 6 trainings are random", "only once it is proposed")),
        ("random", [1], ("drawn at random",)),
    ],
)
def test_check_says_how_the_study_will_be_searched(tmp_path: Path, sampler: str, layers: list[int], said: tuple):
    data = images(tmp_path, speckled, a=9, b=9).model_dump()
    settings = study(
        data=data, space__layers=layers, space__growth=[4 * one for one in layers], search__sampler=sampler
    )
    outline = outline_study(settings.model_copy(update={"search": settings.search.model_copy(update={"startup": 6})}))
    text = " ".join(search_lines(outline))
    assert all(words in text for words in said), text
    assert outline_document(outline, None)["sampler"] == sampler


def test_check_says_until_when_a_larger_space_is_looked_at_as_a_whole(tmp_path: Path):
    data = images(tmp_path, speckled, a=9, b=9).model_dump()
    for trainings, said in (
        (200, "every candidate until there are 102 trainings, then at a sample"),
        (50, "every candidate"),
    ):
        outline = replace(outline_study(study(data=data, study__trainings=trainings)), whole_until=whole_until(15_625))
        (looked,) = [line for line in search_lines(outline) if line.startswith("each proposal looks at")]
        assert looked.startswith(f"each proposal looks at {said}")
        assert outline_document(outline, None)["looks_at_whole_space"] == (trainings == 50)
    assert whole_until(4_000) == math.inf
    assert whole_until(16_385) == 0


def test_check_says_which_classes_have_too_few_validation_images_and_what_is_maximised(tmp_path: Path):
    data = images(tmp_path, speckled, a=90, b=200).model_dump()
    outline = outline_study(study(data=data, study__objective="macro_f1"))
    document = outline_document(outline, None)
    assert document["objective"] == "macro_f1"
    assert document["data"]["validation_counts"] == [14, 32]
    (remark,) = document["remarks"]
    assert remark.startswith("1 class has fewer than 20 validation images (a 14), so that")
    console = Console(file=io.StringIO(), width=300)
    console.print(outline_panel(outline))
    assert remark in console.file.getvalue()
    assert "modelled: macro-F1" in " ".join(search_lines(outline))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:7", "mps"])
def test_a_device_that_is_not_here_is_refused_before_anything_is_recorded(tmp_path: Path, device: str):
    settings = study(engine__device=device)
    refused_everywhere(settings, tmp_path, InvalidSettings, f"is '{device}', and here torch sees no .*\"cpu\"")


def test_a_kernel_that_cannot_be_had_is_refused_before_anything_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    refused = r"engine.kernel = 'compiled' can't be met: {}; or set it to 'auto'"
    dropout = study(engine__kernel="compiled", space__dropout=[0.0, 0.1])
    refused_everywhere(dropout, tmp_path, InvalidSettings, refused.format("it knows no dropout.*"))
    monkeypatch.setattr("search.data_fit.load_library", Mock(side_effect=NotCompiled("there is no C compiler")))
    refused_everywhere(
        study(engine__kernel="compiled"), tmp_path, InvalidSettings, refused.format("there is no C compiler")
    )


def test_the_device_of_workers_elsewhere_is_not_looked_for_here():
    check_engine_device(study(engine__device="cuda:7", engine__kind="ray"))
