"""What a user may wish of the network to pick; nothing is imported for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wish:
    """Which network a user wants; all left out: the one with the best score."""

    trial: int | None = None  # this one
    within: float | None = None  # the fastest of those whose score is at most this much below the best, 0..1
    smallest: bool = False  # with `within`: the one with the fewest parameters instead of the fastest


THE_BEST = Wish()
