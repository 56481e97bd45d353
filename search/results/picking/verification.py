"""Whether a trained network stays inside a limit when its file is measured: one noisy measurement decides nothing.

- What is recorded decides together with what is measured now, so that picking again from one study gives the same
  network: each measurement varies, and near a limit one in a few would turn the choice.
- A disturbed measurement can only be too slow. So it may show that a network fits. That it doesn't is shown only where
  every measurement is far over the limit (`FAR_OVER`): other work alone doesn't make a network so many times slower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from workers.latency.record import LatencyRecord, LatencyStatistic

MEASURED_MOST = 3  # times by one `pick`; twice as often where only an undisturbed one more can decide
AGAINST_LEAST = 2  # undisturbed measurements that it takes to pass a network over
FAR_OVER = 5.0  # times the limit; the lower ends of all intervals must be above it


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


def standing_of(measured: Sequence[LatencyRecord], limit_ms: float, statistic: LatencyStatistic = "upper") -> Standing:
    """Return what measurements of one network on one device, oldest first, say about a limit.

    The first one whose figure (`statistic`) is inside decides for the network. Undisturbed ones whose figure is over it
    are against it, and `AGAINST_LEAST` of them decide. Once it was inside, only those count against it that are surely
    over: by the lower end of the interval, too.
    """
    inside, against = False, 0
    for one in measured:
        if held_ms(one, statistic) <= limit_ms:
            if not inside and against < AGAINST_LEAST:
                inside, against = True, 0
        elif one.steady and (not inside or _surely_ms(one, statistic) > limit_ms):
            against += 1
            if against == AGAINST_LEAST and inside:
                inside = False
    if against >= AGAINST_LEAST:
        return Standing.OVER
    return Standing.INSIDE if inside else Standing.OPEN


def least_limit_ms(measured: Sequence[LatencyRecord], statistic: LatencyStatistic = "upper") -> float:
    """Return the lowest limit that measurements (see `standing_of`) don't say a network is over; 0 where any is.

    It is one of their figures, since a standing changes at those only.
    """
    ends = {end for one in measured for end in (held_ms(one, statistic), _surely_ms(one, statistic))}
    not_over = (end for end in ends if standing_of(measured, end, statistic) != Standing.OVER)
    below_all = not ends or standing_of(measured, min(ends) / 2, statistic) != Standing.OVER
    return 0.0 if below_all else min(not_over)


def held_ms(one: LatencyRecord, statistic: LatencyStatistic) -> float:
    """Return the figure of a verification that is held to a limit: the upper end where it has no 90th percentile."""
    judged_ms = one.judged_ms(statistic)
    return one.interval_high_ms if judged_ms is None else judged_ms


def took_of(one: LatencyRecord, statistic: LatencyStatistic) -> tuple[float, str]:
    """Return what a limit is held against, and how it is said: (0.312, "took up to 0.312 ms")."""
    figure_ms = held_ms(one, statistic)
    words = {"upper": "up to ", "median": "a median of ", "p90": "a p90 of "}[statistic]
    return figure_ms, f"took {words}{figure_ms:.4g} ms"


def _surely_ms(one: LatencyRecord, statistic: LatencyStatistic) -> float:
    """Return the lower end of a figure's interval; the 90th percentile is as uncertain as the median."""
    beyond_ms = held_ms(one, statistic) - one.median_ms if statistic == "p90" else 0.0
    return one.interval_low_ms + beyond_ms


def shown_of(recorded: Sequence[Record]) -> Record:
    """Return the verification to show for a network on one device, from all that are recorded, oldest first.

    `pick`, its bundle, the page and the report show this one, so that their figures are the same.
    """
    newest = recorded[-1]
    return _closest(comparable(recorded, newest.device, newest.runtime))


def comparable(recorded: Sequence[Record], device: str, runtime: str) -> list[Record]:
    """Return the recorded measurements on a device that can be compared with its newest one, oldest first."""
    there = [one for one in recorded if (one.device, one.runtime) == (device, runtime)]

    def source(one: Record) -> tuple[object, ...]:
        return one.model_hash, one.cpu_model, one.runtime_version, one.threads, one.policy

    return [one for one in there if source(one) == source(there[-1])]


def verify(
    measure: Callable[[], Record],
    recorded: Sequence[Record],
    limit_ms: float | None,
    statistic: LatencyStatistic = "upper",
) -> Verified[Record]:
    """Measure a network until it is decided whether it stays inside a limit; see `MEASURED_MOST` for how often.

    It is measured once in any case, unless `recorded` (see `comparable`) passes it over already. Without a limit it is
    inside, and measured until nothing disturbs it.
    """
    if limit_ms is None:
        shown = [measure()]
        while not shown[-1].steady and len(shown) < MEASURED_MOST:
            shown.append(measure())
        return Verified(Standing.INSIDE, shown_of([*recorded, *shown]))
    history = list(recorded)
    if history and standing_of(history, limit_ms, statistic) == Standing.OVER:
        return Verified(Standing.OVER, _closest(history))
    new: list[Record] = []
    while len(new) < MEASURED_MOST * (1 + any(one.steady for one in new)):
        new.append(measure())
        history = comparable([*history, new[-1]], new[-1].device, new[-1].runtime)
        standing = standing_of(history, limit_ms, statistic)
        if standing == Standing.OPEN and len(new) == MEASURED_MOST and _is_far_over(history, limit_ms):
            standing = Standing.OVER
        if standing == Standing.OVER or (standing == Standing.INSIDE and _is_shown(new, limit_ms, statistic)):
            break
    return Verified(standing, _closest(history))


def _is_far_over(measured: Sequence[LatencyRecord], limit_ms: float) -> bool:
    """Whether the intervals of all measurements, disturbed or not, lie above `FAR_OVER` limits."""
    return min(one.interval_low_ms for one in measured) > FAR_OVER * limit_ms


def _is_shown(new: Sequence[LatencyRecord], limit_ms: float, statistic: LatencyStatistic) -> bool:
    """Whether what was measured now can be shown beside a limit: an undisturbed figure, or one inside it."""
    return any(one.steady or held_ms(one, statistic) <= limit_ms for one in new)


def _closest(measured: Sequence[Record]) -> Record:
    """Return the measurement nearest to the truth: of the undisturbed ones the middle one, else the fastest."""
    steady = sorted((one for one in measured if one.steady), key=lambda one: one.median_ms)
    return steady[(len(steady) - 1) // 2] if steady else min(measured, key=lambda one: one.median_ms)
