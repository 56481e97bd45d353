"""What is known of candidates before any is trained: their costs, whether they are inside the limits, further facts."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeGuard

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
        """Return what the user says that equal candidates have in common; None if that is left to their settings.

        Raises:
            ValueError: it isn't hashable.
        """
        if self.key is None:
            return None
        key = self.key({**self.constants, **candidate})
        try:
            hash(key)
        except TypeError as error:
            raise ValueError(
                f"key must return something hashable, but it returned the {type(key).__name__} {key!r}; return a tuple "
                "in place of a list."
            ) from error
        return key

    def costs(self, candidates: Sequence[Mapping[str, Any]], signs: Array) -> Array:
        """Return the costs of candidates, to be minimised, (n, k); NaN for one that can't be built.

        Raises:
            ValueError: `price` needs a setting that a candidate doesn't have, or returns another number of costs.
        """
        if not candidates:
            return np.zeros((0, len(signs)))
        try:
            values = _numbers("price", self.price(self._whole(candidates)))
        except KeyError as error:
            raise ValueError(
                f"price must do with the settings that trials have, but it needs {error}; leave it out of search_space "
                "if the objective doesn't suggest it, or let price do without."
            ) from error
        count, known = len(candidates), len(signs)
        clear = values.size == count * known and min(count, known) < 2  # however it is written
        if values.shape != (count, known) and not clear:
            raise ValueError(
                f"price must return {len(signs)} known objectives for each of {len(candidates)} candidates, but it "
                f"returned an array of shape {values.shape}."
            )
        costs: Array = values.reshape(count, known) * signs
        return costs

    def _whole(self, candidates: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        return [{**self.constants, **candidate} for candidate in candidates] if self.constants else candidates

    def priced(self, candidates: Sequence[Params], signs: Array) -> Priced:
        """Return those of the candidates that can be built, with their costs."""
        costs = self.costs(candidates, signs)
        built = np.asarray(np.isfinite(costs).all(axis=1))
        kept, costs = [candidate for candidate, can in zip(candidates, built, strict=True) if can], costs[built]
        priced = Priced(kept, costs, self._over(kept, costs, signs), self)
        unknown = np.isnan(priced.over)
        return priced.of(~unknown) if unknown.any() else priced

    def _over(self, candidates: Sequence[Params], costs: Array, signs: Array) -> Array:
        over: Array = np.full(len(candidates), -1.0)
        if self.excess is not None and candidates:
            over = _numbers("excess", self.excess(self._whole(candidates)))
            if over.shape not in ((len(candidates),), (len(candidates), 1)):
                raise ValueError(
                    f"excess must return one number for each of {len(candidates)} candidates, but it returned an array "
                    f"of shape {over.shape}."
                )
            return over.reshape(len(candidates))
        for place, limit in enumerate(self.limits or ()):
            if _is_limit(limit):
                over = np.maximum(over, (costs[:, place] - signs[place] * limit) / (abs(limit) or 1.0))
        return over

    @property
    def limited(self) -> bool:
        """Whether there are limits."""
        return self.excess is not None or any(map(_is_limit, self.limits or ()))

    def extra_features(self, candidates: Sequence[Mapping[str, Any]]) -> Array:
        """Return the user's features, (n, f)."""
        if self.extra is None or not candidates:
            return np.zeros((len(candidates), 0))
        features = _numbers("features", self.extra(self._whole(candidates)))
        if features.ndim not in (1, 2) or len(features) != len(candidates):
            raise ValueError(
                f"features must return one row for each of {len(candidates)} candidates, but it returned an array of "
                f"shape {features.shape}."
            )
        finite: Array = np.nan_to_num(features.reshape(len(candidates), -1), posinf=0.0, neginf=0.0)
        return finite


def _is_limit(limit: float | None) -> TypeGuard[float]:
    return limit is not None and math.isfinite(limit)


def _numbers(name: str, returned: ArrayLike) -> Array:
    """Return what a user's function returned as an array."""
    try:
        return np.asarray(returned, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must return numbers, as many for each candidate as for any other, but it returned "
            f"{textwrap.shorten(repr(returned), 60)}."
        ) from error


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
