"""Which trials a table shows, and in which order: `--where`, `--sort` and `--limit` of the read commands."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from search.store.rows import TrialRow
from space.errors import InvalidSettings

Value = float | str | None
CONDITION = re.compile(r"\s*([\w.:-]+?)\s*(<=|>=|!=|==|=|<|>)\s*(.*?)\s*")
TESTS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
}
UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
NUMBER = re.compile(r"([-+]?[\d_.]+(?:e[-+]?\d+)?)\s*([kMG%]?)", re.ASCII)

FRACTIONS = ("score", "top1", "balanced_accuracy", "macro_f1", "top5", "test_top1")  # the highest is the best
_OF_CONFIG = ("groups", "condense_factor", "bottleneck", "num_stages")
_OF_ROW = ("macs", "params", "val_loss", "train_seconds", "peak_memory_mb", "attempt", "calibration_error")
_TEXTS = ("state", "origin")


@dataclass(frozen=True)
class _Column:
    name: str
    value: Callable[[TrialRow], Value]
    is_text: bool = False

    @property
    def is_fraction(self) -> bool:
        return self.name in FRACTIONS


@dataclass(frozen=True)
class Condition:
    """One `--where`: a trial passes if it has the value, and the value passes the test."""

    column: _Column
    test: Callable[[Any, Any], bool]
    value: float | str

    def passes(self, row: TrialRow) -> bool:
        """Whether a trial passes; one that lacks the value doesn't."""
        value = self.column.value(row)
        return value is not None and bool(self.test(value, self.value))


def chosen_trials(
    rows: Sequence[TrialRow], where: Iterable[str] = (), sort: str | None = None, limit: int | None = None
) -> list[TrialRow]:
    """Return the trials that pass every condition, sorted and cut.

    Args:
        rows: trials of one study.
        where: conditions such as "latency_ms<5", "top1>=97%" or "state=done".
        sort: a column's name, the best first: accuracies from the highest, all else from the lowest. A "-" before it
            turns the order round. Trials without the value come last. None keeps the order.
        limit: how many are shown at most.

    Raises:
        InvalidSettings: a condition can't be read, or names a column that there isn't.
    """
    columns = _columns_of(rows)
    conditions = [_condition(text, columns) for text in where]
    chosen = [row for row in rows if all(condition.passes(row) for condition in conditions)]
    if sort is not None:
        column = _named(sort.removeprefix("-"), columns, f"--sort {sort}")
        falling = column.is_fraction != sort.startswith("-")
        having = [row for row in chosen if column.value(row) is not None]
        lacking = [row for row in chosen if column.value(row) is None]
        chosen = sorted(having, key=lambda row: column.value(row), reverse=falling) + lacking  # type: ignore[arg-type,return-value]
    return chosen[:limit]


def _columns_of(rows: Sequence[TrialRow]) -> dict[str, _Column]:
    """Return the columns by name; each device of the trials has latencies of its own."""
    columns = [_Column("number", lambda row: row.number), _Column("config", lambda row: str(row.config), is_text=True)]
    columns += [_Column(name, _attribute(name)) for name in (*FRACTIONS, *_OF_ROW)]
    columns += [_Column(name, _attribute(name), is_text=True) for name in _TEXTS]
    columns += [_Column(name, _attribute_of_config(name)) for name in _OF_CONFIG]
    columns.append(_Column("layers", lambda row: sum(row.config.stages)))
    targets = dict.fromkeys(target for row in rows for target in row.latencies)
    for name in ("latency_ms", "latency_low_ms", "latency_high_ms", "p90_ms"):
        columns.append(_Column(name, _latency(name, None)))
        columns += [_Column(f"{name}.{target}", _latency(name, target)) for target in targets]
    columns.append(_Column("latency_kind", lambda row: None if row.latency is None else row.latency.kind, is_text=True))
    return {column.name: column for column in columns}


def _attribute(name: str) -> Callable[[TrialRow], Value]:
    def value(row: TrialRow) -> Value:
        return _plain(getattr(row, name))

    return value


def _attribute_of_config(name: str) -> Callable[[TrialRow], Value]:
    def value(row: TrialRow) -> Value:
        return len(row.config.stages) if name == "num_stages" else _plain(getattr(row.config, name))

    return value


def _latency(name: str, target: str | None) -> Callable[[TrialRow], Value]:
    """Return the reader of a latency on a device; None is the one that each trial is judged by."""
    attribute = {"latency_ms": "median_ms", "p90_ms": "p90_ms"}.get(name, name.replace("latency_", "interval_"))

    def value(row: TrialRow) -> Value:
        latency = row.latency if target is None else row.latencies.get(target)
        return None if latency is None else _plain(getattr(latency, attribute))

    return value


def _plain(value: Any) -> Value:
    if isinstance(value, str):
        return str(value)
    return None if value is None or not math.isfinite(value) else float(value)


def _condition(text: str, columns: Mapping[str, _Column]) -> Condition:
    match = CONDITION.fullmatch(text)
    if match is None or not match[3]:
        raise InvalidSettings(
            f"--where must be a column, one of {' '.join(TESTS)} and a value, like 'latency_ms<5', but got {text!r}."
        )
    name, sign, value = match.groups()
    column = _named(name, columns, f"--where {text!r}")
    if column.is_text:
        if sign not in ("=", "==", "!="):
            raise InvalidSettings(f"--where {text!r}: {name} is a text, which can be = or != only.")
        return Condition(column, TESTS[sign], value)
    return Condition(column, TESTS[sign], _number(text, column, value))


def _number(text: str, column: _Column, value: str) -> float:
    match = NUMBER.fullmatch(value)
    try:
        number = float(match[1]) * (0.01 if match[2] == "%" else UNITS[match[2]]) if match else math.nan
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise InvalidSettings(f"--where {text!r}: {column.name} is a number, like 5, 1.5M or 97%, but got {value!r}.")
    if column.is_fraction and number > 1:
        raise InvalidSettings(
            f"--where {text!r}: {column.name} is a share of 1, so none is above; write {number:g}% or {number / 100:g}."
        )
    return number


def _named(name: str, columns: Mapping[str, _Column], where: str) -> _Column:
    if name in columns:
        return columns[name]
    near = get_close_matches(name, columns, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InvalidSettings(f"{where}: there is no column {name!r}; {hint}There are: {', '.join(columns)}.")
