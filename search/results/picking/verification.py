"""Whether a trained network stays inside a limit when its file is measured: one noisy measurement decides nothing.

- What is recorded decides together with what is measured now, so that picking again from one study gives the same
  network: each measurement varies, and near a limit one in a few would turn the choice.
- A disturbed measurement can only be too slow. So it may show that a network fits, never that it doesn't.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from workers.latency.record import LatencyRecord

MEASURED_MOST = 3  # times by one `pick`; twice as often where only an undisturbed one more can decide
AGAINST_LEAST = 2  # undisturbed measurements that it takes to pass a network over


class Standing(StrEnum):
    """What the measurements of one network say about a limit."""

    INSIDE = "inside"
    OVER = "over"
    OPEN = "open"  # they don't decide it yet


Record = TypeVar("Record", bound=LatencyRecord)


@dataclass(frozen=True)
class Verified(Generic[Record]):
    """How a verification ended, and the measurement to show for it."""

    standing: Standing
    shown: Record


def standing_of(measured: Sequence[LatencyRecord], limit_ms: float) -> Standing:
    """Return what measurements of one network on one device, oldest first, say about a limit.

    The first one whose interval's upper end is inside decides for the network. Undisturbed ones whose upper end is
    over it are against it, and `AGAINST_LEAST` of them decide. Once it was inside, only those count against it whose
    lower end is over the limit, too: surely over.
    """
    inside, against = False, 0
    for one in measured:
        if one.interval_high_ms <= limit_ms:
            if not inside and against < AGAINST_LEAST:
                inside, against = True, 0
        elif one.steady and (not inside or one.interval_low_ms > limit_ms):
            against += 1
            if against == AGAINST_LEAST and inside:
                inside = False
    if against >= AGAINST_LEAST:
        return Standing.OVER
    return Standing.INSIDE if inside else Standing.OPEN


def comparable(recorded: Sequence[Record], device: str, runtime: str) -> list[Record]:
    """Return the recorded measurements on a device that can be compared with its newest one, oldest first."""
    there = [one for one in recorded if (one.device, one.runtime) == (device, runtime)]

    def source(one: Record) -> tuple[object, ...]:
        return one.model_hash, one.cpu_model, one.runtime_version, one.threads, one.policy

    return [one for one in there if source(one) == source(there[-1])]


def verify(measure: Callable[[], Record], recorded: Sequence[Record], limit_ms: float | None) -> Verified[Record]:
    """Measure a network until it is decided whether it stays inside a limit; see `MEASURED_MOST` for how often.

    It is measured once in any case, unless `recorded` (see `comparable`) passes it over already. Without a limit it is
    inside, and measured until nothing disturbs it.
    """
    if limit_ms is None:
        shown = [measure()]
        while not shown[-1].steady and len(shown) < MEASURED_MOST:
            shown.append(measure())
        return Verified(Standing.INSIDE, _closest(shown))
    history = list(recorded)
    if history and standing_of(history, limit_ms) == Standing.OVER:
        return Verified(Standing.OVER, _closest(history))
    new: list[Record] = []
    while len(new) < MEASURED_MOST * (1 + any(one.steady for one in new)):
        new.append(measure())
        history = comparable([*history, new[-1]], new[-1].device, new[-1].runtime)
        standing = standing_of(history, limit_ms)
        if standing != Standing.OPEN and _agrees(new, standing, limit_ms):
            break
    return Verified(standing, _closest(history))


def _agrees(new: Sequence[LatencyRecord], standing: Standing, limit_ms: float) -> bool:
    """Whether what was measured now can be shown for a standing: an undisturbed figure, or one inside the limit."""
    return standing == Standing.OVER or any(one.steady or one.interval_high_ms <= limit_ms for one in new)


def _closest(measured: Sequence[Record]) -> Record:
    """Return the measurement nearest to the truth: of the undisturbed ones the middle one, else the fastest."""
    steady = sorted((one for one in measured if one.steady), key=lambda one: one.median_ms)
    return steady[(len(steady) - 1) // 2] if steady else min(measured, key=lambda one: one.median_ms)
