"""Which values the domains of a search space may hold; each rule raises ImpossibleSpace, which names the value."""

from __future__ import annotations

import math

from space.config import WIDEST
from space.domains import Domain
from space.errors import ImpossibleSpace
from space.growths import SAME

MOST_GROUPINGS = 4_096


def named_as_written(name: str, domains: tuple[Domain, ...]) -> dict[str, Domain]:
    """Name one domain for all stages as the study file does, others by their stage."""
    if len(set(domains)) == 1:
        return {name: domains[0]}
    return {f"{name}_{i + 1}": domain for i, domain in enumerate(domains)}


def check_whole_numbers(name: str, domain: Domain) -> None:
    """Raise ImpossibleSpace unless every value is a whole number of at least 1."""
    for value in domain.enumerate() or domain.extremes():
        if not isinstance(value, int) or not 1 <= value <= WIDEST:
            raise ImpossibleSpace(f"`{name}` must be whole numbers from 1 to {WIDEST}, but got {value!r}.")


def check_groups_3x3(domain: Domain) -> None:
    """Raise ImpossibleSpace unless every value is "same" or a whole number of at least 1."""
    for value in domain.enumerate() or domain.extremes():
        if value != SAME and (not isinstance(value, int) or not 1 <= value <= WIDEST):
            raise ImpossibleSpace(f'`groups_3x3` must be "same" or from 1 to {WIDEST}, but got {value!r}.')


def check_groupings(*domains: Domain) -> None:
    """Raise ImpossibleSpace where there are too many combinations of groups, condense factors and groups of the 3x3.

    Growths are looked up for each of them.
    """
    combinations = math.prod(len(domain.enumerate() or ()) for domain in domains)
    if combinations > MOST_GROUPINGS:
        raise ImpossibleSpace(
            f"`groups`, `condense_factor` and `groups_3x3` may have at most {MOST_GROUPINGS:,} combinations, but have "
            f"{combinations:,}; list fewer of them."
        )


def check_dropout(domain: Domain) -> None:
    """Raise ImpossibleSpace unless every value is at least 0 and below 1."""
    for value in domain.extremes():
        if not isinstance(value, int | float) or not 0 <= value < 1:
            raise ImpossibleSpace(f"0 <= dropout < 1 must hold, but got {value!r}.")


def check_classifier_keep(domain: Domain) -> None:
    """Raise ImpossibleSpace unless every value is above 0 and at most 1."""
    for value in domain.extremes():
        if not isinstance(value, int | float) or not 0 < value <= 1:
            raise ImpossibleSpace(f"0 < classifier_keep <= 1 must hold, but got {value!r}.")
