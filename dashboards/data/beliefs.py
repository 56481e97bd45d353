"""What a study's sampler believes, in words: why a trial was proposed, what was predicted for it, and what it reached.

Everything here is a prediction, and says so; what was measured, estimated or trained is told from it everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from dashboards.data.study_settings import search_of
from dashboards.formats import one_line, percent
from search.results.predictions import read_believed, read_predictions
from search.store.rows import BeliefRow, Proposal, TrialRow
from search.store.vocabulary import ProposalReason, TrialOrigin, TrialState

NEWEST = 200  # proposals that are compared with what they reached
DEVIATIONS = 1.96  # half of a normal's 95 % interval
SAYS_WHY = "price-aware"  # the sampler that says what it believes


@dataclass(frozen=True, eq=False)
class StudyBelief:
    """What a study's sampler believes."""

    belief: BeliefRow | None  # None before it has anything to model
    proposals: Mapping[int, Proposal]  # of the newest trials, by number


def read_study_belief(engine: sa.Engine, study_id: int) -> StudyBelief:
    """Return what a study's sampler believes now, and what it believed of the newest trials."""
    return StudyBelief(read_believed(engine, study_id), read_predictions(engine, study_id, newest=NEWEST))


def interval_of(proposal: Proposal) -> tuple[float, float] | None:
    """Return the 95 % interval in which a training's score was predicted to end; None without a prediction."""
    if proposal.score is None or proposal.deviation is None:
        return None
    off = DEVIATIONS * proposal.deviation
    return possible(proposal.score - off), possible(proposal.score + off)


def possible(score: float | None) -> float:
    """Return the possible score nearest to a predicted one: a model doesn't know that there is nothing above 1."""
    return min(1.0, max(0.0, score or 0.0))


def predicted_text(proposal: Proposal) -> str:
    """Return "87.2 % [85.1, 89.3] predicted"; "nothing predicted" where there was no model."""
    interval = interval_of(proposal)
    if interval is None:
        return "nothing predicted"
    low, high = (f"{100 * end:.1f}" for end in interval)
    return f"{percent(possible(proposal.score), 1)} [{low}, {high}] predicted"


def reason_text(proposal: Proposal) -> str:
    """Return why a sampler proposed a trial, without what it predicted."""
    match proposal.reason:
        case ProposalReason.SPREAD:
            return "spread over the known costs: start of the study"
        case ProposalReason.NEAREST:
            return "nothing seemed to be inside the limits: nearest to them"
        case ProposalReason.ACCURATE:
            return "expected to be the most accurate inside the limits"
    gain = "the most" if proposal.gain is None else share(proposal.gain)
    return f"expected to add {gain} to the front"


def why_text(proposal: Proposal) -> str:
    """Return why a sampler proposed a trial, with what it predicted."""
    reason = reason_text(proposal)
    return reason if proposal.score is None else f"{reason}: {predicted_text(proposal)}"


def origin_text(row: TrialRow, proposal: Proposal | None, settings: Mapping[str, Any]) -> str:
    """Return why a trial is there: in the sampler's words, or by whom it was proposed."""
    if proposal is not None:
        return why_text(proposal)
    if row.continues is not None:
        return f"taken up again: trial {row.continues}, which had been ended early, may extend the front after all"
    if row.origin == TrialOrigin.ENQUEUED:
        return "enqueued by a user"
    sampler = search_of(settings).get("sampler")
    if sampler != SAYS_WHY and isinstance(sampler, str):
        return f"proposed by the {one_line(sampler, 40)} sampler, which gives no reason"
    return "no reason recorded"


def reached_text(row: TrialRow, proposal: Proposal | None) -> str | None:
    """Return how a finished trial compares with what was predicted for it; None where that can't be said."""
    interval = None if proposal is None else interval_of(proposal)
    if proposal is None or proposal.score is None or interval is None or row.state != TrialState.DONE:
        return None
    if row.score is None:
        return None
    off, inside = 100 * (row.score - proposal.score), interval[0] <= row.score <= interval[1]
    return f"{percent(row.score)} reached, {off:+.1f} points; {'inside' if inside else 'outside'} the 95 % interval"


def share(fraction: float) -> str:
    """Return a share in percent with two digits: "3.2 %", "0.14 %", "under 0.01 %"."""
    return "under 0.01 %" if fraction < 1e-4 else f"{100 * fraction:.2g} %"


def proposal_document(proposal: Proposal | None) -> dict[str, Any] | None:
    """Return a proposal as plain JSON values."""
    if proposal is None:
        return None
    return {
        "reason": str(proposal.reason),
        "predicted_score": proposal.score,
        "predicted_deviation": proposal.deviation,
        "expected_share_of_front": proposal.gain,
    }
