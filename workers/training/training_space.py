"""Which training settings a study may try, beside the architectures of `space.SearchSpace`.

Every key of `TrainingSettings` may be a single value (fixed for the study), a list, or a range
`{ low = 0.01, high = 0.3, log = true }`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError

from space.documents import did_you_mean
from space.domains import Choice, Domain, FloatRange, Value, domain_from, domain_to
from space.errors import InvalidSettings
from workers.settings import TrainingSettings


@dataclass(frozen=True)
class TrainingSpace:
    """The fixed settings of a study and the domains of those it varies."""

    fixed: TrainingSettings
    varied: tuple[tuple[str, Domain], ...]

    @classmethod
    def from_settings(cls, written: Mapping[str, Any]) -> TrainingSpace:
        """Build from a study file's [training] table.

        Raises:
            InvalidSettings: an unknown key (the nearest is suggested) or a value outside its range.
            ImpossibleSpace: a range or list that is none.
        """
        fixed: dict[str, Any] = {}
        varied: list[tuple[str, Domain]] = []
        for key, value in written.items():
            if key not in TrainingSettings.model_fields:
                hint = did_you_mean(key, TrainingSettings.model_fields)
                raise InvalidSettings(f"unknown key `training.{key}`. {hint}")
            if isinstance(value, list | tuple | dict):
                domain = domain_from(f"training.{key}", value)
                if isinstance(domain, FloatRange) and TrainingSettings.model_fields[key].annotation is int:
                    raise InvalidSettings(f"`training.{key}` must range over whole numbers, but got {value}.")
                for extreme in domain.extremes():
                    _validated({key: extreme})
                if isinstance(domain, Choice) and len(domain.values) == 1:
                    fixed[key] = domain.values[0]
                else:
                    varied.append((key, domain))
            else:
                fixed[key] = value
        return cls(_validated(fixed), tuple(varied))

    def to_settings(self) -> dict[str, Any]:
        """Return every key as plain JSON values; `from_settings` builds an equal space from it."""
        return self.fixed.model_dump() | {name: domain_to(domain) for name, domain in self.varied}

    @property
    def domains(self) -> dict[str, Domain]:
        """The parameters that vary, by name."""
        return dict(self.varied)

    def from_params(self, params: Mapping[str, Value]) -> TrainingSettings:
        """Return the settings that parameters name; one that is left out takes its domain's first value."""
        chosen = {name: params.get(name, domain.extremes()[0]) for name, domain in self.varied}
        return TrainingSettings.model_validate(self.fixed.model_dump() | chosen)

    def middle(self) -> TrainingSettings:
        """Return the settings in the middle of every domain."""
        return self.from_params({name: domain.middle() for name, domain in self.varied})

    def to_params(self, settings: TrainingSettings) -> dict[str, Value]:
        """Return the parameters that name `settings`.

        Raises:
            InvalidSettings: the settings lie outside this space; the message says by which key.
        """
        domains = self.domains
        for name in TrainingSettings.model_fields:  # a dump leaves out what has its default
            value = getattr(settings, name)
            if not domains[name].contains(value) if name in domains else value != getattr(self.fixed, name):
                raise InvalidSettings(f"the training settings lie outside the study's: {name}={value!r}.")
        return {name: getattr(settings, name) for name in domains}

    def sample(self, rng: np.random.Generator) -> TrainingSettings:
        """Draw one, every varied setting uniformly over its domain."""
        return self.from_params({name: domain.sample(rng) for name, domain in self.varied})


def _validated(values: Mapping[str, Any]) -> TrainingSettings:
    try:
        return TrainingSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidSettings(f"`training.{first['loc'][0]}`: {first['msg']}, but got {first['input']!r}.") from None
