"""Labels of a user's own code as text, and the order of their classes: as they are numbered, not as they are spelt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from workers.wording import listed, one_line


def named_labels(
    labels: Sequence[Any], class_names: Sequence[Any] | None
) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """Return the labels as text and the classes in their order, None where they have none but that of their names.

    Args:
        labels: all of them text, or all of them whole numbers.
        class_names: by the labels' numbers, or those that the labels are of; None: numbers are their own names.

    Raises:
        ValueError: a label is neither, or has no name; or two classes have one name.
    """
    names = None if class_names is None else tuple(str(name) for name in class_names)
    if names is not None and (twice := [name for name, count in Counter(names).items() if count > 1]):
        raise ValueError(f"class names must differ, but these are there twice: {listed(twice)}")
    if all(isinstance(label, str) for label in labels):
        texts = tuple(map(str, labels))
        if names is not None and (unknown := sorted(set(texts) - set(names))):
            raise ValueError(f"each label must be a class's name, but these aren't: {listed(unknown)}")
        return texts, names
    numbers = [_whole(label) for label in labels]
    if names is None:
        return tuple(map(str, numbers)), tuple(map(str, sorted(set(numbers))))
    if outside := sorted({number for number in numbers if not 0 <= number < len(names)}):
        raise ValueError(
            f"each label must be from 0 to {len(names) - 1}, the last of {len(names)} class names, but these aren't: "
            f"{listed(list(map(str, outside)))}"
        )
    return tuple(names[number] for number in numbers), names


def _whole(label: Any) -> int:
    try:
        number = None if isinstance(label, str | bytes) else int(label)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or number != label:
        raise ValueError(f"labels must all be text or all be whole numbers, but one is {one_line(repr(label))}")
    return number
