"""A sampler that models only what a training tells: the other objectives are known for every candidate in advance."""

import math

WHOLE = 4_000  # a space of no more candidates is always looked at as a whole
LISTED = 16_384  # candidates of a space that can be looked at as a whole while there are few trainings
CELLS = 1_600_000  # pairs of a candidate and a training that one proposal looks at then; about a second


def whole_until(candidates: float) -> float:
    """Return up to how many trainings a space of so many candidates is looked at as a whole; 0: never."""
    if candidates <= WHOLE:
        return math.inf
    return CELLS // candidates if candidates <= LISTED else 0
