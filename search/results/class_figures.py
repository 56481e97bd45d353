"""What a network makes of each class, in figures and in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from search.results.plain_text import one_line
from workers.metrics import METRICS, NAMES, Predictions, precisions, recalls, wilson_interval
from workers.wording import counted

Splits = Mapping[str, Predictions]  # by the split's name, the better known one first
MOST_IN_CARD = 30  # classes


@dataclass(frozen=True)
class ClassFigures:
    """One class: how many images of it were recognised, and how far its name can be trusted."""

    name: str
    images: int  # of the split
    recall: float | None  # share of these that were recognised; None without images
    precision: float | None  # share of what was taken for it that belongs to it; None where nothing was
    taken_for: str | None  # the class that its images were most often taken for instead; None if they never were
    taken: int  # how many of them

    @property
    def confusion(self) -> str:
        """What its images were most often taken for, with how many of them: "dog (12)"; "" if they never were."""
        return "" if self.taken_for is None else f"{self.taken_for} ({self.taken:,})"


def class_figures(predictions: Predictions, names: Sequence[str]) -> list[ClassFigures]:
    """Return the figures of each class, in the order of the classes; `names` may lack some."""
    matrix = predictions.confusion
    called = class_names(len(matrix), names)
    errors = matrix - np.diag(np.diagonal(matrix))
    recall, precision = recalls(matrix), precisions(matrix)
    return [
        ClassFigures(
            name=called[number],
            images=int(matrix[number].sum()),
            recall=_known(recall[number]),
            precision=_known(precision[number]),
            taken_for=called[int(errors[number].argmax())] if errors[number].any() else None,
            taken=int(errors[number].max()),
        )
        for number in range(len(matrix))
    ]


def worst_first(figures: Sequence[ClassFigures]) -> list[ClassFigures]:
    """Return the classes that have images, the least recognised first."""
    return sorted(
        (one for one in figures if one.recall is not None), key=lambda one: (one.recall, -one.images, one.name)
    )


def class_names(classes: int, names: Sequence[str]) -> list[str]:
    """Return a name for each of so many classes: the given ones, and numbers beyond them."""
    return [str(names[number]) if number < len(names) else f"class {number}" for number in range(classes)]


def names_in(data_info: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the names of the classes in a study's stored facts of its images."""
    return tuple(map(str, (data_info or {}).get("class_names", ())))


def split_document(predictions: Predictions, names: Sequence[str]) -> dict[str, Any]:
    """Return all that predictions tell of a split as plain JSON values; a figure that they don't tell is None."""
    figures = class_figures(predictions, names)
    return {
        "images": len(predictions),
        **predictions.metrics(),
        "classes": [
            {"name": one.name, "images": one.images, "recall": one.recall, "precision": one.precision}
            for one in figures
        ],
        "confusion": predictions.confusion.tolist(),  # rows: the true class; columns: what it was taken for
    }


def accuracy_table(splits: Splits) -> dict[str, Any]:
    """Return what deploy.toml says beside top-1: every figure of each split, and recall and precision by class.

    These are of the test split where it was used.
    """
    figures = {
        f"{split}_{name}": value
        for split, predictions in splits.items()
        for name, value in predictions.metrics().items()
        if name != "top1"
    }
    for split, predictions in list(splits.items())[:1]:
        for name, shares in (("recall", recalls), ("precision", precisions)):
            figures[f"{split}_{name}"] = shares(predictions.confusion).tolist()
    return {name: value for name, value in figures.items() if value is not None}


def figure_rows(splits: Splits) -> Iterator[str]:
    """Yield a row of the card's table for every figure but top-1 that is known."""
    of_split = {split: predictions.metrics() for split, predictions in splits.items()}
    for name in METRICS[1:]:
        known = [(split, value) for split, figures in of_split.items() if (value := figures[name]) is not None]
        if known:
            yield f"| {NAMES[name]} | {', '.join(f'{value:.2%} ({split})' for split, value in known)} |"


def classes_part(splits: Splits, data_info: Mapping[str, Any] | None) -> str:
    """Return the card's part about the classes, of the test split where it was used; "" where nothing is known."""
    for split, predictions in splits.items():
        figures = class_figures(predictions, names_in(data_info))
        shown = worst_first(figures)[:MOST_IN_CARD]
        lines = [
            f"| {one_line(one.name)} | {one.images:,} | {_share(one.recall)} | {_interval(one)} | "
            f"{_share(one.precision)} | {one_line(one.confusion)} |"
            for one in shown
        ]
        left_out = len(figures) - len(shown)
        rest = f"\n{counted(left_out, 'further class', 'further classes')}: see deploy.toml.\n" if left_out else ""
        head = f"| class | {split} images | recall | 95 % interval | precision | most often taken for |\n|{'---|' * 6}"
        return f"\n## Classes, the least recognised first\n\n{head}\n" + "\n".join(lines) + f"\n{rest}"
    return ""


def _interval(one: ClassFigures) -> str:
    if one.recall is None:
        return ""
    low, high = wilson_interval(one.recall, one.images)
    return f"{low:.1%} to {high:.1%}"


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _known(share: float) -> float | None:
    return None if math.isnan(share) else float(share)
