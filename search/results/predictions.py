"""What a study's sampler predicted, with intervals as wide as its predictions have turned out to be wrong.

A sampler proposes what it predicts to be good, so the networks that it overrates are the ones that it proposes: of the
predictions themselves five of six end inside their 95 % interval, early in a study fewer. So intervals are widened by
the errors of the predictions before. The search itself goes by the narrow ones, with which it finds more.

Errors count in units of the predicted deviation; the newest 20 are remembered, beside five of a root mean square of
1.4, which stand for what was seen in other studies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import sqlalchemy as sa

from search.store import reader
from search.store.rows import BeliefRow, Believed, Proposal

REMEMBERED = 20
PRIOR_COUNT, PRIOR_SQUARE = 5, 2.0
LARGEST_ERROR = 10.0  # in deviations: what is worse counts as this


def read_predictions(
    engine: sa.Engine, study_id: int, newest: int | None = None, up_to: int | None = None
) -> dict[int, Proposal]:
    """Return the proposals of a study's trials by number; for the arguments see `reader.read_proposals`.

    The deviations are widened by the errors of the trials before them.
    """
    recorded = reader.read_proposals(engine, study_id, None if newest is None else newest + REMEMBERED, up_to)
    reached = reader.read_reached(engine, study_id, recorded)
    errors: list[float] = []
    widened = {}
    for number, proposal in sorted(recorded.items()):
        widened[number] = _times(proposal, widening(errors))
        errors += _error(proposal, reached.get(number))
    return dict(sorted(widened.items(), reverse=True)[:newest])


def read_believed(engine: sa.Engine, study_id: int) -> BeliefRow | None:
    """Return what a study's sampler believes now, with deviations widened by its newest errors."""
    belief = reader.read_belief(engine, study_id)
    if belief is None:
        return None
    recorded = reader.read_proposals(engine, study_id, newest=2 * REMEMBERED)
    reached = reader.read_reached(engine, study_id, recorded)
    factor = widening([error for number in sorted(recorded) for error in _error(recorded[number], reached.get(number))])

    def widened(candidates: Sequence[Believed]) -> tuple[Believed, ...]:
        return tuple(replace(one, proposal=_times(one.proposal, factor)) for one in candidates)

    return replace(belief, front=widened(belief.front), ahead=widened(belief.ahead))


def widening(errors: Sequence[float]) -> float:
    """Return what a predicted deviation is to be multiplied by; 1 or more.

    Args:
        errors: of earlier predictions, the newest last, in units of the deviations that were predicted.
    """
    newest = [min(abs(error), LARGEST_ERROR) for error in errors[-REMEMBERED:]]
    squares = PRIOR_COUNT * PRIOR_SQUARE + math.fsum(error**2 for error in newest)
    return max(1.0, math.sqrt(squares / (PRIOR_COUNT + len(newest))))


def _error(proposal: Proposal, score: float | None) -> list[float]:
    """Return the error of a prediction in deviations; nothing without a prediction or a score."""
    if score is None or proposal.score is None or not proposal.deviation:
        return []
    return [(score - proposal.score) / proposal.deviation]


def _times(proposal: Proposal, factor: float) -> Proposal:
    return proposal if proposal.deviation is None else replace(proposal, deviation=proposal.deviation * factor)
