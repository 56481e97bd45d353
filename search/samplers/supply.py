"""How many trials a space can still propose that aren't known to be over a limit.

Macs and params of a network are known exactly before it is proposed. So where a space can be listed, it is known when
every network inside these limits has been proposed: that is an end of the search, where asking on could only bring
proposals that are refused. Latencies are known by measuring alone, and say nothing here.
"""

from __future__ import annotations

import math
from functools import cached_property

from search.budget import Budget, refusal
from search.store.rows import TrialRow
from space.cost import Cost, cost_of
from space.search_space import SearchSpace
from workers.training.training_space import TrainingSpace

LISTED = 16_384  # networks of a space that are looked at one by one; of more, all count as inside the limits


class Supply:
    """The distinct trials of a space, less those that have been proposed."""

    def __init__(self, space: SearchSpace, training_space: TrainingSpace, budget: Budget) -> None:
        self._space, self._budget = space, budget
        choices = [domain.enumerate() for domain in training_space.domains.values()]
        self._trainings = math.prod(math.inf if values is None else len(values) for values in choices)  # of one network
        self._proposed: set[str] = set()  # identities

    def count(self, row: TrialRow) -> None:
        """Count a trial of the space as proposed; counting it, or an equal one, again changes nothing."""
        if not self._listed or self._is_inside(row.macs, row.params):
            self._proposed.add(row.identity)

    @property
    def left(self) -> float:
        """How many distinct trials are left to propose; infinite where a setting is a range of reals."""
        return self._networks * self._trainings - len(self._proposed) if self._networks else 0

    @property
    def nothing_fits(self) -> str | None:
        """The smallest costs in the space, in words, if no network of it is inside the limits; None if some is."""
        if self._networks:
            return None
        macs, params = (min(getattr(cost, name) for cost in self._costs) for name in ("macs", "params"))
        return f"smallest macs {macs:,}, smallest params {params:,}"

    @property
    def _listed(self) -> bool:
        limited = self._budget.max_macs is not None or self._budget.max_params is not None
        return limited and self._space.size is not None and self._space.size <= LISTED

    @cached_property
    def _networks(self) -> float:
        """How many networks are inside the limits, as far as that is known."""
        if not self._listed:
            return math.inf if self._space.size is None else self._space.size
        return sum(self._is_inside(cost.macs, cost.params) for cost in self._costs)

    @cached_property
    def _costs(self) -> list[Cost]:
        return [cost_of(config) for config in self._space.configs()]

    def _is_inside(self, macs: int, params: int) -> bool:
        return refusal(self._exact, macs, params, None) is None

    @property
    def _exact(self) -> Budget:
        return Budget(max_macs=self._budget.max_macs, max_params=self._budget.max_params)
