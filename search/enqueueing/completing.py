"""Architectures named in part: what is left out comes from another config, changed as little as the rules ask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from space.config import CondenseNetConfig
from space.domains import Domain
from space.errors import InvalidConfig
from space.growths import SAME, growth_divisor, nearest_growth, valid_growths
from space.search_space import SearchSpace

GROUPINGS = ("groups", "condense_factor", "groups_3x3")


def middle_config(space: SearchSpace) -> CondenseNetConfig:
    """Return the config in the middle of every parameter of a space."""
    return space.from_params({name: domain.middle() for name, domain in space.domains.items()})


def completed_config(values: Mapping[str, Any], base: CondenseNetConfig, space: SearchSpace) -> CondenseNetConfig:
    """Return the config of these values, with whatever they leave out as in `base`, or else as near to it as is valid.

    What is left out is taken from the space wherever the space has a valid value for it.

    Raises:
        InvalidConfig: the values are no config's, or can't be completed to a valid one.
    """
    first: InvalidConfig | None = None
    for grouping in _groupings(values, base, space):
        try:
            return CondenseNetConfig.from_dict(_filled({**base.to_dict(), **grouping, **values}, values, space))
        except InvalidConfig as error:
            first = first or error
        except TypeError as error:  # a value of no number's type
            raise InvalidConfig(f"a config's values must be numbers or lists of them: {error}.") from None
    assert first is not None
    raise first


def _groupings(values: Mapping[str, Any], base: CondenseNetConfig, space: SearchSpace) -> Iterator[dict[str, Any]]:
    """Yield values of the groups and condense factor that are left out: the base's, then others by their distance."""
    own = {name: getattr(base, name) for name in GROUPINGS if name not in values}
    yield own
    choices = [[None if value == SAME else value for value in space.domains[name].enumerate() or ()] for name in own]

    def distance(combination: tuple[Any, ...]) -> int:
        return sum(abs((one or 0) - (other or 0)) for one, other in zip(combination, own.values(), strict=True))

    yield from (dict(zip(own, one, strict=True)) for one in sorted(product(*choices), key=distance))


def _filled(config: dict[str, Any], given: Mapping[str, Any], space: SearchSpace) -> dict[str, Any]:
    """Return a config's values with as many stages as are given, and growths that the given groups divide."""
    named = [name for name in ("stages", "growth") if name in given]
    depth = len(given[named[0]]) if named else len(config["stages"])
    if "stages" not in given:
        config["stages"] = _of_length(config["stages"], depth)
    if "growth" not in given:
        divisor = growth_divisor(*(config[name] for name in GROUPINGS))
        growths = _of_length(config["growth"], depth)
        if space.growth_rule == "doubling":
            first = _growth(space.growth[0], growths[0], divisor)
            config["growth"] = [first << stage for stage in range(depth)]
        else:
            domains = _of_length(space.growth, depth)
            config["growth"] = [_growth(domain, value, divisor) for domain, value in zip(domains, growths, strict=True)]
    return config


def _of_length(values: Any, length: int) -> list[Any]:
    """Return the first values; the last one is repeated where there are too few."""
    return [values[min(place, len(values) - 1)] for place in range(length)]


def _growth(domain: Domain, near: int, divisor: int) -> int:
    """Return the growth of a domain that is nearest from above, or where none is valid the next multiple."""
    if near % divisor == 0 and domain.contains(near):
        return near
    return nearest_growth(domain, near, divisor) if valid_growths(domain, divisor) else -(-near // divisor) * divisor
