"""The search space of a study: which CondenseNet configurations it may try.

Notable choices:
- Parameters have fixed distributions (Optuna can't change one inside a study), and every combination of parameters is a
  valid config: a drawn growth that G, C and groups_3x3 don't divide is moved to the nearest listed one that they do
  (the next larger if there is one). A space in which some (G, C, groups_3x3) has no such growth is refused.
- Parameters of stages a config doesn't have are ignored, so several parameter sets may name one config; `size` counts
  configs, not parameter sets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any, Literal, cast

import numpy as np

from space import space_settings
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.domains import Domain, Value, domain_to
from space.errors import ImpossibleSpace, InvalidConfig, InvalidSettings
from space.growths import (
    SAME,
    Grouping,
    groupings_of,
    growth_divisor,
    nearest_growth,
    nearest_value,
    neighbouring_values,
    valid_growths,
)
from space.presets import SPACE_PRESETS


@dataclass(frozen=True)
class SearchSpace:
    """A set of configs; build it with `from_settings` or `preset`.

    `layers` and `growth` hold one domain per stage (the largest number of stages); with `growth_rule="doubling"` the
    one growth domain is the first stage's, and each later stage doubles it.
    """

    num_classes: int
    input_shape: tuple[int, int, int]
    groups: Domain
    condense_factor: Domain
    bottleneck: Domain
    groups_3x3: Domain
    num_stages: Domain
    layers: tuple[Domain, ...]
    growth: tuple[Domain, ...]
    growth_rule: Literal["free", "doubling"]
    dropout: Domain
    classifier_keep: Domain

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_depth()
        for grouping in self._groupings():
            for domain in self.growth:
                if not valid_growths(domain, grouping.divisor):
                    raise ImpossibleSpace(
                        "`growth` must hold a multiple of lcm(groups, condense_factor, groups_3x3) for every "
                        f"combination, but lcm({grouping}) = {grouping.divisor} divides none of "
                        f"{list(domain.enumerate() or ())}; add one or take {grouping} out."
                    )
        self._check_classifier()

    def _check_numbers(self) -> None:
        whole = {
            "groups": self.groups,
            "condense_factor": self.condense_factor,
            "bottleneck": self.bottleneck,
            "num_stages": self.num_stages,
            **space_settings.named_as_written("layers", self.layers),
            **space_settings.named_as_written("growth", self.growth),
        }
        for name, domain in whole.items():
            space_settings.check_whole_numbers(name, domain)
        space_settings.check_groups_3x3(self.groups_3x3)
        space_settings.check_groupings(self.groups, self.condense_factor, self.groups_3x3)
        space_settings.check_dropout(self.dropout)
        space_settings.check_classifier_keep(self.classifier_keep)

    def _check_depth(self) -> None:
        deepest = max(cast(tuple[int, ...], self.num_stages.enumerate()))
        if len(self.layers) < deepest or (self.growth_rule == "free" and len(self.growth) < deepest):
            raise ImpossibleSpace(
                f"`layers` and `growth` must cover every stage, but num_stages reaches {deepest} with "
                f"{len(self.layers)} layers and {len(self.growth)} growth settings."
            )
        if self.growth_rule == "doubling" and len(self.growth) != 1:
            raise ImpossibleSpace(f"growth_rule doubling needs one growth setting, but got {len(self.growth)}.")
        try:
            CondenseNetConfig((1,) * deepest, (1,) * deepest, 1, 1, input_shape=self.input_shape)
        except InvalidConfig as error:
            raise ImpossibleSpace(f"num_stages reaches {deepest}: {error}") from None

    def _check_classifier(self) -> None:
        """Refuse a `classifier_keep` that leaves the smallest network no feature: every config must be valid."""
        stages = min(cast(tuple[int, ...], self.num_stages.enumerate()))
        layers = [cast(int, min(domain.extremes())) for domain in self.layers[:stages]]
        smallest = math.inf
        for grouping in self._groupings():
            growth = [valid_growths(domain, grouping.divisor)[0] for domain in self.growth]
            if self.growth_rule == "doubling":
                growth = [growth[0] << stage for stage in range(stages)]
            features = 2 * growth[0] + sum(n * g for n, g in zip(layers, growth[:stages], strict=True))
            smallest = min(smallest, features)
        least = cast(float, min(self.classifier_keep.extremes()))
        if math.floor(least * smallest + 1e-9) < 1:  # rounds as CondenseNetConfig.classifier_inputs
            raise ImpossibleSpace(
                f"`classifier_keep` must leave every network at least one feature, but got {least} and the smallest "
                f"network has {smallest} features; raise classifier_keep to at least {1 / smallest:.3g}."
            )

    # -- reading and writing --

    @classmethod
    def preset(cls, name: str) -> SearchSpace:
        """Return a ready-made space: digits, cifar or imagenet-mobile."""
        if name not in SPACE_PRESETS:
            raise InvalidSettings(f"no space preset is called {name!r}; there are {', '.join(SPACE_PRESETS)}.")
        return cls.from_settings(SPACE_PRESETS[name])

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> SearchSpace:
        """Build from a study file's [space] table (see `SPACE_PRESETS` for examples).

        Raises:
            InvalidSettings: an unknown key; the message suggests the nearest.
            ImpossibleSpace: a rule is broken; the message names it.
        """
        return cls(**space_settings.read_settings(settings))

    def to_settings(self) -> dict[str, Any]:
        """Return every key as plain JSON values; `from_settings` builds an equal space from it."""
        return {
            "num_classes": self.num_classes,
            "input_shape": list(self.input_shape),
            **{
                key: domain_to(getattr(self, key))
                for key in space_settings.KEYS
                if isinstance(getattr(self, key), Domain)
            },
            "layers": [domain_to(domain) for domain in self.layers],
            "growth": [domain_to(domain) for domain in self.growth],
            "growth_rule": self.growth_rule,
        }

    def for_data(self, input_shape: tuple[int, int, int], num_classes: int) -> SearchSpace:
        """Return the same space for images of another shape and another number of classes."""
        return replace(self, input_shape=input_shape, num_classes=num_classes)

    # -- parameters --

    @cached_property
    def domains(self) -> dict[str, Domain]:
        """Every parameter by name, fixed ones included; the map Optuna's distributions are made from."""
        named = {
            "groups": self.groups,
            "condense_factor": self.condense_factor,
            "bottleneck": self.bottleneck,
        }
        named |= {"groups_3x3": self.groups_3x3, "num_stages": self.num_stages}
        named |= {f"layers_{i + 1}": domain for i, domain in enumerate(self.layers)}
        named |= {f"growth_{i + 1}": domain for i, domain in enumerate(self.growth)}
        return named | {"dropout": self.dropout, "classifier_keep": self.classifier_keep}

    def from_params(self, params: Mapping[str, Value]) -> CondenseNetConfig:
        """Return the config that parameters name; one that is left out takes its domain's first value."""
        values = {name: params.get(name, domain.extremes()[0]) for name, domain in self.domains.items()}
        whole = cast(dict[str, int], values)
        stages = whole["num_stages"]
        groups_3x3 = None if values["groups_3x3"] == SAME else whole["groups_3x3"]
        divisor = growth_divisor(whole["groups"], whole["condense_factor"], groups_3x3)
        growth = [nearest_growth(domain, whole[f"growth_{i + 1}"], divisor) for i, domain in enumerate(self.growth)]
        if self.growth_rule == "doubling":
            growth = [growth[0] << stage for stage in range(stages)]
        return CondenseNetConfig(
            stages=tuple(whole[f"layers_{i + 1}"] for i in range(stages)),
            growth=tuple(growth[:stages]),
            groups=whole["groups"],
            condense_factor=whole["condense_factor"],
            bottleneck=whole["bottleneck"],
            groups_3x3=groups_3x3,
            dropout=cast(float, values["dropout"]),
            num_classes=self.num_classes,
            input_shape=self.input_shape,
            classifier_keep=cast(float, values["classifier_keep"]),
        )

    def to_params(self, config: CondenseNetConfig) -> dict[str, Value]:
        """Return the parameters that name `config` (only those of its stages).

        Raises:
            InvalidConfig: the config lies outside this space; the message says by which parameter.
        """
        if (config.input_shape, config.num_classes) != (self.input_shape, self.num_classes):
            raise InvalidConfig(
                f"this space is for input_shape={self.input_shape}, num_classes={self.num_classes}, but the config has "
                f"input_shape={config.input_shape}, num_classes={config.num_classes}."
            )
        params: dict[str, Value] = {
            "groups": config.groups,
            "condense_factor": config.condense_factor,
            "bottleneck": config.bottleneck,
            "groups_3x3": self._written_groups_3x3(config),
            "num_stages": len(config.stages),
            "dropout": config.dropout,
            "classifier_keep": config.classifier_keep,
        }
        params |= {f"layers_{i + 1}": layers for i, layers in enumerate(config.stages)}
        growth = config.growth[:1] if self.growth_rule == "doubling" else config.growth
        params |= {f"growth_{i + 1}": value for i, value in enumerate(growth)}
        for name, value in params.items():
            if name not in self.domains or not self.domains[name].contains(value):
                raise InvalidConfig(f"the config lies outside the space: {name}={value}.")
        if self.from_params(params) != config:
            raise InvalidConfig(f"the config lies outside the space: growth={config.growth} ({self.growth_rule}).")
        return params

    def _written_groups_3x3(self, config: CondenseNetConfig) -> Value:
        same = config.groups_3x3 is None and self.groups_3x3.contains(SAME)
        return SAME if same else config.conv3x3_groups

    def contains(self, config: CondenseNetConfig) -> bool:
        """Whether the space can propose `config`."""
        try:
            self.to_params(config)
        except InvalidConfig:
            return False
        return True

    def sample(self, rng: np.random.Generator) -> CondenseNetConfig:
        """Draw one config, every parameter uniformly over its domain."""
        return self.from_params({name: domain.sample(rng) for name, domain in self.domains.items()})

    def neighbours(self, config: CondenseNetConfig) -> list[CondenseNetConfig]:
        """Return the distinct configs one parameter step away, without `config` itself.

        A stage that is added repeats the last stage's layers and growth as nearly as its domains allow.
        """
        params = self.to_params(config)
        for stage in range(len(config.stages), len(self.layers)):
            for name in ("layers", "growth"):
                domain = self.domains.get(f"{name}_{stage + 1}")
                last = params.get(f"{name}_{stage}")
                if domain is not None and last is not None:
                    params[f"{name}_{stage + 1}"] = nearest_value(domain, cast(int, last))
        divisor = growth_divisor(config.groups, config.condense_factor, config.groups_3x3)
        neighbours = (
            self.from_params({**params, name: value})
            for name, domain in self.domains.items()
            if name in params
            for value in neighbouring_values(name, domain, params[name], divisor)
        )
        return [other for other in dict.fromkeys(neighbours) if other != config]

    # -- description --

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of what `features` returns."""
        depth = len(self.layers)
        per_stage = [f"{name}_{stage + 1}" for name in ("layers", "growth") for stage in range(depth)]
        fixed = ["log2_groups", "log2_condense_factor", "log2_bottleneck", "log2_groups_3x3", "num_stages"]
        return (*fixed, *per_stage, "dropout", "classifier_keep", "log_macs", "log_params")

    def features(self, config: CondenseNetConfig) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return a float64 vector of len(feature_names) for surrogates; a stage that isn't there counts 0."""
        depth = len(self.layers)
        pad = (0,) * (depth - len(config.stages))
        cost = cost_of(config)
        logs = (config.groups, config.condense_factor, config.bottleneck, config.conv3x3_groups)
        return np.array(
            [
                *map(math.log2, logs),
                len(config.stages),
                *config.stages,
                *pad,
                *config.growth,
                *pad,
                config.dropout,
                config.classifier_keep,
                math.log(cost.macs),
                math.log(cost.params),
            ],
            dtype=np.float64,
        )

    @cached_property
    def size(self) -> int | None:
        """How many distinct configs there are, exactly; None when a parameter is a range of reals."""
        plain = [domain.enumerate() for domain in (self.bottleneck, self.dropout, self.classifier_keep)]
        if any(values is None for values in plain):
            return None
        factor = math.prod(len(values) for values in plain if values is not None)
        return factor * sum(math.prod(map(len, shape.values())) for _, shape in self._shapes())

    def configs(self) -> Iterator[CondenseNetConfig]:
        """Yield every distinct config once; none where a parameter is a range of reals, of which `size` is None."""
        alone = {"bottleneck": self.bottleneck, "dropout": self.dropout, "classifier_keep": self.classifier_keep}
        plain = {name: domain.enumerate() or () for name, domain in alone.items()}
        for fixed, shape in self._shapes():
            names = (*plain, *shape)
            for values in product(*plain.values(), *shape.values()):
                yield self.from_params({**fixed, **dict(zip(names, values, strict=True))})

    def _shapes(self) -> Iterator[tuple[dict[str, Value], dict[str, Sequence[Value]]]]:
        """Yield each grouping with each number of stages, and what the parameters of these stages may be then."""
        for grouping in self._groupings():
            growths = [valid_growths(domain, grouping.divisor) for domain in self.growth]
            for stages in cast(tuple[int, ...], self.num_stages.enumerate()):
                shape: dict[str, Sequence[Value]] = {
                    f"layers_{i + 1}": domain.enumerate() or () for i, domain in enumerate(self.layers[:stages])
                }
                shape |= {f"growth_{i + 1}": values for i, values in enumerate(growths[:stages])}
                yield {**asdict(grouping), "num_stages": stages}, shape

    def _groupings(self) -> Iterator[Grouping]:
        return groupings_of(self.groups, self.condense_factor, self.groups_3x3)
