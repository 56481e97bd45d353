"""A network's figures in words: how good it is by every metric that is recorded, and class by class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dashboards.formats import NOTHING, one_line, percent
from search.results.class_figures import ClassFigures, class_figures, worst_first
from search.store.rows import TrialRow
from workers.metrics import METRICS, NAMES, Predictions

CLASS_HEADERS = ("class", "images", "recall", "precision", "most often taken for")


def metric_lines(row: TrialRow) -> Iterator[tuple[str, str]]:
    """Yield name and value of each figure of a trial's network on the validation images, what is maximised first."""
    for name in sorted(METRICS, key=lambda name: name != row.objective):
        value: float | None = getattr(row, name)
        if value is not None:
            yield NAMES[name], percent(value)


def class_lines(predictions: Predictions, names: Sequence[str], most: int) -> list[tuple[str, ...]]:
    """Return the classes as lines under `CLASS_HEADERS`, the least recognised first, and at most so many."""
    return [_line(one) for one in worst_first(class_figures(predictions, names))[:most]]


def _line(one: ClassFigures) -> tuple[str, ...]:
    shares = (NOTHING if share is None else percent(share, 1) for share in (one.recall, one.precision))
    return (one_line(one.name, 60), f"{one.images:,}", *shares, one_line(one.confusion, 60))
