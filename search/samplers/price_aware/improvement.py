"""The expected gain in hypervolume of a candidate whose costs are known and whose accuracy is not.

At costs c, the gain grows with the accuracy a: where the front's best accuracy for a budget of x is b(x), training the
candidate adds max(a - b(x), 0) at every x beyond c. So the expected gain is the sum, over the cells that the front cuts
the costs into, of a cell's volume beyond c times the expected improvement over the accuracy that dominates the cell:
closed form, no sampling, any number of costs.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import ndtr

from search.results.pareto import non_dominated

Array = NDArray[np.float64]

MOST_CELLS = 20_000  # with more, the front's costs are rounded up to fewer
PART = 2_000_000  # cells of candidates at once, which bounds memory


class Front:
    """What is reached already: accuracies (n,) at costs (n, k), to be extended below the reference.

    Args:
        reference_costs: (k,); what costs more counts nothing.
        reference: what is not more accurate counts nothing.
    """

    def __init__(self, costs: Array, accuracies: Array, reference_costs: Array, reference: float) -> None:
        self._least = reference
        counts = np.all(costs < reference_costs, axis=1) & (accuracies > reference)
        costs, accuracies = costs[counts], accuracies[counts]
        members = non_dominated(np.column_stack([costs, -accuracies]))  # what is behind them bounds no cell
        costs, accuracies = costs[members], accuracies[members]
        most = max(2, int(MOST_CELLS ** (1 / max(1, len(reference_costs)))) - 1)
        self._edges = [_edges(column, end, most) for column, end in zip(costs.T, reference_costs, strict=True)]
        reached = np.full([len(edges) - 1 for edges in self._edges], reference)
        for place, accuracy in zip(costs, accuracies, strict=True):
            beyond = tuple(
                slice(int(np.searchsorted(edges, cost)), None) for edges, cost in zip(self._edges, place, strict=True)
            )
            reached[beyond] = np.maximum(reached[beyond], accuracy)
        self.levels, level_of_cell = np.unique(reached, return_inverse=True)  # accuracies that cells have reached
        self._cells = reached.size
        self._of_level = csr_array(
            (np.ones(self._cells), (level_of_cell.reshape(-1), np.arange(self._cells))),
            shape=(len(self.levels), self._cells),
        )

    @cached_property
    def volume(self) -> float:
        """The hypervolume that is reached; costs are taken to begin at 0."""
        volumes = self.volumes(np.zeros((1, len(self._edges))))[0]
        return float(volumes @ (self.levels - self._least))

    def volumes(self, costs: Array) -> Array:
        """Return the volume beyond costs (m, k) that has reached each of the levels: (m, levels)."""
        part = max(1, PART // self._cells)
        parts = [self._volumes(costs[start : start + part]) for start in range(0, len(costs), part)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.levels)))

    def _volumes(self, costs: Array) -> Array:
        cells = np.ones((1, len(costs)))
        for edges, column in zip(self._edges, costs.T, strict=True):
            ends, begins = edges[1:, None], edges[:-1, None]
            widths = np.maximum(ends - np.maximum(begins, column), 0.0)  # (cells of this cost, m)
            cells = (cells[:, None, :] * widths[None, :, :]).reshape(-1, len(costs))
        volumes: Array = (self._of_level @ cells).T
        return volumes

    def expected_gain(self, costs: Array, improvements: Array) -> Array:
        """Return the expected gain in hypervolume of candidates, (m,).

        Args:
            costs: (m, k).
            improvements: (m, levels), how far each is expected to exceed each of the front's levels.
        """
        gain: Array = (self.volumes(costs) * improvements).sum(axis=1)
        return gain


def expected_improvement(mean: Array, deviation: Array, level: Array | float) -> Array:
    """Return E[max(a - level, 0)] of a normal a."""
    off = (mean - level) / deviation
    density = np.exp(-0.5 * off**2) / np.sqrt(2.0 * np.pi)
    improvement: Array = np.maximum(deviation * (off * ndtr(off) + density), 0.0)
    return improvement


def _edges(costs: Array, end: float, most: int) -> Array:
    """Return where cells of one cost begin and end; at most `most` of the costs, the largest among them."""
    inner = np.unique(costs)
    if len(inner) > most:
        inner = inner[np.linspace(0, len(inner) - 1, most).round().astype(int)]
    return np.concatenate([[-np.inf], inner, [end]])
