"""The rows of a table of recorded trainings, read from its CSV: a network, a seed, and what their training found.

An empty field is unknown. What a training can't be without (its network, its accuracies, its seconds) must be there.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from space.config import CondenseNetConfig
from space.cost import cost_of
from space.errors import InvalidConfig, TableUnreadable
from space.search_space import SearchSpace
from workers.wording import agreeing

NEEDED = ("groups", "condense_factor", "bottleneck", "layers_1", "growth_1", "seed", "macs", "params", "top1", "top1_1")
_LATENCY = re.compile(r"(\w+)_(onnxruntime|ncnn|litert|native)_ms")  # DEVICE_RUNTIME_ms, beside its low and high end
_PROXY = "proxy_"


class RecordedEpoch(NamedTuple):
    """What an epoch of a training ended with."""

    top1: float  # on the validation split; of the last epoch, the deployed network's
    val_loss: float
    train_loss: float


class RecordedLatency(NamedTuple):
    """A network's latency with its 95 % interval, in ms."""

    median_ms: float
    low_ms: float
    high_ms: float


@dataclass(frozen=True)
class RecordedTraining:
    """One row: a network that was trained with a seed."""

    config: CondenseNetConfig
    seed: int
    top1: float  # of the deployed network, on the validation split
    test_top1: float | None
    train_seconds: float
    curve: tuple[RecordedEpoch, ...]
    latencies: Mapping[str, RecordedLatency]  # by runtime; a runtime that is missing is unknown
    proxies: Mapping[str, float]  # zero-cost ones, by name


def read_rows(lines: Iterable[str], space: SearchSpace) -> Iterator[RecordedTraining]:
    """Yield a CSV's rows; a network has whatever else the space fixes.

    Raises:
        TableUnreadable: a column or a value is missing or wrong, macs or params aren't those of the network, or a
            network isn't one of the space.
    """
    try:
        header, *rows = [*csv.reader(lines)] or [[]]
    except csv.Error as error:
        raise TableUnreadable(f"it is no CSV ({error}).") from None
    missing = [name for name in NEEDED if name not in header]
    if missing or len(set(header)) < len(header):
        wrong = (
            f"{', '.join(missing)} {agreeing(len(missing), 'is', 'are')} missing" if missing else "a name is repeated"
        )
        raise TableUnreadable(f"its columns must be named once each and hold {', '.join(NEEDED)}; {wrong}.")
    columns = _Columns(space, header)
    for place, fields in enumerate(rows, start=2):
        if len(fields) != len(header):
            raise TableUnreadable(f"line {place} must have {len(header)} fields, but has {len(fields)}.")
        try:
            yield columns.training(dict(zip(header, fields, strict=True)))
        except (ValueError, InvalidConfig) as error:
            raise TableUnreadable(f"line {place}: {error}") from None


class _Columns:
    """The columns of one table, and how a line is read by them."""

    def __init__(self, space: SearchSpace, header: Sequence[str]) -> None:
        self._space = space
        self._stages = _numbers("layers", header)
        self._epochs = _numbers("top1", header)
        self._latencies = {match[2]: match[1] for name in header if (match := _LATENCY.fullmatch(name))}
        self._proxies = [name for name in header if name.startswith(_PROXY)]

    def training(self, line: Mapping[str, str]) -> RecordedTraining:
        """Return a line as a training.

        Raises:
            ValueError: a value is missing or wrong.
        """
        config = self._config(line)
        cost = cost_of(config)
        for name, exact in (("macs", cost.macs), ("params", cost.params)):
            if (written := _whole(line, name)) != exact:
                raise ValueError(f"{config} has {exact:,} {name}, but the table says {written:,}.")
        top1, curve = _share(line, "top1"), tuple(self._epoch(line, number) for number in self._epochs)
        if curve[-1].top1 != top1:
            raise ValueError(f"top1 must be that of the last epoch, but is {top1} and not {curve[-1].top1}.")
        seconds = _real(line, "train_seconds")
        if seconds < 0:
            raise ValueError(f"train_seconds >= 0 must hold, but got {seconds}.")
        return RecordedTraining(
            config=config,
            seed=_whole(line, "seed"),
            top1=top1,
            test_top1=_share(line, "test_top1") if line.get("test_top1") else None,
            train_seconds=seconds,
            curve=curve,
            latencies={runtime: latency for runtime in self._latencies if (latency := self._latency(line, runtime))},
            proxies={name.removeprefix(_PROXY): float(line[name]) for name in self._proxies if line[name]},
        )

    def _config(self, line: Mapping[str, str]) -> CondenseNetConfig:
        stages = [number for number in self._stages if line[f"layers_{number}"]]
        names = ["groups", "condense_factor", "bottleneck"]
        names += [f"{what}_{number}" for what in ("layers", "growth") for number in stages]
        params = {name: _whole(line, name) for name in names}
        params["num_stages"] = len(stages)
        for name, value in params.items():
            if name not in self._space.domains or not self._space.domains[name].contains(value):
                raise ValueError(f"the table's space has no network with {name}={value}.")
        config = self._space.from_params(params)
        if (*config.stages, *config.growth) != tuple(list(params.values())[3:-1]):
            raise ValueError(f"the table's space has no network with {params}.")
        return config

    def _epoch(self, line: Mapping[str, str], number: int) -> RecordedEpoch:
        losses = (_real(line, f"{name}_{number}") for name in ("val_loss", "train_loss"))
        return RecordedEpoch(_share(line, f"top1_{number}"), *losses)

    def _latency(self, line: Mapping[str, str], runtime: str) -> RecordedLatency | None:
        name = f"{self._latencies[runtime]}_{runtime}"
        if not line[f"{name}_ms"]:
            return None
        latency = RecordedLatency(*(_real(line, f"{name}_{end}") for end in ("ms", "low_ms", "high_ms")))
        if not 0 < latency.low_ms <= latency.median_ms <= latency.high_ms:
            raise ValueError(f"0 < low <= median <= high must hold of {name}, but got {tuple(latency)} ms.")
        return latency


def _numbers(what: str, header: Sequence[str]) -> list[int]:
    """Return the numbers N of the columns called WHAT_N: 1, 2, … without a gap."""
    numbers = sorted(int(match[1]) for name in header if (match := re.fullmatch(rf"{what}_(\d+)", name)))
    if numbers != list(range(1, len(numbers) + 1)):
        raise TableUnreadable(f"the columns {what}_1, {what}_2, … must leave no number out, but are {numbers}.")
    return numbers


def _text(line: Mapping[str, str], name: str) -> str:
    if not line.get(name):
        raise ValueError(f"{name} must have a value, but has none.")
    return line[name]


def _whole(line: Mapping[str, str], name: str) -> int:
    text = _text(line, name)
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name} must be a whole number, but is {text[:40]!r}.") from None


def _real(line: Mapping[str, str], name: str) -> float:
    text = _text(line, name)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a number, but is {text[:40]!r}.")
    return value


def _share(line: Mapping[str, str], name: str) -> float:
    value = _real(line, name)
    if not 0 <= value <= 1:
        raise ValueError(f"0 <= {name} <= 1 must hold, but got {value}.")
    return value
