"""A search space as the [space] table of a study file writes it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from space.config import CondenseNetConfig
from space.domains import Choice, Domain, FloatRange, IntRange, domain_from
from space.errors import ImpossibleSpace, InvalidConfig, InvalidSettings
from space.growths import SAME

MOST_STAGES = 16  # each halves the image
KEYS = (
    "num_classes input_shape groups condense_factor bottleneck groups_3x3 num_stages layers growth growth_rule "
    "dropout classifier_keep"
).split()


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
            near = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.3)
            hint = f" Did you mean `{near[0]}`?" if near else f" Valid keys: {', '.join(KEYS)}."
            raise InvalidSettings(f"unknown key `space.{key}`.{hint}")
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
