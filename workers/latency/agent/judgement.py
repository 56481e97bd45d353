"""Which processes of a batch count for a model, whether they make a steady measurement, and when there are enough.

Everything here is computed from figures alone; `choose` is the whole decision.

- A process that something disturbed while it ran the model doesn't count (`disturbance.disturbed`).
- Those count together whose anchors agree within the tolerance, and in which the model's own medians do, too: a
  network of several ms is disturbed by what an anchor of half a ms never meets.
- There are enough when the interval is narrow enough. Stein's two stages (1945) say how many that takes from the
  spread of the first ones alone, and the interval then rests on that spread too: so it holds in 95 of 100 cases
  whether or not more processes were added, which it wouldn't if they were added until it looked narrow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import stdev

# 97.5 % quantiles of Student's t for 1, 2, … degrees of freedom
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


@dataclass(frozen=True)
class Rule:
    """What a policy asks of a batch."""

    processes: int  # that must agree
    most: int  # processes in all
    tolerance: float  # how far the anchor, and the model, may move between processes, relative
    within: float  # the half width of the interval that is narrow enough, relative


@dataclass(frozen=True)
class Timed:
    """One model in one process."""

    median_ms: float
    anchor_ms: tuple[float, float]  # medians of the first and the last anchor
    disturbed: str | None  # by what


@dataclass(frozen=True)
class Choice:
    """The processes that count for a model, by their places, and what is said of them."""

    kept: tuple[int, ...]
    steady: bool
    anchor_drift: float  # among those kept
    wanted: int  # processes to keep for a narrow interval

    @property
    def is_enough(self) -> bool:
        """Whether no further process is needed."""
        return self.steady and len(self.kept) >= self.wanted


def choose(timed: Sequence[Timed], rule: Rule) -> Choice:
    """Choose the processes that count for a model, of those that have timed it so far (one or more).

    Of the undisturbed ones, the largest set counts whose anchors agree, and of equal ones the fastest. It is steady if
    it has as many processes as the policy asks for and more than half of the undisturbed ones, and the model's own
    medians agree in it; those that stand far apart from the others are left out first. Where there is no such set,
    those count that disagree least, undisturbed ones first.
    """
    quiet = [place for place, one in enumerate(timed) if one.disturbed is None]
    anchored = _anchored(timed, quiet, rule.tolerance)
    agreeing = _without_outliers(timed, anchored, rule.tolerance)
    enough = len(agreeing) >= rule.processes and 2 * len(agreeing) > len(quiet)
    if enough and _spread([timed[place].median_ms for place in agreeing]) <= rule.tolerance:
        first = [math.log(timed[place].median_ms) for place in agreeing[: rule.processes]]
        wanted = min(rule.most, processes_for(first, rule.within))
        return Choice(tuple(agreeing), True, anchor_drift([timed[place] for place in agreeing]), wanted)
    kept = anchored if len(anchored) >= rule.processes else _closest(timed, rule.processes)
    return Choice(tuple(kept), False, anchor_drift([timed[place] for place in kept]), rule.processes)


def anchor_drift(timed: Sequence[Timed]) -> float:
    """Return how far the anchor moved within and between processes, relative to its fastest median."""
    return _spread([value for one in timed for value in one.anchor_ms])


def _spread(values: Sequence[float]) -> float:
    return float((max(values) - min(values)) / min(values))


def _anchored(timed: Sequence[Timed], places: Sequence[int], tolerance: float) -> list[int]:
    """Return the largest set of these places whose anchors agree within the tolerance; of equal ones the fastest."""
    best: list[int] = []
    for fastest in sorted({min(timed[place].anchor_ms) for place in places}):
        inside = [
            place
            for place in places
            if min(timed[place].anchor_ms) >= fastest and max(timed[place].anchor_ms) <= fastest * (1 + tolerance)
        ]
        if len(inside) > len(best):
            best = inside
    return best


def _without_outliers(timed: Sequence[Timed], places: Sequence[int], tolerance: float) -> list[int]:
    """Return these places without those whose medians stand apart: further off than the others are from each other.

    Where none stands apart, all are returned: to leave out the ends of what merely varies would make it look steadier
    than it is.
    """
    largest: list[int] = []
    for fastest in sorted({timed[place].median_ms for place in places}):
        inside = [place for place in places if fastest <= timed[place].median_ms <= fastest * (1 + tolerance)]
        if len(inside) > len(largest):
            largest = inside
    inside_ms = [timed[place].median_ms for place in largest]
    left_out_ms = [timed[place].median_ms for place in places if place not in largest]
    if all(min(abs(outside - ms) for ms in inside_ms) > max(inside_ms) - min(inside_ms) for outside in left_out_ms):
        return largest
    return list(places)


def _closest(timed: Sequence[Timed], count: int) -> list[int]:
    """Return up to `count` places, the undisturbed before the disturbed ones, whose times lie closest together."""
    by_time = sorted(range(len(timed)), key=lambda place: timed[place].median_ms)
    quiet = [place for place in by_time if timed[place].disturbed is None]
    if len(quiet) < count:  # what disturbs makes slower: the fastest of the disturbed are the least disturbed
        disturbed = [place for place in by_time if timed[place].disturbed is not None]
        return sorted([*quiet, *disturbed][:count])
    windows = [quiet[start : start + count] for start in range(len(quiet) - count + 1)]

    def disagreement(window: Iterable[int]) -> float:
        inside = [timed[place] for place in window]
        return max(anchor_drift(inside), _spread([one.median_ms for one in inside]))

    return sorted(min(windows, key=disagreement))


def t_quantile(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t; infinite for no degree of freedom."""
    if degrees < 1:
        return math.inf
    if degrees <= len(_T):
        return _T[degrees - 1]
    z = 1.959964  # Hill's expansion in 1 / degrees; right to 0.0003 from 16 on
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


def processes_for(first_logs: Sequence[float], within: float) -> int:
    """Return how many processes make the interval as narrow as `within`, from the logs of the first ones' medians."""
    if len(first_logs) < 2:
        return len(first_logs)
    wide = t_quantile(len(first_logs) - 1) * stdev(first_logs) / within
    return max(len(first_logs), math.ceil(wide * wide))
