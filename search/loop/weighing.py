"""When the trials that were ended early are weighed while a search still asks for new ones.

The number of finished trainings alone says when: at 1, 2, 3 and so on, and from 10 on whenever a tenth more have
finished. If a trial that was taken up is under way then, they are weighed once it has ended. A controller that takes
over finds in the recorded trials which weighing was the last one, and doesn't repeat it with what is known by then.
"""

from __future__ import annotations

from collections.abc import Sequence

from search.store.rows import TrialRow
from search.store.vocabulary import TrialState

SHARE = 10  # they are weighed again when one training more has finished for so many


def point(finished: int) -> int:
    """Return the last number of finished trainings, up to this one, at which ended ones are weighed."""
    at = 0
    while (following := at + max(1, -(-at // SHARE))) <= finished:
        at = following
    return at


def last_weighing(rows: Sequence[TrialRow]) -> int:
    """Return the point at which a study's ended trials were weighed last; 0 if never.

    Whatever followed the last end isn't recorded if nothing was taken up. That weighing may be repeated: nothing is
    known since that would change it.
    """
    moments = [(row.finished_at, 0, row) for row in rows if row.finished_at is not None]
    last_at = max((at for at, _, _ in moments), default=0.0)
    moments += [(row.asked_at, 1, row) for row in rows if row.continues is not None]
    weighed = finished = under_way = 0
    for at, asked, row in sorted(moments, key=lambda moment: moment[:2]):
        if asked:
            weighed, under_way = point(finished), under_way + 1
            continue
        finished += row.state == TrialState.DONE
        under_way -= row.continues is not None
        if under_way == 0 and at < last_at:
            weighed = point(finished)
    return weighed
