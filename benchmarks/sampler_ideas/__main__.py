"""Ideas for the price-aware sampler, one at a time: what each changes, over a table of trainings that are known.

    python -m benchmarks.sampler_ideas --table table.csv.gz --params depth,width --accuracy top1 --costs macs \
        [--features proxy_snip,...] [--where seed=0] [--same COL] [--seeds 8] [--trainings 40] --name condensebench

A plain loop over the sampler's own parts (its beliefs, its encoding, its expected gain), in which one thing at a time
is different, over the whole table at every step. The measure is that of `benchmarks.sample_efficiency`: the share of
the table's hypervolume. It tells ideas apart, not samplers: the product's sampler has besides a pool of its own, limits
and trainings under way. "All others known" is no idea but a bound: what the same gain finds where a process has seen
nine tenths of the table before anything is trained, so that hardly more is to be found out than luck.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from threadpoolctl import threadpool_limits

from benchmarks.arguments import names, pair
from benchmarks.record import save
from benchmarks.sample_efficiency.hypervolume import MOST_COST, Array, hypervolume, scaled, trajectory
from benchmarks.sample_efficiency.table import Columns, Parameter, Table, read_table
from benchmarks.sampler_ideas.beliefs import (
    AllOthersKnown,
    Believes,
    View,
    above_a_line,
    both,
    clipped,
    forest,
    logged,
    process,
    product,
    ranked,
    ranks_taken_for_normal,
)
from search.results.pareto import non_dominated
from search.samplers.price_aware.encoding import Encoding
from search.samplers.price_aware.gaussian_process import GaussianProcess
from search.samplers.price_aware.improvement import Front
from search.samplers.price_aware.sampler import STARTUP

MARKS = (10, 15, 20, 25, 30, 40, 60, 80, 100)


@dataclass(frozen=True)
class Idea:
    """One thing that is different."""

    believes: Believes = product
    costs_seen: bool = True  # by the model, as features
    features_seen: tuple[int, ...] = ()  # which of the table's cheap facts are
    costs_modelled: bool = False  # the control: costs are predicted, too, as if nobody could compute them
    partition: bool = False  # only candidates on the side of the better half of what is trained


IDEAS: Mapping[str, Idea] = {
    "as it is": Idea(),
    "never by ranks": Idea(process),
    "always by ranks": Idea(ranked),
    "ranks taken for normal": Idea(ranks_taken_for_normal),
    "costs aren't features": Idea(costs_seen=False),
    "logarithm of the distance from the best": Idea(logged),
    "bad outliers clipped": Idea(clipped),
    "random forest": Idea(forest),
    "process and forest": Idea(both),
    "prior: a line over the costs": Idea(above_a_line),
    "learned partition": Idea(partition=True),
    "control: costs modelled, too": Idea(costs_seen=False, costs_modelled=True),
    "bound: all others known": Idea(AllOthersKnown()),
}


def search(view: View, idea: Idea, seed: int, trainings: int) -> list[int]:
    """Return the rows that are trained, in order."""
    rng = np.random.default_rng(seed)
    order = np.argsort(view.costs.sum(axis=1) + rng.normal(0, 1e-6, len(view.costs)))
    quantiles = (np.arange(STARTUP) + rng.random()) / STARTUP
    trained = [int(order[int(quantile * len(order))]) for quantile in quantiles]
    while len(trained) < trainings:
        known, others = np.array(trained), np.setdiff1d(np.arange(len(view.costs)), trained)
        costs = _modelled_costs(view, known, others) if idea.costs_modelled else view.costs[others]
        if idea.partition:
            kept = _good_side(view, known, others)
            others, costs = others[kept], costs[kept]
        front = Front(view.costs[known], view.accuracy[known], np.full(costs.shape[1], MOST_COST), 0.3)
        gains = front.volumes(costs) * idea.believes(view, known, others, seed).improvement(front.levels)
        trained.append(int(others[np.argmax(gains.sum(axis=1))]))
    return trained


def _modelled_costs(view: View, known: NDArray[np.intp], others: NDArray[np.intp]) -> Array:
    columns = [
        GaussianProcess(view.features[known], view.groups, cost[known]).predict(view.features[others])[0]
        for cost in view.costs.T
    ]
    return np.stack(columns, axis=1)


def _good_side(view: View, known: NDArray[np.intp], others: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return which candidates a classifier places beside the better half of the trained ones (LaMOO's first split)."""
    from sklearn.svm import SVC

    left, good, rank = np.arange(len(known)), np.zeros(len(known), dtype=bool), 0
    values = np.column_stack([view.costs[known], -view.accuracy[known]])
    while good.sum() < len(known) / 2 and left.size:
        members = non_dominated(values[left])
        good[left[members]] = True
        left, rank = np.delete(left, members), rank + 1
    if good.all():
        return np.ones(len(others), dtype=bool)
    split = SVC(C=10.0, class_weight="balanced").fit(view.features[known], good)
    kept: NDArray[np.bool_] = np.asarray(split.predict(view.features[others]), dtype=bool)
    return kept if kept.any() else np.ones(len(others), dtype=bool)


