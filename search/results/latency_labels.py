"""What a latency is worth, in the words that stand beside it everywhere."""

from __future__ import annotations

from typing import Protocol


class Labelled(Protocol):
    """Any record of a latency that says what its number is worth."""

    @property
    def kind(self) -> str:
        """Measured, estimated or predicted."""
        ...

    @property
    def policy(self) -> str:
        """`standard` or `quick` where it was measured."""
        ...

    @property
    def steady(self) -> bool:
        """Whether the machine kept still."""
        ...

    @property
    def extrapolates(self) -> bool:
        """Whether the network lies outside what an estimate or prediction was calibrated on."""
        ...


def doubts_text(seen: Labelled) -> str:
    """Return what to add to a latency's kind: ", quick, not steady", ", extrapolated", or nothing."""
    return "".join(f", {word}" for word in doubts(seen.policy == "quick", seen.steady, seen.extrapolates))


def doubts(quick: bool, steady: bool, extrapolates: bool) -> list[str]:
    """Return what there is to be said against a latency, word by word."""
    return ["quick"] * bool(quick) + ["not steady"] * (not steady) + ["extrapolated"] * bool(extrapolates)
