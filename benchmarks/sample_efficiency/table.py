"""A table of trainings that are known: parameters, accuracy, known costs and cheap features, read from a CSV.

How a column becomes a parameter:
- `COL`: ordinal where every value is a number, in the order of its values; else categorical. An empty field is a
  setting that this network doesn't have; it comes before all numbers.
- `categorical:COL`: categorical, also where the values are numbers.
- `nasbench201:COL`: an architecture string of NAS-Bench-201, `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`; its six edges are
  categorical parameters named COL_1 to COL_6.

A row without an accuracy, a cost or a feature is left out, and a row that repeats an earlier one too; both are said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.sample_efficiency.hypervolume import Array
from benchmarks.sample_efficiency.table_file import Row, UnusableTable, rows_of
from workers.wording import agreeing

Value = int | str
Params = Mapping[str, Value]
_NASBENCH201 = re.compile(r"\|(\w+)~0\|\+\|(\w+)~0\|(\w+)~1\|\+\|(\w+)~0\|(\w+)~1\|(\w+)~2\|")


@dataclass(frozen=True)
class Parameter:
    """One parameter of the space and its values; an ordinal's stand in their order."""

    name: str
    values: tuple[str, ...]
    ordered: bool

    @property
    def choices(self) -> tuple[Value, ...]:
        """What a sampler chooses from: the place of an ordinal's value in their order, or a category's name."""
        return tuple(range(len(self.values))) if self.ordered else self.values


@dataclass(frozen=True)
class Columns:
    """Which columns of a CSV are what; each is one thing, but rows may be chosen by any."""

    params: Sequence[str]
    accuracy: str
    costs: Sequence[str]
    features: Sequence[str] = ()
    where: Sequence[tuple[str, str]] = ()
    same: str = ""  # rows with the same value of it are one network; the first of them counts

    def check(self) -> None:
        """Raise UnusableTable where a column is two things: what only a training tells, a sampler must not be told."""
        params = [name.rpartition(":")[2] for name in self.params]
        uses = {
            "--params": params,
            "--accuracy": [self.accuracy],
            "--costs": self.costs,
            "--features": self.features,
            "--same": [self.same] if self.same else [],
        }
        used: dict[str, str] = {}
        for option, names in uses.items():
            for name in names:
                if name in used:
                    where = f"{used[name]} and {option}" if used[name] != option else f"{option} twice"
                    raise UnusableTable(f"a column must be one thing, but {name!r} is in {where}.")
                used[name] = option


@dataclass(frozen=True)
class Table:
    """The trainings of a table: `n` networks with all different parameters."""

    parameters: tuple[Parameter, ...]
    configs: tuple[tuple[Value, ...], ...]  # n, each in the order of the parameters
    accuracy: Array  # (n,), larger is better
    costs: Array  # (n, 1 or 2), all above 0
    features: Array  # (n, f)
    left_out: tuple[str, ...] = ()  # what was left out and why, a line each
    aliases: Mapping[tuple[Value, ...], int] = field(default_factory=dict)  # other parameters of a network: its row

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "_rows", {**self.aliases, **{config: index for index, config in enumerate(self.configs)}}
        )

    def row(self, params: Params) -> int | None:
        """Return the row of a network; None if the table doesn't hold it."""
        rows: dict[tuple[Value, ...], int] = self.__dict__["_rows"]
        return rows.get(tuple(params[parameter.name] for parameter in self.parameters))

    def params(self, row: int) -> dict[str, Value]:
        """Return the parameters of a row."""
        names = (parameter.name for parameter in self.parameters)
        return dict(zip(names, self.configs[row], strict=True))

    @property
    def coverage(self) -> float:
        """The share of all combinations of parameters that the table holds."""
        return (len(self.configs) + len(self.aliases)) / math.prod(
            len(parameter.values) for parameter in self.parameters
        )


def read_table(path: Path, columns: Columns) -> Table:
    """Return the table of a CSV, plain or gzipped.

    Raises:
        UnusableTable: the file can't be read, a column is missing, no row remains, rows contradict each other, or
            accuracies or costs are such that no hypervolume can be scaled by them.
    """
    columns.check()
    rows = [row for row in rows_of(path) if all(_equal(_field(row, *where), where[1]) for where in columns.where)]
    conditions = " and ".join(f"{name}={value}" for name, value in columns.where)
    if not rows:
        raise UnusableTable(f"the table must have rows{f' with {conditions}' if conditions else ''}, but has none.")
    known, left_out = _complete(rows, columns)
    parameters, configs = _parameters(known, columns.params)
    first = _without_repeats(known, configs, columns)
    if len(first) < len(known):
        count = len(known) - len(first)
        left_out.append(
            f"{count} {agreeing(count, 'row that repeats an earlier one', 'rows that repeat earlier ones')} left out"
        )

    first, aliases = _one_for_each(known, configs, first, columns.same)

    def numbers(names: Sequence[str]) -> Array:
        return np.array([[float(known[index][name]) for name in names] for index in first]).reshape(len(first), -1)

    table = Table(
        parameters,
        tuple(configs[index] for index in first),
        numbers([columns.accuracy])[:, 0],
        numbers(columns.costs),
        numbers(columns.features),
        tuple(left_out),
        aliases,
    )
    _check_scales(table, columns)
    return table


def _field(row: Row, name: str, _value: str = "") -> str:
    try:
        return row[name]
    except KeyError:
        raise UnusableTable(f"column {name!r} must be in the table; it has {', '.join(row)}.") from None


