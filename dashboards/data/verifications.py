"""What `pick` has measured: the verifications of each network, which page and report show in the place of its price."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from search.results.picking.verification import comparable
from search.store.tables import latency, trial
from search.store.vocabulary import LatencyPurpose
from workers.latency.record import RECORD_FIELDS, LatencyRecord

Verifications = Mapping[tuple[int, str], Sequence[LatencyRecord]]  # by a trial's place and device; oldest first


def read_verifications(connection: sa.Connection, study_id: int, place: Mapping[int, int]) -> Verifications:
    """Return the verifications of a study's networks, those that can be compared with the newest one.

    They are of the precision that the network is judged in. `place` has the places of the trials by their rows' ids.
    """
    judged = latency.alias()
    query = (
        sa.select(latency.c.trial_id, *(latency.c[name] for name in RECORD_FIELDS))
        .join(trial, trial.c.id == latency.c.trial_id)
        .join(judged, judged.c.id == trial.c.latency_id)
        .where(trial.c.study_id == study_id, latency.c.purpose == LatencyPurpose.VERIFY)
        .where(latency.c.precision == judged.c.precision)
        .order_by(latency.c.id)
    )
    found: dict[tuple[int, str], list[LatencyRecord]] = defaultdict(list)
    for row in connection.execute(query):
        values = dict(row._mapping)
        index = place.get(values.pop("trial_id"))
        if index is not None:  # else a trial that was asked since the trials were read
            found[index, values["target"]].append(LatencyRecord(**values))
    return {key: comparable(all_, all_[-1].device, all_[-1].runtime) for key, all_ in found.items()}