def view_of(table: Table, idea: Idea) -> View:
    """Return what an idea's model sees of a table."""
    names = [parameter.name for parameter in table.parameters]
    encoding = Encoding({parameter.name: _distribution(parameter) for parameter in table.parameters})
    features = encoding.features([dict(zip(names, config, strict=True)) for config in table.configs])
    view = View(features, encoding.groups, scaled(table.accuracy), scaled(np.log(table.costs)))
    if idea.costs_seen:
        view = view.with_columns(view.costs)
    if idea.features_seen:
        view = view.with_columns(scaled(table.features)[:, idea.features_seen])
    return view


def ideas_with(features: Sequence[str]) -> dict[str, Idea]:
    """Return all ideas; one for each cheap fact, and one with all of them."""
    single = {f"with {name}": Idea(features_seen=(place,)) for place, name in enumerate(features)}
    every = {"with all of these": Idea(features_seen=tuple(range(len(features))))} if len(features) > 1 else {}
    return {**IDEAS, **single, **every}


def _distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.ordered:
        return IntDistribution(0, len(parameter.values) - 1)
    return CategoricalDistribution(parameter.values)


def main() -> None:
    options = _options()
    table = read_table(options.table, Columns(**{name: getattr(options, name) for name in COLUMNS}))
    marks = [mark for mark in MARKS if mark <= options.trainings]
    print(
        f"{options.table.name}: {len(table.configs)} networks; {options.seeds} seeds; median, least and most of",
        end=" ",
    )
    print("the share of the table's hypervolume\n" + " " * 42 + "".join(f"{mark:>22}" for mark in marks), flush=True)
    found: dict[str, Any] = {}
    for name, idea in ideas_with(options.features).items():
        begin, view = time.process_time(), view_of(table, idea)
        whole, shares = hypervolume(view.costs, view.accuracy), []
        with threadpool_limits(1, "blas"):
            for seed in range(options.seeds):
                rows = search(view, idea, seed, options.trainings)
                shares.append(trajectory(view.costs[rows], view.accuracy[rows]) / whole)
        at = {mark: sorted(float(share[mark - 1]) for share in shares) for mark in marks}
        found[name] = {mark: [round(value, 5) for value in values] for mark, values in at.items()}
        cells = [f"{np.median(values):.4f} ({values[0]:.3f}–{values[-1]:.3f})" for values in at.values()]
        print(f"{name:42}{''.join(f'{cell:>22}' for cell in cells)}  {time.process_time() - begin:.0f} s", flush=True)
    facts = {"table": options.table.name, "networks": len(table.configs), "seeds": options.seeds}
    save(f"sampler_ideas_{options.name}", facts | {name: getattr(options, name) for name in COLUMNS} | {"ideas": found})


COLUMNS = ("params", "accuracy", "costs", "features", "where", "same")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--params", type=names, required=True)
    parser.add_argument("--accuracy", required=True)
    parser.add_argument("--costs", type=names, required=True)
    parser.add_argument("--features", type=names, default=())
    parser.add_argument("--where", type=pair, action="append", default=[])
    parser.add_argument("--same", default="")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--trainings", type=int, default=40)
    parser.add_argument("--name", required=True, help="of the result: benchmarks/results/sampler_ideas_NAME.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
