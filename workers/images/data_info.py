"""The description of a data set once it is split: its shape, classes, counts, and the statistics that normalise it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from space.errors import DataNotFound
from workers.images.pixel_values import PixelStatistics
from workers.images.source import Details, Labels, Shape
from workers.images.splits import Places, Positions, most_folds, place
from workers.preprocessing import PixelType
from workers.settings import DataSettings
from workers.wording import counted, listed, one_line


@dataclass(frozen=True)
class DataInfo:
    """A data set as it was split, described for networks, tables and readers.

    `class_counts` counts the training images that are used, before the validation split, and `validation_counts` those
    that it takes (() where an earlier version described the images). `mean`, `std`, `pixel_type` and `pixel_range` are
    of the images after it, see `workers.images.pixel_values.PixelStatistics`.
    """

    dataset: str  # as shown to people
    input_shape: Shape  # (C, H, W)
    num_classes: int
    class_names: tuple[str, ...]
    train_images: int
    validation_images: int
    test_images: int
    class_counts: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str = (
        ""  # SHA-256 over decoded images and labels (16 digits); a copied or touched file changes nothing
    )
    validation_counts: tuple[int, ...] = ()
    pixel_type: PixelType = "uint8"
    pixel_range: tuple[float, float] = (0.0, 255.0)
    notes: tuple[str, ...] = ()  # what a person should know: how the images were found, and what was left out

    @property
    def imbalance(self) -> float:
        """Images of the most frequent class per image of the rarest; 1 is balanced, inf where a class has none."""
        rarest = min(self.class_counts)
        return max(self.class_counts) / rarest if rarest else math.inf

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DataInfo:
        """Return the DataInfo whose `to_dict` (through JSON or not) gave these values."""
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**fields)


class Published(NamedTuple):
    """The labels of a data set as it is published, and what else is known of each image."""

    labels: Labels
    test_labels: Labels | None
    details: Details | None
    test_details: Details | None

    def places(self, settings: DataSettings) -> Places:
        """Return which of the images (of `test_labels`: all) are in which split."""
        return place(self.labels, settings, self.test_labels is not None, self.details)


def describe(
    settings: DataSettings,
    names: dict[str, Any],
    published: Published,
    statistics: Callable[[Positions], PixelStatistics],
    notes: Sequence[str] = (),
) -> DataInfo:
    """Split and describe a data set; `statistics` of the places of training images.

    Raises:
        DataNotFound: a split would have no image, the training split no second class or no image that weighs anything,
            or, once files that can't be read are left out, a class no training image.
    """
    _check_kept(names, published)
    train_labels, test_labels = published.labels, published.test_labels
    if settings.folds is not None and published.details is not None and published.details.validation is not None:
        raise DataNotFound(
            f"{names['label']} has a validation split that was made by hand, so it can't be in {settings.folds} folds; "
            "leave data.folds out, or put the validation images among the training images."
        )
    if settings.folds is not None:
        _check_folds(settings, names["label"], published)
    places = published.places(settings)
    if len(places.validation) == 0:
        raise DataNotFound(_too_few(settings, names["label"], published, places))
    learned = np.unique(train_labels[places.train])
    if len(learned) < 2:
        raise DataNotFound(
            f"{names['label']} needs training images of at least 2 classes, but all {len(places.train)} are of "
            f"{names['class_names'][learned[0]]!r}; add images"
            f"{'' if settings.images is None else ', or raise data.images'}."
        )
    in_training = train_labels[np.concatenate([places.train, places.validation])]
    in_test = test_labels if places.test is None else places.test
    if places.test is not None and len(places.test) == 0:
        raise DataNotFound(_too_few(settings, names["label"], published, places))
    _check_weights(names["label"], published, places)
    pixels = statistics(places.train)
    return DataInfo(
        dataset=names["label"],
        input_shape=tuple(names["shape"]),
        num_classes=len(names["class_names"]),
        class_names=tuple(names["class_names"]),
        train_images=len(places.train),
        validation_images=len(places.validation),
        test_images=0 if in_test is None else len(in_test),
        class_counts=tuple(np.bincount(in_training, minlength=len(names["class_names"])).tolist()),
        mean=pixels.mean,
        std=pixels.std,
        pixel_type=pixels.pixel_type,
        pixel_range=pixels.pixel_range,
        validation_counts=tuple(
            np.bincount(train_labels[places.validation], minlength=len(names["class_names"])).tolist()
        ),
        notes=(*notes, *_lacking(names["class_names"], published, places)),
    )


def _lacking(class_names: Sequence[str], published: Published, places: Places) -> list[str]:
    """Return what is to be said of the splits that have no image of a class of which others have some."""
    labels, test_labels = published.labels, published.test_labels
    splits: dict[str, Labels | None] = {"training": labels[places.train], "validation": labels[places.validation]}
    splits["test"] = labels[places.test] if places.test is not None else test_labels
    counts = {
        split: np.bincount(of_split, minlength=len(class_names))
        for split, of_split in splits.items()
        if of_split is not None
    }
    used, said = np.sum(list(counts.values()), axis=0) > 0, []
    for split, count in counts.items():
        if lacking := [class_names[place] for place in np.flatnonzero(used & (count == 0)).tolist()]:
            they = "it is" if len(lacking) == 1 else "they are"
            so = f"{they} never learned" if split == "training" else f"nothing is known of how well {they} recognised"
            classes = counted(len(lacking), "class", "classes")
            said.append(f"the {split} split has no images of {classes} ({listed(lacking)}), so {so}")
    return said


def _check_kept(names: dict[str, Any], published: Published) -> None:
    """Check that a listing's splits and classes still have images: files that can't be read may have been skipped.

    Raises:
        DataNotFound: one has none.
    """
    labels, details = published.labels, published.details
    if details is None:
        return
    label, remedy = one_line(names["label"]), "can be read; repair its files, or add others."
    in_validation = np.zeros(len(labels), dtype=np.bool_) if details.validation is None else details.validation
    if details.validation is not None and not in_validation.any():
        raise DataNotFound(f"no image of the validation split of {label} {remedy}")
    if published.test_labels is not None and not len(published.test_labels):
        raise DataNotFound(f"no image of the test split of {label} {remedy}")
    counts = np.bincount(labels[~in_validation], minlength=len(names["class_names"]))
    if lacking := [names["class_names"][place] for place in np.flatnonzero(counts == 0)]:
        classes = counted(len(lacking), "class", "classes")
        raise DataNotFound(f"no training image of {classes} of {label} ({listed(lacking)}) {remedy}")


def _check_weights(label: str, published: Published, places: Places) -> None:
    """Check that something can be learned of the training images.

    Raises:
        DataNotFound: all of them weigh 0.
    """
    weights = None if published.details is None else published.details.weights
    if weights is not None and not weights[places.train].any():
        raise DataNotFound(
            f"all {len(places.train)} training images of {one_line(label)} weigh 0, so nothing is learned of them; "
            "give some of them a weight above 0."
        )


def _check_folds(settings: DataSettings, label: str, published: Published) -> None:
    """Check that each fold can be a validation split.

    Raises:
        DataNotFound: one can't, while it could with fewer folds.
    """
    most = most_folds(published.labels, settings, published.test_labels is not None, published.details)
    if 2 <= most < (settings.folds or most):
        grouped = published.details is not None and published.details.groups is not None
        things = "groups" if grouped else "images"
        more = "" if settings.images is None else ", or raise data.images"
        raise DataNotFound(
            f"data.folds must be at most {most}, as many as the {things} of {one_line(label)} fill, but is "
            f"{settings.folds}; lower it, or add {things}{more}."
        )


def _too_few(settings: DataSettings, label: str, published: Published, places: Places) -> str:
    """Return why a split is empty, and what to do."""
    more = "" if settings.images is None else ", or raise data.images"
    if published.details is not None and published.details.groups is not None:
        return (
            f"{label} needs more groups: one of them can't be held out and leave images of each of its classes; "
            f"add groups, or leave data.group out{more}."
        )
    by_hand = published.details is not None and published.details.validation is not None
    made = [*([] if by_hand else ["validation"]), *([] if places.test is None else ["test"])]
    return (
        f"{label} needs a class with at least {1 + len(made)} images, to hold some out for {' and '.join(made)}; "
        f"add images{more}."
    )
