"""What a study's budgets are answered from: the numbers and texts, without the rule and without the words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dashboards.budget.controls import Control
from dashboards.budget.offers import Offer
from dashboards.budget.predictions import Predicted
from workers.latency.record import LatencyStatistic


@dataclass(frozen=True, eq=False)
class BudgetFacts:
    """What answers the budgets of one study."""

    controls: tuple[Control, ...]
    judged_by: str  # the study's first device: what a limit without a device's name is for
    statistic: LatencyStatistic  # what of a latency is held to a limit, unless the reader chooses another
    study_statistic: LatencyStatistic  # what the study's own settings say
    # What is held to a limit, (networks, devices), of the trained networks inside the fixed limits; by statistic.
    held_ms: Mapping[LatencyStatistic, NDArray[np.float64]]
    offers: tuple[Offer, ...]  # best first
    predicted: tuple[Predicted, ...]  # networks that were not trained
    trained: int  # how many networks are trained, whatever they cost
    fixed: str  # the study's limits on macs and params in words; "" where there are none
    why_none: str  # why no network is trained; "" where one is
    score_name: str  # what the study maximises
    images: int | None  # validation images, by which networks are compared
