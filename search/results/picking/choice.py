"""Which network of those inside a budget is wanted, and why this one: how sure the choice is, by paired tests.

A choice rests on what is recorded (scores, predictions, prices), never on a fresh measurement: picking again gives the
same network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from search.budget import Budget, refusal
from search.results.paired import paired_test, same_images
from search.results.picking.wish import Wish
from search.store import reader
from search.store.rows import TrialRow
from space.errors import NothingFeasible, TrialNotFound, TrialNotReady
from workers.metrics import NAMES, Predictions
from workers.wording import counted

MOST_COMPARED = 200  # networks with the best one


@dataclass(frozen=True)
class Order:
    """The networks to try, the first one first, and what decided it."""

    rows: tuple[TrialRow, ...]
    rule: str  # in words
    predictions: Mapping[int, Predictions]  # of the validation images, by number, as far as they are recorded
    next_is: str = "the runner-up"  # what the network after the picked one is called

    def reasons(self, picked: TrialRow, passed_over: set[int]) -> tuple[str, ...]:
        """Return why a network was picked: the rule, the runner-up, and how sure the choice is, a sentence each."""
        others = [row for row in self.rows if row.number != picked.number and row.number not in passed_over]
        if not others:
            return (self.rule,)
        return (self.rule, f"{self.next_is} is trial {others[0].number}: {self.compared(others[0], picked)}")

    def compared(self, other: TrialRow, picked: TrialRow) -> str:
        """Return how another network compares with the picked one, in score, latency and params."""
        words = comparison(self.predictions, other, picked)
        if other.latency is not None and picked.latency is not None:
            words += f"; {other.latency.median_ms / picked.latency.median_ms:.0%} of its latency"
        return f"{words}; {other.params / picked.params:.0%} of its params"


def comparison(predictions: Mapping[int, Predictions], other: TrialRow, picked: TrialRow) -> str:
    """Return by how much another network's score differs from the picked one's, and whether that is more than noise."""
    name = NAMES[picked.objective]
    first, second = predictions.get(other.number), predictions.get(picked.number)
    if first is None or second is None or not same_images(first, second):
        difference = 100 * ((other.score or 0.0) - (picked.score or 0.0))
        return f"{name} {difference:+.2f} points, with no predictions to compare image by image"
    test = paired_test(first, second, picked.objective)
    if test.within_noise:
        return f"{name} {test}: as good within noise, so other images might turn the two"
    return f"{name} {test}: {'better' if test.difference > 0 else 'worse'} by more than noise"


def ordered(engine: sa.Engine, study_id: int, ranked: Sequence[TrialRow], wish: Wish) -> Order:
    """Return the networks inside a budget that a wish leaves, in the order in which they are to be tried.

    Args:
        engine: the database.
        study_id: the study.
        ranked: the trained networks inside the budget, best first; not empty.
        wish: what is wanted.

    Raises:
        StudyDamaged: predictions can't be read.
    """
    predictions = reader.predictions_of_rows(engine, study_id, ranked[:MOST_COMPARED])
    if wish.trial is not None:
        rows = [row for row in ranked if row.number == wish.trial]
        others = [row for row in ranked if row.number != wish.trial]
        return Order((*rows, *others[:1]), f"trial {wish.trial} was asked for", predictions, "the best of the others")
    if wish.within is None:
        name = NAMES[ranked[0].objective]
        return Order(tuple(ranked), f"the best {name} of those that keep every limit", predictions)
    as_good = [row for row in ranked if _is_as_good(row, ranked[0], predictions, wish.within)]
    by_size = wish.smallest or any(row.latency is None for row in as_good)
    what = "fewest params" if by_size else "lowest latency"
    rule = (
        f"the {what} of {counted(len(as_good), 'network')} within {100 * wish.within:g} points of the best, trial "
        f"{ranked[0].number}, and not worse by more than noise"
    )
    return Order(tuple(sorted(as_good, key=lambda row: _cost(row, by_size))), rule, predictions)


def _is_as_good(row: TrialRow, best: TrialRow, predictions: Mapping[int, Predictions], within: float) -> bool:
    if (best.score or 0.0) - (row.score or 0.0) > within + 1e-12:
        return False
    first, second = predictions.get(row.number), predictions.get(best.number)
    if row is best or first is None or second is None or not same_images(first, second):
        return True
    return paired_test(first, second, best.objective).within_noise


def _cost(row: TrialRow, by_size: bool) -> tuple[float, float, int]:
    latency = float("inf") if row.latency is None else row.latency.median_ms
    return (row.params, latency, row.number) if by_size else (latency, row.params, row.number)


def asked_for(rows: Sequence[TrialRow], number: int, budget: Budget) -> TrialRow:
    """Return the trial of this number, which must have a network inside the budget.

    Raises:
        TrialNotFound: there is none. TrialNotReady: it has no network. NothingFeasible: it is over the budget.
    """
    row = next((row for row in rows if row.number == number), None)
    if row is None:
        raise TrialNotFound(f"the study has no trial {number}.")
    if row.score is None:
        raise TrialNotReady(f"trial {number} is {row.state} and has no score; pick a done one.")
    over = refusal(budget, row.macs, row.params, row.latency, row.others)
    if over is None and budget.max_latency_ms is not None and row.latency is None:
        over = "its latency is unknown"
    if over is not None:
        raise NothingFeasible(f"trial {number} is not inside {budget}: {over}; raise the budget, or pick another.")
    return row
