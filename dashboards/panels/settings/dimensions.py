"""The settings of networks and trainings as numbers: what parallel coordinates, importance, contour and slice go by.

How a dimension is scaled doesn't change when the study grows, so that a brush means the same an hour later: macs,
latency and powers of two are on a logarithmic scale, everything else on a linear one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dashboards.data.columns import Floats, StudyColumns, View
from dashboards.formats import count, digits_ms, percent
from dashboards.panels.style import is_log

MOST_TICKS = 8
OUTCOMES = ("macs", "latency", "score")  # beside the settings


@dataclass(frozen=True, eq=False)
class Dimension:
    """One axis; `values` are the parameter's own, `plotted` their positions on the axis, both (k,)."""

    key: str
    label: str
    values: Floats
    log: bool

    @property
    def plotted(self) -> Floats:
        """The positions of the values on the axis."""
        return plotted_at(self.values, self.log)

    def text(self, value: float) -> str:
        """Return one of its values as people read it."""
        if self.key == "score":
            return percent(value / 100)
        if self.key == "macs":
            return count(value)
        return digits_ms(value, 4) if self.key == "latency" else f"{value:.4g}"

    def ticks(self) -> tuple[list[float], list[str]]:
        """Return places and texts of the axis's ticks: at its values where these are few, else at round ones."""
        distinct = np.unique(self.values[np.isfinite(self.values)])
        if len(distinct) <= MOST_TICKS and self.key not in OUTCOMES:
            return plotted_at(distinct, self.log).tolist(), [self.text(value) for value in distinct]
        ticks = round_values(float(distinct[0]), float(distinct[-1]), self.log)
        return plotted_at(np.array(ticks), self.log).tolist(), [_short(value) for value in ticks]


def round_values(low: float, high: float, log: bool) -> list[float]:
    """Return some round values from `low` to `high`; `low` alone where the two are equal."""
    if log and low > 0:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
            candidates = (digit * 10.0**power for power in powers for digit in digits)
            values = [value for value in candidates if low <= value <= high]
            if len(values) >= 4:
                return values
    if high <= low:
        return [low]
    unit = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(unit * factor for factor in (1, 2, 5, 10) if (high - low) / (unit * factor) <= 6)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{place * step:.9g}") for place in range(first, last + 1)]


def plotted_at(values: Floats, log: bool) -> Floats:
    """Return the positions of values on a linear or a logarithmic axis."""
    if not log:
        return values
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log10(values)


def _short(value: float) -> str:
    for limit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g} {name}"
    return f"{value:g}"


def dimensions_of(columns: StudyColumns, view: View) -> list[Dimension]:
    """Return every dimension of a study in the order in which they are shown, with the values (n,) of all trials.

    A stage that a network doesn't have counts as a stage of no layers and no growth.
    """
    dimensions = [
        Dimension("G", "G", columns.groups_1x1.astype(float), True),
        Dimension("C", "C", columns.condense_factor.astype(float), True),
        Dimension("bottleneck", "bottleneck", columns.bottleneck.astype(float), True),
        Dimension("groups_3x3", "G 3×3", columns.groups_3x3.astype(float), True),
        Dimension("stages", "stages", np.isfinite(columns.stages).sum(axis=1).astype(float), False),
        Dimension("layers", "layers", columns.layers.astype(float), False),
    ]
    for name, values in (("layers", columns.stages), ("growth", columns.growth)):
        for stage in range(values.shape[1]):
            dimensions.append(
                Dimension(f"{name}_{stage + 1}", f"{name} {stage + 1}", np.nan_to_num(values[:, stage]), False)
            )
    for name, values in training_values(columns).items():
        dimensions.append(Dimension(f"training.{name}", name.replace("_", " "), values, is_log(values)))
    if view.group is not None:  # else networks priced in 8 bits and in 32 would look alike
        bits = np.where(columns.of_group(view.group).int8, 8.0, 32.0)
        dimensions.append(Dimension("bits", "bits of latency", bits, True))
    dimensions.append(Dimension("macs", "macs", columns.macs.astype(float), True))
    latency = columns.axis_values(View(view.group, "latency"))
    dimensions.append(Dimension("latency", "latency, ms", latency, True))
    dimensions.append(
        Dimension("score", f"{columns.score_name}, %", np.where(columns.trained, 100 * columns.score, np.nan), False)
    )
    return dimensions


def training_values(columns: StudyColumns) -> dict[str, Floats]:
    """Return by name the training settings (n,) that are numbers and differ between trials."""
    names = dict.fromkeys(name for training in columns.training for name in training)
    varied = {}
    for name in names:
        raw = [training.get(name) for training in columns.training]
        if all(isinstance(value, int | float | None) for value in raw):
            values = np.array([math.nan if value is None else float(value) for value in raw])
            if varies(values):
                varied[name] = values
    return varied


def varies(values: Floats) -> bool:
    """Return whether the values that are known differ."""
    finite = values[np.isfinite(values)]
    return bool(finite.size) and bool((finite != finite[0]).any())


def says_the_same(first: Floats, second: Floats) -> bool:
    """Return whether each of two settings follows from the other, in all that was tried."""
    pairs = len(np.unique(np.stack((first, second), axis=1), axis=0))
    return pairs == len(np.unique(first)) == len(np.unique(second))
