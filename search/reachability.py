"""Whether any network of a space fits a budget: compares its cheapest networks with the limits, measuring latencies."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from search.pricing.pricer import Target, host_probe
from search.pricing.pricer import price as price_all
from search.settings import HOST, StudySettings
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.errors import BudgetUnreachable
from space.search_space import SearchSpace
from workers.images.datasets import KNOWN
from workers.images.source import shape_of
from workers.latency.measurement import FailedMeasurement
from workers.latency.policy import QUICK


def budget_space(settings: StudySettings) -> SearchSpace:
    """Return the space with the input shape of the study's images, as far as the settings tell it."""
    dataset, space = KNOWN.get(settings.data.dataset), settings.search_space()
    own_shape = space.input_shape if dataset is None else dataset.shape
    return space.for_data(shape_of(settings.data, own_shape), space.num_classes)


def cheapest(space: SearchSpace, cost: Callable[[CondenseNetConfig], float], seed: int = 0) -> CondenseNetConfig:
    """Return a config of (nearly) the smallest cost: the best of 64 samples, improved step by step by neighbours."""
    rng = np.random.default_rng(seed)
    best = min((space.sample(rng) for _ in range(64)), key=cost)
    while True:
        better = min(space.neighbours(best), key=cost, default=best)
        if cost(better) >= cost(best):
            return best
        best = better


def check_reachable(settings: StudySettings, targets: Sequence[Target], files: Path) -> None:
    """Raise BudgetUnreachable if no network of the space fits the budget, before anything is recorded.

    Raises:
        BudgetUnreachable: the message names the smallest cost in the space.
    """
    _check_latencies(settings.search_space(), check_costs(settings), targets, files)


def check_costs(settings: StudySettings) -> CondenseNetConfig:
    """Return the network with the fewest macs of a space of which some network is inside the limits of macs and params.

    Raises:
        BudgetUnreachable: none is; the message names the smallest cost in the space.
    """
    space, budget = settings.search_space(), settings.search_budget()
    fewest_macs = cheapest(space, lambda config: cost_of(config).macs)
    fewest_params = cheapest(space, lambda config: cost_of(config).params)
    for name, limit, smallest in (
        ("macs", budget.max_macs, cost_of(fewest_macs).macs),
        ("params", budget.max_params, cost_of(fewest_params).params),
    ):
        if limit is not None and smallest > limit:
            raise BudgetUnreachable(
                f"budget.max_{name} = {limit:,.0f} is below anything in this space: the smallest found has "
                f"{smallest:,} {name}; raise it or widen the space."
            )
    return fewest_macs


def check_latency_here(settings: StudySettings) -> None:
    """Measure quickly whether some network of the space keeps the limit of this host, where there is one.

    Raises:
        BudgetUnreachable: none does.
    """
    limit_ms = settings.search_budget().limits_ms(settings.latency.devices[0]).get(HOST)
    if limit_ms is None:
        return
    runtime = settings.latency.resolved(HOST).runtime
    policy = QUICK.model_copy(update={"threads": settings.latency.threads, "runtime": runtime})
    with tempfile.TemporaryDirectory(prefix="check-") as folder:
        target = Target(
            HOST,
            host_probe(policy, settings.latency.core, Path(folder)),
            limit_ms,
            local=True,
            precisions=settings.search.precision,
        )
        _check_latencies(settings.search_space(), check_costs(settings), (target,), Path(folder))


def _check_latencies(
    space: SearchSpace, fewest_macs: CondenseNetConfig, targets: Sequence[Target], files: Path
) -> None:
    """Measure the network with the fewest macs and a shallow one on each device that has a limit.

    Raises:
        BudgetUnreachable: both are slower than a limit.
    """
    limited = [(target, target.limit_ms) for target in targets if target.limit_ms is not None]
    if not limited:
        return
    shallow = cheapest(space, lambda config: (sum(config.stages) + len(config.stages)) * 1e12 + cost_of(config).macs)
    for target, limit_ms in limited:
        prices = price_all([fewest_macs, shallow], target.probe, files, precisions=target.precisions)
        lows = [price.interval_low_ms for price in prices if not isinstance(price, FailedMeasurement)]
        if lows and min(lows) > limit_ms:
            raise BudgetUnreachable(
                f"budget.max_latency_ms = {limit_ms:g} is below anything in this space: the smallest networks "
                f"take {min(lows):.4g} ms on {target.probe.device}; raise it or widen the space."
            )
