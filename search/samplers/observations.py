"""What a sampler is told of networks that its study hasn't trained."""

from __future__ import annotations

from dataclasses import dataclass

from space.domains import Value

Params = dict[str, Value]


@dataclass(frozen=True)
class Observation:
    """A network of an earlier study in the new one's parameters, and the score that it reached."""

    params: Params
    score: float  # the new study's objective, a fraction
