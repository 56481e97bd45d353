"""Which growths a network may have: multiples of lcm(G, C, groups_3x3), out of those that a study lists."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, cast

from space.domains import Domain, IntRange, Value

SAME = "same"  # groups_3x3 = "same": as many groups as the 1x1


@dataclass(frozen=True)
class Grouping:
    """One (G, C, groups_3x3) of a space."""

    groups: int
    condense_factor: int
    groups_3x3: int

    @property
    def divisor(self) -> int:
        """Every growth is a multiple of this."""
        return growth_divisor(self.groups, self.condense_factor, self.groups_3x3)

    def __str__(self) -> str:
        return f"groups={self.groups}, condense_factor={self.condense_factor}, groups_3x3={self.groups_3x3}"


def growth_divisor(groups: int, condense_factor: int, groups_3x3: int | None) -> int:
    """Return the number that must divide every growth; groups_3x3 None means as many as `groups`."""
    return math.lcm(groups, condense_factor, groups_3x3 or 1)


@lru_cache(maxsize=4096)
def valid_growths(domain: Domain, divisor: int) -> tuple[int, ...]:
    """Return the domain's growths that `divisor` divides, ascending."""
    return tuple(sorted(v for v in domain.enumerate() or () if isinstance(v, int) and v % divisor == 0))


def nearest_growth(domain: Domain, drawn: int, divisor: int) -> int:
    """Return the smallest valid growth of at least `drawn`, or the largest there is."""
    valid = valid_growths(domain, divisor)
    return next((growth for growth in valid if growth >= drawn), valid[-1])


def nearest_value(domain: Domain, target: int) -> int:
    """Return the listed value closest to `target`."""
    return min(cast(tuple[int, ...], domain.enumerate()), key=lambda value: abs(value - target))


def groupings_of(groups: Domain, condense_factor: Domain, groups_3x3: Domain) -> Iterator[Grouping]:
    """Return every distinct grouping of the three domains' values, with "same" resolved."""
    triples = product(*(domain.enumerate() or () for domain in (groups, condense_factor, groups_3x3)))
    resolved = {(g, c, g if three == SAME else three) for g, c, three in cast(Iterator[Any], triples)}
    return (Grouping(*triple) for triple in sorted(resolved))


def neighbouring_values(name: str, domain: Domain, value: Value, divisor: int) -> list[Value]:
    """Return the values one step from `value`; a range of growths steps over its multiples of `divisor`."""
    if not (name.startswith("growth_") and isinstance(domain, IntRange)):
        return domain.neighbours(value)
    valid = valid_growths(domain, divisor)
    below = [growth for growth in valid if growth < cast(int, value)]
    above = [growth for growth in valid if growth > cast(int, value)]
    return [*below[-1:], *above[:1]]
