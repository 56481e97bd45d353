"""The values one search parameter may take: a choice, a range of whole numbers, or a range of reals.

Written in a study file as a single value, a list, or `{ low = …, high = …, step = …, log = … }`. Pure Python and numpy:
`search.samplers.optuna_samplers` turns a domain into an Optuna distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from space.errors import ImpossibleSpace

Value = int | float | str
MOST_VALUES = 100_000  # of a range of whole numbers: all of them are listed


@dataclass(frozen=True)
class Choice:
    """One of the listed values, in the order given."""

    values: tuple[Value, ...]

    def sample(self, rng: np.random.Generator) -> Value:
        """Draw uniformly."""
        return self.values[int(rng.integers(len(self.values)))]

    def neighbours(self, value: Value) -> list[Value]:
        """Every other value."""
        return [other for other in self.values if other != value]

    def enumerate(self) -> tuple[Value, ...] | None:
        """All values."""
        return self.values

    def contains(self, value: Value) -> bool:
        """Whether `value` is one of them."""
        return value in self.values

    def extremes(self) -> tuple[Value, ...]:
        """The values that decide whether all are valid."""
        return self.values

    def middle(self) -> Value:
        """The middle one of the numbers by size, or of other values in the order given."""
        numbers = [value for value in self.values if not isinstance(value, str)]
        ordered = sorted(numbers) if len(numbers) == len(self.values) else list(self.values)
        return ordered[(len(ordered) - 1) // 2]


@dataclass(frozen=True)
class IntRange:
    """low, low + step, ..., up to high; `log` draws evenly in the logarithm (step 1 only)."""

    low: int
    high: int
    step: int = 1
    log: bool = False

    def sample(self, rng: np.random.Generator) -> int:
        """Draw uniformly, or uniformly in the logarithm."""
        if self.log:
            drawn = math.exp(rng.uniform(math.log(self.low - 0.5), math.log(self.high + 0.5)))
            return min(max(round(drawn), self.low), self.high)
        return self.low + self.step * int(rng.integers((self.high - self.low) // self.step + 1))

    def neighbours(self, value: Value) -> list[Value]:
        """One step down and one up, where the range allows."""
        assert isinstance(value, int)
        return [other for other in (value - self.step, value + self.step) if self.contains(other)]

    def enumerate(self) -> tuple[Value, ...] | None:
        """All values."""
        return tuple(range(self.low, self.high + 1, self.step))

    def contains(self, value: Value) -> bool:
        """Whether `value` lies on the grid."""
        return isinstance(value, int) and value in range(self.low, self.high + 1, self.step)

    def extremes(self) -> tuple[Value, ...]:
        """Lowest and highest."""
        return (self.low, self.high)

    def middle(self) -> Value:
        """The one on the grid that is nearest to half way, in the logarithm where it draws so."""
        half = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return self.low + self.step * int((half - self.low) / self.step)


@dataclass(frozen=True)
class FloatRange:
    """Any real number from low to high; `log` draws evenly in the logarithm."""

    low: float
    high: float
    log: bool = False

    def sample(self, rng: np.random.Generator) -> float:
        """Draw uniformly, or uniformly in the logarithm."""
        if self.log:
            drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
            return min(max(drawn, self.low), self.high)
        return float(rng.uniform(self.low, self.high))

    def neighbours(self, value: Value) -> list[Value]:
        """A tenth of the range down and up, clipped."""
        assert isinstance(value, int | float)
        if self.log:
            factor = (self.high / self.low) ** 0.1
            neighbours = [value / factor, value * factor]
        else:
            neighbours = [value - 0.1 * (self.high - self.low), value + 0.1 * (self.high - self.low)]
        clipped = [min(max(other, self.low), self.high) for other in neighbours]
        return [other for other in clipped if other != value]

    def enumerate(self) -> tuple[Value, ...] | None:
        """None: there are more values than can be listed."""
        return None

    def contains(self, value: Value) -> bool:
        """Whether `value` lies in the range."""
        return isinstance(value, int | float) and self.low <= value <= self.high

    def extremes(self) -> tuple[Value, ...]:
        """Lowest and highest."""
        return (self.low, self.high)

    def middle(self) -> Value:
        """Half way, in the logarithm where it draws so."""
        return math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2


Domain = Choice | IntRange | FloatRange


def domain_from(name: str, written: Any) -> Domain:
    """Return the domain that a study file writes so.

    Raises:
        ImpossibleSpace: it breaks a rule; the message gives the rule and the value.
    """
    if isinstance(written, Choice | IntRange | FloatRange):
        return written
    if isinstance(written, dict):
        return _range_from(name, written)
    values = tuple(written) if isinstance(written, list | tuple) else (written,)
    if not values:
        raise ImpossibleSpace(f"`{name}` must list at least one value, but got an empty list.")
    if any(isinstance(value, bool) or not isinstance(value, int | float | str) for value in values):
        raise ImpossibleSpace(f"`{name}` must list numbers or names, but got {list(values)}.")
    if any(isinstance(value, float) and not math.isfinite(value) for value in values):
        raise ImpossibleSpace(f"`{name}` must list finite numbers, but got {list(values)}.")
    if len(set(values)) != len(values):
        raise ImpossibleSpace(f"`{name}` must not repeat a value, but got {list(values)}.")
    return Choice(values)


def _range_from(name: str, written: dict[str, Any]) -> Domain:
    unknown = sorted(set(written) - {"low", "high", "step", "log"})
    if unknown or not {"low", "high"} <= set(written):
        raise ImpossibleSpace(f"a range for `{name}` has low, high and optionally step or log, but got {written}.")
    low, high, log = written["low"], written["high"], written.get("log", False)
    numbers = (low, high, written.get("step", 1))
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in numbers):
        raise ImpossibleSpace(f"`{name}` must range over numbers, but got {written}.")
    if any(isinstance(value, float) and not math.isfinite(value) for value in numbers):
        raise ImpossibleSpace(f"`{name}` must range over finite numbers, but got {written}.")
    if not isinstance(log, bool):
        raise ImpossibleSpace(f"`log` of `{name}` must be true or false, but got {log!r}.")
    if not low <= high:
        raise ImpossibleSpace(f"low <= high must hold for `{name}`, but got low={low}, high={high}.")
    if log and low <= 0:
        raise ImpossibleSpace(f"low > 0 must hold for the logarithmic range `{name}`, but got low={low}.")
    if all(isinstance(value, int) for value in numbers):
        step = written.get("step", 1)
        if step < 1 or (log and step != 1):
            raise ImpossibleSpace(f"step >= 1 (and 1 with log) must hold for `{name}`, but got step={step}.")
        if (high - low) // step >= MOST_VALUES:
            raise ImpossibleSpace(
                f"a range of whole numbers may hold at most {MOST_VALUES:,} values, but `{name}` got {written}; narrow "
                "it, or give it a larger step."
            )
        return IntRange(low, low + (high - low) // step * step, step, log)
    if "step" in written:
        raise ImpossibleSpace(f"a range of reals has no step, but `{name}` got step={written['step']}.")
    return FloatRange(float(low), float(high), log)


def domain_to(domain: Domain) -> Any:
    """Return the domain as a study file writes it (plain JSON values); the inverse of `domain_from`."""
    if isinstance(domain, Choice):
        return list(domain.values)
    written: dict[str, Any] = {"low": domain.low, "high": domain.high}
    if isinstance(domain, IntRange) and domain.step != 1:
        written["step"] = domain.step
    return written | ({"log": True} if domain.log else {})
