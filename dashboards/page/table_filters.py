"""Filters of the trials table as people type them: in the units that the column shows.

A number alone means at least so much of what should be high, and at most so much of what should be low; `>=`, `<=`,
`>`, `<`, `=` and `a..b` say it themselves. `any` keeps what has a value, `none` what has none. A value that looks the
same as the one that was typed counts as equal to it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dashboards.data.columns import Floats, Mask
from dashboards.formats import count, digits_ms, duration, one_line, percent

NEAR = 0.06  # values further apart than this share of the larger, and `Unit.step`, never look the same
_AMOUNT = re.compile(r"(?P<number>[+-]?(?:\d[\d,]*(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)\s*(?P<suffix>[^\d\s.,]*)\s*", re.I)
_SIGNS: Mapping[str, Callable[[Floats, float], Mask]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}
_SAME_SIGNS = {"≥": ">=", "≤": "<=", "==": "=", "=>": ">=", "=<": "<="}


@dataclass(frozen=True)
class Unit:
    """How a column shows its numbers, and what may be typed for them."""

    text: Callable[[float], str]
    suffixes: Mapping[str, float]  # what one of each is worth in the column's own values; "" is a number alone
    example: str
    natural: str = "="  # the sign that a number alone means
    adds_up: bool = False  # whether "2 min 5 s" is a sum
    step: float = 0.0  # the smallest difference that is shown near 0

    @property
    def hint(self) -> str:
        """What an empty filter shows: the sign that a number alone means, and an example."""
        return f"{ {'>=': '≥', '<=': '≤'}.get(self.natural, self.natural) } {self.example}"

    def value(self, text: str) -> float:
        """Return what was typed, in the column's own values.

        Raises:
            ValueError: it is no number with a unit of this column.
        """
        parts: list[float] = []
        place = 0
        while place < len(text):
            match = _AMOUNT.match(text, place)
            suffix = "" if match is None else match["suffix"].casefold()
            if match is None or suffix not in self.suffixes or (parts and not self.adds_up):
                raise ValueError(text)
            parts.append(float(match["number"].replace(",", "")) * self.suffixes[suffix])
            place = match.end()
        if not parts:
            raise ValueError(text)
        return sum(parts)


def _whole(value: float) -> str:
    return f"{value:.0f}"


def _ms(value_ms: float) -> str:
    return digits_ms(value_ms, 4)


PERCENT = Unit(percent, {"": 0.01, "%": 0.01}, "94.5", ">=", step=1e-4)
MILLISECONDS = Unit(_ms, {"": 1.0, "ms": 1.0, "s": 1e3, "us": 1e-3, "µs": 1e-3, "μs": 1e-3}, "0.08", "<=")
COUNT = Unit(count, {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}, "1.2M", "<=", step=1.0)
_MINUTES, _HOURS = dict.fromkeys(("min", "m"), 60.0), dict.fromkeys(("h",), 3600.0)
SECONDS = Unit(duration, {"": 1.0, "s": 1.0, **_MINUTES, **_HOURS, "d": 86400.0}, "90 s", "<=", adds_up=True, step=0.1)
NUMBER = Unit(_whole, {"": 1.0}, "12", step=1.0)


def numbers_matching(values: Floats, unit: Unit, typed: str) -> Mask:
    """Return which values (n,) a typed filter keeps; NaN is no value.

    Raises:
        ValueError: it can't be read; the message says what can.
    """
    text = typed.strip()
    if text.casefold() in ("any", "none"):
        return np.asarray(np.isnan(values) == (text.casefold() == "none"), dtype=bool)
    low, dots, high = text.partition("..")
    try:
        if dots:
            return _compared(values, unit, ">=", low) & _compared(values, unit, "<=", high)
        sign = re.match(r"[<>=≥≤]*", text)
        mark = sign.group() if sign else ""
        return _compared(values, unit, _sign(mark, unit), text[len(mark) :])
    except (ValueError, OverflowError):
        raise ValueError(
            f"“{one_line(typed, 40)}” can't be read: type {unit.example}, >={unit.example}, <{unit.example}, "
            f"={unit.example} or a range a..b, in the units shown"
        ) from None


def _sign(mark: str, unit: Unit) -> str:
    sign = _SAME_SIGNS.get(mark, mark) or unit.natural
    if sign not in _SIGNS:
        raise ValueError(mark)
    return sign


def _compared(values: Floats, unit: Unit, sign: str, typed: str) -> Mask:
    """Return which values keep a typed limit; what looks the same as the limit is equal to it."""
    text = typed.strip()
    limit = unit.value(text)
    mask = np.asarray(_SIGNS[sign](values, limit), dtype=bool)
    reach = np.maximum(NEAR * np.maximum(np.abs(values), abs(limit)), unit.step)
    near, alike = np.flatnonzero(np.abs(values - limit) <= reach), {text, unit.text(limit)}
    same = [place for place in near.tolist() if unit.text(float(values[place])) in alike]
    mask[same] = sign in (">=", "<=", "=")
    return mask


def texts_matching(texts: Sequence[str], typed: str) -> Mask:
    """Return which texts (n,) a typed filter keeps, whatever their case: those that contain it.

    `=text` keeps those that are it, `!text` those that don't contain it; `any` and `none` as for numbers.
    """
    wanted = typed.strip().casefold()
    tests: dict[str, Callable[[str], bool]] = {"any": bool, "none": operator.not_}
    test = tests.get(wanted)
    if test is None and wanted[:1] in ("=", "!"):
        rest = wanted[1:].strip()
        test = (lambda text: text == rest) if wanted[0] == "=" else (lambda text: rest not in text)
    if test is None:
        test = lambda text: wanted in text  # noqa: E731
    return np.fromiter((test(text.casefold()) for text in texts), bool, len(texts))


def typed_filters(sent: Any) -> dict[str, str]:
    """Return the filters that a page sent, by column; empty ones are none.

    Raises:
        ValueError: they aren't texts by column.
    """
    if not isinstance(sent, dict) or not all(isinstance(text, str) for text in sent.values()):
        raise ValueError("filter must be an object of texts by column")
    return {name: text for name, text in sent.items() if text.strip()}
