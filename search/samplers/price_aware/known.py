"""What is known of candidates before any is trained: their costs, whether they are inside the limits, further facts."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from search.samplers.price_aware.pool import Params

Array = NDArray[np.float64]
OfCandidates = Callable[[Sequence[Mapping[str, Any]]], ArrayLike]


@dataclass(frozen=True)
class Known:
    """What a user's functions say of candidates; see `PriceAwareSampler`."""

    price: OfCandidates
    limits: Sequence[float | None] | None
    excess: OfCandidates | None
    key: Callable[[Mapping[str, Any]], Hashable] | None
    extra: OfCandidates | None
    canonical: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    constants: Mapping[str, Any] = field(default_factory=dict)  # settings of which there is only one value

    def reduced(self, candidate: Mapping[str, Any]) -> Params:
        """Return a candidate without the settings that mean nothing beside its others."""
        if self.canonical is None:
            return dict(candidate)
        kept = self.canonical({**self.constants, **candidate})
        return {name: value for name, value in kept.items() if name not in self.constants}

    def key_of(self, candidate: Mapping[str, Any]) -> Hashable | None:
        """Return what the user says that equal candidates have in common; None if that is left to their settings."""
        return None if self.key is None else self.key({**self.constants, **candidate})

    def costs(self, candidates: Sequence[Mapping[str, Any]], signs: Array) -> Array:
        """Return the costs of candidates, to be minimised, (n, k); NaN for one that can't be built.

        Raises:
            ValueError: `price` needs a setting that a candidate doesn't have, or returns another number of costs.
        """
        if not candidates:
            return np.zeros((0, len(signs)))
        try:
            values = np.asarray(self.price(self._whole(candidates)), dtype=float)
        except KeyError as error:
            raise ValueError(
                f"price must do with the settings that trials have, but it needs {error}; leave it out of search_space "
                "if the objective doesn't suggest it, or let price do without."
            ) from error
        if values.size != len(candidates) * len(signs):
            raise ValueError(
                f"price must return {len(signs)} known objectives for each of {len(candidates)} candidates, but it "
                f"returned an array of shape {values.shape}."
            )
        costs: Array = values.reshape(len(candidates), len(signs)) * signs
        return costs

    def _whole(self, candidates: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        return [{**self.constants, **candidate} for candidate in candidates] if self.constants else candidates

    def priced(self, candidates: Sequence[Params], signs: Array) -> Priced:
        """Return those of the candidates that can be built, with their costs."""
        costs = self.costs(candidates, signs)
        built = np.asarray(np.isfinite(costs).all(axis=1))
        kept, costs = [candidate for candidate, can in zip(candidates, built, strict=True) if can], costs[built]
        return Priced(kept, costs, self._over(kept, costs, signs), self)

    def _over(self, candidates: Sequence[Params], costs: Array, signs: Array) -> Array:
        if self.excess is not None:
            excess: Array = np.asarray(self.excess(self._whole(candidates)), dtype=float).reshape(len(candidates))
            return excess
        over: Array = np.full(len(candidates), -1.0)
        for place, limit in enumerate(self.limits or ()):
            if limit is not None:
                over = np.maximum(over, (costs[:, place] - signs[place] * limit) / (abs(limit) or 1.0))
        return over

    @property
    def limited(self) -> bool:
        """Whether there are limits."""
        return self.excess is not None or any(limit is not None for limit in self.limits or ())

    def extra_features(self, candidates: Sequence[Mapping[str, Any]]) -> Array:
        """Return the user's features, (n, f)."""
        if self.extra is None or not candidates:
            return np.zeros((len(candidates), 0))
        features = np.asarray(self.extra(self._whole(candidates)), dtype=float).reshape(len(candidates), -1)
        finite: Array = np.nan_to_num(features, posinf=0.0, neginf=0.0)
        return finite


@dataclass(frozen=True)
class Priced:
    """Candidates that can be built."""

    candidates: list[Params]
    costs: Array  # (n, k), to be minimised
    over: Array  # (n,), 0 or less: inside the limits
    known: Known

    @cached_property
    def extra(self) -> Array:
        """The user's features, (n, f): they may be dear, so they are asked for when a model needs them, and once."""
        return self.known.extra_features(self.candidates)

    def __add__(self, more: Priced) -> Priced:
        """Return these candidates and then more."""
        costs, over = np.concatenate([self.costs, more.costs]), np.concatenate([self.over, more.over])
        return Priced(self.candidates + more.candidates, costs, over, self.known)

    def of(self, places: NDArray[np.intp] | NDArray[np.bool_]) -> Priced:
        """Return some of them."""
        numbers = np.arange(len(self.candidates))[places].tolist()
        return Priced(
            [self.candidates[number] for number in numbers], self.costs[places], self.over[places], self.known
        )
