"""The rule that answers a budget; `assets/budget_answer.js` has it too, and a test compares the two.

Notable choices:
- *As good within noise*: the fastest and the smallest network inside the budget that can't be told from the best
  (`budget.noise`).
- *Knee*: of the networks that are the most accurate at their latency, the one that is farthest above the straight line
  from the fastest to the best, both axes from 0 to 1, if by at least a tenth. Source: Satopaa et al. 2011, "Finding a
  Kneedle in a Haystack".
- *More*: what a little more budget buys is looked up among what was trained. Above the slowest trained network nothing
  is known, and nothing is said but what the search predicts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dashboards.budget.facts import BudgetFacts
from workers.latency.record import LatencyStatistic

Take = Literal["best", "fastest", "smallest", "knee"]
TAKES: tuple[Take, ...] = get_args(Take)
MORE_MS = 2.0  # "a little more" than a limit of ten milliseconds or above
MORE_SHARE = 0.2  # below ten, a little more is a fifth of the limit
KNEE_LEAST = 0.1  # how far a knee is above the line at least


@dataclass(frozen=True)
class Answer:
    """What a budget gets: how many trained networks fit, and offers by their place in the table (None: none)."""

    fits: int
    best: int | None
    runner_up: int | None
    fastest: int | None  # as good as the best within noise, and faster
    smallest: int | None  # as good as the best within noise, with fewer parameters
    knee: int | None
    chosen: int | None  # the one that is taken
    more: int | None  # the best under a little more, where that is better
    more_ms: Mapping[str, float]  # how much more that is, by device
    beyond: tuple[str, ...]  # devices on which nothing was trained above the limit
    unknown: tuple[str, ...]  # devices on which nothing was trained above a little more, and nothing better below
    predicted: int | None  # place of the network that is predicted to be better, and was not trained


def answer_of(
    table: BudgetFacts, limits_ms: Mapping[str, float | None], statistic: LatencyStatistic, take: Take
) -> Answer:
    """Return what limits in ms get; a device without a limit, or with None, may be as slow as it is."""
    limits = [limits_ms.get(control.target) for control in table.controls]
    ceiling = np.array([math.inf if limit is None else limit for limit in limits])
    more_ms = {
        control.target: more_than(limit)
        for control, limit in zip(table.controls, limits, strict=True)
        if limit is not None
    }
    raised = ceiling + np.array([more_ms.get(control.target, 0.0) for control in table.controls])
    held = np.array([offer.held_ms[statistic] for offer in table.offers]).reshape(len(table.offers), len(ceiling))
    fitting = np.flatnonzero((held <= ceiling).all(axis=1)).tolist()
    best = fitting[0] if fitting else None
    choices = {"best": best, **_cheaper(table, fitting, held), "knee": _knee(table, fitting, held)}
    more = next(iter(np.flatnonzero((held <= raised).all(axis=1)).tolist()), None)
    better = more is not None and (best is None or table.offers[more].score > table.offers[best].score)
    more = more if better else None
    return Answer(
        fits=int((table.held_ms[statistic] <= ceiling).all(axis=1).sum()),
        best=best,
        runner_up=fitting[1] if len(fitting) > 1 else None,
        fastest=choices["fastest"],
        smallest=choices["smallest"],
        knee=choices["knee"],
        chosen=best if choices[take] is None else choices[take],
        more=more,
        more_ms=more_ms,
        beyond=_beyond(table, limits, statistic),
        unknown=_beyond(table, limits if more is not None else _or_none(raised), statistic),
        predicted=_predicted(table, raised, _best_score(table, best, more)),
    )


def _or_none(raised: NDArray[np.float64]) -> list[float | None]:
    return [None if math.isinf(limit) else limit for limit in raised.tolist()]


def _best_score(table: BudgetFacts, *places: int | None) -> float:
    return max((table.offers[place].score for place in places if place is not None), default=0.0)


def _judging(table: BudgetFacts) -> int | None:
    """Return the place of the device by which networks are called fast; None where there is no latency."""
    names = [control.target for control in table.controls]
    if not names:
        return None
    return names.index(table.judged_by) if table.judged_by in names else 0


def _cheaper(table: BudgetFacts, fitting: Sequence[int], held: NDArray[np.float64]) -> dict[str, int | None]:
    """Return the fastest and the smallest network that are as good as the best within noise, and cheaper."""
    if not fitting:
        return {"fastest": None, "smallest": None}
    best, offers, device = fitting[0], table.offers, _judging(table)
    as_good = [place for place in fitting if place in offers[best].as_good]
    faster = [] if device is None else [place for place in as_good if held[place, device] < held[best, device]]
    smaller = [place for place in as_good if offers[place].params < offers[best].params]
    return {
        "fastest": min(faster, key=lambda place: (held[place, device], place), default=None),
        "smallest": min(smaller, key=lambda place: (offers[place].params, place), default=None),
    }


def _knee(table: BudgetFacts, fitting: Sequence[int], held: NDArray[np.float64]) -> int | None:
    """Return the knee of the front inside the budget; None where no network stands out."""
    device = _judging(table)
    if device is None:
        return None
    front: list[int] = []
    known = [place for place in fitting if math.isfinite(held[place, device])]
    for place in sorted(known, key=lambda place: (held[place, device], place)):
        if not front or table.offers[place].score > table.offers[front[-1]].score:
            front.append(place)
    if len(front) < 3:
        return None
    first_ms, last_ms = held[front[0], device], held[front[-1], device]
    lowest, highest = table.offers[front[0]].score, table.offers[front[-1]].score
    above = [
        (table.offers[place].score - lowest) / (highest - lowest)
        - (held[place, device] - first_ms) / (last_ms - first_ms)
        for place in front
    ]
    farthest = max(range(len(front)), key=lambda i: above[i])
    return front[farthest] if above[farthest] >= KNEE_LEAST else None


def _beyond(table: BudgetFacts, limits: Sequence[float | None], statistic: LatencyStatistic) -> tuple[str, ...]:
    """Return the devices whose limit lets every trained network through: above it nothing was trained.

    Without a limit that is so only where the study had one.
    """
    return tuple(
        control.target
        for control, limit in zip(table.controls, limits, strict=True)
        if not (limit is None and control.study_limit_ms is None)
        and math.isfinite(most_ms := control.trained[statistic].most_ms)
        and (limit is None or limit >= most_ms)
    )


def _predicted(table: BudgetFacts, raised: NDArray[np.float64], score: float) -> int | None:
    """Return the network with the best prediction under limits, where that is above a score."""
    for place, one in enumerate(table.predicted):
        if one.score > score and (np.array(one.latencies_ms) <= raised).all():
            return place
    return None


def more_than(limit_ms: float) -> float:
    """Return how much "a little more" than a limit is, in ms: 2 for 10 ms or above, else a fifth in one digit."""
    if limit_ms >= MORE_MS / MORE_SHARE:
        return MORE_MS
    fifth = MORE_SHARE * limit_ms
    unit = 10.0 ** int(f"{fifth:.16e}".partition("e")[2])
    return math.floor(fifth / unit + 0.5) * unit