def _equal(field: str, value: str) -> bool:
    return field == value or (_is_number(field) and _is_number(value) and float(field) == float(value))


def _is_number(field: str) -> bool:
    try:
        return math.isfinite(float(field))
    except ValueError:
        return False


def _complete(rows: Sequence[Row], columns: Columns) -> tuple[list[Row], list[str]]:
    """Return the rows with all their numbers, and a line for each column whose lack left rows out."""
    left_out = []
    remaining = [*rows]
    for name in (columns.accuracy, *columns.costs, *columns.features):
        for row in rows[:1]:
            _field(row, name)
        complete = [row for row in remaining if _is_number(row[name])]
        count = len(remaining) - len(complete)
        if not complete:
            raise UnusableTable(f"column {name!r} must hold numbers, but no row has one.")
        if count:
            left_out.append(
                f"{count} {agreeing(count, 'row without a number', 'rows without a number')} in {name} left out"
            )
        remaining = complete
    return remaining, left_out


def _parameters(rows: Sequence[Row], names: Sequence[str]) -> tuple[tuple[Parameter, ...], list[tuple[Value, ...]]]:
    """Return the parameters that have more than one value, and each row's values of them."""
    columns: dict[str, Sequence[str]] = {}
    categorical: set[str] = set()
    for given in names:
        form, _, column = given.rpartition(":")
        if form not in ("", "categorical", "nasbench201"):
            raise UnusableTable(f"--params knows categorical:COL and nasbench201:COL, but got {given!r}.")
        fields = [_field(row, column) for row in rows]
        found: dict[str, Sequence[str]] = {column: fields}
        if form == "nasbench201":
            found = {f"{column}_{edge}": ops for edge, ops in enumerate(zip(*map(_edges, fields), strict=True), 1)}
        for name in found.keys() & columns.keys():
            raise UnusableTable(f"a parameter must be there once, but {name!r} is both a column and an edge.")
        columns |= found
        categorical |= found.keys() if form else set()
    parameters = [_parameter(name, fields, name in categorical) for name, fields in columns.items()]
    parameters = [parameter for parameter in parameters if len(parameter.values) > 1]
    if not parameters:
        raise UnusableTable("a parameter must have more than one value, but each has the same in all rows.")
    encoded = [map(_encoder(parameter), columns[parameter.name]) for parameter in parameters]
    return tuple(parameters), list(zip(*encoded, strict=True))


def _edges(architecture: str) -> tuple[str, ...]:
    match = _NASBENCH201.fullmatch(architecture)
    if match is None:
        raise UnusableTable(
            f"a NAS-Bench-201 architecture is |op~0|+|op~0|op~1|+|op~0|op~1|op~2|, not {architecture!r}."
        )
    return match.groups()


def _parameter(name: str, fields: Sequence[str], categorical: bool) -> Parameter:
    values = set(fields)
    if categorical or not all(value == "" or _is_number(value) for value in values):
        return Parameter(name, tuple(sorted(values)), ordered=False)
    by_number: dict[float, str] = {}
    for value in sorted(values):  # 1 and 1.0 are one value
        by_number.setdefault(_number(value), value)
    return Parameter(name, tuple(by_number[number] for number in sorted(by_number)), ordered=True)


def _number(field: str) -> float:
    return -math.inf if field == "" else float(field)


def _encoder(parameter: Parameter) -> Callable[[str], Value]:
    if not parameter.ordered:
        return str
    places = {_number(value): place for place, value in enumerate(parameter.values)}
    return lambda field: places[_number(field)]


def _without_repeats(rows: Sequence[Row], configs: Sequence[tuple[Value, ...]], columns: Columns) -> list[int]:
    """Return the indices of the first row of each network.

    Raises:
        UnusableTable: a network's rows differ in what is known of it.
    """
    names = (columns.accuracy, *columns.costs, *columns.features)
    first: dict[tuple[Value, ...], int] = {}
    differing = 0
    for index, config in enumerate(configs):
        earlier = first.setdefault(config, index)
        differing += any(float(rows[index][name]) != float(rows[earlier][name]) for name in names)
    if differing:
        raise UnusableTable(
            f"a network must have one result, but {differing} {agreeing(differing, 'row differs', 'rows differ')} from "
            "an earlier row with the same parameters; name more --params, or choose rows by --where."
        )
    return list(first.values())


def _one_for_each(
    rows: Sequence[Row], configs: Sequence[tuple[Value, ...]], indices: Sequence[int], same: str
) -> tuple[list[int], dict[tuple[Value, ...], int]]:
    """Return the first index of each network, and which of those stands for the parameters of the others."""
    if not same:
        return list(indices), {}
    places: dict[str, int] = {}
    first: list[int] = []
    aliases: dict[tuple[Value, ...], int] = {}
    for index in indices:
        name = _field(rows[index], same)
        if name in places:
            aliases[configs[index]] = places[name]
        else:
            places[name] = len(first)
            first.append(index)
    return first, aliases


def _check_scales(table: Table, columns: Columns) -> None:
    if np.ptp(table.accuracy) == 0:
        raise UnusableTable(f"accuracies must differ, but {columns.accuracy} is {table.accuracy[0]:g} in every row.")
    for name, cost in zip(columns.costs, table.costs.T, strict=True):
        if cost.min() <= 0:
            raise UnusableTable(f"costs must be above 0, as their logarithms count, but {name} is {cost.min():g} once.")
        if np.ptp(cost) == 0:
            raise UnusableTable(f"a cost must differ between networks, but {name} is {cost[0]:g} in every row.")
