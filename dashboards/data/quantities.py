"""What a chart can have on an axis: scores, each device's latency, counts, sizes and times, one value for each trial.

A quantity is named by a key, the same in addresses, commands and notebooks: "score" is what the study maximises,
"latency" is that of the view's device and kind, "latency@DEVICE" that of another device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from dashboards.data.columns import Floats, StudyColumns, View
from dashboards.formats import NOTHING, one_line
from space.errors import InvalidSettings
from workers.metrics import METRICS, NAMES

OTHER_DEVICE = "latency@"
FIXED = ("latency", "macs", "params", "memory", "file", "time")  # beside scores and the latencies on other devices
PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
LEAST_DIGITS = 0.1  # of the unit of a column: its smallest value isn't shown as 0.00109


@dataclass(frozen=True)
class CountUnit:
    """The one unit in which a chart or a column shows all counts of its kind."""

    factor: float = 1.0
    prefix: str = ""

    @classmethod
    def of(cls, counts: Floats) -> CountUnit:
        """Return the largest unit in which the smallest count still has digits before or just after the point."""
        known = counts[np.isfinite(counts) & (counts > 0)]
        if not known.size:
            return cls()
        smallest = float(known.min())
        return next((cls(*one) for one in PREFIXES if smallest >= LEAST_DIGITS * one[0]), cls())

    def words(self, name: str) -> str:
        """Return the unit with what is counted: "k macs"."""
        return f"{self.prefix} {name}".strip()

    def text(self, count: float) -> str:
        """Return a count in this unit, without it: 1090 in thousands is "1.09"."""
        if not np.isfinite(count):
            return "-"
        scaled = count / self.factor
        if not self.prefix:
            return f"{scaled:,.0f}"
        return f"{scaled:,.{max(0, 2 - len(str(int(abs(scaled)))) + 1)}f}"


@dataclass(frozen=True, eq=False)
class Quantity:
    """One value for each trial (n,), NaN where there is none."""

    key: str
    name: str  # "top-1", "macs", "measured latency on pi-1"
    unit: str  # of the values: "%", "ms", "k macs", "MB", "s"
    values: Floats
    more_is_better: bool = False
    group: int | None = None  # of a latency: which group's
    factor: float = 1.0  # by which what is recorded was divided

    @property
    def title(self) -> str:
        """What an axis says: "top-1, %"."""
        return f"{self.name}, {self.unit}"

    def values_text(self, value: float) -> str:
        """Return one of the values as a table says it."""
        return NOTHING if not np.isfinite(value) else f"{value:,.2f}" if self.unit in ("%", "MB") else f"{value:.4g}"


@dataclass(frozen=True)
class Further:
    """What no column holds, and is read only when it is asked for."""

    file_bytes: Mapping[int, int] = field(default_factory=dict)  # of each trained network's ONNX file, by trial


def count_units(columns: StudyColumns) -> dict[str, CountUnit]:
    """Return the units in which a study's macs and params are shown."""
    return {name: CountUnit.of(getattr(columns, name).astype(np.float64)) for name in ("macs", "params")}


def quantity_of(columns: StudyColumns, view: View, key: str, further: Further | None = None) -> Quantity:
    """Return a quantity by its key; latencies are of the view's group, or of a device's fullest.

    Raises:
        InvalidSettings: the study has nothing of this key.
    """
    if key == "score" or key == columns.objective:
        return Quantity("score", columns.score_name, "%", 100 * _trained(columns, columns.score), True)
    if key in METRICS:
        values = columns.top1 if key == "top1" else columns.metrics.get(key, np.full(len(columns), np.nan))
        return Quantity(key, NAMES[key], "%", 100 * _trained(columns, values), key != "calibration_error")
    if key == "latency":
        return _latency(columns, key, view.group)
    if key.startswith(OTHER_DEVICE) and key.removeprefix(OTHER_DEVICE) in columns.latencies:
        return _latency(columns, key, columns.fullest_group(key.removeprefix(OTHER_DEVICE)))
    if key in ("macs", "params"):
        unit = count_units(columns)[key]
        words = {"macs": "multiply-adds", "params": "parameters"}[key]
        counts = getattr(columns, key).astype(np.float64) / unit.factor
        return Quantity(key, words, unit.words(key), counts, factor=unit.factor)
    if key == "memory":
        memory = np.full(len(columns), np.nan) if view.group is None else columns.of_group(view.group).memory_mb
        return Quantity(key, "peak memory on the device", "MB", memory, group=view.group)
    if key == "file":
        sizes = (further or Further()).file_bytes
        found = [sizes.get(number, np.nan) / 1e6 for number in columns.number.tolist()]
        return Quantity(key, "file size", "MB", np.array(found, dtype=np.float64))
    if key == "time":
        return Quantity(key, "training time", "s", _trained(columns, columns.train_seconds))
    known = ", ".join(name for name, _ in quantities_known(columns, view))
    raise InvalidSettings(f"an axis shows one of {known}, but got {one_line(key, 60)!r}.")


def quantities_known(columns: StudyColumns, view: View) -> list[tuple[str, str]]:
    """Return key and name of every quantity that can be chosen: scores first, then costs.

    Sizes of files are always among them: whether the files are still there is seen when they are asked for.
    """
    scores = [name for name in METRICS if name != columns.objective]
    keys = ["score", *(name for name in scores if name == "top1" or name in columns.metrics), *FIXED]
    shown = None if view.group is None else columns.latency_groups[view.group].target
    keys += [f"{OTHER_DEVICE}{target}" for target in columns.latencies if target != shown]
    found = (quantity_of(columns, view, key) for key in keys)
    return [(one.key, one.name) for one in found if one.key == "file" or np.isfinite(one.values).any()]


def _trained(columns: StudyColumns, values: Floats) -> Floats:
    return np.where(columns.trained, values, np.nan)


def _latency(columns: StudyColumns, key: str, group: int | None) -> Quantity:
    if group is None:
        device = key.removeprefix(OTHER_DEVICE) if key.startswith(OTHER_DEVICE) else ""
        name = f"latency on {one_line(device, 60)}" if device else "latency"
        return Quantity(key, name, "ms", np.full(len(columns), np.nan))
    shown = columns.latency_groups[group]
    name = f"{one_line(shown.kind, 40)} latency on {one_line(shown.target, 60)}"
    return Quantity(key, name, "ms", columns.of_group(group).median_ms, group=group)
