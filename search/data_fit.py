"""A study's settings against its images and this machine: what can't be trained is refused before it is recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from search.settings import StudySettings
from space.errors import InvalidSettings
from workers.compiled.library import NotCompiled, load_library
from workers.images.data_info import DataInfo
from workers.images.source import Shape
from workers.wording import counted, listed, one_line

NVIDIA = Path("/proc/driver/nvidia/version")  # there with a driver, whether torch can use it or not
MOST_NAMED = 5  # classes in a line


def fit_to_data(settings: StudySettings, info: DataInfo) -> StudySettings:
    """Return the settings with the space's input shape and classes taken from the images.

    Raises:
        InvalidSettings: the file names another shape or number of classes, or a batch larger than the training split.
    """
    shape, classes = settings.space.get("input_shape"), settings.space.get("num_classes")
    if shape is not None and tuple(shape) != info.input_shape:
        raise InvalidSettings(
            f"space.input_shape must be the images' own, {list(info.input_shape)}, but is {list(shape)}; leave it out"
            f"{_how_to_convert(tuple(shape), info.input_shape)}."
        )
    if classes is not None and classes != info.num_classes:
        raise InvalidSettings(
            f"space.num_classes must be the images' own, {info.num_classes}, but is {classes}; leave it out."
        )
    training = settings.training_space()
    domain = training.domains.get("batch_size")
    largest = training.fixed.batch_size if domain is None else int(max(domain.extremes()))
    if largest > info.train_images:
        raise InvalidSettings(
            f"training.batch_size must be at most the number of training images, {info.train_images}, but "
            f"{'is' if domain is None else 'reaches'} {largest}; lower it, or use more images."
        )
    space = settings.search_space().for_data(info.input_shape, info.num_classes)
    return settings.model_copy(update={"space": space.to_settings()})


def check_engine_device(settings: StudySettings) -> None:
    """Check that this machine has the device and the kernel of a study whose trainings run here.

    torch is imported only for a GPU.

    Raises:
        InvalidSettings: it has not.
    """
    engine = settings.engine
    if engine.kind != "local":
        return
    if engine.kernel == "compiled":
        _check_compiled(settings)
    if engine.device not in ("auto", "cpu") or (engine.device == "auto" and NVIDIA.exists()):
        from workers.training.device import check_device

        check_device(engine.device)


def _check_compiled(settings: StudySettings) -> None:
    try:
        load_library()
        reason = None
    except NotCompiled as error:
        reason = str(error)
    if settings.engine.device not in ("auto", "cpu"):
        reason = f"it runs on the CPU, and engine.device is {settings.engine.device!r}"
    if any(float(rate) > 0 for rate in settings.search_space().dropout.extremes()):
        reason = "it knows no dropout, and space.dropout has some"
    if reason is not None:
        raise InvalidSettings(f"engine.kernel = 'compiled' can't be met: {reason}; or set it to 'auto'.")


def _how_to_convert(wanted: Shape, images: Shape) -> str:
    """Return which data settings would give images of the wanted shape, as the end of a sentence."""
    changes = []
    if len(wanted) == 3 and wanted[0] != images[0] and wanted[0] in (1, 3):
        changes.append(f"data.channels = {wanted[0]}")
    if len(wanted) == 3 and wanted[1:] != images[1:] and wanted[1] == wanted[2]:
        changes.append(f"data.image_size = {wanted[1]}")
    return f", or convert the images with {' and '.join(changes)}" if changes else ""


def describe_data(info: DataInfo) -> str:
    """Return one line about the images, which mentions imbalanced or missing classes, and grey images in colour."""
    channels, height, width = info.input_shape
    text = (
        f"{one_line(info.dataset, 300)}: {info.train_images} training, {info.validation_images} validation and "
        f"{info.test_images} test images, {channels}x{height}x{width}, {info.num_classes} classes"
    )
    missing = [name for name, images in zip(info.class_names, info.class_counts, strict=True) if not images]
    if missing:
        names = listed(missing, most=MOST_NAMED)
        text += f", of which {counted(len(missing), 'class', 'classes')} ({names}) no image is used"
    elif info.imbalance >= 1.5:
        text += f", the largest class {info.imbalance:.1f} times the smallest"
    if channels == 3 and np.ptp(info.mean) < 1e-12 and np.ptp(info.std) < 1e-12:
        text += "; the images are grey, so data.channels = 1 gives the same for fewer macs"
    return text
