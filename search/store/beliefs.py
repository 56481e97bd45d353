"""What the sampler believes, as rows and back: of each proposal, and of the study as a whole.

A belief of the study is kept only until the next one: its document holds some dozens of candidates.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from search.store.connection.transactions import Transactions
from search.store.rows import BeliefRow, Believed, Proposal
from search.store.tables import belief, proposal
from search.store.vocabulary import ProposalReason

_NEW_PROPOSAL, _NEW_BELIEF = sa.insert(proposal), sa.insert(belief)
_FORGET_BELIEF = sa.delete(belief).where(belief.c.study_id == sa.bindparam("key"))


class Beliefs(Transactions):
    """The part of a study's store that holds what its sampler believes."""

    def set_belief(self, new: BeliefRow) -> None:
        """Record what is believed of the study now, in place of what was believed before."""
        document = {"front": _documents(new.front), "ahead": _documents(new.ahead)}
        values = {"trainings": new.trainings, "at": new.at, "document": json.dumps(document)}
        with self._begin() as connection:
            connection.execute(_FORGET_BELIEF, {"key": self.study_id})
            connection.execute(_NEW_BELIEF, {"study_id": self.study_id, **values})

    def _add_proposal(self, connection: sa.Connection, trial_id: int, new: Proposal) -> None:
        connection.execute(_NEW_PROPOSAL, {"trial_id": trial_id, **asdict(new)})


def _documents(candidates: Sequence[Believed]) -> list[dict[str, Any]]:
    return [asdict(candidate) for candidate in candidates]


def believed_of(document: Mapping[str, Any]) -> Believed:
    """Return a candidate as it was recorded."""
    values = dict(document)
    recorded = dict(values.pop("proposal"))
    if "top1" in recorded:  # of a version that knew no other objective
        recorded["score"] = recorded.pop("top1")
    return Believed(**values, proposal=Proposal(**{**recorded, "reason": ProposalReason(recorded["reason"])}))
