"""A search space as the [space] table of a study file writes it, and which values its domains may hold.

A rule that is broken raises ImpossibleSpace, which names the value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from space.config import WIDEST, CondenseNetConfig
from space.documents import did_you_mean
from space.domains import Choice, Domain, FloatRange, IntRange, domain_from
from space.errors import ImpossibleSpace, InvalidConfig, InvalidSettings
from space.growths import SAME

MOST_GROUPINGS = 4_096  # (G, C, groups_3x3) of a space
MOST_STAGES = 16  # each halves the image
KEYS = (
    "num_classes input_shape groups condense_factor bottleneck groups_3x3 num_stages layers growth growth_rule "
    "dropout classifier_keep"
).split()


def settings_of_network(config: CondenseNetConfig) -> dict[str, Any]:
    """Return the keys of a [space] table that hold one network alone; images and classes are the data's."""
    return {
        "groups": config.groups,
        "condense_factor": config.condense_factor,
        "bottleneck": config.bottleneck,
        "groups_3x3": SAME if config.groups_3x3 is None else config.groups_3x3,
        "num_stages": len(config.stages),
        "layers": [[layers] for layers in config.stages],
        "growth": [[growth] for growth in config.growth],
        "dropout": config.dropout,
        "classifier_keep": config.classifier_keep,
    }


def read_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the `SearchSpace` that a [space] table describes.

    Raises:
        InvalidSettings: an unknown key, or one that is missing; the message suggests the nearest.
        ImpossibleSpace: a value that is no domain, or no shape of images.
    """
    _check_keys(settings)
    rule = settings.get("growth_rule", "free")
    if rule not in ("free", "doubling"):
        raise InvalidSettings(f'`space.growth_rule` must be "free" or "doubling", but got {rule!r}.')
    num_stages = domain_from("num_stages", settings.get("num_stages", 3))
    deepest = max((value for value in num_stages.enumerate() or () if isinstance(value, int)), default=1)
    if deepest > MOST_STAGES:
        raise ImpossibleSpace(f"`num_stages` must be at most {MOST_STAGES}, but reaches {deepest}.")
    try:  # the rules of a config on the smallest network there is
        smallest = CondenseNetConfig(
            *((1,), (1,), 1, 1),
            input_shape=settings.get("input_shape", (3, 32, 32)),
            num_classes=settings.get("num_classes", 10),
        )
    except InvalidConfig as error:
        raise ImpossibleSpace(str(error)) from None
    return {
        "num_classes": smallest.num_classes,
        "input_shape": smallest.input_shape,
        "groups": domain_from("groups", settings.get("groups", [1, 2, 4, 8])),
        "condense_factor": domain_from("condense_factor", settings.get("condense_factor", [1, 2, 4, 8])),
        "bottleneck": domain_from("bottleneck", settings.get("bottleneck", 4)),
        "groups_3x3": domain_from("groups_3x3", settings.get("groups_3x3", SAME)),
        "num_stages": num_stages,
        "layers": _per_stage("layers", settings["layers"], deepest),
        "growth": _per_stage("growth", settings["growth"], 1 if rule == "doubling" else deepest),
        "growth_rule": rule,
        "dropout": _real_domain("dropout", settings.get("dropout", 0.0)),
        "classifier_keep": _real_domain("classifier_keep", settings.get("classifier_keep", 1.0)),
    }


def _check_keys(settings: Mapping[str, Any]) -> None:
    for key in settings:
        if key not in KEYS:
            raise InvalidSettings(f"unknown key `space.{key}`. {did_you_mean(key, KEYS)}")
    for key in ("layers", "growth"):
        if key not in settings:
            raise InvalidSettings(f"`space.{key}` is missing; say which {key} to search.")


def _real_domain(name: str, written: Any) -> Domain:
    """Return a range of reals even where both ends are written as whole numbers: a config holds 0.0, not 0."""
    domain = domain_from(name, written)
    return FloatRange(float(domain.low), float(domain.high), domain.log) if isinstance(domain, IntRange) else domain


def _per_stage(name: str, written: Any, stages: int) -> tuple[Domain, ...]:
    """Return one domain for all stages, or a list of lists or ranges with one entry a stage."""
    if isinstance(written, list | tuple) and written and all(isinstance(v, list | tuple | dict) for v in written):
        return tuple(domain_from(f"{name}_{i + 1}", value) for i, value in enumerate(written))
    domain = domain_from(name, written)
    if isinstance(domain, Choice) and any(isinstance(value, str) for value in domain.values):
        raise ImpossibleSpace(f"`{name}` must be whole numbers, but got {list(domain.values)}.")
    return (domain,) * stages


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
