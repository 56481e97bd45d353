"""Which of the offered networks are as good as each other within noise: McNemar's exact test for all pairs at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from search.results.paired import LEVEL, mcnemar, same_images
from workers.metrics import Predictions


def as_good_as(numbers: Sequence[int], predictions: Mapping[int, Predictions]) -> list[tuple[int, ...]]:
    """Return for each trial the others that it is as good as within noise, as places in `numbers`.

    They are compared by top-1, image by image. A trial whose predictions aren't known is as good as none.
    """
    known = [place for place, number in enumerate(numbers) if number in predictions]
    known = [place for place in known if same_images(predictions[numbers[place]], predictions[numbers[known[0]]])]
    found: list[tuple[int, ...]] = [() for _ in numbers]
    if len(known) < 2:
        return found
    right = np.array([predictions[numbers[place]].right for place in known], dtype=np.float64)  # (m, N)
    only = np.rint(right @ (1.0 - right).T).astype(np.int64)  # (m, m), images that the row alone recognises
    same = mcnemar(only, only.T) >= LEVEL
    np.fill_diagonal(same, False)
    for row, place in enumerate(known):
        found[place] = tuple(known[other] for other in np.flatnonzero(same[row]))
    return found
