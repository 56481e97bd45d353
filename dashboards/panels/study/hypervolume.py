"""The hypervolume: one number for how good the networks trained so far are.

The hypervolume is the share of a rectangle that the networks trained so far dominate. The rectangle reaches from a
network that only guesses (one over the number of classes) to a score of 100 %, and from cost 0 to the largest of a
trained network. So it grows with every network that is better for its cost than all before.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from dashboards.data.columns import Floats


def hypervolumes(cost: Floats, score: Floats, most: float, least: float) -> Floats:
    """Return the dominated share (k,) of the rectangle after each of k networks, in their order.

    Args:
        cost: (k,); a network at or above `most` adds nothing.
        score: (k,) fractions; a network at or below `least` adds nothing.
        most: the rectangle's largest cost.
        least: its lowest accuracy; the highest is 1.
    """
    costs: list[float] = []  # of the corners so far, the cheapest first
    heights: list[float] = []  # their accuracies, each higher than the one before
    area, shares = 0.0, np.zeros(len(cost))
    for index, (x, y) in enumerate(zip(cost.tolist(), score.tolist(), strict=True)):
        if x < most and y > least:
            place = bisect_left(costs, x)
            if place < len(costs) and costs[place] == x:
                base = heights[place]
            else:
                base = heights[place - 1] if place else least
            if y > base:
                area += _gain(costs, heights, (x, y), (most, least))
        shares[index] = area / (most * (1 - least)) if most > 0 and least < 1 else 0.0
    return shares


def _gain(costs: list[float], heights: list[float], new: tuple[float, float], corner: tuple[float, float]) -> float:
    """Insert a network that dominates something new among the corners; return the area that it adds."""
    x, y = new
    first = bisect_left(costs, x)
    level = heights[first - 1] if first else corner[1]
    last, at, area = first, x, 0.0
    while last < len(costs) and heights[last] <= y:
        area += (costs[last] - at) * (y - level)
        level, at, last = heights[last], costs[last], last + 1
    end = costs[last] if last < len(costs) else corner[0]
    area += (end - at) * (y - level)
    costs[first:last], heights[first:last] = [x], [y]
    return area
