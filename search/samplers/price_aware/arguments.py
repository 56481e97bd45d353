"""What the sampler refuses, in one sentence each: the rule, what was given, and what to give instead."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from optuna.study import StudyDirection

from search.samplers.price_aware.past import without

Limits = Sequence[float | None]
Observations = Sequence[tuple[Mapping[str, Any], float]]


def checked_limits(limits: Any, excess: object) -> Limits | None:
    """Return limits as a list, or None.

    Raises:
        ValueError: they are no list of numbers and None, or `excess` is given, too.
    """
    if limits is None:
        return None
    if isinstance(limits, str) or not hasattr(limits, "__iter__"):
        raise ValueError(f"limits must be a list, of one number or None for each known objective, but got {limits!r}.")
    listed = list(limits)
    if any(one is not None and (not isinstance(one, Real) or math.isnan(one)) for one in listed):
        raise ValueError(f"limits must be numbers or None, but got {listed}.")
    if excess is not None:
        raise ValueError(
            f"either limits or excess says what is inside, but got both: let excess count the limits {listed}, too, or "
            "leave it out."
        )
    return listed


def checked_count(name: str, value: Any) -> int:
    """Return a number that counts from 0.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, Integral) or value < 0:
        raise ValueError(f"{name} must be a whole number, 0 or more, but got {value!r}.")
    return int(value)


def checked_observations(observations: Any) -> Observations:
    """Return candidates with their values.

    Raises:
        ValueError: one isn't a candidate with a number.
    """
    for one in observations:
        if not (
            isinstance(one, Sequence) and len(one) == 2 and isinstance(one[0], Mapping) and isinstance(one[1], Real)
        ):
            raise ValueError(f"observations must be pairs of a candidate's parameters and its value, but got {one!r}.")
    return tuple((params, float(value)) for params, value in observations)


def check_objectives(modelled: int, limits: Limits | None, directions: Sequence[StudyDirection]) -> None:
    """Raise ValueError if what the sampler was told doesn't fit a study's objectives."""
    objectives = len(directions)
    if modelled not in range(objectives):
        raise ValueError(
            f"modelled must be the place of one of the study's {objectives} objectives, counted from 0, but got "
            f"{modelled}."
        )
    if limits is None:
        return
    if len(limits) != objectives - 1:
        raise ValueError(
            f"limits must have one entry, or None, for each of the study's {objectives - 1} known objectives, but "
            f"got {len(limits)}."
        )
    for limit, direction in zip(limits, without(directions, modelled), strict=True):
        maximised = direction == StudyDirection.MAXIMIZE
        if limit == (math.inf if maximised else -math.inf):
            raise ValueError(
                f"limits must leave something inside, but nothing is beyond the {limit} of an objective that is "
                f"{'maximised' if maximised else 'minimised'}: None, or {-limit}, is no limit."
            )
